"""What a certificate says about itself, whoever issues it: serial number, usages, constraints, marks.

`CertificateAuthority` signs with these; a CSR or a test may ask for the same shapes.
"""

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs import der
from certs.keys import PrivateKey

Extensions = Sequence[tuple[x509.ExtensionType, bool]]  # with the critical flag

SIMULATED_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1.1")
# apple-services.md, section 9: every certificate of the simulated PKI carries this mark (DER UTF8String).
SIMULATED: Final = x509.UnrecognizedExtension(SIMULATED_OID, b"\x0c\x09SIMULATED")


def random_serial() -> int:
    """128 random bits, positive, never zero (RFC 5280, section 4.1.2.2 allows 20 octets)."""
    return int.from_bytes(os.urandom(16)) or 1


def key_usage(*names: str) -> x509.KeyUsage:
    """KeyUsage with just the named bits, named as cryptography does."""
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**bits, **dict.fromkeys(names, True)})


_LEAF: Final = (x509.BasicConstraints(ca=False, path_length=None), True)
_CA: Final = (x509.BasicConstraints(ca=True, path_length=None), True)
# An RSA CA may double as its own SCEP recipient, which clients recognise by the last two bits (certificates.md 1.3).
_USAGES: Final = {  # by (is a CA, has an RSA key)
    (False, False): key_usage("digital_signature"),
    (False, True): key_usage("digital_signature", "key_encipherment"),
    (True, False): key_usage("key_cert_sign", "crl_sign"),
    (True, True): key_usage("key_cert_sign", "crl_sign", "digital_signature", "key_encipherment"),
}


def usages(
    is_rsa: bool,
    ca: bool,
    usage: x509.KeyUsage | None,
    extended: Sequence[x509.ObjectIdentifier],
) -> list[tuple[x509.ExtensionType, bool]]:
    """What every certificate says about itself, whoever issues it; usage None is what goes with an RSA or EC key."""
    if usage is None:
        usage = _USAGES[ca, is_rsa]
    extensions: list[tuple[x509.ExtensionType, bool]] = [_CA if ca else _LEAF, (usage, True)]
    if extended:
        extensions.append((x509.ExtendedKeyUsage(extended), False))
    return extensions


def key_identifier(spki: bytes) -> bytes:
    """Of a key as SubjectPublicKeyInfo: the SHA-1 of its bits (RFC 5280, section 4.2.1.2, method 1)."""
    bits = der.read(spki).children()[1].bits()
    return hashlib.sha1(bits, usedforsecurity=False).digest()


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash that goes with a key's size (RFC 5480, section 4)."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:
        return hashes.SHA384() if key.key_size == 384 else hashes.SHA512()
    return hashes.SHA256()


def simulated_mark(certificate: x509.Certificate) -> list[tuple[x509.ExtensionType, bool]]:
    """What is issued under a simulated CA is simulated, too."""
    try:
        certificate.extensions.get_extension_for_oid(SIMULATED_OID)
    except x509.ExtensionNotFound:
        return []
    return [(SIMULATED, False)]


def distribution_point(url: str) -> x509.CRLDistributionPoints:
    """Where the issuer's revocation list is (RFC 5280, section 4.2.1.13)."""
    return x509.CRLDistributionPoints(
        [
            x509.DistributionPoint(
                full_name=[x509.UniformResourceIdentifier(url)],
                relative_name=None,
                reasons=None,
                crl_issuer=None,
            )
        ]
    )


def host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)
