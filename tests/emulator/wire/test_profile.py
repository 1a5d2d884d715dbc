"""Configuration profiles: goldens, captured ones plain and signed, round trips, and errors that name payload and key."""

import contextlib
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import cms, names
from certs.errors import InvalidSignature, MalformedMessage
from emulator.wire import plist
from emulator.wire.profile import (
    AcmePayload,
    CertificatePayload,
    MalformedPayload,
    MdmPayload,
    OtherPayload,
    Pkcs12Payload,
    Profile,
    ScepPayload,
    decode,
    encode,
)
from tests.emulator.wire.certificates import certificate, identity
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text, values
from tests.support import GOLDENS, VECTORS, needs_vectors, openssl

UUID = "0B6F1A52-7C0A-4E0F-8C3F-5D9A40B1C00"
ENROLLMENT = Profile(
    identifier="org.example.enroll",
    uuid=UUID + "0",
    display_name="Enrollment",
    organization="Example Inc",
    removal_disallowed=True,
    payloads=(
        CertificatePayload(
            payload_type="com.apple.security.root",
            identifier="org.example.enroll.root",
            uuid=UUID + "1",
            content=bytes.fromhex("30030101ff"),
        ),
        AcmePayload(
            identifier="org.example.enroll.acme",
            uuid=UUID + "2",
            directory_url="https://mdm.example.org/acme/directory",
            client_identifier="one-time-code",
            key_type="ECSECPrimeRandom",
            key_size=384,
            hardware_bound=True,
            attest=True,
            subject=((("O", "Example"),), (("CN", "F7K2Q9XW4M"),)),
            usage_flags=1,
            extended_key_usage=("1.3.6.1.5.5.7.3.2",),
        ),
        MdmPayload(
            identifier="org.example.enroll.mdm",
            uuid=UUID + "3",
            identity_certificate_uuid=UUID + "2",
            topic="com.apple.mgmt.External.3f2c9a1e-5f1b-4d0e-9f7a-6f0c9f5a2b10",
            server_url="https://mdm.example.org/mdm",
            check_in_url="https://mdm.example.org/checkin",
            access_rights=8191,
            check_out_when_removed=True,
            sign_message=True,
            server_capabilities=("com.apple.mdm.token",),
        ),
    ),
)
SCEP = Profile(
    identifier="org.example.identity",
    uuid=UUID + "5",
    payloads=(
        ScepPayload(
            identifier="org.example.enroll.scep",
            uuid=UUID + "4",
            url="https://mdm.example.org/scep",
            name="CA-IDENT",
            challenge="once",
            keysize=2048,
            key_usage=5,
            retries=2,
            retry_delay_s=7,
            ca_fingerprint=bytes(range(20)),
            subject=((("O", "Example"),), (("2.5.4.5", "F7K2Q9XW4M"),)),
            subject_alt_name={
                "dNSName": ["a.example.org", "b.example.org"],
                "rfc822Name": "it@example.org",
            },
        ),
    ),
)
GOLDEN = {"enrollment-acme.mobileconfig": ENROLLMENT, "scep-payload.mobileconfig": SCEP}


def golden(name: str = "enrollment-acme.mobileconfig") -> bytes:
    return (GOLDENS / "wire" / name).read_bytes()


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


# ---- damage: one key changed, one exact error ----

ABSENT = object()


