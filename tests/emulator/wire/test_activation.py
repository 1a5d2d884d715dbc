"""The activation request: its two forms, the form body around it, and ActivationInfoXML in both shapes."""

from typing import Any
from urllib.parse import parse_qs, quote_plus

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import activation_info, plist
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
from emulator.wire.activation_info import (
    ActivationInfo,
    BasebandRequestInfo,
    DeviceInfo,
    UIKCertification,
)
from tests.emulator.wire.certificates import certificate, identity
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text

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
INFO = ActivationInfo(
    activation_randomness="8C1F0B4E-6A0D-4B47-9A0F-3A1F6E0D2C55",
    serial_number="F7K2Q9XW4M",
    udid="00008110-001A34D90E38801E",
    device_cert_request=b"-----BEGIN CERTIFICATE REQUEST-----\n",
    device_info=DeviceInfo(
        build_version="22B83",
        device_class="iPhone",
        product_type="iPhone14,5",
        product_version="18.1",
        device_variant="A",
        model_number="MLPF3",
        os_type="iPhone OS",
        region_code="LL",
        region_info="LL/A",
        regulatory_model_number="A2482",
        signing_fuse=True,
        unique_chip_id=7382938475,
    ),
    baseband=BasebandRequestInfo(
        imei="353918051234561",
        imei2="353918051234579",
        meid="35391805123456",
        chip_id=5,
        master_key_hash="0" * 64,
        serial_number=bytes(12),
        postponement_pri_version="0.0.0",
    ),
    uik=UIKCertification(
        board_id=12,
        chip_id=0x8110,
        wifi_address="aa:bb:cc:dd:ee:01",
        bluetooth_address="aa:bb:cc:dd:ee:02",
        ethernet_mac_address="aa:bb:cc:dd:ee:03",
    ),
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


# ---- ActivationInfoXML ----

maybe = st.none() | text
basebands = st.builds(
    BasebandRequestInfo,
    imei=text,
    imei2=maybe,
    meid=maybe,
    chip_id=st.none() | st.integers(0, 9),
    master_key_hash=maybe,
    serial_number=st.none() | st.binary(max_size=12),
    requires_activation_ticket=st.booleans(),
    supports_postponement=st.booleans(),
    postponement_pri_version=maybe,
    postponement_provisioning_state=st.booleans(),
    iccid=maybe,
    imsi=maybe,
    imsi_override=st.none() | st.booleans(),
    phone_number=maybe,
    gid1=maybe,
    gid2=maybe,
    sim_gid1=st.none() | st.binary(max_size=1),
    sim_gid2=st.none() | st.binary(max_size=1),
    pri_version=st.none() | st.tuples(*[st.integers(0, 9)] * 3),
)
device_infos = st.builds(
    DeviceInfo,
    build_version=text,
    device_class=text,
    product_type=text,
    product_version=text,
    device_variant=maybe,
    model_number=maybe,
    region_info=maybe,
    signing_fuse=st.none() | st.booleans(),
    unique_chip_id=st.none() | st.integers(0, (1 << 64) - 1),
)
infos = st.builds(
    ActivationInfo,
    activation_randomness=text,
    serial_number=text,
    udid=text,
    device_cert_request=st.binary(max_size=20),
    device_info=device_infos,
    activation_state=st.sampled_from(["Unactivated", "Activated"]),
    fmip_account_exists=st.booleans(),
    baseband=st.none() | basebands,
    uik=st.none()
    | st.builds(
        UIKCertification,
        board_id=st.integers(0, 9),
        chip_id=st.integers(0, 9),
        wifi_address=text,
        bluetooth_address=text,
        ethernet_mac_address=maybe,
        certification=st.binary(max_size=9),
    ),
    software_update_enabled=st.booleans(),
)


@settings(max_examples=50)
@given(infos)
def test_decoding_undoes_encoding_the_sections(info: ActivationInfo) -> None:
    assert activation_info.decode(activation_info.encode(info)) == info


@settings(max_examples=50)
@given(infos)
def test_the_flat_form_keeps_what_the_server_compares(info: ActivationInfo) -> None:
    flat = activation_info.decode(activation_info.encode(info, flat=True))
    for name in (
        "activation_randomness",
        "activation_state",
        "serial_number",
        "udid",
        "device_cert_request",
        "baseband",
        "imei",
        "meid",
    ):
        assert getattr(flat, name) == getattr(info, name)
    assert flat.device_info.product_version == info.device_info.product_version
    assert flat.uik is None


def test_sections_and_counts_are_those_of_the_captured_request() -> None:
    fields = plist.loads(activation_info.encode(INFO))
    counts = {name: len(value) for name, value in fields.items() if isinstance(value, dict)}
    assert counts == {
        "ActivationRequestInfo": 3,
        "BasebandRequestInfo": 12,  # ten, a second IMEI and a MEID: no SIM
        "DeviceID": 2,
        "DeviceInfo": 12,
        "RegulatoryImages": 1,
        "SoftwareUpdateRequestInfo": 1,
        "UIKCertification": 6,
    }
    assert fields["UIKCertification"]["UIKCertification"] == b"\x30\x00"


def test_a_sim_adds_its_keys() -> None:
    with_sim = BasebandRequestInfo(
        imei="1",
        chip_id=5,
        master_key_hash="0",
        serial_number=bytes(12),
        postponement_pri_version="0",
        iccid="2",
        imsi="3",
        imsi_override=False,
        phone_number="4",
        gid1="ff",
        gid2="ff",
        sim_gid1=b"\xff",
        sim_gid2=b"\xff",
        pri_version=(1, 2, 3),
    )
    assert len(with_sim.to_fields()) == 21


def test_a_wifi_model_has_no_baseband() -> None:
    info = ActivationInfo(
        activation_randomness="r",
        serial_number="s",
        udid="u",
        device_cert_request=b"",
        device_info=INFO.device_info,
    )
    assert "BasebandRequestInfo" not in info.to_fields()
    assert (info.imei, info.meid) == (None, None)
    assert activation_info.decode(activation_info.encode(info, flat=True)).imei is None


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("", "ActivationRequestInfo"),
        ("", "DeviceCertRequest"),
        ("", "DeviceInfo"),
        ("ActivationRequestInfo", "ActivationRandomness"),
        ("ActivationRequestInfo", "ActivationState"),
        ("BasebandRequestInfo", "InternationalMobileEquipmentIdentity"),
        ("DeviceID", "SerialNumber"),
        ("DeviceID", "UniqueDeviceID"),
        ("DeviceInfo", "ProductType"),
        ("UIKCertification", "UIKCertification"),
    ],
)
def test_a_missing_key_is_named_with_its_section(section: str, key: str) -> None:
    fields = INFO.to_fields()
    del (fields[section] if section else fields)[key]
    with pytest.raises(MalformedMessage) as caught:
        activation_info.decode(plist.dumps(fields))
    assert caught.value.field == (f"{section}.{key}" if section else key)


def test_a_flat_request_without_its_serial_number_is_malformed() -> None:
    fields = INFO.to_flat_fields()
    del fields["SerialNumber"]
    with pytest.raises(MalformedMessage, match="^SerialNumber: expected string$"):
        activation_info.decode(plist.dumps(fields))


@settings(max_examples=50)
@given(garbage | damaged(activation_info.encode(INFO)))
def test_garbage_is_no_activation_info(noise: bytes) -> None:
    survives(activation_info.decode, noise)
