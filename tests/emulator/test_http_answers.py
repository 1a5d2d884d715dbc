"""Answers as servers really give them, and as they should not: framing, bounds, time-outs, damage."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.clock import SystemClock
from certs.errors import TransportError
from certs.transport import HttpResponse
from emulator.config import MAX_HEADER_BYTES, MAX_RESPONSE_BYTES
from emulator.http import HttpDoor, HttpSession, TrustSet
from tests.emulator.http_peers import Peer, Talk, raw_server, read_request, says

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def plain_session() -> HttpSession:
    return HttpDoor(clock=SystemClock()).session(trust=TrustSet())


async def ask(
    *answers: bytes, method: str = "GET", times: int = 1, then_close: bool = False
) -> tuple[list[HttpResponse], Peer]:
    """Send `times` requests in one session to a server that says `answers` on each connection."""
    async with (
        raw_server(says(*answers, then_close=then_close)) as peer,
        plain_session() as session,
    ):
        got = [await session.request(method, peer.url(), step="test") for _ in range(times)]
    return got, peer


async def refusal(talk: Talk, *, timeout_s: float = 10) -> TransportError:
    async with raw_server(talk) as peer, plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request("GET", peer.url(), step="test", timeout_s=timeout_s)
        assert caught.value.url == peer.url()
    return caught.value


async def test_a_length_frames_a_body_and_the_connection_stays() -> None:
    got, peer = await ask(OK, OK, OK, times=3)
    assert [answer.body for answer in got] == [b"ok"] * 3
    assert peer.connections == 1


async def test_a_chunked_body_is_put_together() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4;name=value\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\n"
    )
    got, peer = await ask(chunked, OK, times=2)
    assert [answer.body for answer in got] == [b"Wikipedia", b"ok"]
    assert peer.connections == 1


async def test_a_body_without_length_ends_with_the_connection() -> None:
    got, peer = await ask(b"HTTP/1.1 200 OK\r\n\r\nall of it", then_close=True, times=2)
    assert [answer.body for answer in got] == [b"all of it"] * 2
    assert peer.connections == 2


async def test_connection_close_is_obeyed() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    _, peer = await ask(closing, OK, times=2)
    assert peer.connections == 2


async def test_http_1_0_closes_unless_it_says_otherwise() -> None:
    _, peer = await ask(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", times=2)
    assert peer.connections == 2
    kept = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok"
    _, peer = await ask(kept, kept, times=2)
    assert peer.connections == 1


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n", b""]
)
async def test_head_has_no_body_whatever_its_headers_say(headers: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nReplay-Nonce: abc\r\n" + headers + b"\r\n"
    got, peer = await ask(head, head, method="HEAD", times=2)
    assert [(answer.body, answer.header("Replay-Nonce")) for answer in got] == [(b"", "abc")] * 2
    assert peer.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_204_and_304_have_no_body(status: bytes) -> None:
    empty = b"HTTP/1.1 " + status + b"\r\nContent-Length: 5000\r\n\r\n"
    got, peer = await ask(empty, OK, times=2)
    assert [answer.body for answer in got] == [b"", b"ok"]
    assert peer.connections == 1


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    [answer], _ = await ask(interim + OK)
    assert (answer.status, answer.body, answer.header("link")) == (200, b"ok", None)


async def test_repeated_headers_are_joined_and_names_know_no_case() -> None:
    [answer], _ = await ask(
        b"HTTP/1.1 200 OK\r\nLINK: <a>\r\nlink: <b>\r\n"
        b"Set-Cookie: a=1, b\r\nSet-Cookie: c=2\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.header("Link") == "<a>, <b>"
    assert answer.header("Set-Cookie") == "a=1, b\nc=2"


async def test_any_status_is_an_answer() -> None:
    [answer], _ = await ask(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    assert answer.status == 503


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_an_encoded_body_is_decoded(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(b"plist" * 1000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    [answer], _ = await ask(head.encode() + body)
    assert answer.body == b"plist" * 1000


async def test_bytes_after_an_answer_spoil_the_connection_not_the_answer() -> None:
    got, peer = await ask(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", times=2)
    assert [answer.body for answer in got] == [b"ok", b"ok"]
    assert peer.connections == 2


async def test_an_answer_nobody_asked_for_is_never_taken_for_the_next_one() -> None:
    """A proxy's late 408 on an idle connection must not answer the next request."""
    answered, hung_up = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if not hung_up.is_set():
            await answered.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()

    async with raw_server(talk) as peer, plain_session() as session:
        first = await session.request("GET", peer.url(), step="test")
        answered.set()
        await hung_up.wait()  # the client leaves as soon as the 408 comes
        second = await session.request("GET", peer.url(), step="test")
        assert peer.connections == 2
    assert (first.status, second.status) == (200, 200)


