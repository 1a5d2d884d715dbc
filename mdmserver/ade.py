"""POST /ade: a device in Setup Assistant shows its signed MachineInfo and gets its enrollment profile (mdm.md 1a).

Rule 116: an activation, known by the signer of its MachineInfo, has a limited time from its first download on. Inside it each
download brings a new one-time code with the same deadline; after it only a new activation or an admin helps.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs import trust
from certs.clock import Clock
from certs.errors import MalformedMessage, UntrustedCertificate
from emulator.hardware import version_of_build
from emulator.wire import machineinfo, profile
from emulator.wire.machineinfo import SignedMachineInfo
from mdmserver.enrollment import ADE_PATH, EnrollmentProfiles, Wanted
from mdmserver.errors import EnrollmentRefused
from mdmserver.misbehave import Misbehaviour
from mdmserver.settings import Settings
from mdmserver.store.base import ProfileVersion, Store, Window

log = structlog.get_logger()

CONTENT_TYPE: Final = "application/pkcs7-signature"


class AdeDoor:
    """The URL that the assignment of a device names."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        profiles: EnrollmentProfiles,
        version: ProfileVersion,
        *,
        roots: Sequence[x509.Certificate],
        clock: Clock,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._settings = settings
        self._store = store
        self._profiles = profiles
        self._version = version  # what new enrollments get
        self._roots = tuple(roots)
        self._clock = clock
        self._misbehaviour = misbehaviour

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post(ADE_PATH, self.download)

    async def download(self, request: web.Request) -> web.Response:
        """Check who asks, then hand out a profile."""
        if request.content_type != CONTENT_TYPE:
            raise MalformedMessage("Content-Type", CONTENT_TYPE, request.content_type)
        signed = machineinfo.verify(await request.read())
        self._check_chain(signed)
        info = signed.info
        udid = _present(info.udid, "UDID")
        serial = _present(info.serial, "SERIAL")
        await self._misbehaviour.act("enrollment_profile", info, udid)
        window = await self._window(signed.signer, udid, serial)
        os_version = info.os_version or version_of_build(info.version, info.product)
        wanted = Wanted.by(info, udid, serial, os_version)
        body = await self._profiles.build(wanted, self._version, "enrollment", window.deadline)
        log.info(
            "enrollment_profile",
            udid=udid,
            serial=serial,
            product=info.product,
            os_version=os_version,
            build=info.version,
            identity=wanted.kind,
            until=f"{window.deadline:%FT%TZ}",
        )
        return web.Response(body=body, content_type=profile.CONTENT_TYPE)

    def _check_chain(self, signed: SignedMachineInfo) -> None:
        """Raises EnrollmentRefused. Dates are left aside: Apple's own intermediates expired (mdm.md 1a)."""
        if not self._roots:
            raise EnrollmentRefused(
                "this server trusts no root for MachineInfo: set machine_info_roots (--apple-root)"
            )
        others = [c for c in signed.certificates if c != signed.signer]
        try:
            trust.verify_chain(signed.signer, others, self._roots, at=None)
        except UntrustedCertificate as error:
            raise EnrollmentRefused(f"the signer of MachineInfo is not trusted: {error}") from error

    async def _window(self, signer: x509.Certificate, udid: str, serial: str) -> Window:
        """The activation's window, opened by its first download. Raises EnrollmentRefused."""
        now = self._clock.now()
        minutes = self._settings.challenge_minutes
        window = await self._store.open_window(
            Window(
                signer=signer.fingerprint(hashes.SHA256()),
                udid=udid,
                serial=serial,
                opened_at=now,
                deadline=now + timedelta(minutes=minutes),
            )
        )
        if (window.udid, window.serial) != (udid, serial):
            raise EnrollmentRefused(
                f"this signer's activation belongs to {window.serial} ({window.udid}), "
                f"not to {serial} ({udid})"
            )
        if now > window.deadline:
            raise EnrollmentRefused(
                f"the {minutes:g} minutes of this activation ended at {window.deadline:%FT%TZ}: erase the "
                "device and activate it again, or let an admin reset its window "
                f"(POST /v1/devices/{udid}/reset-window)"
            )
        return window


def _present(value: str | None, key: str) -> str:
    if not value:
        raise MalformedMessage(f"MachineInfo.{key}", "a string")
    return value
