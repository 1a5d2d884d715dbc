"""The cloud configuration document, and the mapping from the assignment API."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.cloudconfig import (
    CloudConfiguration,
    EnrollmentServer,
    ManagedUser,
    Organization,
    decode_answer,
    encode_answer,
    from_assignment,
)
from tests.emulator.wire.certificates import certificate
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text
from tests.support import GOLDENS

JSON = "application/json"
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
