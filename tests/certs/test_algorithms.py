"""Signature algorithm identifiers as peers write them, and the exact error for each that is none."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding

from certs import algorithms, der
from certs.algorithms import UnsupportedAlgorithm, verify
from certs.errors import InvalidSignature, MalformedMessage
from certs.keys import generate
from tests.support import rsa_key

DATA = b"what is signed"
PSS, MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
SHA1, SHA256, MD5 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "1.2.840.113549.2.5"


def identifier(dotted: str, *parameters: bytes) -> bytes:
    return der.sequence(der.oid(dotted), *parameters)


def pss_parameters(digest: str, mask: bytes, salt: int) -> bytes:
    return der.sequence(
        der.context(0, identifier(digest)), der.context(1, mask), der.context(2, der.integer(salt))
    )


def checked(algorithm: bytes, signature: bytes, key: object = None) -> None:
    public = rsa_key().public_key() if key is None else key
    verify(public, der.read(algorithm), signature, DATA, what="test")


def pss_signature(digest: hashes.HashAlgorithm, salt: int) -> bytes:
    return rsa_key().sign(DATA, padding.PSS(padding.MGF1(digest), salt), digest)


def test_pss_without_parameters_is_sha1_with_a_salt_of_twenty() -> None:
    """RFC 4055, section 3.1: each parameter has a default."""
    signature = pss_signature(hashes.SHA1(), 20)
    for algorithm in (
        identifier(PSS),
        identifier(PSS, der.sequence()),
        identifier(PSS, pss_parameters(SHA1, identifier(MGF1), 20)),
    ):
        checked(algorithm, signature)
    with pytest.raises(InvalidSignature):
        checked(identifier(PSS), pss_signature(hashes.SHA256(), 20))


def test_pss_with_parameters_is_taken_at_its_word() -> None:
    mask = identifier(MGF1, identifier(SHA256))
    algorithm = identifier(PSS, pss_parameters(SHA256, mask, 32))
    checked(algorithm, pss_signature(hashes.SHA256(), 32))
    with pytest.raises(InvalidSignature):
        checked(algorithm, pss_signature(hashes.SHA256(), 20))


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (pss_parameters(MD5, identifier(MGF1), 20), "expected SHA-1 or SHA-2"),
        (pss_parameters(SHA256, identifier(SHA256), 20), "expected MGF1"),
        (pss_parameters(SHA256, identifier(MGF1, identifier(MD5)), 20), "expected SHA-1 or SHA-2"),
        (pss_parameters(SHA256, identifier(MGF1), 1025), "a salt length of 0 to 1024"),
        (pss_parameters(SHA256, identifier(MGF1), -1), "a salt length of 0 to 1024"),
    ],
)
def test_each_wrong_parameter_of_pss_is_named(parameters: bytes, error: str) -> None:
    with pytest.raises(MalformedMessage, match=error):
        checked(identifier(PSS, parameters), bytes(256))


def test_an_algorithm_must_be_of_the_keys_kind() -> None:
    ecdsa = algorithms.signature_identifier("ec", "sha256")
    with pytest.raises(UnsupportedAlgorithm, match="an RSA signature"):
        checked(ecdsa, b"")
    elliptic = generate("p256").public_key()
    with pytest.raises(UnsupportedAlgorithm, match="an ECDSA signature"):
        checked(algorithms.signature_identifier("rsa", "sha256"), b"", elliptic)
    odd = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(UnsupportedAlgorithm, match="an RSA or EC key"):
        checked(ecdsa, b"", odd)


def test_a_signature_that_cannot_be_one_is_invalid() -> None:
    elliptic = generate("p256").public_key()
    for signature in b"", b"\x30", bytes(64):
        with pytest.raises(InvalidSignature):
            checked(algorithms.signature_identifier("ec", "sha256"), signature, elliptic)
