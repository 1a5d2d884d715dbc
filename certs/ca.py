"""CertificateAuthority: issues, records, revokes; lives in memory or in a folder that survives a kill.

A folder holds `key.pem` (0600), `certificate.pem` and `issued.jsonl` (see `issued_index`). Validity follows the injected
clock: from 10 minutes ago, so that a device whose clock is slow can use its certificate at once.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Self, TypedDict, Unpack

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import certificate_parts, crl, names
from certs.ca_certificate import ORGANIZATION, ca_certificate, ca_name
from certs.ca_files import certificate_pem, own_certificate, own_key
from certs.certificate_profile import (
    Extensions,
    distribution_point,
    host_name,
    key_identifier,
    random_serial,
    signature_hash,
    simulated_mark,
    usages,
)
from certs.certificate_writer import (
    EncodedExtension,
    encode_extension,
    encode_key_identifier,
    write_certificate,
)
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.identity import Identity
from certs.issued_index import Issued, IssuedIndex, Revocation
from certs.keys import KeySpec, PrivateKey, PublicKey, generate, spki_der, to_pem
from certs.whole_file import write_once

log = structlog.get_logger()

CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_ONLY: Final = (CLIENT_AUTH,)
SKEW: Final = timedelta(minutes=10)  # how slow a device's clock may be
CRL_LIFETIME: Final = timedelta(days=7)
MAX_SHARED: Final = 64  # sets of extensions that a CA keeps encoded


class Wishes(TypedDict, total=False):
    """What `issue` may be asked for besides key and subject."""

    days: float
    key_usage: x509.KeyUsage | None
    extended_key_usage: Sequence[x509.ObjectIdentifier]
    alternative_names: Sequence[x509.GeneralName]
    ca: bool
    extensions: Extensions
    not_before: datetime | None


# Whether it is a CA, and its two usages.
_Profile = tuple[bool, x509.KeyUsage | None, tuple[x509.ObjectIdentifier, ...]]


class _Holder(NamedTuple):
    """Whose certificate it is; name and key also as they are to stand in it."""

    name: x509.Name
    der: bytes
    spki: bytes
    public_key: PublicKey


class CertificateAuthority:
    """One issuing key. `create` makes it in memory (or in a new folder), `open` brings it back from its folder."""

    def __init__(
        self,
        identity: Identity,
        *,
        clock: Clock,
        parents: tuple[x509.Certificate, ...] = (),
        index: IssuedIndex | None = None,
    ) -> None:
        self.identity = identity  # its chain holds the parents that others need to see
        self.certificate = identity.certificate
        self.parents = parents  # issuers up to and including the root, nearest first
        self.index = index or IssuedIndex()
        self._clock = clock
        self._issuer = identity.certificate.subject
        self._issuer_der = self._issuer.public_bytes()
        certificate = identity.certificate
        self._dates = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        self._digest = signature_hash(identity.key).name
        self._marks = simulated_mark(identity.certificate)
        ski = identity.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        self._aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski.value)
        self._crl: tuple[datetime, int, bytes] | None = None
        self._crl_number = 0
        self.crl_url: str | None = None  # where others find `crl()`: written into what is issued
        self._encoded: dict[object, tuple[EncodedExtension, ...]] = {}
        # What `issue_identity` shows besides the leaf: this CA, then its parents without the root.
        self.chain = (identity.certificate, *identity.chain)

    @classmethod
    def create(
        cls,
        common_name: str,
        *,
        key: PrivateKey | None = None,
        clock: Clock,
        parent: "CertificateAuthority | None" = None,
        organization: str = ORGANIZATION,
        folder: Path | None = None,
        lifetime_days: float = 3650,
        simulated: bool = False,
        subject: x509.Name | None = None,
    ) -> Self:
        """A new CA, self-signed or below `parent`; kept in `folder` where one is named.

        `simulated` marks its own certificate and all that it issues (apple-services.md, section 9).
        """
        key = key or generate("p256")
        certificate = ca_certificate(
            subject or ca_name(common_name, organization),
            key,
            clock=clock,
            parent=parent,
            lifetime_days=lifetime_days,
            simulated=simulated,
        )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files = (
                ("key.pem", to_pem(key), 0o600),
                ("certificate.pem", certificate_pem(certificate), 0o644),
            )
            for name, data, mode in files:
                if write_once(folder / name, data, mode) != data:
                    raise MalformedMessage(str(folder), f"no {name}: a CA lives there already")
        return cls._with(key, certificate, clock=clock, parent=parent, folder=folder)

    @classmethod
    def open(
        cls,
        folder: Path,
        common_name: str,
        *,
        clock: Clock,
        spec: KeySpec = "p256",
        parent: "CertificateAuthority | None" = None,
        organization: str = ORGANIZATION,
        lifetime_days: float = 3650,
        simulated: bool = False,
        subject: x509.Name | None = None,
    ) -> Self:
        """The CA of `folder`, made there on first use; a start that was killed half-way is completed.

        Off the event loop where the key is RSA. Raises MalformedMessage for foreign or damaged files and
        UntrustedCertificate when the CA there is not below `parent`.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
        if not key_file.exists():
            if certificate_file.exists():
                raise MalformedMessage(str(folder), "key.pem beside certificate.pem")
            write_once(key_file, to_pem(generate(spec)))
        key = own_key(key_file)
        if not certificate_file.exists():
            certificate = ca_certificate(
                subject or ca_name(common_name, organization),
                key,
                clock=clock,
                parent=parent,
                lifetime_days=lifetime_days,
                simulated=simulated,
            )
            write_once(certificate_file, certificate_pem(certificate), 0o644)
        key, certificate = own_certificate(
            certificate_file, key, None if parent is None else parent.certificate
        )
        return cls._with(key, certificate, clock=clock, parent=parent, folder=folder)

    @classmethod
    def _with(
        cls,
        key: PrivateKey,
        certificate: x509.Certificate,
        *,
        clock: Clock,
        parent: "CertificateAuthority | None",
        folder: Path | None,
    ) -> Self:
        parents = () if parent is None else (parent.certificate, *parent.parents)
        shown = tuple(issuer for issuer in parents if issuer.issuer != issuer.subject)
        return cls(
            Identity(key, certificate, shown),
            clock=clock,
            parents=parents,
            index=IssuedIndex(None if folder is None else folder / "issued.jsonl"),
        )

    @property
    def root(self) -> x509.Certificate:
        """The certificate that others trust."""
        return self.parents[-1] if self.parents else self.certificate

    def issue(
        self,
        public_key: PublicKey,
        subject: x509.Name,
        *,
        days: float = 365,
        key_usage: x509.KeyUsage | None = None,
        extended_key_usage: Sequence[x509.ObjectIdentifier] = CLIENT_ONLY,
        alternative_names: Sequence[x509.GeneralName] = (),
        ca: bool = False,
        extensions: Extensions = (),
        not_before: datetime | None = None,
    ) -> x509.Certificate:
        """Sign and record one certificate.

        Validity stays inside the CA's own, unless `not_before` asks for other dates on purpose. An extension given
        in `extensions` takes the place of the one that would be written by itself. CA certificates get an extended
        key usage only when one is asked for.
        """
        if ca and extended_key_usage is CLIENT_ONLY:
            extended_key_usage = ()
        return self._issue(
            _Holder(subject, subject.public_bytes(), spki_der(public_key), public_key),
            self._validity(days, not_before),
            profile=(ca, key_usage, tuple(extended_key_usage)),
            alternative_names=alternative_names,
            extensions=extensions,
        )

    def certify(
        self, request: CertificateRequest, *, days: float = 365, key_usage: x509.KeyUsage | None
    ) -> x509.Certificate:
        """`issue` for a PKCS#10 request: its name and key are repeated byte for byte, its alternative names taken over."""
        return self._issue(
            _Holder(request.subject, request.subject_der, request.spki, request.public_key),
            self._validity(days, None),
            profile=(False, key_usage, CLIENT_ONLY),
            alternative_names=request.alternative_names,
        )

    def _issue(
        self,
        holder: "_Holder",
        validity: tuple[datetime, datetime],
        *,
        profile: "_Profile",
        alternative_names: Sequence[x509.GeneralName],
        extensions: Extensions = (),
    ) -> x509.Certificate:
        start, end = validity
        is_rsa = isinstance(holder.public_key, rsa.RSAPublicKey)
        wanted = [
            *self._shared(is_rsa, profile, self.crl_url),
            encode_key_identifier(key_identifier(holder.spki)),
        ]
        if alternative_names:
            # RFC 5280, section 4.2.1.6: critical where the subject says nothing.
            alternatives = x509.SubjectAlternativeName(alternative_names)
            wanted.append(encode_extension(alternatives, not holder.name.rdns))
        if extensions:
            replaced = {extension.oid for extension, _ in extensions}
            wanted = [one for one in wanted if one.oid not in replaced]
            wanted += [encode_extension(extension, critical) for extension, critical in extensions]
        serial_number = random_serial()
        written = write_certificate(
            issuer=self._issuer_der,
            subject=holder.der,
            spki=holder.spki,
            serial_number=serial_number,
            start=start,
            end=end,
            extensions=wanted,
            key=self.identity.key,
            digest=self._digest,
        )
        certificate = certificate_parts.load(written)
        digest = hashlib.sha256(written).digest()
        name = names.rfc4514(holder.name)
        self.index.issued(Issued(serial_number, digest, name, end.replace(microsecond=0)))
        return certificate

    def _shared(
        self,
        is_rsa: bool,
        profile: "_Profile",
        crl_url: str | None,
    ) -> tuple[EncodedExtension, ...]:
        """What many certificates of this CA say alike."""
        shape = is_rsa, profile, crl_url
        known = self._encoded.get(shape)
        if known is not None:
            return known
        wanted = [
            *usages(is_rsa, *profile),
            (self._aki, False),
            *self._marks,
        ]
        if crl_url is not None:
            wanted.append((distribution_point(crl_url), False))
        encoded = tuple(encode_extension(extension, critical) for extension, critical in wanted)
        if len(self._encoded) < MAX_SHARED:
            self._encoded[shape] = encoded
        return encoded

    def issue_identity(
        self, key: PrivateKey, subject: x509.Name, **wishes: Unpack[Wishes]
    ) -> Identity:
        """`issue` for a key that we hold, with the chain that others need to see."""
        return Identity(key, self.issue(key.public_key(), subject, **wishes), self.chain)

    def revoke(
        self,
        certificate: x509.Certificate,
        reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
    ) -> None:
        """Withdraw a certificate of this CA. Raises UntrustedCertificate for another CA's."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, WrongSignature):
            raise UntrustedCertificate(
                certificate.subject.rfc4514_string(),
                f"was not issued by {self._issuer.rfc4514_string()}",
            ) from None
        self._revoke(certificate.serial_number, reason)

    def revoke_fingerprint(
        self, sha256: bytes, reason: x509.ReasonFlags = x509.ReasonFlags.unspecified
    ) -> bool:
        """Withdraw the certificate with this SHA-256; False when it is not of this CA. Reads the whole index."""
        issued = next((item for item in self.index.history() if item.sha256 == sha256), None)
        if issued is None:
            return False
        self._revoke(issued.serial_number, reason)
        return True

    def _revoke(self, serial_number: int, reason: x509.ReasonFlags) -> None:
        self.index.revoke(Revocation(serial_number, self._clock.now(), reason))
        log.info("certificate_revoked", serial=f"{serial_number:x}", reason=reason.value)

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """True only for a revoked certificate of this CA."""
        return (
            certificate.serial_number in self.index.revoked and certificate.issuer == self._issuer
        )

    def crl(self) -> bytes:
        """The revocation list as DER, signed anew after a revocation and when half its week is over."""
        now, revoked = self._clock.now(), tuple(self.index.revoked.values())
        if self._crl and self._crl[1] == len(revoked) and now - self._crl[0] < CRL_LIFETIME / 2:
            return self._crl[2]
        # A time, so that it grows over restarts; and it grows where the clock does not (RFC 5280, section 5.2.3).
        self._crl_number = max(self._crl_number + 1, int(now.timestamp() * 1000))
        der = crl.encode(
            self.identity,
            self._aki,
            revoked,
            number=self._crl_number,
            this_update=now - SKEW,
            next_update=now + CRL_LIFETIME,
        )
        self._crl = (now, len(revoked), der)
        return der

    def _validity(self, days: float, not_before: datetime | None) -> tuple[datetime, datetime]:
        lifetime = timedelta(days=days)
        if not_before is not None:
            return not_before, not_before + lifetime
        now = self._clock.now()
        first, last = self._dates
        start = max(now - SKEW, first)
        return start, max(start, min(now + lifetime, last))


def issue_server_identity(
    ca: CertificateAuthority, hosts: Sequence[str], key: PrivateKey, *, days: float = 398
) -> Identity:
    """A TLS server's identity for DNS names and IP addresses; the first is its common name."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    return ca.issue_identity(
        key,
        subject,
        days=days,
        extended_key_usage=(SERVER_AUTH,),
        alternative_names=[host_name(host) for host in hosts],
    )
