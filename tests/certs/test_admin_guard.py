"""The guard of admin ports: token file, Host, Origin, bearer token."""

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from aiohttp import ClientSession, web

from certs.admin_guard import admin_middleware, load_token
from certs.errors import MalformedMessage

TOKEN = "a-token-of-good-length"


@asynccontextmanager
async def guarded(allowed: set[str] | None = None) -> AsyncIterator[str]:
    """An admin port that knows its own address, or goes by other names."""
    hosts: set[str] = set() if allowed is None else allowed
    app = web.Application(middlewares=[admin_middleware(TOKEN, lambda: hosts)])

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    if allowed is None:
        hosts.add(address)
    try:
        yield f"http://{address}/"
    finally:
        await runner.cleanup()


async def ask(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with ClientSession() as session, session.get(url, headers=named) as response:
        return response.status, {k.lower(): v for k, v in response.headers.items()}


async def test_the_right_token_opens() -> None:
    async with guarded() as url:
        assert (await ask(url, Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await ask(url, Authorization=f"bearer  {TOKEN} "))[0] == 200
        own = url.rstrip("/")
        assert (await ask(url, Authorization=f"Bearer {TOKEN}", Origin=own))[0] == 200


@pytest.mark.parametrize(
    "given", ["Bearer wrong", "Bearer é", f"Basic {TOKEN}", f"Bearer {TOKEN}x"]
)
async def test_a_wrong_token_is_refused_with_a_challenge(given: str) -> None:
    async with guarded() as url:
        status, headers = await ask(url, Authorization=given)
    assert status == 401
    assert headers["www-authenticate"].startswith('Bearer realm="admin"')
    assert ("invalid_token" in headers["www-authenticate"]) is given.startswith("Bearer")


async def test_no_token_is_refused_with_one_log_line() -> None:
    async with guarded() as url:
        with structlog.testing.capture_logs() as logs:
            status, headers = await ask(url)
    assert status == 401
    assert headers["www-authenticate"] == 'Bearer realm="admin"'
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("admin_request_refused", "token")
    ]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "user@127.0.0.1", "127.0.0.1:1", "[::1"]
)
async def test_another_host_name_is_misdirected_even_with_the_token(host: str) -> None:
    async with guarded() as url:
        assert (await ask(url, Host=host, Authorization=f"Bearer {TOKEN}"))[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8443", "LOCALHOST", "[::1]:99"])
async def test_a_name_without_port_stands_for_every_port(host: str) -> None:
    async with guarded({"localhost", "[::1]"}) as url:
        assert (await ask(url, Host=host, Authorization=f"Bearer {TOKEN}"))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_forbidden_even_with_the_token(origin: str) -> None:
    async with guarded() as url:
        assert (await ask(url, Origin=origin, Authorization=f"Bearer {TOKEN}"))[0] == 403


async def test_a_refusal_does_not_tell_the_token() -> None:
    async with guarded() as url:
        with structlog.testing.capture_logs() as logs:
            await ask(url, Authorization="Bearer a-guess-of-somebody")
    assert TOKEN not in str(logs)
    assert "a-guess-of-somebody" not in str(logs)


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "admin.token"
    token = load_token(path)
    assert len(token) >= 40
    assert load_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["admin.token"]


def test_a_token_file_open_to_others_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with structlog.testing.capture_logs() as logs:
        assert load_token(path) == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["event"] for line in logs] == ["token_file_was_open_to_others"]


@pytest.mark.parametrize("content", ["", "short", "two words of good length", "é" * 20])
def test_a_token_that_guards_nothing_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "admin.token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(MalformedMessage, match="16 ASCII characters"):
        load_token(path)
