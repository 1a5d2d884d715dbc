"""Pushes, refusals and courier frames as bytes."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import courier, push
from emulator.wire.courier import Ack, Forget, Hello, Offline, Online, Subscription
from emulator.wire.push import MdmPush, Reason, Refusal

texts = st.text(max_size=60)
tokens = st.binary(min_size=1, max_size=64).map(bytes.hex)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC)
)
subscriptions = st.builds(
    Subscription, token=tokens, topic=texts, device=st.none() | texts, online=st.booleans()
)
client_frames = st.one_of(
    st.builds(Hello, st.lists(subscriptions, max_size=3)),
    st.builds(Online, tokens),
    st.builds(Offline, tokens),
    st.builds(Forget, tokens),
    st.builds(Ack, st.integers(0, 2**40)),
)


@given(st.builds(MdmPush, push_magic=texts))
@settings(max_examples=40)
def test_decoding_undoes_encoding(message: MdmPush) -> None:
    assert push.decode_payload(push.encode(message)) == message


@given(st.builds(Refusal, reason=texts, timestamp=st.none() | moments))
@settings(max_examples=40)
def test_a_refusal_survives_the_wire(message: Refusal) -> None:
    assert push.decode_refusal(push.encode(message)) == message


@given(st.lists(client_frames, min_size=1, max_size=4))
@settings(max_examples=60)
def test_courier_frames_survive_the_wire(frames: list[courier.ClientFrame]) -> None:
    assert courier.decode_client(courier.encode(*frames)) == frames


@given(st.binary(max_size=80))
def test_whatever_the_bytes_only_malformed_message_comes_out(data: bytes) -> None:
    for decode in (
        push.decode_payload,
        push.decode_refusal,
        courier.decode_client,
        courier.decode_server,
    ):
        try:
            decode(data)
        except MalformedMessage:
            continue


def test_the_payload_holds_the_magic_and_nothing_else() -> None:
    assert push.encode(MdmPush(push_magic="M")) == b'{"mdm":"M"}'


def test_timestamps_are_milliseconds() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert push.encode(Refusal(reason=Reason.UNREGISTERED, timestamp=at)) == (
        b'{"reason":"Unregistered","timestamp":1767323045678}'
    )


@pytest.mark.parametrize("timestamp", ["1e99", "-99999999999999999999", '"1"', "true"])
def test_a_timestamp_that_is_none_is_malformed(timestamp: str) -> None:
    with pytest.raises(MalformedMessage, match="timestamp"):
        push.decode_refusal(f'{{"reason":"Unregistered","timestamp":{timestamp}}}'.encode())


@pytest.mark.parametrize("text", ["", "a", "zz", "0 0", "00 11", "\u0661\u0662", "0x00"])
def test_a_token_is_pairs_of_hexadecimal_digits(text: str) -> None:
    with pytest.raises(MalformedMessage, match="hexadecimal"):
        push.token_of(text)


def test_a_token_may_be_written_in_either_case() -> None:
    assert push.token_of("aBcD") == push.token_of("ABCD") == b"\xab\xcd"
    assert push.path_of(b"\xab\xcd") == "/3/device/abcd"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.BAD_DEVICE_TOKEN, 400),
        (Reason.IDLE_TIMEOUT, 400),
        (Reason.BAD_CERTIFICATE_ENVIRONMENT, 403),
        (Reason.MISSING_PROVIDER_TOKEN, 403),
        (Reason.BAD_PATH, 404),
        (Reason.METHOD_NOT_ALLOWED, 405),
        (Reason.EXPIRED_TOKEN, 410),
        (Reason.PAYLOAD_TOO_LARGE, 413),
        (Reason.TOO_MANY_REQUESTS, 429),
        (Reason.INTERNAL_SERVER_ERROR, 500),
        (Reason.SHUTDOWN, 503),
    ],
)
def test_each_reason_has_the_status_of_the_table(reason: Reason, status: int) -> None:
    assert reason.status == status


def test_courier_frames_are_written_as_documented() -> None:
    hello = Hello([Subscription(token="ab", topic="T")])
    pushed = courier.Push("ab", "ID", msgspec.Raw(b'{"mdm":"M"}'), False, 12)
    assert courier.encode(hello) == b'{"op":"hello","devices":[{"token":"ab","topic":"T"}]}'
    assert courier.encode(Online("ab"), Ack(3)) == (
        b'[{"op":"online","token":"ab"},{"op":"ack","count":3}]'
    )
    assert courier.encode(pushed) == (
        b'{"op":"push","token":"ab","apns_id":"ID","payload":{"mdm":"M"},"stored":false,"age_ms":12}'
    )


def test_a_hello_names_a_bounded_number_of_devices() -> None:
    devices = [Subscription(token="ab", topic="T")] * (courier.MAX_DEVICES + 1)
    with pytest.raises(MalformedMessage, match="at most 2000"):
        courier.decode_client(courier.encode(Hello(devices)))


def test_a_push_for_no_token_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="push token"):
        courier.decode_server(
            b'{"op":"push","token":"x","apns_id":"","payload":{},"stored":true,"age_ms":0}'
        )
