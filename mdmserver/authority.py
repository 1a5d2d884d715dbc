"""The server's own certificate authorities, and who may have a certificate from them.

Three roots: one for TLS and the profile signature, one behind SCEP, one behind ACME, so that an identity's issuer says how
it was got (rule 7). The last two may have been rolled over: the newest generation issues, devices of all are accepted. Challenges and client identifiers are one-time, bound to one device, and end with their deadline.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from certs import generations, names
from certs.authorize import Grant
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import ChallengeRefused
from certs.generations import Generations, label
from certs.identity import Identity
from certs.keys import generate
from certs.revocation import OwnRevocations
from certs.whole_file import write_once
from mdmserver.store.base import Challenge, IssuedCertificate, Kind, Purpose, Store

log = structlog.get_logger()

SIGNING: Final = 1  # bits of a payload's Key Usage (certificates.md 1.8)
ENCRYPTION: Final = 4
OWN_IDENTITY_DAYS: Final = 3650.0
AUTHORITY_FOLDER: Final = "authority"  # inside a server's state folder
TLS_CA: Final = "MDM Server CA"
COMMON_NAMES: Final[dict[Kind, str]] = {"scep": "MDM SCEP CA", "acme": "MDM ACME CA"}


@dataclass(frozen=True, slots=True)
class Authority:
    """The keys of one server."""

    tls: CertificateAuthority  # its root is what enrollment profiles make devices trust
    scep_generations: Generations
    acme_generations: Generations
    ra: Identity  # RSA: opens and signs SCEP messages on behalf of the CA
    profile_signer: (
        Identity  # the same for the server's life: an update must come from it (mdm.md 2.1)
    )

    @classmethod
    def open(cls, folder: Path | None, organization: str, *, clock: Clock) -> Self:
        """The authorities of `folder`, made there at the first start; None keeps them in memory. Off the event loop."""

        def opened(kind: Kind) -> Generations:
            return Generations.open(
                folder, kind, COMMON_NAMES[kind], clock=clock, organization=organization
            )

        tls = (
            CertificateAuthority.create(TLS_CA, clock=clock, organization=organization)
            if folder is None
            else CertificateAuthority.open(
                folder / "tls", TLS_CA, clock=clock, organization=organization
            )
        )
        scep, acme = opened("scep"), opened("acme")
        ra = _own_identity(
            folder,
            label("scep-ra", scep.number) + ".pem",
            lambda: scep.newest.issue_identity(
                generate("rsa2048"),
                _name(organization, "MDM SCEP RA"),
                days=OWN_IDENTITY_DAYS,
                key_usage=names.key_usage(SIGNING | ENCRYPTION),
                extended_key_usage=(),
            ),
        )
        signer = _own_identity(
            folder,
            "profile-signer.pem",
            lambda: tls.issue_identity(
                generate("p256"),
                _name(organization, "MDM Profile Signer"),
                days=OWN_IDENTITY_DAYS,
                key_usage=names.key_usage(SIGNING),
                extended_key_usage=(),
            ),
        )
        return cls(
            tls=tls, scep_generations=scep, acme_generations=acme, ra=ra, profile_signer=signer
        )

    @property
    def scep(self) -> CertificateAuthority:
        """Issues what SCEP gives out now."""
        return self.scep_generations.newest

    @property
    def acme(self) -> CertificateAuthority:
        """Issues what ACME gives out now."""
        return self.acme_generations.newest

    @property
    def issuing(self) -> dict[str, CertificateAuthority]:
        """Every CA of device identities, newest and earlier, by its name."""
        return dict([*self.scep_generations.labelled(), *self.acme_generations.labelled()])

    @property
    def client_roots(self) -> tuple[x509.Certificate, ...]:
        """Whose certificates may open a TLS connection."""
        return tuple(authority.certificate for authority in self.issuing.values())

    @property
    def revocations(self) -> OwnRevocations:
        """Which identities are no longer good."""
        return OwnRevocations(tuple(self.issuing.values()))


def roll_over(state: Path, kinds: Sequence[Kind], organization: str, *, clock: Clock) -> list[str]:
    """Give a stopped server's SCEP or ACME identities a new CA from its next start on; the CAs' names. Off the event loop.

    Raises FileNotFoundError for a folder without a server.
    """
    made = [
        generations.roll_over(
            state / AUTHORITY_FOLDER,
            kind,
            COMMON_NAMES[kind],
            clock=clock,
            organization=organization,
        )
        for kind in kinds
    ]
    return [names.text(authority.certificate.subject) for authority in made]


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _own_identity(folder: Path | None, file: str, make: Callable[[], Identity]) -> Identity:
    if folder is None:
        return make()
    path = folder / file
    data = path.read_bytes() if path.exists() else write_once(path, make().to_pem())
    return Identity.from_own_pem(data)


def new_secret() -> str:
    """A one-time code for a challenge or a ClientIdentifier: 192 bits, no slash."""
    return secrets.token_urlsafe(24)


def hash_secret(secret: str) -> bytes:
    """How the store knows a one-time code."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def device_name(udid: str, serial: str) -> x509.Name:
    """The subject of every identity that we issue, however it was asked for."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, udid),
            names.attribute(NameOID.SERIAL_NUMBER, serial),
        ]
    )


def subject_for(grant: Grant, request: CertificateRequest) -> x509.Name:
    """ACME: the CSR's CN is the one-time code, the certificate's is the device."""
    return device_name(grant.udid or "", grant.serial_number or "")


class _OneTime:
    """What challenge passwords and client identifiers have in common."""

    def __init__(self, store: Store, clock: Clock, kind: Kind, what: str) -> None:
        self._store = store
        self._clock = clock
        self._kind = kind
        self._what = what  # how sentences call the code

    async def _find(self, code: str) -> Challenge:
        digest = hash_secret(code)
        challenge = await self._store.challenge(digest)
        named = f"the {self._what} ({len(code)} characters, SHA-256 {digest.hex()[:8]}…)"
        if challenge is None or challenge.kind != self._kind:
            raise ChallengeRefused(f"{named} is not one that is good now")
        if challenge.used_at is not None:
            raise ChallengeRefused(f"{named} was used at {_at(challenge.used_at)}")
        if self._clock.now() > challenge.deadline:
            raise ChallengeRefused(f"{named} ended at {_at(challenge.deadline)}")
        return challenge

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        """The certificate exists now; raises ChallengeRefused if another request was faster or time ran out."""
        digest = bytes.fromhex(grant.reference)
        challenge = await self._store.challenge(digest)
        if challenge is None:
            raise ChallengeRefused(f"the {self._what} is no longer good")
        record = issued_certificate(certificate, challenge, challenge.purpose, self._clock.now())
        if not await self._store.use_challenge(digest, record):
            raise ChallengeRefused(f"the {self._what} was used or ended meanwhile")
        log_issued(record)


def issued_certificate(
    certificate: x509.Certificate,
    device: Challenge | IssuedCertificate,
    purpose: Purpose,
    now: datetime,
) -> IssuedCertificate:
    """The row of a certificate for the device that a challenge, or an earlier certificate, is about."""
    return IssuedCertificate(
        sha256=certificate.fingerprint(hashes.SHA256()),
        udid=device.udid,
        serial=device.serial,
        product=device.product,
        os_version=device.os_version,
        build=device.build,
        kind=device.kind,
        purpose=purpose,
        issuer=names.common_name(certificate.issuer) or names.text(certificate.issuer),
        profile_version=device.profile_version,
        issued_at=now,
        not_after=certificate.not_valid_after_utc,
    )


def log_issued(record: IssuedCertificate) -> None:
    """One line for each identity."""
    log.info(
        "identity_issued",
        udid=record.udid,
        serial=record.serial,
        kind=record.kind,
        purpose=record.purpose,
        certificate=record.sha256.hex()[:16],
    )


class ScepChallenges(_OneTime):
    """The ChallengeVerifier of our SCEP door."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock, "scep", "challenge password")

    async def verify(self, challenge: str | None, request: CertificateRequest) -> Grant:
        if not challenge:
            raise ChallengeRefused("the request has no challenge password")
        found = await self._find(challenge)
        # A challenge that leaked entitles to its own device's name and no other.
        if request.subject != device_name(found.udid, found.serial):
            raise ChallengeRefused(
                f"the challenge is for CN={found.udid} and serialNumber={found.serial}, "
                f"the request for {names.text(request.subject) or 'an empty subject'}"
            )
        return _grant(found)


class AcmeIdentifiers(_OneTime):
    """The DeviceAuthorizer of our ACME door."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock, "acme", "client identifier")

    async def authorize(self, identifier: str) -> Grant:
        return _grant(await self._find(identifier))


def _grant(challenge: Challenge) -> Grant:
    return Grant(
        reference=challenge.secret_sha256.hex(),
        serial_number=challenge.serial,
        udid=challenge.udid,
    )


def _at(moment: datetime) -> str:
    return f"{moment:%FT%TZ}"
