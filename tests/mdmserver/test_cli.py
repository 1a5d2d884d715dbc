"""`mdm-server serve` as a program: what it prints, how it ends, what it says to wrong options."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "mdmserver", "serve"]
OPTIONS = ["--port", "0", "--admin-port", "0"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


async def test_serve_says_where_everything_is_and_stops_on_a_signal(tmp_path: Path) -> None:
    state = tmp_path / "state"
    program = await asyncio.create_subprocess_exec(
        *COMMAND,
        *OPTIONS,
        "--state",
        str(state),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    lines: dict[str, str] = {}
    while "TLS root" not in lines:
        line = (await program.stdout.readline()).decode()
        assert line, (await program.communicate())[1].decode()
        lines[line[:16].strip()] = line[17:].strip()
    assert lines["enrollment URL"].startswith("https://127.0.0.1:")
    assert lines["enrollment URL"].endswith("/ade")
    assert lines["ACME directory"].endswith("/acme/directory")
    assert lines["management API"].startswith("http://127.0.0.1:")
    assert lines["admin token"] == f"in {state / 'admin-token'}"
    root = await asyncio.to_thread(Path(lines["TLS root"]).read_bytes)
    assert root.startswith(b"-----BEGIN CERTIFICATE")
    program.send_signal(signal.SIGTERM)
    _, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    token = (state / "admin-token").read_text().strip()
    assert token not in errors.decode()
    assert "server_stopped" in errors.decode()


def test_wrong_settings_end_with_2_and_every_mistake(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text("port: x\ntopic: y\n")
    ended = run("--config", str(config))
    assert ended.returncode == 2
    assert "2 mistakes" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_root_that_cannot_be_read_is_named() -> None:
    ended = run(*OPTIONS, "--apple-root", "/nonexistent.pem")
    assert ended.returncode == 2
    assert "/nonexistent.pem: cannot be read" in ended.stderr


def test_help_is_quick_to_import() -> None:
    code = "import sys, mdmserver.cli; print([m for m in ('aiohttp', 'structlog') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "[]"
