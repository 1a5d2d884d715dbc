"""HTTP/2 under attack and under strain: limits, flow control, GOAWAY, and what a peer can make the stand-in hold."""

import asyncio
import json
import ssl

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.keys import generate
from emulator.apple import push_http2
from emulator.apple.app import AppleServices
from emulator.apple.push_http2 import MAX_EXCESS_BYTES, MAX_RESETS, ProviderConnection
from emulator.wire.push import MAX_PAYLOAD_BYTES, Reason
from tests.emulator.apple.push_support import (
    GUARD_S,
    PAYLOAD,
    TOPIC,
    Listener,
    RawProvider,
    faulty,
    provider,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki


async def handshake_only(services: AppleServices, identity: Identity) -> None:
    """Read until the other side ends it; a TLS alert is raised."""
    async with provider(services, identity) as raw:
        while await raw.reader.read(100):
            pass


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


async def whole_push(raw: RawProvider) -> int:
    stream_id = raw.open()
    raw.h2.send_data(stream_id, PAYLOAD, end_stream=True)
    return stream_id


async def test_many_streams_share_a_connection() -> None:
    async with push_services() as services, provider(services) as raw:
        device = Listener(services)
        device.online()
        streams = [await whole_push(raw) for _ in range(200)]
        await raw.flush()
        for stream_id in streams:
            assert (await raw.answer(stream_id)).status == 200
        assert len(device.got) == 200


async def test_the_settings_say_how_many_streams_and_how_large_headers_may_be() -> None:
    async with push_services(max_concurrent_streams=7) as services, provider(services) as raw:
        Listener(services)
        await raw.push()
        settings = raw.h2.remote_settings
        assert settings.max_concurrent_streams == 7
        assert settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 8192


async def test_a_stream_above_the_limit_is_refused_and_the_others_go_on() -> None:
    async with push_services(max_concurrent_streams=2) as services, provider(services) as raw:
        Listener(services)
        # Before it has read our settings a client may open more.
        first, second, third = raw.open(), raw.open(), raw.open()
        await raw.flush()
        assert (await raw.answer(third)).reset == ErrorCodes.REFUSED_STREAM
        for stream_id in (first, second):
            raw.h2.send_data(stream_id, PAYLOAD, end_stream=True)
        await raw.flush()
        assert (await raw.answer(first)).status == (await raw.answer(second)).status == 200
        assert (await raw.push()).status == 200


async def test_a_fault_narrows_the_settings_of_a_connection() -> None:
    fault = faulty("settings", "push_connection", max_concurrent_streams=1)
    async with push_services(faults=fault) as services, provider(services) as raw:
        Listener(services)
        assert (await raw.push()).status == 200
        assert raw.h2.remote_settings.max_concurrent_streams == 1


async def test_an_error_waits_for_the_window_that_it_needs() -> None:
    async with push_services() as services, provider(services, begin=False) as raw:
        raw.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 0
        raw.h2.local_settings.acknowledge()
        await raw.begin()
        stream_id = raw.open(bytes(32))
        raw.h2.send_data(stream_id, PAYLOAD, end_stream=True)
        await raw.flush()
        await raw.until(lambda: raw.answers[stream_id].status == 400)
        assert raw.answers[stream_id].body == b""
        for size in (10, 100):  # first some of it, then the rest
            raw.h2.increment_flow_control_window(size, stream_id)
            await raw.flush()
            await raw.until(lambda: len(raw.answers[stream_id].body) >= 10)
        assert (await raw.answer(stream_id)).reason == "BadDeviceToken"


async def test_a_body_that_never_ends_is_answered_drained_and_reset() -> None:
    async with push_services() as services, provider(services) as raw:
        stream_id = raw.open()
        sent = 0
        async with asyncio.timeout(GUARD_S):
            while raw.answers[stream_id].reset is None and not raw.closed:
                window = min(16384, raw.h2.local_flow_control_window(stream_id))
                if window:
                    raw.h2.send_data(stream_id, bytes(window))
                    sent += window
                    await raw.flush()
                else:
                    await raw.read()
                if sent > MAX_EXCESS_BYTES + MAX_PAYLOAD_BYTES:
                    await raw.read()
        answer = raw.answers[stream_id]
        assert (answer.status, answer.reason) == (413, "PayloadTooLarge")
        assert answer.reset == ErrorCodes.NO_ERROR
        assert sent < MAX_EXCESS_BYTES * 1.5


async def test_bodies_that_wait_for_their_end_are_cut_off() -> None:
    """A thousand open streams hold a payload each, and no more."""
    async with push_services() as services, provider(services) as raw:
        for _ in range(8):
            stream_id = raw.open()
            raw.h2.send_data(stream_id, bytes(6000))
        await raw.flush()
        await raw.until(lambda: all(answer.status == 413 for answer in raw.answers.values()))
        (connection,) = services.push._providers.open
        assert all(len(one.body) <= MAX_PAYLOAD_BYTES + 1 for one in connection._streams.values())


async def test_a_rapid_reset_is_told_to_calm_down() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        async with asyncio.timeout(GUARD_S):
            while raw.goaway is None and not raw.closed:
                for _ in range(50):
                    stream_id = raw.open()
                    raw.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
                await raw.flush()
                try:
                    async with asyncio.timeout(0.01):
                        await raw.read()
                except TimeoutError:
                    continue
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert services.push.stats.resets == MAX_RESETS + 1
        await raw.gone()


async def test_a_client_may_give_up_a_push_now_and_then() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        for _ in range(MAX_RESETS + 50):
            raw.h2.reset_stream(raw.open(), ErrorCodes.CANCEL)
            assert (await raw.push()).status == 200
        assert raw.goaway is None


async def test_oversized_headers_end_the_connection() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        raw.open(headers=[("x-much", "x" * 9000)])
        await raw.flush()
        await raw.until_closed()
        assert raw.goaway is not None
        assert raw.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_headers_without_end_are_cut_off() -> None:
    """A flood of CONTINUATION frames."""
    async with push_services() as services, provider(services) as raw:
        frame = b"\x00\x00\x05\x01\x00\x00\x00\x00\x01" + bytes(5)
        more = b"\x00\x00\x00\x09\x00\x00\x00\x00\x01"
        raw.writer.write(frame + more * 200)
        await raw.until_closed()
        assert raw.closed


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # WINDOW_UPDATE of 0
        b"\x00\x00\x05\x06\x00\x00\x00\x00\x00hello",  # PING of five bytes
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(70_000),  # DATA of 16 MB
        b"\x00\x00\x01\x00\x00\x00\x00\x00\x03x",  # DATA on a stream that was never opened
    ],
)
async def test_broken_frames_end_the_connection_and_nothing_else(junk: bytes) -> None:
    async with push_services() as services:
        Listener(services)
        async with provider(services) as raw:
            raw.writer.write(junk)
            await raw.until_closed()
            await raw.gone()
        async with provider(services) as raw:
            assert (await raw.push()).status == 200


