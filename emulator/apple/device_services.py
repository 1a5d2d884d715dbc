"""Every service that devices, their hosts and Configurator ask, and the path of each: one list for the TLS port."""

from collections.abc import Callable
from typing import Final

from aiohttp import web
from cryptography import x509

from certs.clock import Clock
from emulator.apple import escrow_unlock
from emulator.apple.activation import ActivationService, ActivationSettings
from emulator.apple.activation_record import RecordIssuer
from emulator.apple.activation_session import HandshakeService
from emulator.apple.attestation import AttestationService
from emulator.apple.cloudconfig import CloudConfigurationService, CloudConfigurationSettings
from emulator.apple.device_envelope import EnvelopeChecks
from emulator.apple.door import Door
from emulator.apple.escrow_unlock import EscrowUnlockService
from emulator.apple.legacy_configuration import (
    CertificateService,
    MacProfileService,
    SessionService,
)
from emulator.apple.pki import SimPKI
from emulator.apple.planned_faults import PlannedFaults
from emulator.apple.provisional import (
    EnrollService,
    Invitations,
    LoginService,
    NonceService,
    NoteService,
    UnenrollService,
)
from emulator.apple.registry import Registry
from emulator.wire import activation, attestation, legacy_cloudconfig, provisional
from emulator.wire.device_request import Operation

OLDER_ACTIVATION_PATH: Final = "/WebObjects/ALUnbrick.woa/wa/deviceActivation"


class DeviceServices:
    """The services of one set of stand-ins, behind one door."""

    def __init__(
        self,
        pki: SimPKI,
        registry: Registry,
        clock: Clock,
        door: Door,
        *,
        url: Callable[[], str],
        certificate: Callable[[], x509.Certificate],
        planned: PlannedFaults,
        activation_settings: ActivationSettings,
        cloud_settings: CloudConfigurationSettings,
    ) -> None:
        """`url` and `certificate` are those of the TLS port, once it is open."""
        self._pki = pki
        self._registry = registry
        self._clock = clock
        self._door = door
        self._url = url
        self._certificate = certificate
        self._planned = planned
        self._activation = activation_settings
        self._cloud = cloud_settings
        self._checks = EnvelopeChecks(pki, registry)

    def routes(self) -> list[web.RouteDef]:
        handler = self._door.handler
        return [
            *self._activation_routes(),
            *self._cloud_configuration_routes(),
            *(self._legacy_routes() if self._cloud.legacy else ()),
            web.post(
                attestation.PATH, handler(AttestationService(self._checks, self._pki.attestation))
            ),
        ]

    def _activation_routes(self) -> list[web.RouteDef]:
        settings, handler = self._activation, self._door.handler
        handshakes = HandshakeService(
            self._registry,
            self._pki.activation_service_key,
            self._clock,
            enabled=settings.mode != "lite",
            check_time=settings.check_time,
        )
        issuer = RecordIssuer(self._pki, self._url)
        activate = handler(
            ActivationService(
                self._pki,
                self._registry,
                handshakes,
                issuer,
                self._clock,
                settings,
                self._planned,
            )
        )
        unlock = EscrowUnlockService(self._pki, self._registry, self._clock)
        return [
            web.post(activation.HANDSHAKE_PATH, handler(handshakes)),
            web.post(activation.ACTIVATION_PATH, activate),
            web.post(OLDER_ACTIVATION_PATH, activate),
            web.post(escrow_unlock.PATH, handler(unlock)),
        ]

    def _cloud_configuration_routes(self) -> list[web.RouteDef]:
        checks, registry, clock = self._checks, self._registry, self._clock
        handler, invitations = self._door.handler, Invitations()
        enroll = EnrollService(checks, registry, invitations, clock, self._cloud.provisional_start)
        notes = {
            Operation.REGISTER: "device_register",
            Operation.START_MIGRATION: "start_migration",
            Operation.END_MIGRATION: "end_migration",
        }
        return [
            web.post(Operation.PROFILE.path, handler(CloudConfigurationService(checks, clock))),
            web.post(Operation.ENROLL.path, handler(enroll)),
            web.post(Operation.UNENROLL.path, handler(UnenrollService(checks, registry, clock))),
            *(
                web.post(operation.path, handler(NoteService(checks, operation, step)))
                for operation, step in notes.items()
            ),
            web.get(provisional.LOGIN_PATH, handler(LoginService(registry, invitations, clock))),
            web.post(provisional.NONCE_PATH, handler(NonceService(invitations, clock))),
        ]

    def _legacy_routes(self) -> list[web.RouteDef]:
        handler, sessions = self._door.handler, SessionService(self._clock)
        profile = MacProfileService(self._pki, self._registry, sessions.sessions, self._clock)
        return [
            web.get(
                legacy_cloudconfig.CERTIFICATE_PATH, handler(CertificateService(self._certificate))
            ),
            web.post(legacy_cloudconfig.SESSION_PATH, handler(sessions)),
            web.post(legacy_cloudconfig.PROFILE_PATH, handler(profile)),
        ]
