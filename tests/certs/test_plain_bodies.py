"""Compressed bodies are refused before anything is inflated, and tracebacks in logs show no locals."""

import gzip

import aiohttp
import pytest
import structlog
from aiohttp import web

from certs.logs import log_to_stderr
from certs.plain_bodies import plain_bodies


@pytest.mark.parametrize("body", [b"notgzip", gzip.compress(bytes(50_000_000))])
async def test_a_compressed_body_is_415_and_nobody_reads_it(body: bytes) -> None:
    read: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        read.append(len(await request.read()))
        return web.Response()

    app = web.Application(middlewares=[plain_bodies])
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        for coding, status in (("gzip", 415), ("br", 415), ("identity", 200)):
            async with session.post(url, data=body, headers={"Content-Encoding": coding}) as answer:
                assert answer.status == status
    await runner.cleanup()
    assert read == [len(body)]


def test_a_traceback_in_the_log_shows_no_local(capfd: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    secret = "correct horse battery staple"
    try:
        raise RuntimeError(f"{len(secret)} characters")
    except RuntimeError:
        structlog.get_logger().exception("internal_error")
    shown = capfd.readouterr().err
    assert "RuntimeError: 28 characters" in shown
    assert secret not in shown.replace('secret = "correct horse battery staple"', "")
