"""The way to the MDM server: PUT over TLS with the MDM identity, signed as well when the payload says so (mdm.md 4.4)."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms
from certs.clock import Clock
from certs.identity import Identity
from certs.transport import HttpResponse, Transport
from emulator.config import REQUEST_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.device import Device, Enrollment
from emulator.device.line import Line
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.errors import IllegalTransition
from emulator.http import HttpSession, TrustSet
from emulator.wire import checkin, command


@dataclass(frozen=True, slots=True)
class Channel:
    """An open way to the server; good for one wake-up and one identity."""

    transport: Transport
    enrollment: Enrollment
    identity: Identity
    clock: Clock

    async def check_in(self, step: str, message: checkin.Message) -> HttpResponse:
        """Send a check-in message; the status is the caller's to judge. Raises PeerRefused or StepTimeout."""
        body = checkin.encode(message)
        return await self._put(step, self.enrollment.check_in_url, checkin.CONTENT_TYPE, body)

    async def command(self, step: str, body: bytes) -> HttpResponse:
        """Send `Idle` or a result; what comes back is the next command or nothing."""
        return await self._put(step, self.enrollment.server_url, command.CONTENT_TYPE, body)

    async def _put(self, step: str, url: str, content_type: str, body: bytes) -> HttpResponse:
        headers = {"Content-Type": content_type}
        if self.enrollment.sign_message:
            signature = cms.sign(
                body,
                self.identity,
                detached=True,
                signing_time=self.clock.now(),
                certificates=(self.identity.certificate,),  # one, as captured
            )
            headers["Mdm-Signature"] = base64.b64encode(signature).decode()
        with peer_errors(step):
            return await self.transport.request(
                "PUT", url, step=step, headers=headers, body=body, timeout_s=REQUEST_TIMEOUT_S
            )


@asynccontextmanager
async def one_line(surroundings: Surroundings) -> AsyncIterator[Surroundings]:
    """The same surroundings, in which all channels share their connections: a wake-up of several steps."""
    line = Line()
    try:
        yield replace(surroundings, line=line)
    finally:
        await line.close()


@asynccontextmanager
async def open_channel(
    device: Device, surroundings: Surroundings, *, check_in: bool = False
) -> AsyncIterator[Channel]:
    """Connect as the enrolled device; `check_in` chooses whose pinned certificates count."""
    enrollment, identity = device.enrollment, device.identity
    if enrollment is None or identity is None:
        raise IllegalTransition(f"{device.hardware.serial_number} has no management to speak to")
    pins = enrollment.check_in_url_pins if check_in else enrollment.server_url_pins
    trust = _pinned(device, pins) if pins else device_trust(device, surroundings)
    if surroundings.line is not None:
        session = await surroundings.line.session(
            trust, identity, lambda: _session(device, surroundings, trust, identity)
        )
        yield Channel(session, enrollment, identity, surroundings.clock)
        return
    async with _session(device, surroundings, trust, identity) as session:
        yield Channel(session, enrollment, identity, surroundings.clock)


def _session(
    device: Device, surroundings: Surroundings, trust: TrustSet, identity: Identity
) -> HttpSession:
    return surroundings.door.session(
        trust=trust,
        identity=identity,
        user_agent=user_agent.MDM,
        device=device.hardware.udid,
        on_timing=surroundings.timing_for(device),
    )


def device_trust(device: Device, surroundings: Surroundings) -> TrustSet:
    """What the device trusts in general: its surroundings' roots and those that profiles brought."""
    return surroundings.trust.with_roots(*device.keychain.roots())


def _pinned(device: Device, payload_uuids: tuple[str, ...]) -> TrustSet:
    """Only the certificates that the MDM payload pins for this URL (mdm.md 2.2, iOS 13.4)."""
    pinned = frozenset(
        item.certificate.public_bytes(Encoding.DER)
        for (_, uuid), item in device.keychain.certificates.items()
        if uuid in payload_uuids
    )
    return TrustSet(roots=pinned)
