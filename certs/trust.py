"""Does a certificate lead to a root that we trust? Path building and checking after RFC 5280, section 6.1, with the injected clock.

Accepts what Apple's hierarchies hold: leaves without SAN, AKI or EKU, and, where the caller says so (`at=None`), certificates
whose dates are over. Each refusal names the certificate at fault and why.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from certs import names
from certs.errors import UntrustedCertificate

MAX_CHAIN: Final = 8  # certificates from leaf to root
MAX_CANDIDATES: Final = 32  # what a peer may send along
MAX_SIGNATURE_CHECKS: Final = (
    32  # per verification: look-alike names cost a peer nothing, us 0.1 ms each
)

# What cryptography raises while it reads certificates of others, besides ValueError for bad DER.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

# Critical extensions whose meaning is enforced here or concerns only what the key is then used for.
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)


def verify_chain(
    leaf: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    roots: Iterable[x509.Certificate],
    *,
    at: datetime | None,
) -> list[x509.Certificate]:
    """Return the path from `leaf` to one of `roots`, or raise UntrustedCertificate.

    `at` is the time at which every certificate of the path must be valid; None leaves dates aside. The order of
    `intermediates` carries no meaning, and more may come than are needed.
    """
    return _PathSearch(intermediates, roots, at).path(leaf)


def check_dates(certificate: x509.Certificate, at: datetime) -> None:
    """Raise UntrustedCertificate unless `certificate` is valid at `at`."""
    if at < certificate.not_valid_before_utc:
        raise UntrustedCertificate(
            name_of(certificate), f"is not valid before {certificate.not_valid_before_utc:%FT%TZ}"
        )
    if at > certificate.not_valid_after_utc:
        raise UntrustedCertificate(
            name_of(certificate), f"expired on {certificate.not_valid_after_utc:%FT%TZ}"
        )


def name_of(certificate: x509.Certificate) -> str:
    """The subject for an error or a log, whatever the certificate holds."""
    try:
        return names.text(certificate.subject)
    except UNREADABLE:
        return "(unreadable subject)"


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """By name and signature, of SHA-1 too; whether `issuer` may, and when, is not looked at."""
    try:
        named = certificate.issuer == issuer.subject
        return named and _signature_is_valid(certificate, issuer)
    except UNREADABLE:
        return False


class _PathSearch:
    """Depth-first, trusted issuers before those that came along; remembers the refusal that got furthest."""

    def __init__(
        self,
        intermediates: Iterable[x509.Certificate],
        roots: Iterable[x509.Certificate],
        at: datetime | None,
    ) -> None:
        self.roots = list(roots)
        self.candidates = [*self.roots, *intermediates]
        self.at = at
        self.signature_checks = 0
        self.refusal: tuple[int, UntrustedCertificate] | None = None

    def path(self, leaf: x509.Certificate) -> list[x509.Certificate]:
        if len(self.candidates) - len(self.roots) > MAX_CANDIDATES:
            raise UntrustedCertificate(
                name_of(leaf), f"came with more than {MAX_CANDIDATES} other certificates"
            )
        self.candidates = [c for c in self.candidates if _has_names_and_dates(c)]
        if not _has_names_and_dates(leaf):
            raise UntrustedCertificate(name_of(leaf), "has an unreadable name or date")
        found = self._extend([leaf])
        if found is not None:
            return found
        assert self.refusal is not None
        raise self.refusal[1]

    def _extend(self, path: list[x509.Certificate]) -> list[x509.Certificate] | None:
        """Complete a path whose last certificate is known to be the issuer of the one before."""
        last = path[-1]
        try:
            self._check(path)
        except UntrustedCertificate as error:
            self._refused(len(path), error)
            return None
        if last in self.roots:
            return path
        if len(path) == MAX_CHAIN:
            self._refused(
                len(path),
                UntrustedCertificate(
                    name_of(path[0]), f"chain is longer than {MAX_CHAIN} certificates"
                ),
            )
            return None
        issuer_name = _names(last)[1]
        named = [c for c in self.candidates if c not in path and _names(c)[0] == issuer_name]
        for issuer in named:
            if self.signature_checks == MAX_SIGNATURE_CHECKS:
                break
            if not self._signed(last, issuer):
                continue
            found = self._extend([*path, issuer])
            if found is not None:
                return found
        self._refused(len(path), _no_issuer(last, bool(named)))
        return None

    def _check(self, path: list[x509.Certificate]) -> None:
        last = path[-1]
        if self.at is not None:
            check_dates(last, self.at)
        try:
            extensions = last.extensions
        except UNREADABLE as error:
            raise UntrustedCertificate(
                name_of(last), f"has an unreadable extension: {error}"
            ) from None
        for extension in extensions:
            if extension.critical and extension.oid not in _UNDERSTOOD:
                raise UntrustedCertificate(
                    name_of(last),
                    f"has the unknown critical extension {extension.oid.dotted_string}",
                )
        if len(path) > 1:
            # Self-issued certificates, as a CA makes when it changes keys, do not count (RFC 5280, 6.1.4 l).
            below = sum(1 for c in path[1:-1] if _names(c)[0] != _names(c)[1])
            _check_issuer(last, extensions, below)

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        self.signature_checks += 1
        try:
            # What a CA signed below another is asked again for each leaf; leaves are not worth remembering.
            if _is_ca(certificate):
                return _remembered_signature(certificate, issuer)
            return _signature_is_valid(certificate, issuer)
        except UNREADABLE:
            return False

    def _refused(self, depth: int, error: UntrustedCertificate) -> None:
        if self.refusal is None or depth > self.refusal[0]:
            self.refusal = depth, error


def _check_issuer(certificate: x509.Certificate, extensions: x509.Extensions, below: int) -> None:
    """May this certificate sign others, with `below` CA certificates between it and the leaf?"""
    if not _is_ca(certificate):
        raise UntrustedCertificate(name_of(certificate), "is not a CA certificate")
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    if constraints.path_length is not None and below > constraints.path_length:
        raise UntrustedCertificate(
            name_of(certificate),
            f"allows {constraints.path_length} CA certificates below it, not {below}",
        )
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        reason = "may not sign certificates (key usage)"
        raise UntrustedCertificate(name_of(certificate), reason)


def _no_issuer(certificate: x509.Certificate, named: bool) -> UntrustedCertificate:
    name, issuer = name_of(certificate), names.text(certificate.issuer)
    if named:
        return UntrustedCertificate(name, f"is not signed by the {issuer} we know")
    if certificate.issuer == certificate.subject:
        return UntrustedCertificate(name, "is self-signed and not a trusted root")
    return UntrustedCertificate(name, f"its issuer {issuer} is not known")


def _has_names_and_dates(certificate: x509.Certificate) -> bool:
    """cryptography parses these only when they are asked for."""
    try:
        _ = (*_names(certificate), certificate.not_valid_before_utc)
        _ = certificate.not_valid_after_utc
    except UNREADABLE:
        return False
    return True


@lru_cache(maxsize=512)
def _names(certificate: x509.Certificate) -> tuple[x509.Name, x509.Name]:
    """Subject and issuer; parsed anew at each look otherwise, and the same few authorities are looked at for ever."""
    return certificate.subject, certificate.issuer


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


@lru_cache(maxsize=256)
def _remembered_signature(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    return _signature_is_valid(certificate, issuer)


def _signature_is_valid(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if certificate.signature_algorithm_oid in _SHA1:
            _verify_sha1(certificate, issuer)
        else:
            certificate.verify_directly_issued_by(issuer)
    except WrongSignature:
        return False
    return True


# Older device hierarchies are signed with SHA-1, which cryptography refuses in X.509 but not as such (certificates.md 0.7).
_SHA1: Final = (SignatureAlgorithmOID.RSA_WITH_SHA1, SignatureAlgorithmOID.ECDSA_WITH_SHA1)


def _verify_sha1(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    key = issuer.public_key()
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA1())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(hashes.SHA1()))
    else:
        raise WrongSignature
