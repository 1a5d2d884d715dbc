"""Builds enrollment profiles: our roots, an identity payload (ACME or SCEP), the MDM payload; signed, ready to send.

Comes in: which device, which profile version, until when its one-time code is good. Goes out: the bytes of a `.mobileconfig`.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certs import cms
from certs.ca import CLIENT_AUTH
from certs.clock import Clock
from emulator.hardware import acme_capable
from emulator.wire import profile
from emulator.wire.machineinfo import MachineInfo
from emulator.wire.profile import AcmePayload, CertificatePayload, MdmPayload, ScepPayload
from mdmserver.authority import ENCRYPTION, SIGNING, Authority, hash_secret, new_secret
from mdmserver.settings import Settings
from mdmserver.store.base import (
    Challenge,
    DeviceRecord,
    IssuedCertificate,
    Kind,
    ProfileVersion,
    Purpose,
    Store,
)

SCEP_KEY_BITS: Final = 2048
SCEP_PATH: Final = "/scep"
ACME_PATH: Final = "/acme"
CHECK_IN_PATH: Final = "/checkin"
SERVER_PATH: Final = "/mdm"
ADE_PATH: Final = "/ade"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The device that a profile is for."""

    udid: str
    serial: str
    product: str
    os_version: str | None
    build: str
    kind: Kind

    @classmethod
    def by(cls, info: MachineInfo, udid: str, serial: str, os_version: str | None) -> "Wanted":
        """A new enrollment: attested ACME where OS and chip can (rule 9), SCEP for the others."""
        attests = acme_capable(info.product, os_version=info.os_version, build=info.version)
        return cls(
            udid=udid,
            serial=serial,
            product=info.product,
            os_version=os_version,
            build=info.version,
            kind="acme" if attests else "scep",
        )

    @classmethod
    def again(cls, device: DeviceRecord, bound: IssuedCertificate) -> "Wanted":
        """A profile sent again keeps the identity protocol of its enrollment (rule 8)."""
        return cls(
            udid=device.udid,
            serial=bound.serial,
            product=device.product or bound.product,
            os_version=device.os_version,
            build=device.build or bound.build,
            kind=bound.kind,
        )


class EnrollmentProfiles:
    """Makes the profiles of one server."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        authority: Authority,
        *,
        clock: Clock,
        public_url: str,
        server_id: str,
        tls_roots: tuple[x509.Certificate, ...],
    ) -> None:
        self._settings = settings
        self._store = store
        self._authority = authority
        self._clock = clock
        self._public_url = public_url
        self._namespace = uuid.UUID(server_id)
        self._tls_roots = tls_roots

    async def build(
        self, wanted: Wanted, version: ProfileVersion, purpose: Purpose, deadline: datetime
    ) -> bytes:
        """A signed profile with a new one-time code; an earlier code that was not used ends here."""
        code = new_secret()
        await self._store.add_challenge(
            Challenge(
                secret_sha256=hash_secret(code),
                kind=wanted.kind,
                purpose=purpose,
                udid=wanted.udid,
                serial=wanted.serial,
                product=wanted.product,
                os_version=wanted.os_version,
                build=wanted.build,
                profile_version=version.version,
                deadline=deadline,
            )
        )
        unsigned = profile.encode(self._profile(wanted, version, code))
        return cms.sign(unsigned, self._authority.profile_signer, signing_time=self._clock.now())

    def _profile(self, wanted: Wanted, version: ProfileVersion, code: str) -> profile.Profile:
        organization = self._settings.organization
        identity = (
            self._acme(wanted, code, version)
            if wanted.kind == "acme"
            else self._scep(wanted, code, version)
        )
        mdm = MdmPayload(
            **self._header("mdm", "Management", version),
            identity_certificate_uuid=identity.uuid,
            topic=version.topic,
            server_url=version.server_url,
            check_in_url=version.check_in_url,
            sign_message=version.sign_message,
            access_rights=self._settings.access_rights,
            check_out_when_removed=True,
        )
        return profile.Profile(
            identifier=version.identifier,
            uuid=self._uuid("profile"),
            display_name=self._settings.profile_name,
            description=f"Lets {organization} manage this device.",
            organization=organization,
            removal_disallowed=version.locked,
            payloads=(*self._roots(version), identity, mdm),
        )

    def _roots(self, version: ProfileVersion) -> tuple[CertificatePayload, ...]:
        return tuple(
            CertificatePayload(
                **self._header(f"root{number}", "Trust in the management server", version),
                payload_type="com.apple.security.root",
                content=root.public_bytes(serialization.Encoding.DER),
                file_name=f"root{number}.cer",
            )
            for number, root in enumerate(self._tls_roots, start=1)
        )

    def _scep(self, wanted: Wanted, code: str, version: ProfileVersion) -> ScepPayload:
        return ScepPayload(
            **self._header("identity", "Device identity", version),
            url=self._public_url + SCEP_PATH,
            subject=((("CN", wanted.udid),), (("2.5.4.5", wanted.serial),)),
            challenge=code,
            keysize=SCEP_KEY_BITS,
            key_usage=SIGNING | ENCRYPTION,
            ca_fingerprint=self._authority.scep.certificate.fingerprint(hashes.SHA256()),
            key_is_extractable=False,
        )

    def _acme(self, wanted: Wanted, code: str, version: ProfileVersion) -> AcmePayload:
        return AcmePayload(
            **self._header("identity", "Device identity", version),
            directory_url=f"{self._public_url}{ACME_PATH}/directory",
            client_identifier=code,
            key_type="ECSECPrimeRandom",
            key_size=self._settings.acme_key_size,
            hardware_bound=True,
            attest=True,
            # Servers want the identifier as CN (certificates.md 2.6); ours puts the UDID in its place.
            subject=((("CN", code),),),
            usage_flags=SIGNING,
            extended_key_usage=(CLIENT_AUTH.dotted_string,),
        )

    def _header(self, name: str, title: str, version: ProfileVersion) -> dict[str, Any]:
        return {
            "identifier": f"{version.identifier}.{name}",
            "uuid": self._uuid(name),
            "display_name": title,
            "organization": self._settings.organization,
        }

    def _uuid(self, name: str) -> str:
        """Stable for the life of the server, so that a profile sent again replaces its payloads in place."""
        return str(uuid.uuid5(self._namespace, f"enrollment.{name}")).upper()