async def test_a_request_that_is_none_is_reset() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        broken = [
            {"pseudo": [(":path", "/3/device/00"), (":scheme", "https")]},
            {"headers": [("Upper-Case", "x")]},
            {"pseudo": [(":method", "POST"), (":path", "/"), (":status", "200")]},
        ]
        for arguments in broken:
            stream_id = raw.open(end=True, **arguments)  # type: ignore[arg-type]
            await raw.flush()
            assert (await raw.answer(stream_id)).reset == ErrorCodes.PROTOCOL_ERROR
        assert (await raw.push()).status == 200


async def test_who_does_not_read_answers_gets_no_more_requests_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused = asyncio.Event()
    honest = ProviderConnection.pause_writing

    def pause(self: ProviderConnection) -> None:
        honest(self)
        paused.set()

    monkeypatch.setattr(ProviderConnection, "pause_writing", pause)
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)
        raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(GUARD_S):
            while not paused.is_set():
                raw.writer.write(ping * 4000)
                await asyncio.sleep(0)
        (connection,) = services.push._providers.open
        assert connection._transport.get_write_buffer_size() < 4 * 1024 * 1024
        raw.writer.transport.abort()


async def test_connections_are_counted_and_bounded() -> None:
    async with push_services(max_connections=1) as services, provider(services) as raw:
        Listener(services)
        assert (await raw.push()).status == 200
        async with provider(services, begin=False) as second:
            await second.until_closed()
        assert (await raw.push()).status == 200
        assert services.push.gauges().provider_connections == 1


async def test_a_certificate_of_another_ca_ends_the_handshake() -> None:
    ca = CertificateAuthority.create("Another", clock=SimulatedClock())
    key = generate("p256")
    stranger = push_identity(TOPIC)
    identity = Identity(key, ca.issue(key.public_key(), stranger.certificate.subject))
    async with push_services() as services:
        with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
            await handshake_only(services, identity)
        assert services.push.stats.connections == 0


async def test_an_expired_certificate_may_be_a_tls_alert() -> None:
    clock = SimulatedClock()
    identity = push_identity(TOPIC, days=1, not_before=clock.now())  # long ago for the machine
    async with push_services(clock, expired_certificate="alert") as services:
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_EXPIRED"):
            await handshake_only(services, identity)


@pytest.mark.parametrize("alpn", [("http/1.1",), ()])
async def test_strict_mode_speaks_nothing_but_http2(alpn: tuple[str, ...]) -> None:
    async with push_services() as services, provider(services, alpn=alpn, begin=False) as raw:
        await raw.until_closed()
        assert raw.closed


async def test_an_idle_connection_is_ended_by_the_injected_clock() -> None:
    clock = SimulatedClock()
    async with push_services(clock, idle_timeout_s=60) as services, provider(services) as raw:
        Listener(services)
        await raw.push()
        await clock.advance(61)
        await raw.push()
        await clock.advance(61)
        assert raw.goaway is None
        await clock.advance(60)
        await raw.until_closed()
        assert raw.goaway is not None
        assert json.loads(raw.goaway.additional_data or b"") == {"reason": "IdleTimeout"}


async def test_stopping_says_shutdown_to_every_provider() -> None:
    async with push_services() as services:
        async with provider(services) as raw:
            Listener(services)
            await raw.push()
            await services.push.stop()
            await raw.until_closed()
        assert raw.goaway is not None
        assert json.loads(raw.goaway.additional_data or b"") == {"reason": "Shutdown"}


async def test_who_is_asked_to_leave_comes_back_on_a_new_connection() -> None:
    async with push_services() as services:
        Listener(services)
        async with provider(services) as raw:
            await raw.push()
            assert services.push.go_away(Reason.SERVICE_UNAVAILABLE) == 1
            await raw.until_closed()
            assert raw.goaway is not None
        async with provider(services) as raw:
            assert (await raw.push()).status == 200


async def test_closed_streams_leave_nothing_behind() -> None:
    async with push_services() as services, provider(services) as raw:
        Listener(services)
        for _ in range(50):
            await raw.push()
            await raw.push(bytes(32))
        (connection,) = services.push._providers.open
        assert connection._streams == {}
        assert connection._busy == set()
        assert connection._waiting == {}
        assert len(connection._h2.streams) <= 1


def test_the_alpn_name_is_that_of_http2() -> None:
    assert push_http2.ALPN == "h2"