# --- what must not be


DAMAGED = {
    "garbage": (b"\x00\x01\x02 what is this\r\n\r\n", "the answer is not HTTP: "),
    "an old greeting": (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP: "),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "the answer is not HTTP: ",
    ),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "the answer is not HTTP: ",
    ),
    "a bad chunk size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n",
        "the answer is not HTTP: ",
    ),
    "a short body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "the answer ends early, after 4 bytes of body",
    ),
    "a short chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        "the answer ends early, after 3 bytes of body",
    ),
    "half a head": (
        b"HTTP/1.1 200 OK\r\nContent-Le",
        "the answer ends early, after 0 bytes of body",
    ),
    "nothing": (b"", "the server closed the connection without an answer"),
    "another protocol": (
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "the server switched to another protocol",
    ),
    "an unknown encoding": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
        "the answer is encoded as br",
    ),
    "a damaged encoding": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
        "the answer is not gzip: ",
    ),
    "a short encoding": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n"
        + gzip.compress(b"x" * 1000)[:25],
        "the gzip answer ends early",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_answer_is_one_exact_error(name: str) -> None:
    wire, reason = DAMAGED[name]
    error = await refusal(says(wire, then_close=True))
    assert error.reason.startswith(reason)
    assert error.timeout_s is None


async def test_an_answer_that_says_it_is_too_large_is_not_read() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_RESPONSE_BYTES + 1}\r\n\r\n".encode()
    error = await refusal(says(head))
    assert error.reason == (
        f"the answer has {MAX_RESPONSE_BYTES + 1} bytes, more than {MAX_RESPONSE_BYTES}"
    )


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"x" * 65536 + b"\r\n",
        ),
    ],
)
async def test_an_endless_body_is_cut_off_at_the_bound(head: bytes, chunk: bytes) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)

    error = await refusal(talk)
    assert error.reason == f"the answer has more than {MAX_RESPONSE_BYTES} bytes"
    assert sent < MAX_RESPONSE_BYTES * 1.5


@pytest.mark.parametrize(
    "endless",
    [
        b"X-Padding: " + b"x" * 1000 + b"\r\n",
        b"x" * 1000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"Trailer: x\r\n" * 80,
    ],
    ids=["headers", "one header", "interim answers", "trailers"],
)
async def test_an_endless_head_is_cut_off(endless: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if not endless.startswith(b"HTTP"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + (b"X-Long: " if endless[0:1] == b"x" else b""))
        writer.write(endless)
        rest = endless.rpartition(b"\r\n\r\n0\r\n")[2]
        while True:
            writer.write(rest)
            await writer.drain()

    error = await refusal(talk)
    assert error.reason == f"the answer's head is larger than {MAX_HEADER_BYTES} bytes"


async def test_a_compressed_bomb_is_refused() -> None:
    bomb = gzip.compress(b"\0" * (MAX_RESPONSE_BYTES + 1))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    error = await refusal(says(head.encode() + bomb))
    assert error.reason == f"the answer has more than {MAX_RESPONSE_BYTES} bytes"


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["silence", "half a head", "half a body"],
)
async def test_a_server_that_never_finishes_is_timed_out(begun: bytes) -> None:
    hung_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begun)
        await reader.read()
        hung_up.set()

    async with raw_server(talk) as peer, plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request("GET", peer.url(), step="test", timeout_s=0.05)
        await hung_up.wait()  # the connection does not outlive its request
    assert caught.value.reason == "no answer within 0.05 s"
    assert caught.value.timeout_s == 0.05


async def test_a_handshake_that_never_comes_is_timed_out() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(say_nothing) as peer, plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request(
                "GET", f"https://127.0.0.1:{peer.port}/", step="test", timeout_s=0.05
            )
    assert caught.value.timeout_s == 0.05


async def test_a_connection_that_takes_too_long_has_its_own_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("emulator.http.door.CONNECT_TIMEOUT_S", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(say_nothing) as peer, plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request("GET", f"https://127.0.0.1:{peer.port}/", step="test")
    assert caught.value.reason == f"no connection to 127.0.0.1:{peer.port} within 0.05 s"
    assert caught.value.timeout_s == 0.05


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_server_says_is_an_answer_or_a_transport_error(wire: bytes, head: bool) -> None:
    if head:
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire

    async def meet() -> int:
        async with raw_server(says(wire, then_close=True)) as peer, plain_session() as session:
            try:
                answer = await session.request("GET", peer.url(), step="test", timeout_s=20)
            except TransportError as error:
                return -1 if error.timeout_s is None else 0
            return answer.status

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(meet())
    assert status == -1 or status >= 200
