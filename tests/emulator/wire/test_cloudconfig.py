"""The cloud configuration: envelope, document, every form of answer, and the mapping from the assignment API."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.errors import EmulatorError
from emulator.wire import cloudconfig, json_object
from emulator.wire.cloudconfig import (
    CloudConfiguration,
    CloudConfigurationError,
    DeviceRequest,
    EnrollmentServer,
    Envelope,
    ManagedUser,
    NoConfiguration,
    Organization,
    decode_answer,
    decode_envelope,
    decode_request,
    encode_answer,
    encode_envelope,
    encode_request,
    from_assignment,
)
from tests.emulator.wire.certificates import certificate
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text
from tests.support import GOLDENS

JSON = "application/json"
REQUEST = DeviceRequest(serial_number="F7K2Q9XW4M", udid="00008110-001A34D90E38801E")
EXAMPLE = CloudConfiguration(
    organization=Organization(
        name="Example Inc",
        phone="555-0100",
        email="it@example.com",
        magic="0729093D-0001",
        department="IT",
    ),
    url="https://mdm.example.com/enroll",
    is_supervised=True,
    is_mandatory=True,
    is_mdm_removable=False,
    await_device_configured=True,
    skip_buddy_items=("Siri", "Privacy"),
    server_uid="F6E1E81A93837E1E87D6F4D99E235117",
)


def golden(name: str = "cloud-configuration.json") -> bytes:
    return (GOLDENS / "wire" / name).read_bytes()


def der64(number: int = 0) -> str:
    return base64.b64encode(certificate(number).public_bytes(Encoding.DER)).decode()


envelopes = st.builds(
    Envelope,
    payload=st.binary(max_size=40),
    payload_signature=st.binary(max_size=40),
    sign_cert=st.binary(max_size=40),
    intermediate_cert=st.binary(max_size=40),
)
maybe = st.none() | text
some_certificates = st.lists(st.integers(0, 2).map(certificate), max_size=2).map(tuple)
configurations = st.builds(
    CloudConfiguration,
    organization=st.builds(
        Organization,
        name=text,
        **{name: maybe for name in Organization.__slots__ if name != "name"},
    ),
    url=text,
    configuration_web_url=maybe,
    management_protocol_version=st.none() | st.integers(0, 9),
    is_supervised=st.booleans(),
    allow_pairing=st.booleans(),
    is_mandatory=st.booleans(),
    is_mdm_removable=st.booleans(),
    anchor_certs=some_certificates,
    supervision_host_certs=some_certificates,
    skip_buddy_items=st.lists(text, max_size=3).map(tuple),
    is_multi_user=st.booleans(),
    await_device_configured=st.booleans(),
    auto_advance_setup=st.booleans(),
    language=maybe,
    region=maybe,
    script=maybe,
    enrollment_server=st.none()
    | st.builds(
        EnrollmentServer,
        enrollment_url=text,
        enrollment_anchor_certificates=some_certificates,
        supported_features=st.none() | st.lists(text, max_size=2),
    ),
    server_uid=maybe,
    do_not_use_profile_from_backup=st.booleans(),
    has_undergone_migration=st.booleans(),
    provisional_expiry_ms=st.none() | st.integers(0, 1 << 45),
    migration_deadline=maybe,
    user=st.none() | st.builds(ManagedUser, ft_maid=maybe, ft_token=maybe),
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


# ---- the document ----


@settings(max_examples=50)
@given(configurations)
def test_decoding_undoes_encoding_a_configuration(configuration: CloudConfiguration) -> None:
    assert decode_answer(200, JSON, encode_answer(configuration)) == configuration


def test_the_golden_document_is_written_byte_for_byte_and_read_back() -> None:
    assert encode_answer(EXAMPLE) == golden()
    assert decode_answer(200, JSON, golden()) == EXAMPLE


def test_a_document_of_the_organization_alone_has_no_configuration_url() -> None:
    bare = decode_answer(200, JSON, b'{"org":{"name":"Example"},"unknown":{"more":[1]}}')
    assert bare == CloudConfiguration(organization=Organization(name="Example"))
    assert bare.url is None
    assert encode_answer(bare) == b'{"org":{"name":"Example"}}'


@pytest.mark.parametrize(
    ("supervised", "removable", "locked"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_locked_means_supervised_and_not_removable(
    supervised: bool, removable: bool, locked: bool
) -> None:
    configuration = CloudConfiguration(
        organization=Organization(name="n"),
        url="u",
        is_supervised=supervised,
        is_mdm_removable=removable,
    )
    assert configuration.locked is locked


def test_absent_flags_have_the_defaults_of_the_assignment_api() -> None:
    bare = decode_answer(200, JSON, b'{"org":{"name":"n"},"config":{"url":"u"}}')
    assert isinstance(bare, CloudConfiguration)
    assert (bare.is_mdm_removable, bare.allow_pairing) == (True, True)
    flags = (bare.is_supervised, bare.is_mandatory, bare.await_device_configured)
    assert flags == (False, False, False)


def changed(section: str, change: dict[str, Any], *, without: str = "") -> bytes:
    """The golden document with one section changed; an empty section name means the root."""
    fields = json.loads(golden())
    target = fields.setdefault(section, {}) if section else fields
    target.update(change)
    target.pop(without, None)
    return json_object.dumps(fields)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (changed("", {}, without="org"), "org: expected dictionary"),
        (changed("", {"org": "x"}), "org: expected dictionary, got 'string'"),
        (changed("org", {}, without="name"), "org.name: expected string"),
        (changed("org", {"phone": 5}), "org.phone: expected string, got 'integer'"),
        (changed("", {"config": []}), "config: expected dictionary, got 'array'"),
        (changed("config", {}, without="url"), "config.url: expected string"),
        (
            changed("config", {"is-supervised": "true"}),
            "config.is-supervised: expected boolean, got 'string'",
        ),
        (
            changed("config", {"is-mdm-removable": 0}),
            "config.is-mdm-removable: expected boolean, got 'integer'",
        ),
        (
            changed("config", {"management-protocol-version": "1"}),
            "config.management-protocol-version: expected integer, got 'string'",
        ),
        (
            changed("config", {"skip-buddy-items": "Siri"}),
            "config.skip-buddy-items: expected array, got 'string'",
        ),
        (
            changed("config", {"skip-buddy-items": ["Siri", 1]}),
            "config.skip-buddy-items[1]: expected string, got 'integer'",
        ),
        (
            changed("config", {"language": None}),
            "config.language: expected string, got 'null'",
        ),
        (
            changed("config", {"is-multi-user": True, "is-return-to-service": True}),
            "config.is-return-to-service: expected false when is-multi-user is true, got True",
        ),
        (
            changed("config", {"enrollment-server": {}}),
            "config.enrollment-server.enrollment-url: expected string",
        ),
        (changed("enrollment", {}), "enrollment.expiry: expected integer"),
        (
            changed("enrollment", {"expiry": "1"}),
            "enrollment.expiry: expected integer, got 'string'",
        ),
        (changed("mdm-migration", {}), "mdm-migration.deadline: expected string"),
        (changed("user", {"ft_maid": 1}), "user.ft_maid: expected string, got 'integer'"),
    ],
)
def test_a_broken_document_is_malformed_and_names_its_key(body: bytes, sentence: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_answer(200, JSON, body)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", ["AAAA", "?", der64()[:-8]])
def test_a_certificate_that_is_none_names_its_place(value: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_answer(200, JSON, changed("config", {"anchor-certs": [der64(), value]}))
    assert caught.value.field == "config.anchor-certs[1]"


@settings(max_examples=50)
@given(garbage | damaged(golden()), st.sampled_from([200, 204]))
def test_garbage_is_a_malformed_document(noise: bytes, status: int) -> None:
    survives(lambda data: decode_answer(status, JSON, data), noise)


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
    assert cloudconfig.ERROR_CODES == CODES
    assert cloudconfig.error_code("NONCE_EXPIRED") == 33014
    with pytest.raises(MalformedMessage):
        cloudconfig.error_code("HELLO")


# ---- from the assignment API ----

PORTAL = Organization(name="Example Inc", phone="555-0100", magic="portal", department="old")
ASSIGNED: dict[str, Any] = {
    "profile_name": "Phones",
    "url": "https://mdm.example.com/enroll",
    "configuration_web_url": "https://mdm.example.com/login",
    "allow_pairing": False,
    "is_supervised": True,
    "is_mandatory": True,
    "is_mdm_removable": False,
    "is_multi_user": True,
    "await_device_configured": True,
    "auto_advance_setup": True,
    "org_magic": "0729",
    "department": "IT",
    "support_phone_number": "555-0101",
    "support_email_address": "help@example.com",
    "anchor_certs": [der64(0)],
    "supervising_host_certs": [der64(1), der64(2)],
    "skip_setup_items": ["Siri"],
    "language": "de",
    "region": "AT",
    "do_not_use_profile_from_backup": True,
    "devices": ["F7K2Q9XW4M"],
}


def test_an_assignment_profile_becomes_the_device_side_document() -> None:
    fields = json.loads(encode_answer(from_assignment(ASSIGNED, PORTAL, server_uid="5EED")))
    assert fields == {
        "org": {
            "name": "Example Inc",
            "phone": "555-0100",
            "magic": "0729",
            "department": "IT",
            "support-phone-number": "555-0101",
            "support-email-address": "help@example.com",
        },
        "config": {
            "url": "https://mdm.example.com/enroll",
            "configuration-web-url": "https://mdm.example.com/login",
            "is-supervised": True,
            "is-mandatory": True,
            "is-mdm-removable": False,
            "allow-pairing": False,
            "await-device-configured": True,
            "skip-buddy-items": ["Siri"],
            "anchor-certs": [der64(0)],
            "supervision-host-certs": [der64(1), der64(2)],
            "is-multi-user": True,
            "auto-advance-setup": True,
            "language": "de",
            "region": "AT",
            "server-uid": "5EED",
            "do-not-use-profile-from-backup": True,
        },
    }


def test_a_short_assignment_profile_leaves_the_organization_as_the_portal_has_it() -> None:
    configuration = from_assignment({"url": "u"}, PORTAL, provisional_expiry_ms=7)
    assert configuration.organization == PORTAL
    assert configuration.provisional_expiry_ms == 7
    assert configuration.is_mdm_removable
    assert not configuration.is_return_to_service


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": 5}, "url"),
        ({"is_supervised": "yes"}, "is_supervised"),
        ({"anchor_certs": ["AAAA"]}, "anchor_certs[0]"),
        ({"skip_setup_items": [1]}, "skip_setup_items[0]"),
        ({"org_magic": 5}, "org_magic"),
        ({"is_return_to_service": True}, "config.is-return-to-service"),
    ],
)
def test_a_broken_assignment_profile_names_its_own_key(change: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        from_assignment({**ASSIGNED, **change}, PORTAL)
    assert caught.value.field == field
