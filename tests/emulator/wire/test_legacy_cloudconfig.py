"""The older way to the cloud configuration: session and signed request (apple-services.md 3.1, 9.2)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import legacy_cloudconfig as legacy
from emulator.wire import plist
from emulator.wire.legacy_cloudconfig import MacProfileRequest
from tests.emulator.wire.garbage import garbage, survives

SESSION = bytes(range(32))


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.text(max_size=20))
def test_decoding_undoes_encoding(session: bytes, serial: str) -> None:
    assert legacy.decode_session_request(legacy.encode_session_request(session)) == session
    assert legacy.decode_session(legacy.encode_session(session)) == session
    request = MacProfileRequest(serial_number=serial, session=session)
    assert legacy.decode_request(legacy.encode_request(request)) == request
    assert legacy.decode_body(legacy.encode_body(session)) == session


@settings(max_examples=50)
@given(garbage)
def test_garbage_is_malformed(noise: bytes) -> None:
    for decode in (
        legacy.decode_session,
        legacy.decode_session_request,
        legacy.decode_request,
        legacy.decode_body,
    ):
        survives(decode, noise)


def test_the_request_has_the_keys_of_the_capture_and_our_session() -> None:
    request = MacProfileRequest(serial_number="F7K2Q9XW4M", session=SESSION)
    assert json.loads(legacy.encode_request(request)) == {
        "action": "RequestProfileConfiguration",
        "sn": "F7K2Q9XW4M",
        "sim_session": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    }


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_session_has_thirty_two_bytes(size: int) -> None:
    body = plist.dumps({"session-info": bytes(size)})
    with pytest.raises(MalformedMessage, match=f"session-info: expected 32 bytes, got '{size} b"):
        legacy.decode_session(body)
