"""Managed Device Attestation with a simulated authority: leaves of Apple's shape, issued, parsed and verified.

The shape is that of certificates.md, section 2.5: ten extensions in a fixed order whose values are raw bytes, no DER
around them. Names and marks say that the authority is simulated (apple-services.md, section 9).
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certs.attestation_faults import Facts, LeafFault, LeafFaults, changed
from certs.ca import SKEW, CertificateAuthority
from certs.certificate_profile import SIMULATED, key_usage
from certs.clock import Clock
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.faults import FaultPoint
from certs.keys import PublicKey, generate, spki_der
from certs.trust import UNREADABLE, verify_chain

ORGANIZATION: Final = "Sim Apple Inc."
ROOT_NAME: Final = "Simulated Enterprise Attestation Root CA"
SUB_CA_NAME: Final = "Simulated Enterprise Attestation Sub CA 1"

_ARC: Final = "1.2.840.113635.100.8"
SERIAL_NUMBER: Final = x509.ObjectIdentifier(f"{_ARC}.9.1")
UDID: Final = x509.ObjectIdentifier(f"{_ARC}.9.2")
SOFTWARE_UPDATE_DEVICE_ID: Final = x509.ObjectIdentifier(f"{_ARC}.9.4")
OS_VERSION: Final = x509.ObjectIdentifier(f"{_ARC}.10.1")
SEP_OS_VERSION: Final = x509.ObjectIdentifier(f"{_ARC}.10.2")
LLB_VERSION: Final = x509.ObjectIdentifier(f"{_ARC}.10.3")
FRESHNESS: Final = x509.ObjectIdentifier(f"{_ARC}.11.1")

FRESHNESS_BYTES: Final = 32
MAX_CHAIN_BYTES: Final = 64 * 1024  # of one certificate in a chain that a device sends
MAX_AUTHORITY_BYTES: Final = 4096  # of one that is kept
# digitalSignature, nonRepudiation, keyEncipherment, dataEncipherment: 03 02 04 f0
_LEAF_USAGE: Final = key_usage(
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment"
)
_NOT_A_CA: Final = x509.BasicConstraints(ca=False, path_length=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What an attestation leaf says; a property that is absent or blank is None."""

    serial_number: str | None
    udid: str | None
    os_version: str | None
    sep_os_version: str | None
    llb_version: str | None
    software_update_device_id: str | None
    freshness: (
        bytes | None
    )  # 32 bytes in ACME: SHA-256 of the token; up to 32 from a DeviceInformation nonce
    public_key: PublicKey


