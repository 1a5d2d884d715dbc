"""The attestation object and the judgement of certificates.md 2.7, fault by fault."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import der
from certs.acme.device_attest import (
    AttestationObject,
    Unattested,
    check_permanent_identifier,
    freshness,
    judge,
    permanent_identifier_name,
    response,
    unattested_response,
)
from certs.acme.jws import base64url, key_authorization
from certs.attestation import Attestation, AttestationAuthority
from certs.authorize import Grant
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem, MalformedMessage
from certs.keys import generate, spki_der
from tests.support import VECTORS, needs_vectors

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY = AttestationAuthority.create(SimulatedClock(NOW))
KEY = generate("p384")
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
SERIAL, UDID = "C8QH6T96DPNG", "00008120-000000000000001E"
GRANT = Grant(reference="device", serial_number=SERIAL, udid=UDID)


def chain(authority: AttestationAuthority = AUTHORITY, **changed: Any) -> list[bytes]:
    facts: dict[str, Any] = {
        "serial_number": SERIAL,
        "udid": UDID,
        "freshness": freshness(TOKEN),
        "os_version": "18.5",
    }
    issued = authority.issue(KEY.public_key(), **{**facts, **changed})
    return [certificate.public_bytes(Encoding.DER) for certificate in issued]


def judged(payload: dict[str, Any], **changed: Any) -> Attestation | None:
    facts: dict[str, Any] = {
        "token": TOKEN,
        "identifier": SERIAL,
        "grant": GRANT,
        "roots": [AUTHORITY.root],
        "at": NOW,
        "allow_unattested": False,
    }
    return judge(payload, **{**facts, **changed})


def refusal(payload: dict[str, Any], **changed: Any) -> str:
    with pytest.raises(AcmeProblem) as caught:
        judged(payload, **changed)
    assert (caught.value.type, caught.value.status) == ("badAttestationStatement", 400)
    return caught.value.detail


@given(st.text(max_size=9), st.lists(st.binary(max_size=30), max_size=8))
@settings(max_examples=50, deadline=None)
def test_decoding_undoes_encoding(format_: str, certificates: list[bytes]) -> None:
    made = AttestationObject(format_, tuple(certificates))
    assert AttestationObject.decode(made.encode()) == made


def test_the_object_begins_as_apples() -> None:
    """certificates.md 2.5."""
    data = AttestationObject("apple", tuple(chain())).encode()
    head = "a2 63 666d74 65 6170706c65 67 61747453746d74 a1 63 783563 82 59"
    assert data.hex().startswith(head.replace(" ", ""))


def test_extra_members_and_indefinite_lengths_are_accepted() -> None:
    extra = cbor2.dumps(
        {"fmt": "apple", "attStmt": {"x5c": [b"1"], "alg": -7}, "authData": bytes(37), "n": 1.5}
    )
    assert AttestationObject.decode(extra) == AttestationObject("apple", (b"1",))
    indefinite = bytes.fromhex(
        "bf63666d74656170706c656761747453746d74bf637835639f5f41aa41bbffffffff"
    )
    assert AttestationObject.decode(indefinite) == AttestationObject("apple", (b"\xaa\xbb",))


@needs_vectors
@pytest.mark.parametrize(
    ("file", "format_"),
    [
        ("webauthn-apple-attestation.cbor", "apple"),
        ("appattest-ios-14.4-attestation.cbor", "apple-appattest"),
    ],
)
def test_genuine_objects_are_read(file: str, format_: str) -> None:
    found = AttestationObject.decode((VECTORS / "acme" / file).read_bytes())
    assert found.format == format_
    subjects = [x509.load_der_x509_certificate(der).subject for der in found.certificates]
    assert len(subjects) == 2
    assert all("O=Apple Inc." in subject.rfc4514_string() for subject in subjects)


@needs_vectors
def test_a_webauthn_attestation_is_no_device_attestation() -> None:
    """Same format name, another authority, the nonce in another extension (certificates.md 0.10)."""
    data = (VECTORS / "acme/webauthn-apple-attestation.cbor").read_bytes()
    sub_ca = x509.load_der_x509_certificate(AttestationObject.decode(data).certificates[1])
    day = datetime(2021, 9, 1, tzinfo=UTC)
    assert "CN=Apple WebAuthn Root CA,O=Apple Inc.,ST=California is not known" in refusal(
        {"attObj": base64url(data)}, at=day
    )
    detail = refusal({"attObj": base64url(data)}, roots=[sub_ca], at=day)
    assert detail == "the attestation carries no freshness code"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no cbor at all", "attObj"),
        (b"\x81" * 100_000, "attObj: expected at most 65536 bytes"),
        (b"\x81" * 60_000, "attObj: expected CBOR"),
        (b"\x5b" + b"\x7f" * 8, "attObj: expected CBOR"),
        (cbor2.dumps([1]), "attObj: expected a CBOR map"),
        (cbor2.dumps({}), "attObj.fmt: expected a text"),
        (cbor2.dumps({"fmt": 1}), "attObj.fmt: expected a text"),
        (cbor2.dumps({"fmt": "apple"}), "attObj.attStmt: expected a CBOR map"),
        (cbor2.dumps({"fmt": "apple", "attStmt": []}), "attObj.attStmt: expected a CBOR map"),
        (cbor2.dumps({"fmt": "apple", "attStmt": {}}), "expected at least one certificate"),
        (cbor2.dumps({"fmt": "apple", "attStmt": {"x5c": b"1"}}), "x5c: expected byte strings"),
        (cbor2.dumps({"fmt": "apple", "attStmt": {"x5c": ["1"]}}), "x5c: expected byte strings"),
        (cbor2.dumps({"fmt": "apple", "attStmt": {"x5c": [b""] * 9}}), "at most 8 certificates"),
        (cbor2.dumps({"fmt": "apple", "attStmt": {"x5c": [b"1"]}}), "a certificate in DER"),
        (cbor2.dumps({"fmt": "packed", "attStmt": {"x5c": [b"1"]}}), "attObj.fmt: expected apple"),
    ],
)
def test_a_damaged_object_is_a_bad_statement(data: bytes, reason: str) -> None:
    assert reason in refusal({"attObj": base64url(data)})


@given(st.binary(max_size=80))
@settings(max_examples=150, deadline=None)
def test_garbage_raises_only_malformed_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        AttestationObject.decode(data)


def _in_themselves(depth: int) -> bytes:
    """Lists of two, each twice in the next: cbor2 makes a few objects of it, printing or hashing them 2**depth."""
    opened = b"\xd8\x1c\x82" * depth + b"\x61a\x61b"  # tag 28: may be referred to
    return opened + b"".join(b"\xd8\x1d" + cbor2.dumps(level) for level in range(depth - 1, 0, -1))


TAGGED = {
    "a number that cannot be printed": cbor2.dumps({"fmt": 2**60000, "attStmt": {}}),
    "among the certificates": cbor2.dumps({"fmt": "apple", "attStmt": {"x5c": [2**60000]}}),
    "lists inside themselves": b"\xa2\x63fmt" + _in_themselves(60) + b"\x67attStmt\xa0",
    "lists inside themselves as a name": b"\xa1" + _in_themselves(60) + b"\x01",
    "after an indefinite text": b"\xa1\x63fmt\x7f\x61a\xff\xc1\x01",
    "after numbers of each length": b"\x88\x18\x01\x19\xc1\xc1\x1a"
    + b"\xc1" * 4
    + b"\xfb"
    + b"\xc1" * 9,
}


@pytest.mark.parametrize("data", TAGGED.values(), ids=TAGGED)
def test_a_tag_is_refused_before_anything_is_built_of_it(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="attObj: expected CBOR without tags"):
        AttestationObject.decode(data)


def test_bytes_that_look_like_a_tag_are_none() -> None:
    certificate = b"\xc1\xd8\x1c" * 100
    assert AttestationObject.decode(AttestationObject("apple", (certificate,)).encode()) == (
        AttestationObject("apple", (certificate,))
    )


def test_freshness_is_the_hash_of_the_tokens_characters() -> None:
    """Not of the bytes it encodes, and not of the key authorization (certificates.md 0.8)."""
    assert freshness(TOKEN) == hashlib.sha256(TOKEN.encode("ascii")).digest()


@pytest.mark.parametrize("identifier", [SERIAL, UDID, "one-time-code"])
def test_an_honest_device_is_accepted(identifier: str) -> None:
    found = judged(response(chain()), identifier=identifier)
    assert found is not None
    assert spki_der(found.public_key) == spki_der(KEY.public_key())


def test_further_members_of_the_payload_are_ignored() -> None:
    assert judged({**response(chain()), "somethingNew": {"a": 1}})


# The faults of certificates.md 7 that this step can see


@pytest.mark.parametrize(
    "stale",
    [
        freshness("another token"),
        hashlib.sha256(key_authorization(TOKEN, KEY.public_key()).encode()).digest(),
        TOKEN.encode()[:32],
        b"short",
    ],
    ids=["another-token", "key-authorization", "raw-token", "short"],
)
def test_a_wrong_freshness_code_is_refused(stale: bytes) -> None:
    detail = refusal(response(chain(freshness=stale)))
    assert detail == "the freshness code is not the hash of this challenge's token"


@pytest.mark.parametrize("absent", [None, b""], ids=["missing", "blank"])
def test_no_freshness_code_is_refused(absent: bytes | None) -> None:
    detail = refusal(response(chain(freshness=absent)))
    assert detail == "the attestation carries no freshness code"


def test_a_foreign_root_is_refused() -> None:
    foreign = AttestationAuthority.create(SimulatedClock(NOW))
    assert "is not signed by" in refusal(response(chain(foreign)))


def test_a_missing_intermediate_is_refused() -> None:
    assert "Sub CA 1,O=Sim Apple Inc.,C=US is not known" in refusal(response(chain()[:1]))


def test_a_chain_in_the_wrong_order_is_refused() -> None:
    assert "is a CA certificate, not an attestation leaf" in refusal(response(chain()[::-1]))


def test_an_expired_leaf_is_refused() -> None:
    old = chain(days=1, not_before=NOW - timedelta(days=2))
    assert refusal(response(old)).endswith("expired on 2025-12-31T00:00:00Z")


WRONG_DEVICE = "the attested device is not the one of the permanent identifier"


@pytest.mark.parametrize(
    "facts",
    [
        {"serial_number": "ANOTHER001", "udid": "another"},
        {"serial_number": "ANOTHER001"},
        {"udid": "another"},
        {"serial_number": None, "udid": None},
        {"serial_number": "", "udid": ""},
        {"serial_number": SERIAL.lower(), "udid": None},
    ],
    ids=["both", "serial", "udid", "user-enrollment", "blank", "case"],
)
@pytest.mark.parametrize("identifier", [SERIAL, UDID, "one-time-code"])
def test_another_device_is_refused(facts: dict[str, Any], identifier: str) -> None:
    with pytest.raises(AcmeProblem) as caught:
        judged(response(chain(**facts)), identifier=identifier)
    assert (caught.value.type, caught.value.detail) == ("badAttestationStatement", WRONG_DEVICE)
    (part,) = caught.value.subproblems
    assert part["type"] == "urn:ietf:params:acme:error:rejectedIdentifier"
    assert part["identifier"] == {"type": "permanent-identifier", "value": identifier}


def test_a_host_that_knows_nothing_relies_on_the_identifier() -> None:
    nothing = Grant(reference="x")
    assert judged(response(chain()), grant=nothing)
    assert refusal(response(chain()), grant=nothing, identifier="one-time-code") == WRONG_DEVICE


NAMELESS: dict[str, Any] = {"serial_number": None, "udid": None}


@pytest.mark.parametrize("blank", [None, ""], ids=["absent", "blank"])
def test_a_leaf_of_user_enrollment_is_good_for_a_one_time_code_under_the_policy(
    blank: str | None,
) -> None:
    payload = response(chain(serial_number=blank, udid=blank))
    order: dict[str, Any] = {"grant": Grant(reference="x"), "identifier": "one-time-code"}
    assert refusal(payload, **order) == WRONG_DEVICE
    found = judged(payload, **order, user_enrollment=True)
    assert found is not None
    assert (found.serial_number, found.udid) == (None, None)
    assert spki_der(found.public_key) == spki_der(KEY.public_key())


@pytest.mark.parametrize(
    "known", [{"serial_number": SERIAL}, {"udid": UDID}], ids=["serial", "udid"]
)
def test_a_leaf_of_user_enrollment_cannot_be_a_device_that_the_host_knows(
    known: dict[str, str],
) -> None:
    grant = Grant(reference="x", **known)
    payload = response(chain(**NAMELESS))
    detail = refusal(payload, grant=grant, identifier="one-time-code", user_enrollment=True)
    assert detail == WRONG_DEVICE


@pytest.mark.parametrize(
    "changed",
    [
        {"serial_number": "ANOTHER001", "udid": None},
        {"serial_number": None, "udid": None, "freshness": bytes(32)},
        {"serial_number": None, "udid": None, "freshness": None},
    ],
    ids=["named", "stale", "no-freshness"],
)
def test_the_policy_for_user_enrollment_excuses_nothing_else(changed: dict[str, Any]) -> None:
    order: dict[str, Any] = {"grant": Grant(reference="x"), "identifier": "one-time-code"}
    refusal(response(chain(**changed)), **order, user_enrollment=True)


@pytest.mark.parametrize("padding", ["=", "==", "\n"])
def test_a_padded_object_is_refused(padding: str) -> None:
    payload = response(chain())
    assert "base64url without padding" in refusal({"attObj": payload["attObj"] + padding})


def test_a_tolerant_server_takes_padding_where_it_belongs() -> None:
    for chain_ in chain(), chain(os_version="18.55"), chain(os_version="18.555"):
        data = AttestationObject("apple", tuple(chain_)).encode()
        padded = base64.urlsafe_b64encode(data).decode()
        assert judged({"attObj": padded}, accept_padding=True)
        assert judged(response(chain_), accept_padding=True)
        more = refusal({"attObj": padded + "="}, accept_padding=True)
        assert "base64url without padding" in more
    assert "base64url" in refusal({"attObj": 7}, accept_padding=True)


@pytest.mark.parametrize("value", [None, 7, ["x"], "+/+/"])
def test_an_object_of_another_type_is_refused(value: object) -> None:
    assert "attObj: expected base64url" in refusal({"attObj": value})


@pytest.mark.parametrize("form", ["none", "empty", "object", "error"])
def test_an_answer_without_attestation_needs_the_policy(form: Unattested) -> None:
    payload = unattested_response(form)
    assert refusal(payload) == "an attestation is required"
    assert judged(payload, allow_unattested=True) is None


def test_the_policy_excuses_no_bad_attestation() -> None:
    bad = response(chain(freshness=bytes(32)))
    assert "freshness" in refusal(bad, allow_unattested=True)


# Identifiers


@pytest.mark.parametrize("value", ["C8QH6T96DPNG", "a/1.2.840", "x/2.999.0", "é", "a b"])
def test_well_formed_identifiers(value: str) -> None:
    check_permanent_identifier(value)


@pytest.mark.parametrize(
    "value",
    ["", "/1.2", "a/", "a/b", "a/1", "a/1.2/3", "a/3.1", "a/1.02", "a\nb", "\ud800", "x" * 1025],
)
def test_malformed_identifiers(value: str) -> None:
    with pytest.raises(MalformedMessage, match="permanent-identifier"):
        check_permanent_identifier(value)


def test_the_probed_encoding_of_an_identifier() -> None:
    """certificates.md 2.3, the last line."""
    value = permanent_identifier_name("C8QH6T96DPNG")
    assert value.value.hex() == "300e0c0c433851483654393644504e47"
    san = x509.SubjectAlternativeName([value]).public_bytes().hex()
    assert san == "301ea01c06082b06010505070803a010" + value.value.hex()


def test_a_code_with_a_slash_that_no_assigner_follows_is_written_as_it_stands() -> None:
    for value in "ab/cd==", "/1.2", "a/", "a/1.2/3":
        assert permanent_identifier_name(value).value == der.sequence(der.utf8(value))


def test_an_assigner_follows_the_identity() -> None:
    assert permanent_identifier_name("a/1.2.840").value.hex() == "30080c016106032a8648"
