"""Algorithm identifiers of CMS and PKCS#10: which digests, signatures and content ciphers this project speaks.

cryptography refuses SHA-1 in X.509 objects and DES anywhere near CMS; peers use both (SCEP servers in Go answer with
DES-CBC and SHA-1), so signatures are checked here with raw keys.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from cryptography import exceptions
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import CipherAlgorithm
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from certs import der
from certs.errors import InvalidSignature, MalformedMessage
from certs.keys import PrivateKey

Cipher = Literal["aes128", "aes192", "aes256", "des3", "des"]

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
NEW_HASH: Final = {
    "sha1": hashlib.sha1,
    "sha224": hashlib.sha224,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}
ECDSA: Final = {name: ec.ECDSA(algorithm) for name, algorithm in HASHES.items()}
PKCS1_V15: Final = padding.PKCS1v15()
MAX_KEPT_IDENTIFIER: Final = 64  # bytes
DIGEST_OIDS: Final = {
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
DIGESTS: Final = {dotted: name for name, dotted in DIGEST_OIDS.items()}

RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
RSASSA_PSS: Final = "1.2.840.113549.1.1.10"
RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
MGF1: Final = "1.2.840.113549.1.1.8"
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"  # as a signature algorithm: old encoders
RSA_SIGNATURE_OIDS: Final = {
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
ECDSA_OIDS: Final = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
RSA_SIGNATURES: Final = {dotted: name for name, dotted in RSA_SIGNATURE_OIDS.items()}
ECDSA_SIGNATURES: Final = {dotted: name for name, dotted in ECDSA_OIDS.items()}


@dataclass(frozen=True, slots=True)
class ContentCipher:
    """A CBC cipher of EnvelopedData; sizes in bytes."""

    name: Cipher
    oid: str
    key_size: int
    block_size: int
    algorithm: type[AES] | type[TripleDES]

    def new(self, key: bytes) -> CipherAlgorithm:
        # Encrypt, decrypt, encrypt with one key thrice is single DES.
        return self.algorithm(key * 3 if self.key_size == 8 else key)


CIPHERS: Final[dict[str, ContentCipher]] = {
    cipher.name: cipher
    for cipher in (
        ContentCipher("aes128", "2.16.840.1.101.3.4.1.2", 16, 16, AES),
        ContentCipher("aes192", "2.16.840.1.101.3.4.1.22", 24, 16, AES),
        ContentCipher("aes256", "2.16.840.1.101.3.4.1.42", 32, 16, AES),
        ContentCipher("des3", "1.2.840.113549.3.7", 24, 8, TripleDES),
        ContentCipher("des", "1.3.14.3.2.7", 8, 8, TripleDES),
    )
}
CIPHER_BY_OID: Final = {cipher.oid: cipher for cipher in CIPHERS.values()}


class UnsupportedAlgorithm(MalformedMessage):
    """A well-formed message asks for an algorithm that this project does not speak (SCEP: badAlg)."""


def digest(name: str, data: bytes) -> bytes:
    """The digest of `data`; `name` is a key of DIGEST_OIDS."""
    return NEW_HASH[name](data, usedforsecurity=False).digest()


@lru_cache(maxsize=64)
def digest_identifier(name: str) -> bytes:
    """AlgorithmIdentifier of a digest, with the NULL that every peer writes."""
    return der.sequence(der.oid(DIGEST_OIDS[name]), der.null())


@lru_cache(maxsize=64)
def signature_identifier(key_type: Literal["rsa", "ec"], digest_name: str | None) -> bytes:
    """AlgorithmIdentifier of a signature; with `digest_name` None plain rsaEncryption, the usual one in CMS."""
    if key_type == "ec":
        return der.sequence(der.oid(ECDSA_OIDS[digest_name or "sha256"]))
    dotted = RSA_ENCRYPTION if digest_name is None else RSA_SIGNATURE_OIDS[digest_name]
    return der.sequence(der.oid(dotted), der.null())


def sign(key: PrivateKey, data: bytes, digest_name: str) -> bytes:
    """PKCS#1 v1.5 or ECDSA over the digest of `data`."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, PKCS1_V15, HASHES[digest_name])
    return key.sign(data, ECDSA[digest_name])