def broken(index: int, path: str, value: object, name: str = "enrollment-acme") -> bytes:
    """The golden with one key of one payload changed or left out; index -1 is the profile itself."""
    fields = plist.loads(golden(f"{name}.mobileconfig"))
    target = fields if index < 0 else fields["PayloadContent"][index]
    *parents, key = path.split("/")
    for parent in parents:
        target = target[parent]
    if value is ABSENT:
        del target[key]
    else:
        target[key] = value
    return plist.dumps(fields)


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (broken(-1, "PayloadType", ABSENT), "PayloadType: expected string"),
        (
            broken(-1, "PayloadType", "Profile Service"),
            "PayloadType: expected Configuration, got 'Profile Service'",
        ),
        (broken(-1, "PayloadIdentifier", ABSENT), "PayloadIdentifier: expected string"),
        (broken(-1, "PayloadUUID", 1), "PayloadUUID: expected string, got 'integer'"),
        (broken(-1, "PayloadVersion", ABSENT), "PayloadVersion: expected integer"),
        (broken(-1, "PayloadVersion", 1.5), "PayloadVersion: expected integer, got 'real'"),
        (broken(-1, "PayloadContent", ABSENT), "PayloadContent: expected array"),
        (broken(-1, "PayloadContent", {}), "PayloadContent: expected array, got 'dictionary'"),
        (
            broken(-1, "PayloadContent", [{}, "text"]),
            "PayloadContent[1]: expected dictionary, got 'string'",
        ),
        (
            broken(-1, "PayloadRemovalDisallowed", "yes"),
            "PayloadRemovalDisallowed: expected boolean, got 'string'",
        ),
    ],
)
def test_a_broken_profile_names_its_key(wire: bytes, sentence: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(wire)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("index", "path", "value", "field", "got"),
    [
        (0, "PayloadContent", ABSENT, "PayloadContent", None),
        (0, "PayloadContent", "text", "PayloadContent", "string"),
        (0, "PayloadUUID", ABSENT, "PayloadUUID", None),
        (1, "DirectoryURL", ABSENT, "DirectoryURL", None),
        (1, "ClientIdentifier", 5, "ClientIdentifier", "integer"),
        (1, "KeySize", "384", "KeySize", "string"),
        (1, "KeyType", ABSENT, "KeyType", None),
        (1, "HardwareBound", 1, "HardwareBound", "integer"),
        (1, "Attest", "true", "Attest", "string"),
        (1, "Subject", ABSENT, "Subject", None),
        (1, "Subject", [["CN", "x"]], "Subject[0][0]", "string"),
        (1, "Subject", [[["CN"]]], "Subject[0][0]", "array"),
        (1, "Subject", ["CN"], "Subject[0]", "string"),
        (1, "SubjectAltName", {"dNSName": 5}, "SubjectAltName.dNSName", "integer"),
        (1, "ExtendedKeyUsage", [1], "ExtendedKeyUsage[0]", "integer"),
        (1, "UsageFlags", True, "UsageFlags", "boolean"),
        (2, "ServerURL", ABSENT, "ServerURL", None),
        (2, "ServerURL", 5, "ServerURL", "integer"),
        (2, "IdentityCertificateUUID", ABSENT, "IdentityCertificateUUID", None),
        (2, "Topic", b"x", "Topic", "data"),
        (2, "CheckInURL", [], "CheckInURL", "array"),
        (2, "SignMessage", "yes", "SignMessage", "string"),
        (2, "AccessRights", "8191", "AccessRights", "string"),
        (2, "ServerCapabilities", "x", "ServerCapabilities", "string"),
        (2, "ServerCapabilities", ["a", 2], "ServerCapabilities[1]", "integer"),
        (2, "RequiredAppIDForMDM", 1.5, "RequiredAppIDForMDM", "real"),
    ],
)
def test_a_broken_payload_names_its_place_type_and_key(
    index: int, path: str, value: object, field: str, got: str | None
) -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(index, path, value))
    error = caught.value
    kind = ("com.apple.security.root", "com.apple.security.acme", "com.apple.mdm")[index]
    assert error.field == f"PayloadContent[{index}].{field}"
    assert (error.index, error.payload_type, error.got) == (index, kind, got)
    assert kind in str(error)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("PayloadContent", ABSENT, "PayloadContent"),
        ("PayloadContent/URL", ABSENT, "PayloadContent.URL"),
        ("PayloadContent/Keysize", "2048", "PayloadContent.Keysize"),
        ("PayloadContent/Key Usage", "5", "PayloadContent.Key Usage"),
        ("PayloadContent/Key Type", 1, "PayloadContent.Key Type"),
        ("PayloadContent/Challenge", b"x", "PayloadContent.Challenge"),
        ("PayloadContent/CAFingerprint", "00ff", "PayloadContent.CAFingerprint"),
        ("PayloadContent/Retries", "3", "PayloadContent.Retries"),
        ("PayloadContent/RetryDelay", [], "PayloadContent.RetryDelay"),
        ("PayloadContent/Subject", [[["CN", 5]]], "PayloadContent.Subject[0][0]"),
        (
            "PayloadContent/SubjectAltName",
            {"dNSName": ["a", 1]},
            "PayloadContent.SubjectAltName.dNSName[1]",
        ),
        ("PayloadContent/GetCACaps", ["a", 1], "PayloadContent.GetCACaps[1]"),
    ],
)
def test_a_broken_scep_payload_names_the_key_inside(path: str, value: object, field: str) -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(0, path, value, "scep-payload"))
    assert caught.value.field == f"PayloadContent[0].{field}"


def test_a_payload_without_a_type_is_named_by_its_place() -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(1, "PayloadType", ABSENT))
    assert caught.value.field == "PayloadContent[1].PayloadType"


def test_a_wrong_challenge_is_not_quoted() -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(0, "PayloadContent/Challenge", ["hush"], "scep-payload"))
    assert "hush" not in str(caught.value)


# ---- certificates and signatures ----


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