class AttestationAuthority:
    """The root and sub CA that stand in for Apple's, both P-384."""

    def __init__(self, root: CertificateAuthority, sub_ca: CertificateAuthority, clock: Clock):
        self._issuer = sub_ca
        self._clock = clock
        # A genuine serial number is a time in milliseconds; ours only ever grow, so that none comes twice.
        self._last_serial = _milliseconds(clock.now()) + secrets.randbits(16)
        self.root = root.certificate
        self.sub_ca = sub_ca.certificate
        self._faults: LeafFaults | None = None

    def misbehave(self, faults: FaultPoint) -> None:
        """From now on `faults` is asked what shall be wrong with each leaf."""
        self._faults = LeafFaults(faults)

    @classmethod
    def create(cls, clock: Clock) -> Self:
        """A new pair that lives in memory."""
        root = CertificateAuthority.create(
            ROOT_NAME,
            key=generate("p384"),
            clock=clock,
            subject=_authority_name(ROOT_NAME),
            lifetime_days=9131,
            simulated=True,
        )
        sub_ca = CertificateAuthority.create(
            SUB_CA_NAME,
            key=generate("p384"),
            clock=clock,
            parent=root,
            subject=_authority_name(SUB_CA_NAME),
            simulated=True,
        )
        return cls(root, sub_ca, clock)

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Self:
        """The pair of `folder` (`root` and `sub-ca` inside it), made there on first use."""
        root = CertificateAuthority.open(
            folder / "root",
            ROOT_NAME,
            clock=clock,
            spec="p384",
            subject=_authority_name(ROOT_NAME),
            lifetime_days=9131,
            simulated=True,
        )
        sub_ca = CertificateAuthority.open(
            folder / "sub-ca",
            SUB_CA_NAME,
            clock=clock,
            spec="p384",
            parent=root,
            subject=_authority_name(SUB_CA_NAME),
            simulated=True,
        )
        return cls(root, sub_ca, clock)

    def issue(
        self,
        public_key: PublicKey,
        *,
        serial_number: str | None,
        udid: str | None,
        freshness: bytes | None,
        os_version: str | None = None,
        software_update_device_id: str | None = None,
        days: float = 91,
        not_before: datetime | None = None,
    ) -> tuple[x509.Certificate, x509.Certificate]:
        """Attest a key: the leaf and the sub CA that goes with it.

        None leaves a property out, as User Enrollment does with serial number and UDID; an empty text is written as a
        blank value, which Apple also allows.
        """
        facts = Facts(
            public_key=public_key,
            serial_number=serial_number,
            udid=udid,
            freshness=freshness,
            os_version=os_version,
            software_update_device_id=software_update_device_id,
            not_before=not_before or self._clock.now() - SKEW,
            days=days,
        )
        action = self._faults.action(facts) if self._faults else None
        if action is None:
            return self._attest(facts)
        authority = self.create(self._clock) if action.name == LeafFault.FOREIGN_ROOT else self
        return authority._attest(changed(facts, action))

    def _attest(self, facts: Facts) -> tuple[x509.Certificate, x509.Certificate]:
        # The order of a genuine leaf, without the .13 family, which only Macs have.
        properties = (
            (SEP_OS_VERSION, facts.os_version),
            (LLB_VERSION, facts.os_version),
            (OS_VERSION, facts.os_version),
            (SOFTWARE_UPDATE_DEVICE_ID, facts.software_update_device_id),
            (SERIAL_NUMBER, facts.serial_number),
            (UDID, facts.udid),
            (FRESHNESS, facts.freshness),
        )
        leaf = self._sign(
            _leaf_name(facts.public_key),
            facts.public_key,
            (facts.not_before, facts.not_before + timedelta(days=facts.days)),
            [(_NOT_A_CA, True), (_LEAF_USAGE, True), *_raw_extensions(properties)],
        )
        return leaf, self.sub_ca

    def issue_device_identity(
        self, public_key: PublicKey, *, serial_number: str, udid: str, years: int = 10
    ) -> x509.Certificate:
        """The long-lived certificate of a device's attestation key (AC of apple-services.md, section 9)."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, udid),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            ]
        )
        start = self._clock.now() - SKEW
        properties = ((SERIAL_NUMBER, serial_number), (UDID, udid))
        return self._sign(
            subject,
            public_key,
            (start, start + timedelta(days=365.25 * years)),
            [
                (_NOT_A_CA, True),
                (key_usage("digital_signature"), True),
                *_raw_extensions(properties),
            ],
        )

    def _next_serial(self) -> int:
        self._last_serial = max(self._last_serial + 1, _milliseconds(self._clock.now()))
        return self._last_serial

    def _sign(
        self,
        subject: x509.Name,
        public_key: PublicKey,
        validity: tuple[datetime, datetime],
        extensions: list[tuple[x509.ExtensionType, bool]],
    ) -> x509.Certificate:
        """Not `CertificateAuthority.issue`, because these leaves carry no SKI, AKI or EKU and a short serial."""
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.sub_ca.subject)
            .subject_name(subject)
            .public_key(public_key)
            .serial_number(self._next_serial())
            .not_valid_before(validity[0])
            .not_valid_after(validity[1])
        )
        for extension, critical in (*extensions, (SIMULATED, False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._issuer.identity.key, hashes.SHA384())


def parse(leaf: x509.Certificate) -> Attestation:
    """Read a leaf, simulated or genuine. Raises MalformedMessage."""
    try:
        found = {extension.oid: extension.value for extension in leaf.extensions}
        public_key = leaf.public_key()
    except UNREADABLE as error:
        raise MalformedMessage(
            "attestation leaf", "readable extensions and key", str(error)
        ) from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise MalformedMessage("attestation leaf", "an EC or RSA key", type(public_key).__name__)
    return Attestation(
        serial_number=_text(found, SERIAL_NUMBER),
        udid=_text(found, UDID),
        os_version=_text(found, OS_VERSION),
        sep_os_version=_text(found, SEP_OS_VERSION),
        llb_version=_text(found, LLB_VERSION),
        software_update_device_id=_text(found, SOFTWARE_UPDATE_DEVICE_ID),
        freshness=_freshness(_raw(found, FRESHNESS)),
        public_key=public_key,
    )


def verify(
    chain: Sequence[bytes], roots: Iterable[x509.Certificate], *, at: datetime | None
) -> Attestation:
    """Check a chain as a device sends it (DER, leaf first, no root) and read its leaf.

    Raises UntrustedCertificate or MalformedMessage. Freshness, key and identifier are for the caller to compare.
    """
    if not chain:
        raise MalformedMessage("attestation chain", "at least one certificate")
    certificates = [_certificate(der, index) for index, der in enumerate(chain)]
    leaf = certificates[0]
    attestation = parse(leaf)
    try:
        is_ca = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if is_ca:
        raise UntrustedCertificate(
            leaf.subject.rfc4514_string(), "is a CA certificate, not an attestation leaf"
        )
    verify_chain(leaf, certificates[1:], roots, at=at)
    return attestation


def _certificate(der: bytes, index: int) -> x509.Certificate:
    field = f"attestation chain [{index}]"
    if len(der) > MAX_CHAIN_BYTES:
        raise MalformedMessage(field, f"at most {MAX_CHAIN_BYTES} bytes", len(der))
    try:
        if index == 0 or len(der) > MAX_AUTHORITY_BYTES:
            return x509.load_der_x509_certificate(der)
        return _authority(der)
    except UNREADABLE as error:
        raise MalformedMessage(field, "a certificate in DER", str(error)) from error


@lru_cache(maxsize=64)
def _authority(der: bytes) -> x509.Certificate:
    """Above the leaf; the same in every chain, so that what was parsed of it serves all of them."""
    return x509.load_der_x509_certificate(der)


def _raw_extensions(
    properties: Iterable[tuple[x509.ObjectIdentifier, str | bytes | None]],
) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (
            x509.UnrecognizedExtension(oid, value.encode() if isinstance(value, str) else value),
            False,
        )
        for oid, value in properties
        if value is not None
    ]


def _raw(
    found: dict[x509.ObjectIdentifier, x509.ExtensionType], oid: x509.ObjectIdentifier
) -> bytes | None:
    """The bytes of an extension; a blank one counts as absent."""
    value = found.get(oid)
    return (value.value or None) if isinstance(value, x509.UnrecognizedExtension) else None


def _text(
    found: dict[x509.ObjectIdentifier, x509.ExtensionType], oid: x509.ObjectIdentifier
) -> str | None:
    raw = _raw(found, oid)
    if raw is None:
        return None
    try:
        return raw.decode().strip(" \0") or None
    except UnicodeDecodeError:
        raise MalformedMessage(
            f"attestation property {oid.dotted_string}", "text in UTF-8", raw
        ) from None


def _freshness(raw: bytes | None) -> bytes | None:
    """As it stands: a value that merely looks like DER is a nonce, except one whole OCTET STRING of 32 bytes."""
    if raw is not None and len(raw) == FRESHNESS_BYTES + 2 and raw[:2] == b"\x04\x20":
        return raw[2:]
    return raw


def _leaf_name(public_key: PublicKey) -> x509.Name:
    """In encoded order CN, OU, O, ST, as a genuine leaf; the CN is a SHA-256 in hex, here of the key."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki_der(public_key))
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, digest.finalize().hex()),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "AAA Certification"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "California"),
        ]
    )


def _authority_name(common_name: str) -> x509.Name:
    """In encoded order CN, O, C, as Apple's root."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