def verify(
    public_key: object,
    algorithm: der.Node,
    signature: bytes,
    data: bytes,
    *,
    what: str,
    digest_name: str | None = None,
) -> None:
    """Check a signature by its AlgorithmIdentifier; `digest_name` is what the message names elsewhere, as CMS does.

    Raises InvalidSignature, UnsupportedAlgorithm, or MalformedMessage for an identifier that is none.
    """
    dotted = oid_of(algorithm)
    try:
        if isinstance(public_key, rsa.RSAPublicKey):
            name, scheme = _rsa_scheme(dotted, algorithm, digest_name)
            public_key.verify(signature, data, scheme, HASHES[name])
        elif isinstance(public_key, ec.EllipticCurvePublicKey):
            named = ECDSA_SIGNATURES.get(dotted)
            if named is None and (dotted != EC_PUBLIC_KEY or digest_name is None):
                raise UnsupportedAlgorithm(algorithm.field, "an ECDSA signature", dotted)
            public_key.verify(signature, data, ECDSA[digest_name or named or ""])
        else:
            raise UnsupportedAlgorithm(
                algorithm.field, "an RSA or EC key", type(public_key).__name__
            )
    except exceptions.InvalidSignature:
        raise InvalidSignature(what) from None
    except (ValueError, exceptions.UnsupportedAlgorithm) as error:
        raise InvalidSignature(what) from error


def oid_of(algorithm: der.Node) -> str:
    """The OID of an AlgorithmIdentifier; the same few come in every message, so they are read once."""
    if len(algorithm.raw) > MAX_KEPT_IDENTIFIER:
        return algorithm.items(der.SEQUENCE, 1)[0].as_oid()
    return _oid_of(algorithm.raw, algorithm.field)


@lru_cache(maxsize=256)
def _oid_of(raw: bytes, field: str) -> str:
    return der.read(raw, field).items(der.SEQUENCE, 1)[0].as_oid()


def _rsa_scheme(
    dotted: str, algorithm: der.Node, digest_name: str | None
) -> tuple[str, padding.PKCS1v15 | padding.PSS]:
    """The digest and the padding an RSA signature algorithm stands for."""
    if dotted == RSASSA_PSS:
        return _pss(algorithm.children(), algorithm.field)
    name = digest_name or RSA_SIGNATURES.get(dotted)
    if name is None or (dotted != RSA_ENCRYPTION and dotted not in RSA_SIGNATURES):
        raise UnsupportedAlgorithm(algorithm.field, "an RSA signature", dotted)
    return name, PKCS1_V15


def _pss(parts: list[der.Node], field: str) -> tuple[str, padding.PSS]:
    """RSASSA-PSS-params (RFC 4055, section 3.1): [0] digest, [1] mask, [2] salt length, each with a default."""
    tagged = {node.tag: node for node in parts[1].children()} if len(parts) > 1 else {}
    name = mask = "sha1"
    if 0xA0 in tagged:
        name = read_digest(tagged[0xA0].items(0xA0, 1)[0])
    if 0xA1 in tagged:
        mask = read_mask(tagged[0xA1].items(0xA1, 1)[0])
    salt = tagged[0xA2].items(0xA2, 1)[0].as_int() if 0xA2 in tagged else 20
    if not 0 <= salt <= 1024:
        raise MalformedMessage(field, "a salt length of 0 to 1024", salt)
    return name, padding.PSS(padding.MGF1(HASHES[mask]), salt)


def read_digest(algorithm: der.Node) -> str:
    """The name of a digest AlgorithmIdentifier."""
    dotted = algorithm.items(der.SEQUENCE, 1)[0].as_oid()
    try:
        return DIGESTS[dotted]
    except KeyError:
        raise UnsupportedAlgorithm(algorithm.field, "SHA-1 or SHA-2", dotted) from None


def read_mask(algorithm: der.Node) -> str:
    """The digest inside an MGF1 AlgorithmIdentifier."""
    parts = algorithm.items(der.SEQUENCE, 1)
    if parts[0].as_oid() != MGF1:
        raise UnsupportedAlgorithm(algorithm.field, "MGF1", parts[0].as_oid())
    return read_digest(parts[1]) if len(parts) > 1 else "sha1"
