"""Stand-ins, server, fleet and portal each in a process of its own, with what `apple serve` printed pasted for the server.

A server token by way of the portal's command line, assigned devices enrolled through it, and a push that wakes one.
"""

import asyncio
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.e2e.apple_process import AppleProcess, apple_serve
from tests.e2e.test_cli import cli

HOSPITAL = "Example Hospital"
TOPIC = "com.apple.mgmt.External.apart"
SERIALS = ["SIMAPART01", "SIMAPART02"]
PLACE = ("--organization", HOSPITAL, "--server", "main")
PATIENCE_S = 60.0


@asynccontextmanager
async def process(
    *command: str, folder: Path, until: str, end: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """In `folder`, from when it has said the words `until`, with the lines so far; a signal ends it, with exit code 0."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert started.stdout is not None
    said: list[str] = []
    drained: asyncio.Task[bytes] | None = None
    try:
        while not said or until not in said[-1]:
            line = await started.stdout.readline()
            assert line, said
            said.append(line.decode().rstrip("\n"))
        drained = asyncio.create_task(started.stdout.read())
        yield started, said
        started.send_signal(end)
        rest = await drained
        assert await started.wait() == 0, rest.decode()
        assert b"Traceback" not in rest
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
        if drained is not None:
            await drained


@dataclass(frozen=True)
class Server:
    """`mdm-server serve` and its management API, by what it printed."""

    folder: Path
    said: dict[str, str]  # by the label of the line
    http: aiohttp.ClientSession

    async def fetch(self, method: str, path: str, **body: Any) -> bytes:
        token = (self.folder / self.said["admin token"].removeprefix("in ")).read_text().strip()
        url = self.said["management API"].removesuffix("/v1/devices") + path
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.request(method, url, headers=headers, **body) as answer:
            data = await answer.read()
            assert answer.status < 300, data
            return data

    async def call(self, method: str, path: str, content: object = None) -> Any:
        return json.loads(await self.fetch(method, path, json=content))


@asynccontextmanager
async def server_as_printed(apple: AppleProcess, folder: Path) -> AsyncIterator[Server]:
    """What `apple serve` printed for mdmserver, line by line, as somebody does it who pastes."""
    start = apple.said.index("mdmserver:") + 1
    block = [line.strip() for line in apple.said[start : apple.said.index("", start)]]
    certificate, comment, *settings, serve = block
    assert comment == "# server.yaml:"
    (folder / "server.yaml").write_text("\n".join([*settings, f"organization: {HOSPITAL}"]))
    program, *arguments = shlex.split(certificate.replace("TOPIC", TOPIC))
    assert program == "mdm-emulator"
    arguments[arguments.index("push.pem")] = str(folder / "push.pem")
    code, _, err = await cli(*arguments)
    assert code == 0, err
    program, *arguments = shlex.split(serve)
    assert program == "mdm-server"
    async with (
        process("mdmserver", *arguments, folder=folder, until="TLS root", end=signal.SIGTERM) as (
            _,
            said,
        ),
        aiohttp.ClientSession() as http,
    ):
        yield Server(folder, {line[:16].strip(): line[16:].strip() for line in said}, http)


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """Another process gets there in its own time; what `look` gave when it was true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(0.02)


async def portal(state: Path, *arguments: str | Path) -> str:
    code, out, err = await cli("portal", "--apple", state, *arguments)
    assert code == 0, err
    return out


async def signed_up(server: Server, state: Path) -> None:
    """The server's key goes to the portal, the portal's token to the server, which syncs and assigns its profile."""
    folder = server.folder
    key = (await server.call("POST", "/v1/token-keys", {"consent": True}))["key_id"]
    pem = await server.fetch("GET", f"/v1/token-keys/{key}/certificate.pem")
    (folder / "server.pem").write_bytes(pem)
    files = ("--certificate", folder / "server.pem", "--out", folder / "token.p7m")
    await portal(state, "server", "add", HOSPITAL, "main", *files)
    await portal(state, "assign", *SERIALS, *PLACE)
    sealed = (folder / "token.p7m").read_bytes()
    made = await server.fetch("POST", f"/v1/token-keys/{key}/token?name=main", data=sealed)
    token = json.loads(made)["token_id"]

    async def synced() -> bool:
        latest = (await server.call("GET", f"/v1/tokens/{token}"))["sync"]["latest"]
        return latest is not None and latest["state"] == "done"

    await eventually(synced)
    defined = await server.call("POST", f"/v1/tokens/{token}/profiles", {"default": True})
    assert defined["devices"] == dict.fromkeys(SERIALS, "SUCCESS")


def fleet_file(folder: Path) -> Path:
    """A fleet whose devices are those that are assigned."""
    group = {"count": 2, "model": ["iPhone14,5"], "os_version": ["18.1"]}
    owner = {"serials": SERIALS, "organization": HOSPITAL, "server": "main"}
    awaiting = {"awaiting_poll_s": 0.05, "awaiting_deadline_s": 30}
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump({"groups": [group | owner], "behaviour": awaiting}))
    return file


async def test_a_token_an_assignment_an_enrollment_and_a_push_between_processes(
    tmp_path: Path, pki_folder: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(pki_folder, state / "apple")
    async with apple_serve(state=state) as apple:
        await portal(state, "organization", "add", HOSPITAL, "--email", "it@example.com")
        async with server_as_printed(apple, tmp_path) as server:
            await signed_up(server, state)
            ca = str(tmp_path / server.said["TLS root"])
            kept = ("--state", str(tmp_path / "fleet"), "--ca", ca)

            enroll = ("enroll", fleet_file(tmp_path), "--apple", state, *kept, "--json", "-")
            code, out, err = await cli(*enroll)
            assert code == 0, err
            assert [one["state"] for one in json.loads(out)["devices"]] == ["home", "home"]
            devices = (await server.call("GET", "/v1/devices"))["devices"]
            udids = {one["serial"]: one["udid"] for one in devices}
            assert sorted(udids) == SERIALS
            details = json.loads(await portal(state, "device", SERIALS[0]))
            assert (details["profile_status"], details["server"]) == ("pushed", "main")

            listen = ("emulator", "listen", *kept)
            words = "sleeping until pushed"
            async with process(*listen, folder=tmp_path, until=words, end=signal.SIGINT):
                udid = udids[SERIALS[0]]
                wanted = {"request_type": "DeviceInformation", "Queries": ["BatteryLevel"]}
                queued = await server.call("POST", f"/v1/devices/{udid}/commands", wanted)

                async def acknowledged() -> bool:
                    path = f"/v1/commands/{queued['command_uuid']}"
                    return bool((await server.call("GET", path))["state"] == "acknowledged")

                await eventually(acknowledged)
        code, log = await apple.stop()
    assert code == 0
    assert "Traceback" not in log
