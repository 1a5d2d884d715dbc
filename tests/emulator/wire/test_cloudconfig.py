"""Asking for the cloud configuration: envelope, request, and every form of answer."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.errors import EmulatorError
from emulator.wire import cloud_errors, json_object
from emulator.wire.cloudconfig import (
    CloudConfigurationError,
    DeviceRequest,
    Envelope,
    NoConfiguration,
    decode_answer,
    decode_envelope,
    decode_request,
    encode_envelope,
    encode_request,
)
from tests.emulator.wire.garbage import garbage, survives
from tests.support import GOLDENS

JSON = "application/json"
REQUEST = DeviceRequest(serial_number="F7K2Q9XW4M", udid="00008110-001A34D90E38801E")


def golden(name: str = "cloud-configuration.json") -> bytes:
    return (GOLDENS / "wire" / name).read_bytes()


envelopes = st.builds(
    Envelope,
    payload=st.binary(max_size=40),
    payload_signature=st.binary(max_size=40),
    sign_cert=st.binary(max_size=40),
    intermediate_cert=st.binary(max_size=40),
)
# ---- the request ----


@settings(max_examples=50)
@given(envelopes)
def test_decoding_undoes_encoding_an_envelope(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


@settings(max_examples=50)
@given(garbage)
def test_garbage_is_no_envelope_and_no_request(noise: bytes) -> None:
    survives(decode_envelope, noise)
    survives(decode_request, noise)


def test_the_golden_request_is_written_byte_for_byte_and_read_back() -> None:
    assert encode_request(REQUEST) == golden("cloud-configuration-request.json")
    assert decode_request(golden("cloud-configuration-request.json")) == REQUEST


def test_a_provisional_request_carries_its_nonce() -> None:
    request = DeviceRequest(
        serial_number="s", udid="u", action="RequestProvisionalEnrollment", nonce="n"
    )
    assert json.loads(encode_request(request))["nonce"] == "n"
    assert decode_request(encode_request(request)) == request


def test_the_payload_is_kept_exactly_as_it_was_signed() -> None:
    odd = b'{ "action":"x" ,\n"device":{"udid":"u","serial_number":"s","more":1}}'
    body = encode_envelope(
        Envelope(payload=odd, payload_signature=b"s", sign_cert=b"c", intermediate_cert=b"i")
    )
    assert decode_envelope(body).payload == odd
    assert decode_request(odd) == DeviceRequest(serial_number="s", udid="u", action="x")


@pytest.mark.parametrize(
    "member", ["payload", "payload_signature", "sign_cert", "intermediate_cert"]
)
def test_each_envelope_member_is_required_text_of_base64(member: str) -> None:
    good = {
        "payload": "YQ==",
        "payload_signature": "YQ==",
        "sign_cert": "YQ==",
        "intermediate_cert": "YQ==",
    }
    lines = {**good, member: "Y\r\nQ =\n="}
    assert decode_envelope(json_object.dumps(lines)) == decode_envelope(json_object.dumps(good))
    for value, expected in (
        (None, f"{member}: expected string, got 'null'"),
        (5, f"{member}: expected string, got 'integer'"),
        ("Y", f"{member}: expected base64"),
        ("YQ*=", f"{member}: expected base64"),
        ("YÄ==", f"{member}: expected base64"),
    ):
        with pytest.raises(MalformedMessage) as caught:
            decode_envelope(json_object.dumps({**good, member: value}))
        assert str(caught.value).startswith(expected)
    del good[member]
    with pytest.raises(MalformedMessage, match=f"^{member}: expected string$"):
        decode_envelope(json_object.dumps(good))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"action": "a"}, "device: expected dictionary"),
        ({"action": "a", "device": []}, "device: expected dictionary, got 'array'"),
        ({"action": "a", "device": {"udid": "u"}}, "device.serial_number: expected string"),
        ({"action": "a", "device": {"serial_number": "s"}}, "device.udid: expected string"),
        ({"device": {"serial_number": "s", "udid": "u"}}, "action: expected string"),
    ],
)
def test_a_broken_request_names_its_member(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_request(json_object.dumps(fields))
    assert str(caught.value) == sentence


# ---- JSON itself ----


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{} trailing",
        b"\xff{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        json_object.loads(data, "body")


def test_a_json_text_over_the_size_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_object, "MAX_BODY_BYTES", 10)
    with pytest.raises(MalformedMessage, match="at most 10 bytes"):
        json_object.loads(b'{"key": "value"}', "body")


def test_escaped_and_plain_text_mean_the_same() -> None:
    assert json_object.loads(b'{"a":"\\u00e4\\ud83d\\ude00"}', "body") == {"a": "ä😀"}
    assert json_object.dumps({"a": "ä"}) == '{"a":"ä"}'.encode()


# ---- the table of 3.4 ----


@pytest.mark.parametrize(
    "word",
    ["PROFILE_NOT_FOUND", "DEVICE_NOT_FOUND", "PROFILE_NOT_ACTIVE", "SOMETHING_NEW", ""],
)
def test_a_word_as_plain_text_with_200_means_no_configuration(word: str) -> None:
    body = f"  {word}\r\n".encode()
    assert decode_answer(200, "text/plain", body) == NoConfiguration(word=word)


@pytest.mark.parametrize("content_type", [JSON, "", "text/html"])
def test_a_word_with_200_under_another_type_is_a_broken_document(content_type: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_answer(200, content_type, b"PROFILE_NOT_FOUND")


def test_an_empty_204_is_a_broken_document() -> None:
    with pytest.raises(MalformedMessage):
        decode_answer(204, "text/plain", b"")


CODES = {
    "DEVICE_NOT_ENROLLED": 33005,
    "INVALID_PROFILE": 33002,
    "PROFILE_NOT_ACTIVE": 33017,
    "CANNOT_ENROLL": 33018,
    "INVALID_DEVICE": 33023,
    "PROFILE_NOT_FOUND": 33024,
    "DEVICE_NOT_FOUND": 33025,
    "NONCE_EXPIRED": 33014,
    "INVALID_SIGNATURE": 33016,
}


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("word", CODES)
def test_a_known_word_has_its_code(word: str, status: int) -> None:
    with pytest.raises(CloudConfigurationError) as caught:
        decode_answer(status, "text/plain", f"{word} ".encode())
    assert (caught.value.word, caught.value.code) == (word, CODES[word])
    assert isinstance(caught.value, EmulatorError)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, b"WHATEVER", 34000),
        (401, b"", 34000),
        (401, b'"INVALID_SIGNATURE"', 34000),  # quoted words are another program's habit
        (400, b"WHATEVER", 34004),
        (403, b"INVALID_SIGNATURE", 34004),
        (404, b"", 34004),
        (500, b"<html>", 34004),
        (502, b"x" * 100_000, 34004),
        (503, b"", 34006),
        (302, b"", 34004),
    ],
)
def test_every_other_answer_has_the_general_code(status: int, body: bytes, code: int) -> None:
    with pytest.raises(CloudConfigurationError) as caught:
        decode_answer(status, "text/plain", body)
    assert caught.value.code == code
    assert caught.value.status == status
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("word", ["INVALID_SIGNATURE", "DEVICE_NOT_ENROLLED"])
def test_an_error_word_with_200_is_still_an_error(word: str) -> None:
    with pytest.raises(CloudConfigurationError) as caught:
        decode_answer(200, "text/plain", word.encode())
    assert caught.value.code == CODES[word]


def test_words_and_codes_are_those_of_the_table() -> None:
    assert cloud_errors.ERROR_CODES == CODES
