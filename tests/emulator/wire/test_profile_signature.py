"""Certificates in profiles and signatures around them."""

import contextlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings

from certs import cms, names
from certs.errors import InvalidSignature, MalformedMessage
from emulator.wire.profile import (
    CertificatePayload,
    ScepPayload,
    decode,
    encode,
)
from tests.emulator.wire.certificates import certificate, identity
from tests.emulator.wire.garbage import damaged
from tests.emulator.wire.profiles import ENROLLMENT, SCEP
from tests.support import openssl


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_certificate_payload_is_read_whichever_encoding_its_writer_chose(
    encoding: Encoding,
) -> None:
    payload = CertificatePayload(
        payload_type="com.apple.security.root",
        identifier="i",
        uuid="u",
        content=certificate().public_bytes(encoding),
    )
    assert payload.certificate() == certificate()


@pytest.mark.parametrize("content", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_certificate_payload_without_a_certificate_says_so(content: bytes) -> None:
    payload = CertificatePayload(
        payload_type="com.apple.security.pem", identifier="i", uuid="u", content=content
    )
    with pytest.raises(MalformedMessage, match="PayloadContent: expected a certificate"):
        payload.certificate()


def test_a_payload_subject_becomes_the_name_of_a_request() -> None:
    scep = SCEP.payloads[0]
    assert isinstance(scep, ScepPayload)
    assert names.from_subject(scep.subject).rfc4514_string() == "2.5.4.5=F7K2Q9XW4M,O=Example"


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("ber", [False, True])
def test_a_signed_profile_tells_who_signed_it(kind: str, ber: bool) -> None:
    signer = identity(kind)
    extra = (signer.certificate, certificate(7))
    wire = cms.sign(encode(ENROLLMENT), signer, certificates=extra, ber=ber)
    profile = decode(wire)
    assert profile == ENROLLMENT
    assert profile.is_signed
    assert profile.signer_certificates == extra
    assert profile.raw == wire
    assert not decode(encode(ENROLLMENT)).is_signed


def test_a_signed_profile_with_one_letter_changed_is_refused() -> None:
    wire = cms.sign(encode(ENROLLMENT), identity("ec"))
    with pytest.raises(InvalidSignature):
        decode(wire.replace(b"Example Inc", b"Exbmple Inc"))


def test_a_detached_signature_is_no_profile() -> None:
    with pytest.raises(MalformedMessage, match="content inside the signed message"):
        decode(cms.sign(encode(ENROLLMENT), identity("ec"), detached=True))


SIGNED = cms.sign(encode(SCEP), identity("ec"))


@settings(max_examples=50)
@given(damaged(SIGNED))
def test_damage_to_a_signed_profile_never_yields_another_profile(wire: bytes) -> None:
    with contextlib.suppress(MalformedMessage, InvalidSignature):
        assert decode(wire) == SCEP  # where the damage hit a byte that says nothing


@pytest.mark.peer
def test_openssl_verifies_a_signed_profile() -> None:
    wire = cms.sign(encode(ENROLLMENT), identity())
    assert openssl("cms", "-verify", "-inform", "DER", "-noverify", stdin=wire) == encode(
        ENROLLMENT
    )
