"""What peers send makes one harmless line in the log of a command."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from certs.logs import BrokenRequests, log_to_stderr

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def as_a_command() -> Iterator[None]:
    server = logging.getLogger("aiohttp.server")
    before = structlog.get_config(), list(server.filters)
    log_to_stderr()
    yield
    structlog.configure(**before[0])
    server.filters[:] = before[1]


@pytest.mark.parametrize(
    "sent", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202egnp.exe", "a\x00b"]
)
def test_what_a_peer_sent_moves_no_cursor(sent: str, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    structlog.get_logger().info("scep_transaction", transaction_id=sent, subject="CN=Gerät 日本")
    line = capsys.readouterr().err
    assert line.rstrip("\n").isprintable()
    assert "Gerät 日本" in line
    assert ascii(sent)[1:-1] in line


def test_a_traceback_keeps_its_lines_and_moves_no_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_stderr()
    try:
        raise ValueError("a peer's \x1b[2J")
    except ValueError:
        structlog.get_logger().exception("failed")
    text = capsys.readouterr().err
    assert "\nValueError: a peer's \\x1b[2J\n" in text
    assert all(line.isprintable() for line in text.split("\n"))


async def broken(handler: Handler, data: bytes) -> None:
    """Send bytes that are no whole request, and hang up."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            return await handler(request)
        finally:
            asyncio.get_running_loop().call_soon(ended.set)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None, max_line_size=8190)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(10):
        if data.endswith(b"half"):
            await begun.wait()
        else:
            await reader.read()
        writer.close()
        await writer.wait_closed()
        if begun.is_set():
            await ended.wait()
    await runner.cleanup()


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /?message=" + b"A" * 9000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + b"Content-Length: 100\r\n\r\nhalf",
    ],
    ids=["line", "chunk", "half"],
)
async def test_a_broken_request_is_one_line(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    with capture_logs() as lines:
        await broken(read, data)
    assert [line["event"] for line in lines] == ["http_request_broken"]
    assert len(lines[0]["reason"]) <= 200
    assert caplog.records == []


async def test_a_mistake_of_ours_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise KeyError("ours")

    await broken(fail, HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_the_filter_is_set_once() -> None:
    log_to_stderr()
    filters = logging.getLogger("aiohttp.server").filters
    assert sum(isinstance(one, BrokenRequests) for one in filters) == 1
