"""The keys and certificates of a device: those it was made with, the one activation gave it, those profiles brought.

Whatever a profile brought carries that profile's identifier, so that removing the profile removes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509

from certs.identity import Identity
from emulator.wire.factory import Anchors

IdentityKind = Literal["scep", "acme", "pkcs12"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryIdentity:
    """What a device keeps for life: factory key FK and attestation key AK with their chains, and the pinned anchors."""

    factory: Identity  # chain: the device CA
    attestation: Identity  # chain: the attestation sub CA
    anchors: Anchors
    device: Identity | None = None  # the DeviceCertificate of a device that starts activated


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledCertificate:
    """A certificate that a profile brought."""

    profile_identifier: str
    payload_uuid: str
    payload_type: str
    certificate: x509.Certificate

    @property
    def anchors_trust(self) -> bool:
        """Whether servers may be trusted because of it: root payloads, and self-issued certificates in others."""
        certificate = self.certificate
        return (
            self.payload_type == "com.apple.security.root"
            or certificate.issuer == certificate.subject
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledIdentity:
    """An identity that a profile brought or caused to be issued."""

    profile_identifier: str
    payload_uuid: str
    kind: IdentityKind
    identity: Identity


@dataclass(slots=True)
class Keychain:
    """Everything but the factory identity; what profiles brought is keyed by (profile identifier, payload UUID)."""

    device: Identity | None = None  # DeviceCertificate of the present activation; signs MachineInfo
    certificates: dict[tuple[str, str], InstalledCertificate] = field(default_factory=dict)
    identities: dict[tuple[str, str], InstalledIdentity] = field(default_factory=dict)

    def add(self, item: InstalledCertificate | InstalledIdentity) -> None:
        """Install one item; the same payload of the same profile replaces what it brought before."""
        key = (item.profile_identifier, item.payload_uuid)
        if isinstance(item, InstalledCertificate):
            self.certificates[key] = item
        else:
            self.identities[key] = item

    def remove_profile(self, profile_identifier: str) -> None:
        """Drop everything that this profile brought."""
        self.certificates = {
            key: item for key, item in self.certificates.items() if key[0] != profile_identifier
        }
        self.identities = {
            key: item for key, item in self.identities.items() if key[0] != profile_identifier
        }

    def copy(self) -> "Keychain":
        """A second keychain with the same items; the items themselves never change."""
        return Keychain(self.device, dict(self.certificates), dict(self.identities))

    def roots(self) -> Iterator[x509.Certificate]:
        """The anchors that profiles added to the device's trust."""
        for item in self.certificates.values():
            if item.anchors_trust:
                yield item.certificate
