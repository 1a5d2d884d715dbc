"""`mdm-server token …` against a running server."""

import asyncio
import json
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from typer.testing import CliRunner, Result

from mdmserver.cli import app
from tests.mdmserver.scripted_apple import Desk, Say, desk, device, page


@pytest.fixture(autouse=True)
def _silent_server() -> None:
    """The server runs in this process: its log must not end up in what the command printed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


async def run(d: Desk, folder: Path, *arguments: str, exit_code: int = 0) -> Result:
    """The command as the shell would run it, in a thread of its own."""
    token_file = folder / "admin-token"
    token_file.write_text(d.server.token + "\n")
    environment = {
        "MDM_SERVER_ADMIN": d.server.admin_url,
        "MDM_SERVER_ADMIN_TOKEN": str(token_file),
    }
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["token", *arguments], env=environment
    )
    assert result.exit_code == exit_code, result.output
    return result


async def test_a_token_comes_to_be_from_the_shell(tmp_path: Path) -> None:
    async with desk() as d:
        d.apple.say("POST /server/devices", Say(page("c", device("A"))))
        pem = tmp_path / "server.pem"
        printed = await run(d, tmp_path, "key", "--consent", "--pem", str(pem))
        key = printed.stdout.split("mdm-server token create ")[1].split()[0]
        certificate = x509.load_pem_x509_certificate(pem.read_bytes())
        file = tmp_path / "token.p7m"
        file.write_bytes(d.token_file(certificate))
        created = await run(d, tmp_path, "create", key, str(file), "--name", "Production")
        token = json.loads(created.stdout)["token_id"]
        await d.settled()

        profile = await run(d, tmp_path, "profile", token, "--default")
        assert json.loads(profile.stdout)["devices"] == {"A": "SUCCESS"}
        listed = await run(d, tmp_path, "list")
        assert listed.stdout.startswith(f"{token}  Production  active")
        assert "1 devices  sync full done" in listed.stdout

        started = await run(d, tmp_path, "sync", token)
        assert json.loads(started.stdout)["kind"] == "delta"
        await d.settled()
        refused = await run(d, tmp_path, "sync", token, exit_code=1)
        assert refused.stderr.startswith("an admin may sync every 15 minutes")

        printed = await run(d, tmp_path, "key", "--consent", "--pem", str(pem), "--renew", token)
        assert f"mdm-server token renew {token} FILE.p7m --key " in printed.stdout
        key = printed.stdout.split("--key ")[1].strip()
        await run(d, tmp_path, "renew", token, str(file), "--key", key, exit_code=1)
        file.write_bytes(d.token_file(x509.load_pem_x509_certificate(pem.read_bytes())))
        renewed = await run(d, tmp_path, "renew", token, str(file), "--key", key, "--force")
        assert json.loads(renewed.stdout)["renewed_at"] is not None
        await d.settled()


async def test_a_profile_may_come_from_a_file(tmp_path: Path) -> None:
    async with desk() as d:
        token = await d.token()
        file = tmp_path / "profile.json"
        file.write_text('{"department": "IT"}')
        await run(d, tmp_path, "profile", token, str(file))
        assert d.apple.asked[-1].body["department"] == "IT"
        file.write_text("department: IT")
        wrong = await run(d, tmp_path, "profile", token, str(file), exit_code=2)
        assert "is not JSON" in wrong.stderr


async def test_mistakes_are_one_line_each(tmp_path: Path) -> None:
    async with desk() as d:
        refused = await run(d, tmp_path, "key", exit_code=1)
        assert refused.stderr.startswith("consent: expected true")
        missing = await run(d, tmp_path, "create", "KEY", "/nonexistent.p7m", exit_code=2)
        assert missing.stderr == "/nonexistent.p7m: cannot be read: No such file or directory\n"
        wrong = await run(d, tmp_path, "list", "--admin", "http://127.0.0.1:1", exit_code=1)
        assert "connection refused" in wrong.stderr
