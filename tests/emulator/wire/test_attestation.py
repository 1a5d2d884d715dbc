"""Asking the attestation service: round trips, damage, keys."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from certs.keys import spki_der
from emulator.wire import json_object
from emulator.wire.attestation import (
    AttestationAnswer,
    AttestationRequest,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from tests.emulator.wire.certificates import certificate, ec_key
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text

REQUEST = AttestationRequest(
    serial_number="F7K2Q9XW4M",
    udid="00008110-001A34D90E38801E",
    public_key=spki_der(ec_key().public_key()),
    freshness=b"\x01\x02",
    os_version="18.1",
)
ANSWER = AttestationAnswer(x5c=(certificate(0), certificate(1)))


@settings(max_examples=50)
@given(
    st.builds(
        AttestationRequest,
        serial_number=text,
        udid=text,
        public_key=st.binary(max_size=40),
        freshness=st.none() | st.binary(max_size=32),
        os_version=st.none() | text,
        user_enrollment=st.booleans(),
    )
)
def test_decoding_undoes_encoding_a_request(request: AttestationRequest) -> None:
    assert decode_request(encode_request(request)) == request


def test_the_request_is_written_as_the_service_expects() -> None:
    fields = json.loads(encode_request(REQUEST))
    assert list(fields) == ["device", "action", "public_key", "freshness", "os_version"]
    assert fields["action"] == "RequestAttestation"
    assert fields["freshness"] == "AQI="
    hidden = json.loads(encode_request(replace(REQUEST, user_enrollment=True)))
    assert hidden == {**fields, "user_enrollment": True}


def test_the_answer_keeps_the_chain_in_order() -> None:
    assert decode_answer(encode_answer(ANSWER)) == ANSWER


@settings(max_examples=50)
@given(garbage | damaged(encode_request(REQUEST)) | damaged(encode_answer(ANSWER)))
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode_request, noise)
    survives(decode_answer, noise)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"device": None}, "device"),
        ({"device": {"serial_number": "s"}}, "device.udid"),
        ({"public_key": "*"}, "public_key"),
        ({"public_key": None}, "public_key"),
        ({"freshness": "*"}, "freshness"),
        ({"freshness": 5}, "freshness"),
        ({"os_version": 18.1}, "os_version"),
        ({"action": 1}, "action"),
    ],
)
def test_a_broken_request_names_its_member(change: dict[str, Any], field: str) -> None:
    fields = {**REQUEST.to_fields(), **change}
    with pytest.raises(MalformedMessage) as caught:
        decode_request(json_object.dumps(fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "x5c"),
        ({"x5c": []}, "x5c"),
        ({"x5c": "AAAA"}, "x5c"),
        ({"x5c": ["AAAA"]}, "x5c[0]"),
    ],
)
def test_a_broken_answer_names_its_member(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_answer(json_object.dumps(fields))
    assert caught.value.field == field


def test_the_key_to_attest_is_loaded() -> None:
    assert REQUEST.load_public_key() == ec_key().public_key()


def test_a_key_of_another_kind_or_none_is_malformed() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in (der, b"", b"\x30\x00"):
        request = AttestationRequest(serial_number="s", udid="u", public_key=key)
        with pytest.raises(MalformedMessage, match="public_key"):
            request.load_public_key()
