"""The Cryptographic Message Syntax (RFC 5652): the door to reading (`cms_signed`), sealing (`cms_enveloped`) and, here,
signing.

What is written is a template around one signature, so that signing costs the private-key operation and little more.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import algorithms, der
from certs.algorithms import Cipher, UnsupportedAlgorithm
from certs.certificate_parts import (
    der_of,
    issuer_and_serial,
    issuer_der,
    public_key,
    rsa_public_key,
    subject_der,
    subject_key_identifier,
)
from certs.cms_enveloped import (
    DATA,
    OF_DATA,
    Oaep,
    cipher_of,
    decrypt,
    encrypt,
)
from certs.cms_signed import (
    CONTENT_TYPE,
    MESSAGE_DIGEST,
    SIGNED_DATA,
    SIGNING_TIME,
    SignedData,
    SignerInfo,
    decode_certs_only,
    decode_signed,
    load_certificate,
    verify_signed,
)
from certs.identity import Identity

__all__ = [
    "DATA",
    "Cipher",
    "Oaep",
    "SignedData",
    "SignerInfo",
    "UnsupportedAlgorithm",
    "certs_only",
    "cipher_of",
    "decode_certs_only",
    "decode_signed",
    "decrypt",
    "encrypt",
    "issuer_and_serial",
    "issuer_der",
    "load_certificate",
    "public_key",
    "rsa_public_key",
    "sign",
    "subject_der",
    "subject_key_identifier",
    "verify_signed",
]


VERSION_1: Final = der.integer(1)
EMPTY_SET: Final = der.tlv(der.SET)
OF_SIGNED_DATA: Final = der.oid(SIGNED_DATA)
OF_MESSAGE_DIGEST: Final = der.oid(MESSAGE_DIGEST)
OF_SIGNING_TIME: Final = der.oid(SIGNING_TIME)


def attribute(dotted: str, value: bytes) -> bytes:
    """Attribute with one value, a whole DER element."""
    name = der.oid(dotted)
    if len(name) + len(value) < 0x7E:  # all that is usual, in one go
        return b"0%c%b1%c%b" % (len(name) + len(value) + 2, name, len(value), value)
    return der.sequence(name, der.tlv(der.SET, value))


CONTENT_IS_DATA: Final = attribute(CONTENT_TYPE, OF_DATA)


def sign(
    content: bytes,
    identity: Identity,
    *,
    digest: str = "sha256",
    detached: bool = False,
    signed_attributes: bool = True,
    signing_time: datetime | None = None,
    extra_attributes: Sequence[tuple[str, bytes]] = (),
    certificates: Sequence[x509.Certificate] | None = None,
    ber: bool = False,
) -> bytes:
    """A ContentInfo with SignedData by one signer, RSA PKCS#1 v1.5 or ECDSA.

    `extra_attributes` are (OID, DER value). `certificates` None means the signer and its chain; empty means none.
    `ber` writes the outer levels with indefinite lengths, as Apple's encoders do.
    """
    to_sign, attributes = content, b""
    if signed_attributes:
        body = _signed_attributes(content, digest, signing_time, extra_attributes)
        to_sign, attributes = der.tlv(der.SET, body), der.context(0, body)
    is_rsa = isinstance(identity.key, rsa.RSAPrivateKey)
    signer = der.sequence(
        VERSION_1,
        issuer_and_serial(identity.certificate),
        algorithms.digest_identifier(digest),
        attributes,
        algorithms.signature_identifier(
            "rsa" if is_rsa else "ec",
            # Messages without attributes were captured with the digest in the name (Mdm-Signature).
            None if is_rsa and signed_attributes else digest,
        ),
        der.octet_string(algorithms.sign(identity.key, to_sign, digest)),
    )
    if certificates is None:
        certificates = (identity.certificate, *identity.chain)
    return _signed_data(
        None if detached else content,
        algorithms.digest_identifier(digest),
        certificates,
        signer,
        ber,
    )


def _signed_attributes(
    content: bytes,
    digest: str,
    signing_time: datetime | None,
    extra_attributes: Sequence[tuple[str, bytes]],
) -> bytes:
    """The members of the SET, in DER order."""
    members = [
        CONTENT_IS_DATA,
        der.sequence(
            OF_MESSAGE_DIGEST,
            der.tlv(der.SET, der.octet_string(algorithms.digest(digest, content))),
        ),
    ]
    if signing_time is not None:
        members.append(der.sequence(OF_SIGNING_TIME, der.tlv(der.SET, der.time(signing_time))))
    members += [attribute(dotted, value) for dotted, value in extra_attributes]
    members.sort()
    return b"".join(members)


def _signed_data(
    content: bytes | None,
    digest_algorithm: bytes,
    certificates: Sequence[x509.Certificate],
    signer: bytes,
    ber: bool,
) -> bytes:
    # Certificates stay in the order given: peers look at the first, and RFC 5652 lets the set be BER.
    set_of_certificates = (
        der.context(0, *dict.fromkeys(der_of(certificate) for certificate in certificates))
        if certificates
        else b""
    )
    digests = der.tlv(der.SET, digest_algorithm)
    signers = der.tlv(der.SET, signer)
    if ber:
        inner = (
            b""
            if content is None
            else der.indefinite(0xA0, der.indefinite(0x24, der.octet_string(content)))
        )
        body = der.indefinite(
            der.SEQUENCE,
            der.integer(1),
            digests,
            der.indefinite(der.SEQUENCE, der.oid(DATA), inner),
            set_of_certificates,
            signers,
        )
        return der.indefinite(der.SEQUENCE, der.oid(SIGNED_DATA), der.indefinite(0xA0, body))
    inner = b"" if content is None else der.context(0, der.octet_string(content))
    body = der.sequence(
        VERSION_1, digests, der.sequence(OF_DATA, inner), set_of_certificates, signers
    )
    return der.sequence(OF_SIGNED_DATA, der.context(0, body))


def certs_only(certificates: Iterable[x509.Certificate]) -> bytes:
    """The degenerate SignedData that only carries certificates (RFC 8894, section 3.4).

    Their order is that of DER and means nothing: a CertRep whose readers take the first holds the leaf alone.
    """
    ders = sorted(der_of(certificate) for certificate in certificates)
    body = der.sequence(
        VERSION_1, EMPTY_SET, der.sequence(OF_DATA), der.context(0, *ders), EMPTY_SET
    )
    return der.sequence(OF_SIGNED_DATA, der.context(0, body))
