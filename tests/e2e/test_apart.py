"""Stand-ins, fleet and portal each in a process of its own, and a server that knows of them what `apple serve` printed.

A server token by way of the portal's command line, assigned devices enrolled through it, and a push that wakes one.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from emulator.apple.addresses import Addresses
from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.e2e.apple_process import apple_serve
from tests.e2e.test_cli import cli

HOSPITAL = "Example Hospital"
SERIALS = ["SIMAPART01", "SIMAPART02"]
PATIENCE_S = 60.0


async def portal(state: Path, *arguments: str | Path) -> str:
    code, out, err = await cli("portal", "--apple", state, *arguments)
    assert code == 0, err
    return out


@asynccontextmanager
async def server_for(at: Addresses, folder: Path) -> AsyncIterator[MdmServer]:
    """The built-in server, pointed at the stand-ins as the printed settings say."""

    def roots(name: str) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((Path(at.anchors) / name).read_bytes())

    settings = Settings(
        organization=HOSPITAL,
        assignment_url=at.url,
        push_certificate=folder / "push.pem",
        push_url=at.push_url,
        push_roots=(Path(at.tls_root),),
    )
    async with MdmServer(
        settings,
        state=folder / "server",
        clock=SystemClock(),
        machine_info_roots=roots("sim-apple-root-ca.pem"),
        attestation_roots=roots("sim-attestation-root-ca.pem"),
        assignment_roots=roots("sim-tls-ca.pem"),
    ) as server:
        yield server


class Desk:
    """The server's management API."""

    def __init__(self, server: MdmServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def fetch(self, method: str, path: str, **body: Any) -> bytes:
        headers = {"Authorization": f"Bearer {self._server.token}"}
        url = self._server.admin_url + path
        async with self._session.request(method, url, headers=headers, **body) as answer:
            data = await answer.read()
            assert answer.status < 300, data
            return data

    async def call(self, method: str, path: str, content: object = None) -> Any:
        return json.loads(await self.fetch(method, path, json=content))


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """Another process or task gets there in its own time; what `look` gave when it was true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(0.02)


async def test_a_token_an_assignment_an_enrollment_and_a_push_between_processes(
    tmp_path: Path, pki_folder: Path
) -> None:
    state, fleet_state = tmp_path / "state", tmp_path / "fleet"
    shutil.copytree(pki_folder, state / "apple")
    async with (
        apple_serve(state=state) as apple,
        aiohttp.ClientSession() as session,
    ):
        await portal(state, "organization", "add", HOSPITAL, "--email", "it@example.com")
        topic = "com.apple.mgmt.External.apart"
        await portal(state, "push-certificate", topic, "--out", tmp_path / "push.pem")
        async with server_for(apple.at, tmp_path) as server:
            desk = Desk(server, session)

            # The server's key goes to the portal, the portal's token to the server.
            key = (await desk.call("POST", "/v1/token-keys", {"consent": True}))["key_id"]
            pem = await desk.fetch("GET", f"/v1/token-keys/{key}/certificate.pem")
            (tmp_path / "server.pem").write_bytes(pem)
            files = ("--certificate", tmp_path / "server.pem", "--out", tmp_path / "token.p7m")
            await portal(state, "server", "add", HOSPITAL, "main", *files)
            place = ("--organization", HOSPITAL, "--server", "main")
            await portal(state, "assign", *SERIALS, *place)
            sealed = (tmp_path / "token.p7m").read_bytes()
            token = json.loads(
                await desk.fetch("POST", f"/v1/token-keys/{key}/token?name=main", data=sealed)
            )["token_id"]

            async def synced() -> bool:
                latest = (await desk.call("GET", f"/v1/tokens/{token}"))["sync"]["latest"]
                return latest is not None and latest["state"] == "done"

            await eventually(synced)
            defined = await desk.call("POST", f"/v1/tokens/{token}/profiles", {"default": True})
            assert defined["devices"] == dict.fromkeys(SERIALS, "SUCCESS")

            # The fleet: another process, its devices those that are assigned.
            file = tmp_path / "fleet.yaml"
            group = {"count": 2, "model": ["iPhone14,5"], "os_version": ["18.1"]}
            group |= {"serials": SERIALS, "organization": HOSPITAL, "server": "main"}
            awaiting = {"awaiting_poll_s": 0.05, "awaiting_deadline_s": 30}
            file.write_text(yaml.safe_dump({"groups": [group], "behaviour": awaiting}))
            ca = tmp_path / "server-ca.pem"
            ca.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in server.tls_roots))
            kept = ("--state", fleet_state, "--ca", ca)
            code, out, err = await cli("enroll", file, "--apple", state, *kept, "--json", "-")
            assert code == 0, err
            assert [one["state"] for one in json.loads(out)["devices"]] == ["home", "home"]
            enrolled = {
                one["serial"]: one for one in (await desk.call("GET", "/v1/devices"))["devices"]
            }
            assert sorted(enrolled) == SERIALS
            details = json.loads(await portal(state, "device", SERIALS[0]))
            assert (details["profile_status"], details["server"]) == ("pushed", "main")

            # Asleep in a process of their own, until the server has something for one.
            asleep = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "emulator", "listen", *map(str, kept)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                assert asleep.stderr is not None
                line = b""
                while b"sleeping until pushed" not in line:
                    line = await asleep.stderr.readline()
                    assert line, "listen ended"
                udid = enrolled[SERIALS[0]]["udid"]
                wanted = {"request_type": "DeviceInformation", "Queries": ["BatteryLevel"]}
                queued = await desk.call("POST", f"/v1/devices/{udid}/commands", wanted)

                async def acknowledged() -> Any:
                    path = f"/v1/commands/{queued['command_uuid']}"
                    shown = await desk.call("GET", path)
                    return shown if shown["state"] == "acknowledged" else None

                assert (await eventually(acknowledged))["udid"] == udid
                asleep.send_signal(signal.SIGINT)
                await asleep.communicate()
                assert asleep.returncode == 0
            finally:
                if asleep.returncode is None:
                    asleep.kill()
                    await asleep.wait()
        code, log = await apple.stop()
    assert code == 0
    assert "Traceback" not in log
