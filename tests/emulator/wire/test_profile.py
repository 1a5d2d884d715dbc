"""Configuration profiles: goldens, round trips, certificates, and captured ones plain and signed."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.profile import (
    AcmePayload,
    CertificatePayload,
    MdmPayload,
    OtherPayload,
    Pkcs12Payload,
    Profile,
    ScepPayload,
    decode,
    encode,
)
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.profiles import ENROLLMENT, GOLDEN, SCEP, UUID, golden
from tests.emulator.wire.strategies import text, values
from tests.support import VECTORS, needs_vectors


@pytest.mark.parametrize("name", GOLDEN)
def test_goldens_are_written_byte_for_byte_and_read_back(name: str) -> None:
    assert encode(GOLDEN[name]) == golden(name)
    assert decode(golden(name)) == GOLDEN[name]


subjects = st.lists(st.tuples(st.tuples(text, text)), max_size=2).map(tuple)
header: dict[str, Any] = {
    "identifier": text,
    "uuid": text,
    "version": st.integers(0, 9),
    "display_name": st.none() | text,
    "description": st.none() | text,
    "organization": st.none() | text,
}
text_lists = st.lists(text, max_size=2).map(tuple)
payloads = st.one_of(
    st.builds(
        MdmPayload,
        **header,
        identity_certificate_uuid=text,
        topic=text,
        server_url=text,
        check_in_url=st.none() | text,
        sign_message=st.booleans(),
        access_rights=st.none() | st.integers(0, 8191),
        use_development_apns=st.booleans(),
        server_capabilities=text_lists,
        managed_apple_id=st.none() | text,
        assigned_managed_apple_id=st.none() | text,
        enrollment_mode=st.none() | text,
        server_url_pinning_certificate_uuids=text_lists,
        check_in_url_pinning_certificate_uuids=text_lists,
        pinning_revocation_check_required=st.booleans(),
        required_app_id_for_mdm=st.none() | st.integers(0, 1 << 40),
        prompt_user_to_allow_bootstrap_token_for_authentication=st.booleans(),
    ),
    st.builds(
        ScepPayload,
        **header,
        url=text,
        challenge=st.none() | text,
        subject=subjects,
        key_is_extractable=st.booleans(),
        allow_all_apps_access=st.booleans(),
        get_ca_caps=st.none() | text_lists,
        retry_delay_s=st.integers(0, 100),
    ),
    st.builds(
        AcmePayload,
        **header,
        directory_url=text,
        client_identifier=text,
        key_type=text,
        key_size=st.integers(0, 5000),
        hardware_bound=st.booleans(),
        attest=st.booleans(),
        subject=subjects,
        usage_flags=st.integers(0, 5),
        extended_key_usage=text_lists,
        key_is_extractable=st.booleans(),
    ),
    st.builds(
        CertificatePayload,
        **header,
        payload_type=st.sampled_from(
            [f"com.apple.security.{kind}" for kind in ("root", "pem", "pkcs1")]
        ),
        content=st.binary(max_size=30),
        file_name=st.none() | text,
    ),
    st.builds(Pkcs12Payload, **header, content=st.binary(max_size=30), password=st.none() | text),
    st.builds(
        OtherPayload,
        **header,
        payload_type=text.map("org.example.{}".format),
        fields=st.dictionaries(
            text.filter(lambda key: not key.startswith("Payload")), values, max_size=2
        ),
    ),
)
profiles = st.builds(
    Profile,
    **header,
    removal_disallowed=st.booleans(),
    has_removal_passcode=st.booleans(),
    payloads=st.lists(payloads, max_size=3).map(tuple),
    scope=st.none() | text,
    duration_until_removal_s=st.none() | st.floats(0, 1e9),
    target_device_type=st.none() | st.integers(0, 6),
    consent_text=st.none() | st.dictionaries(text, text, max_size=1),
)


@settings(max_examples=80)
@given(profiles)
def test_decoding_undoes_encoding(profile: Profile) -> None:
    wire = encode(profile)
    assert decode(wire) == profile
    assert decode(wire).raw == wire


@settings(max_examples=50)
@given(garbage | damaged(golden()) | damaged(golden("scep-payload.mobileconfig")))
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode, noise)


def test_an_encrypted_profile_keeps_its_envelope_and_needs_one() -> None:
    profile = Profile(
        identifier="a", uuid="b", is_encrypted=True, encrypted_payload_content=b"envelope"
    )
    assert decode(encode(profile)) == profile
    fields = plist.loads(encode(profile))
    del fields["EncryptedPayloadContent"]
    with pytest.raises(MalformedMessage, match="EncryptedPayloadContent: expected data"):
        decode(plist.dumps(fields))


def test_payloads_are_found_by_kind_and_by_uuid() -> None:
    assert ENROLLMENT.mdm is ENROLLMENT.payloads[2]
    assert ENROLLMENT.payload(UUID + "2") is ENROLLMENT.payloads[1]
    assert ENROLLMENT.payload("other") is None
    assert SCEP.mdm is None


def test_secrets_do_not_show_in_a_log() -> None:
    shown = (
        repr(ENROLLMENT)
        + repr(SCEP)
        + repr(Pkcs12Payload(identifier="i", uuid="u", content=b"pkcs12", password="hush"))
    )
    for secret in ("one-time-code", "once", "hush", "pkcs12"):
        assert repr(secret) not in shown
        assert repr(secret.encode()) not in shown


# ---- captured profiles ----

PAYLOAD_FACT = re.compile(r"payload `([^ ]+) \(id ([^)]*)\)")
FACT = re.compile(r"\b(Payload[A-Za-z]+)=`([^`]*)`")


def captured() -> list[tuple[str, dict[str, str], list[tuple[str, str]]]]:
    index = VECTORS / "profiles" / "INDEX.md"
    rows = index.read_text().splitlines() if index.is_file() else []
    return [
        (row.split("`")[1], dict(FACT.findall(row)), PAYLOAD_FACT.findall(row))
        for row in rows
        if row.startswith("| `")
    ]


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(("name", "wanted", "inside"), captured())
def test_captured_profiles_decode_to_the_facts_of_their_index(
    name: str, wanted: dict[str, str], inside: list[tuple[str, str]]
) -> None:
    profile = decode((VECTORS / "profiles" / name).read_bytes())
    assert profile.identifier == wanted["PayloadIdentifier"]
    assert profile.uuid == wanted["PayloadUUID"]
    assert [(item.payload_type, item.identifier) for item in profile.payloads] == inside
    assert profile.is_signed is name.endswith(".signed.mobileconfig")
    assert decode(encode(profile)) == profile


@needs_vectors
@pytest.mark.vectors
def test_all_captured_profiles_are_looked_at() -> None:
    files = {path.name for path in (VECTORS / "profiles").glob("*.mobileconfig")}
    assert {name for name, _, _ in captured()} == files
    assert len(files) == 31


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(
    "twin", sorted((VECTORS / "profiles").glob("*.signed.mobileconfig")), ids=lambda p: p.name
)
def test_a_captured_signed_profile_was_signed_by_the_leaf(twin: Any) -> None:
    signed = decode(twin.read_bytes())
    leaf, issuer = signed.signer_certificates
    assert leaf.subject.rfc4514_string() == "CN=encrypted-dns.brunch.io"
    assert leaf.issuer == issuer.subject


@needs_vectors
@pytest.mark.vectors
def test_the_captured_enrollment_profile_says_where_and_how() -> None:
    profile = decode((VECTORS / "profiles" / "enroll-nanomdm.mobileconfig").read_bytes())
    scep, mdm = profile.payloads
    assert isinstance(scep, ScepPayload)
    assert isinstance(mdm, MdmPayload)
    assert (scep.url, scep.keysize, scep.key_usage, scep.challenge) == (
        "https://mdm.example.org/scep",
        2048,
        5,
        "SCEP-CHALLENGE-HERE",
    )
    assert mdm.server_url == "https://mdm.example.org/mdm"
    assert (mdm.access_rights, mdm.sign_message) == (8191, True)
    assert mdm.identity_certificate_uuid == scep.uuid
    assert mdm.server_capabilities[2] == "com.apple.mdm.token"


@needs_vectors
@pytest.mark.vectors
def test_the_captured_scep_profile_has_a_real_version_and_a_pem_root() -> None:
    profile = decode((VECTORS / "profiles" / "sceptest-micromdm-scep.mobileconfig").read_bytes())
    scep, root = profile.payloads
    assert isinstance(scep, ScepPayload)
    assert isinstance(root, CertificatePayload)
    assert (scep.version, scep.keysize, scep.challenge) == (1, 1024, None)
    assert root.file_name == "ca.crt"
    assert b"-----BEGIN" in root.content  # in a payload whose type means DER
    assert root.certificate().serial_number == 1
