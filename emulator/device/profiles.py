"""The profiles on a device: what is installed, who put it there, and what ProfileList says of it.

Payload settings are not kept: what a profile did to the device lives where it had its effect (keychain, enrollment), and
no message ever reports more than the common keys (mdm.md 5.3).
"""

from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.serialization import Encoding

from emulator.wire.fields import Fields, present
from emulator.wire.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPayload:
    """The common keys of one payload."""

    payload_type: str
    identifier: str
    uuid: str
    version: int
    display_name: str | None = None
    description: str | None = None
    organization: str | None = None

    def to_fields(self, *, with_uuid: bool) -> Fields:
        return present(
            {
                "PayloadType": self.payload_type,
                "PayloadIdentifier": self.identifier,
                "PayloadUUID": self.uuid if with_uuid else None,
                "PayloadVersion": self.version,
                "PayloadDisplayName": self.display_name,
                "PayloadDescription": self.description,
                "PayloadOrganization": self.organization,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledProfile:
    """One profile as the device remembers it."""

    identifier: str
    uuid: str
    version: int = 1
    display_name: str | None = None
    description: str | None = None
    organization: str | None = None
    removal_disallowed: bool = False
    has_removal_passcode: bool = False
    is_encrypted: bool = False
    managed: bool = False  # installed by an InstallProfile command
    enrollment: bool = False  # carries the MDM payload
    signer_certificates: tuple[bytes, ...] = ()  # DER, the signer's first
    payloads: tuple[InstalledPayload, ...] = ()

    @classmethod
    def of(cls, profile: Profile, *, managed: bool, enrollment: bool) -> Self:
        """What stays of a profile once it is installed."""
        return cls(
            identifier=profile.identifier,
            uuid=profile.uuid,
            version=profile.version,
            display_name=profile.display_name,
            description=profile.description,
            organization=profile.organization,
            removal_disallowed=profile.removal_disallowed,
            has_removal_passcode=profile.has_removal_passcode,
            is_encrypted=profile.is_encrypted,
            managed=managed,
            enrollment=enrollment,
            signer_certificates=tuple(
                certificate.public_bytes(Encoding.DER)
                for certificate in profile.signer_certificates
            ),
            payloads=tuple(
                InstalledPayload(
                    payload_type=payload.payload_type,
                    identifier=payload.identifier,
                    uuid=payload.uuid,
                    version=payload.version,
                    display_name=payload.display_name,
                    description=payload.description,
                    organization=payload.organization,
                )
                for payload in profile.payloads
            ),
        )


@dataclass(slots=True)
class ProfileStore:
    """The installed profiles by identifier, oldest first."""

    by_identifier: dict[str, InstalledProfile] = field(default_factory=dict)

    def install(self, profile: InstalledProfile) -> InstalledProfile | None:
        """Add a profile; one of the same identifier is replaced in its place and returned."""
        old = self.by_identifier.get(profile.identifier)
        self.by_identifier[profile.identifier] = profile
        return old

    def remove(self, identifier: str) -> InstalledProfile | None:
        """Take a profile out; None when it was not there."""
        return self.by_identifier.pop(identifier, None)

    def find(self, identifier: str) -> InstalledProfile | None:
        return self.by_identifier.get(identifier)

    def all(self) -> tuple[InstalledProfile, ...]:
        return tuple(self.by_identifier.values())

    @property
    def enrollment(self) -> InstalledProfile | None:
        """The one that carries the MDM payload."""
        return next((profile for profile in self.all() if profile.enrollment), None)

    def copy(self) -> "ProfileStore":
        return ProfileStore(dict(self.by_identifier))
