"""Factory provisioning: what a new device asks for and gets."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from certs.keys import spki_der
from emulator.wire import json_object
from emulator.wire.factory import (
    Anchors,
    FactoryReply,
    FactoryRequest,
    decode_replies,
    decode_requests,
    encode_replies,
    encode_requests,
)
from tests.emulator.wire.certificates import certificate, ec_key, identity
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text

ANCHORS = Anchors(
    sim_apple_root=certificate(0),
    attestation_root=certificate(1),
    activation_service_key=spki_der(ec_key().public_key()),
    tls_root=certificate(2),
)
REPLY = FactoryReply(
    serial_number="SIM0000001",
    factory_certificate=certificate(3),
    device_ca_certificate=certificate(4),
    attestation_certificate=certificate(5),
    attestation_sub_ca=certificate(6),
    anchors=ANCHORS,
)
REQUEST = FactoryRequest(
    serial_number="SIM0000001",
    udid="u",
    product_type="iPhone14,5",
    os_version="18.1",
    build="22B83",
    factory_public_key=b"fk",
    attestation_public_key=b"ak",
)

requests = st.builds(
    FactoryRequest,
    serial_number=text,
    udid=text,
    product_type=text,
    os_version=text,
    build=text,
    factory_public_key=st.binary(max_size=20),
    attestation_public_key=st.binary(max_size=20),
    **{
        name: st.none() | text
        for name in ("imei", "meid", "imei2", "wifi_mac", "bluetooth_mac", "model_number")
    },
    ecid=st.none() | st.integers(0, (1 << 64) - 1),
)


@settings(max_examples=50)
@given(st.lists(requests, max_size=3))
def test_decoding_undoes_encoding_requests(devices: list[FactoryRequest]) -> None:
    assert decode_requests(encode_requests(devices)) == tuple(devices)


def test_replies_come_back_in_order_with_the_anchors_sent_once() -> None:
    activated = FactoryReply(
        serial_number="SIM0000002",
        factory_certificate=certificate(7),
        device_ca_certificate=certificate(4),
        attestation_certificate=certificate(8),
        attestation_sub_ca=certificate(6),
        anchors=ANCHORS,
        device_certificate=certificate(9),
    )
    body = encode_replies([REPLY, activated], ANCHORS)
    assert decode_replies(body) == (REPLY, activated)
    fields = json.loads(body)
    assert sorted(fields) == ["anchors", "devices"]
    assert all("anchors" not in device for device in fields["devices"])
    assert "device_certificate" not in fields["devices"][0]


def test_the_activation_service_key_is_loaded() -> None:
    assert ANCHORS.load_activation_service_key() == ec_key().public_key()


@settings(max_examples=50)
@given(garbage | damaged(encode_requests([REQUEST])) | damaged(encode_replies([REPLY], ANCHORS)))
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode_requests, noise)
    survives(decode_replies, noise)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"udid": None}, "devices[1].udid"),
        ({"serial_number": 5}, "devices[1].serial_number"),
        ({"ecid": "5"}, "devices[1].ecid"),
        ({"ecid": True}, "devices[1].ecid"),
        ({"factory_public_key": "*"}, "devices[1].factory_public_key"),
        ({"attestation_public_key": None}, "devices[1].attestation_public_key"),
    ],
)
def test_a_broken_request_names_device_and_member(change: dict[str, Any], field: str) -> None:
    body = {"devices": [REQUEST.to_fields(), {**REQUEST.to_fields(), **change}]}
    with pytest.raises(MalformedMessage) as caught:
        decode_requests(json_object.dumps(body))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "anchors"),
        ({"anchors": {}}, "anchors.sim_apple_root"),
        ({"anchors": ANCHORS.to_fields()}, "devices"),
        ({"anchors": ANCHORS.to_fields(), "devices": [1]}, "devices[0]"),
        (
            {"anchors": {**ANCHORS.to_fields(), "activation_service_key": "AAAA"}},
            "anchors.activation_service_key",
        ),
        (
            {
                "anchors": {
                    **ANCHORS.to_fields(),
                    "activation_service_key": json_object.text_of(
                        spki_der(identity("rsa").key.public_key())
                    ),
                }
            },
            "anchors.activation_service_key",
        ),
        (
            {
                "anchors": ANCHORS.to_fields(),
                "devices": [{**REPLY.to_fields(), "factory_certificate": "AAAA"}],
            },
            "devices[0].factory_certificate",
        ),
    ],
)
def test_a_broken_reply_names_its_member(body: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_replies(json_object.dumps(body))
    assert caught.value.field == field
