"""The inner JSON of every operation, and the answers to a provisional enrollment (apple-services.md 3.2, 3.4, 3.6)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire.cloud_errors import CloudConfigurationError
from emulator.wire.device_request import (
    DeviceRequest,
    Operation,
    PushRegistration,
    decode_request,
    encode_request,
)
from emulator.wire.provisional import (
    Nonce,
    NonceRequest,
    decode_enrolled,
    decode_nonce_request,
    encode_enrolled,
    encode_nonces,
)
from tests.emulator.wire.garbage import garbage, survives

text = st.text(min_size=1, max_size=20)
pushes = st.builds(
    PushRegistration,
    app_push_token=st.binary(max_size=40),
    push_topic=text,
    is_mdm_migration_capable=st.booleans(),
    mdm_migration_capability_description=st.none() | text,
)


def request(operation: Operation, **members: Any) -> DeviceRequest:
    return DeviceRequest(
        serial_number="F7K2Q9XW4M",
        udid="00008110-001A34D90E38801E",
        action=operation.action,
        **members,
    )


requests = st.one_of(
    st.sampled_from(
        [request(one) for one in (Operation.PROFILE, Operation.UNENROLL, Operation.START_MIGRATION)]
    ),
    text.map(lambda nonce: request(Operation.ENROLL, nonce=nonce)),
    pushes.map(lambda push: request(Operation.REGISTER, push=push)),
    st.tuples(text, text).map(
        lambda pair: request(Operation.END_MIGRATION, server_uid=pair[0], status=pair[1])
    ),
)


@settings(max_examples=50)
@given(requests)
def test_decoding_undoes_encoding(message: DeviceRequest) -> None:
    assert decode_request(encode_request(message)) == message


@settings(max_examples=50)
@given(garbage)
def test_garbage_is_malformed(noise: bytes) -> None:
    survives(decode_request, noise)
    survives(decode_nonce_request, noise)
    survives(lambda body: decode_enrolled(200, body), noise, (CloudConfigurationError,))  # type: ignore[arg-type]


def test_extra_members_stand_where_the_table_has_them() -> None:
    """In `device` those of the registration, beside it all others."""
    push = PushRegistration(app_push_token=b"\x01\x02", push_topic="topic")
    registered = json.loads(encode_request(request(Operation.REGISTER, push=push)))
    assert registered == {
        "device": {
            "serial_number": "F7K2Q9XW4M",
            "udid": "00008110-001A34D90E38801E",
            "app_push_token": "AQI=",
            "push_topic": "topic",
            "is_mdm_migration_capable": False,
        },
        "action": "RequestDeviceRegister",
    }
    ended = json.loads(
        encode_request(request(Operation.END_MIGRATION, server_uid="A1", status="success"))
    )
    assert (ended["server_uid"], ended["status"]) == ("A1", "success")
    enrolled = json.loads(encode_request(request(Operation.ENROLL, nonce="N")))
    assert enrolled["nonce"] == "N"
    assert enrolled["action"] == "RequestProvisionalEnrollment"


def test_paths_and_actions_are_those_of_the_table() -> None:
    assert {operation.path: operation.action for operation in Operation} == {
        "/v2/profile": "RequestProfileConfiguration",
        "/v2/enroll": "RequestProvisionalEnrollment",
        "/v2/unenroll": "RequestUnenrollProvisionalDevice",
        "/deviceRegister": "RequestDeviceRegister",
        "/startMdmMigration": "StartMdmMigration",
        "/endMdmMigration": "EndMdmMigration",
    }


def test_the_period_ends_at_a_time_in_milliseconds() -> None:
    assert decode_enrolled(200, encode_enrolled(1_767_225_600_123)) == 1_767_225_600_123


def test_nonces_are_written_as_configurator_reads_them() -> None:
    nonces = [Nonce(serial_number="S", udid="U", value="V")]
    assert json.loads(encode_nonces(nonces)) == {
        "nonces": [{"status": "SUCCESS", "value": "V", "serialNumber": "S", "udid": "U"}]
    }


def test_configurators_request_is_read_whatever_else_it_holds() -> None:
    wanted = NonceRequest(devices=(("S", "U"),), profile={"url": "https://x", "new": [1]})
    body = json.dumps({**wanted.to_fields(), "extra": 1}).encode()
    assert decode_nonce_request(body) == wanted
    with pytest.raises(MalformedMessage, match=r"devices\[0\].udid: expected string"):
        decode_nonce_request(b'{"devices":[{"serial_number":"S"}],"server_name":"","profile":{}}')
