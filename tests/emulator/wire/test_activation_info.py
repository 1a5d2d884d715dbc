"""ActivationInfoXML in both shapes: sections and counts of the captured one, round trips, damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import activation_info, plist
from emulator.wire.activation_info import (
    ActivationInfo,
    BasebandRequestInfo,
    DeviceInfo,
    UIKCertification,
)
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text

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
