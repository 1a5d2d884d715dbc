"""Asking for the cloud configuration the way Macs once did (apple-services.md 3.1; 9.2, "Legacy option").

Certificate, session, and a request that the factory key signs; the answer is read like today's.
"""

import secrets
from typing import Final

from cryptography import x509

from certs import cms
from certs.errors import CertsError, MalformedMessage
from certs.transport import HttpResponse
from certs.trust import verify_chain
from emulator.device.cloud_service import exchange, service_address
from emulator.device.device import Device
from emulator.device.surroundings import Surroundings
from emulator.http import HttpSession
from emulator.wire import legacy_cloudconfig as legacy
from emulator.wire.cloud_errors import (
    INVALID_CONFIGURATION,
    SERVER_TRUST,
    STEP,
    CloudConfigurationError,
)
from emulator.wire.legacy_cloudconfig import MacProfileRequest

CERTIFICATE: Final = "legacy_certificate"
SESSION: Final = "legacy_session"


class LegacyRequest:
    """The three requests, one after another; a repetition starts with a new session."""

    def __init__(self, device: Device, surroundings: Surroundings, base: str | None) -> None:
        self._device = device
        self._clock = surroundings.clock
        self._base = base

    async def send(self, service: HttpSession) -> HttpResponse:
        answer = await self._get_certificate(service)
        if answer.status != 200:
            return answer
        self._check_certificate(answer)
        answer = await self._open_session(service)
        if answer.status != 200:
            return answer
        return await self._ask(service, self._session(answer))

    async def _get_certificate(self, service: HttpSession) -> HttpResponse:
        url = service_address(self._base, legacy.CERTIFICATE_PATH, CERTIFICATE)
        return await exchange(service, "GET", url, step=CERTIFICATE, headers=_HEADERS)

    def _check_certificate(self, answer: HttpResponse) -> None:
        """It belongs to the service that the device was made to trust."""
        root = self._device.factory.anchors.tls_root
        try:
            certificate = x509.load_der_x509_certificate(answer.body)
            verify_chain(certificate, (), [root], at=self._clock.now())
        except ValueError as error:
            raise CloudConfigurationError(
                "", INVALID_CONFIGURATION, status=answer.status, reason="no certificate"
            ) from error
        except CertsError as error:
            raise CloudConfigurationError(
                "", SERVER_TRUST, status=answer.status, reason=str(error)
            ) from error

    async def _open_session(self, service: HttpSession) -> HttpResponse:
        url = service_address(self._base, legacy.SESSION_PATH, SESSION)
        body = legacy.encode_session_request(secrets.token_bytes(legacy.RANDOM_BYTES))
        headers = {**_HEADERS, "Content-Type": "application/x-apple-plist"}
        return await exchange(service, "POST", url, step=SESSION, headers=headers, body=body)

    def _session(self, answer: HttpResponse) -> bytes:
        try:
            return legacy.decode_session(answer.body)
        except MalformedMessage as error:
            raise CloudConfigurationError(
                "", INVALID_CONFIGURATION, status=answer.status, reason=str(error)
            ) from error

    async def _ask(self, service: HttpSession, session: bytes) -> HttpResponse:
        factory = self._device.factory.factory
        request = MacProfileRequest(
            serial_number=self._device.hardware.serial_number, session=session
        )
        signed = cms.sign(
            legacy.encode_request(request),
            factory,
            signing_time=self._clock.now(),
            certificates=(factory.certificate,),
        )
        return await exchange(
            service,
            "POST",
            service_address(self._base, legacy.PROFILE_PATH, STEP),
            step=STEP,
            headers=_HEADERS,
            body=legacy.encode_body(signed),
        )


_HEADERS: Final = {
    "X-Profile-Protocol-Version": legacy.PROTOCOL_VERSION,
    "User-Agent": legacy.USER_AGENT,
}
