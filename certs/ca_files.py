"""The files of a CA's folder: `key.pem` (0600) and `certificate.pem`."""

from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives import serialization

from certs.errors import MalformedMessage, UntrustedCertificate
from certs.identity import _matching
from certs.keys import PrivateKey

log = structlog.get_logger()


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def own_key(path: Path) -> PrivateKey:
    """A CA's key, which we wrote and which nobody else may read. Raises MalformedMessage."""
    if path.stat().st_mode & 0o077:
        log.warning("key_file_was_open_to_others", path=str(path))
        path.chmod(0o600)
    try:
        key = serialization.load_pem_private_key(
            path.read_bytes(), None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError) as error:
        raise MalformedMessage(str(path), "a private key in PEM", str(error)) from error
    if not isinstance(key, PrivateKey):
        raise MalformedMessage(str(path), "an RSA or EC key", type(key).__name__)
    return key


def own_certificate(
    path: Path, key: PrivateKey, parent: x509.Certificate | None
) -> tuple[PrivateKey, x509.Certificate]:
    """Key and certificate, which belong together. Raises MalformedMessage, and UntrustedCertificate when it is not below `parent`."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise MalformedMessage(str(path), "a certificate in PEM", str(error)) from error
    key, certificate = _matching(key, certificate, str(path))
    issuer = certificate if parent is None else parent
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, WrongSignature):
        raise UntrustedCertificate(
            certificate.subject.rfc4514_string(),
            f"was not issued by {issuer.subject.rfc4514_string()}",
        ) from None
    return key, certificate
