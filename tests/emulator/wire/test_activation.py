"""The activation request: its two forms, the form body around it."""

from typing import Any
from urllib.parse import parse_qs, quote_plus

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.activation import (
    ActivationRequest,
    SessionProof,
    decode_activation_info,
    decode_form,
    encode_activation_info,
    encode_form,
    sign_act_request,
    split_certificates,
    tbs_request,
)
from tests.emulator.wire.certificates import certificate, identity
from tests.emulator.wire.garbage import damaged, garbage, survives

PROOF = SessionProof(
    rk_certification=b"\x30\x00",
    rk_signature=b"\x30\x06",
    server_kp=b"\x01" + bytes(84),
    sign_act_request=bytes(16),
)
SESSION = ActivationRequest(
    activation_info_xml=b"<xml/>",
    fair_play_cert_chain=b"\x30\x00",
    fair_play_signature=b"signature",
    session=PROOF,
)
LEGACY = ActivationRequest(
    activation_info_xml=b"<xml/>",
    fair_play_cert_chain=b"\x30\x00",
    fair_play_signature=b"signature",
)


# ---- layouts ----


def test_what_the_attestation_key_signs_joins_three_counted_fields() -> None:
    assert tbs_request(b"\xaa\xbb", kp=b"\xcc", act_request=b"\xdd").hex() == (
        "53494d2d524b2d3100"  # "SIM-RK-1" 00
        "00000002aabb"
        "0001cc"
        "0001dd"
    )


def test_sign_act_request_is_the_first_half_of_a_sha256() -> None:
    assert sign_act_request(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223"


def test_a_chain_is_cut_at_the_outer_lengths_of_its_certificates() -> None:
    ders = [
        identity("rsa").certificate.public_bytes(Encoding.DER),
        certificate().public_bytes(Encoding.DER),
        b"\x30\x03\x02\x01\x00",
    ]
    assert list(split_certificates(b"".join(ders))) == ders
    assert split_certificates(b"") == ()


@pytest.mark.parametrize(
    "chain",
    [
        b"\x30",
        b"\x30\x00",
        b"\x30\x05\x00",
        b"\x31\x01\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x84\x7f\xff\xff\xff",
        b"\x30\x82\x01",
        b"\x30\x01\x00\x00",
        certificate().public_bytes(Encoding.DER)[:-1],
    ],
)
def test_a_chain_that_is_not_der_is_malformed(chain: bytes) -> None:
    with pytest.raises(MalformedMessage, match="FairPlayCertChain"):
        split_certificates(chain)


@settings(max_examples=50)
@given(garbage)
def test_cutting_garbage_ends(noise: bytes) -> None:
    survives(split_certificates, noise)


# ---- the request ----


@settings(max_examples=50)
@given(
    st.builds(
        ActivationRequest,
        activation_info_xml=st.binary(max_size=40),
        fair_play_cert_chain=st.binary(max_size=40),
        fair_play_signature=st.binary(max_size=40),
        session=st.none()
        | st.builds(
            SessionProof,
            rk_certification=st.binary(max_size=20),
            rk_signature=st.binary(max_size=20),
            server_kp=st.binary(max_size=20),
            sign_act_request=st.binary(max_size=20),
        ),
    )
)
def test_decoding_undoes_encoding_through_the_form(request: ActivationRequest) -> None:
    assert decode_activation_info(encode_activation_info(request)) == request
    body = encode_form(request)
    assert decode_activation_info(decode_form(body)["activation-info"]) == request


def test_a_session_has_the_seven_real_keys_and_a_legacy_request_four() -> None:
    assert sorted(SESSION.to_fields()) == [
        "ActivationInfoXML",
        "FairPlayCertChain",
        "FairPlaySignature",
        "RKCertification",
        "RKSignature",
        "serverKP",
        "signActRequest",
    ]
    assert sorted(LEGACY.to_fields()) == [
        "ActivationInfoComplete",
        "ActivationInfoXML",
        "FairPlayCertChain",
        "FairPlaySignature",
    ]
    assert LEGACY.to_fields()["ActivationInfoComplete"] is True


@pytest.mark.parametrize("request_", [SESSION, LEGACY])
def test_a_bare_dictionary_from_a_host_tool_is_wrapped(request_: ActivationRequest) -> None:
    document = encode_activation_info(request_)
    bare = document[document.index(b"<dict>") : document.index(b"</plist>")]
    assert decode_activation_info(b"\n" + bare) == request_


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        (
            {key: value for key, value in request.to_fields().items() if key != missing},
            "ActivationInfoComplete" if missing == "serverKP" else missing,
        )
        for request in (SESSION, LEGACY)
        for missing in request.to_fields()
    ],
)
def test_each_missing_key_is_named(fields: dict[str, Any], key: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_activation_info(plist.dumps(fields))
    assert caught.value.field == key


def test_an_incomplete_legacy_request_is_refused() -> None:
    fields = {**LEGACY.to_fields(), "ActivationInfoComplete": False}
    with pytest.raises(MalformedMessage, match="ActivationInfoComplete: expected true"):
        decode_activation_info(plist.dumps(fields))


@settings(max_examples=50)
@given(garbage | damaged(encode_activation_info(SESSION)))
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode_activation_info, noise)


# ---- the form ----


def test_the_form_is_what_any_web_server_reads() -> None:
    body = encode_form(LEGACY, login="", password="a&b=c d")
    fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True)
    assert fields["activation-info"] == [encode_activation_info(LEGACY).decode()]
    assert (fields["login"], fields["password"]) == ([""], ["a&b=c d"])
    assert decode_form(body)["password"] == b"a&b=c d"


def test_form_bytes_come_back_unchanged_whatever_they_are() -> None:
    raw = bytes(range(256))
    assert decode_form(f"a={quote_plus(raw)}".encode()) == {"a": raw}


@pytest.mark.parametrize(
    "body",
    [b"password-without-equals-sign", "ä=1".encode(), b"&".join([b"a=1"] * 65)],
)
def test_a_body_that_is_no_form_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_form(body)
    assert str(caught.value) == "form: expected application/x-www-form-urlencoded"


@settings(max_examples=50)
@given(garbage | damaged(encode_form(LEGACY)))
def test_garbage_is_no_form(noise: bytes) -> None:
    survives(decode_form, noise)
