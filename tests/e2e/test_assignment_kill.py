"""mdm-server, killed in the middle of a sync, goes on from the page that it stored last (bug D06)."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import SystemClock
from certs.faults import Action
from emulator.apple.answer import Received
from emulator.apple.app import AppleServices
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.fleet.admin_client import AdminClient
from emulator.http import HttpDoor, TrustSet

ORGANIZATION = "Example Inc"
SERVER = "Production"
SERIALS = [f"SIM{number}" for number in range(7)]
IN_FOUR_PAGES = AssignmentSettings(page_default=2, page_maximum=2)


class Killer:
    """A FaultPoint that ends the server's process while it waits for the n-th page, and keeps the cursors asked for."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.cursors: list[str | None] = []
        self.process: Process | None = None

    def __call__(self, side: str, step: str, message: object, n: int) -> Action | None:
        if step != "assignment_fetch" or not isinstance(message, Received):
            return None
        self.cursors.append(json.loads(message.body).get("cursor"))
        if len(self.cursors) != self._at or self.process is None:
            return None
        self.process.send_signal(signal.SIGKILL)
        return Action(name="drop")


class ServerProcess:
    """`mdm-server serve`, from when it says where everything is."""

    def __init__(self, process: Process, said: dict[str, str]) -> None:
        self.process = process
        self.url = said["management API"].partition("/v1")[0]
        self.token_file = Path(said["admin token"].removeprefix("in "))

    async def logged(self, event: str) -> str:
        """The next line of the log with this event."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            if event in line:
                return line
        pytest.fail(f"ended before {event}")


@asynccontextmanager
async def serve(folder: Path, apple: AppleServices) -> AsyncIterator[ServerProcess]:
    root = folder / "root.pem"
    root.write_bytes(apple.pki.tls_ca.certificate.public_bytes(Encoding.PEM))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mdmserver", "serve", "--port", "0", "--admin-port", "0"),
        *("--assignment-url", apple.url, "--assignment-root", str(root)),
        *("--state", str(folder / "state")),
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        assert process.stdout is not None
        said: dict[str, str] = {}
        while "TLS root" not in said:
            line = (await process.stdout.readline()).decode()
            if not line:
                pytest.fail((await process.communicate())[1].decode())
            said[line[:16].strip()] = line[17:].strip()
        yield ServerProcess(process, said)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.parametrize("at", [1, 2, 4])
async def test_a_server_that_is_killed_within_a_full_sync_asks_for_the_next_page(
    tmp_path: Path, pki_folder: Path, at: int
) -> None:
    clock, killer = SystemClock(), Killer(at)
    pki = await asyncio.to_thread(SimPKI.open, pki_folder, clock)
    portal = Portal.from_content({"organizations": [{"name": ORGANIZATION}]})
    async with (
        AppleServices(
            pki=pki, clock=clock, portal=portal, assignment=IN_FOUR_PAGES, faults=killer
        ) as apple,
        HttpDoor(clock=clock).session(trust=TrustSet()) as door,
    ):
        office = AdminClient(transport=door, url=apple.admin_url, token=apple.token, step="portal")

        def desk(server: ServerProcess) -> AdminClient:
            token = server.token_file.read_text().strip()
            return AdminClient(transport=door, url=server.url, token=token, step="server")

        async with serve(tmp_path, apple) as server:
            killer.process = server.process
            admin = desk(server)
            key = (await admin.call("POST", "/v1/token-keys", {"consent": True}))["key_id"]
            pem = await admin.fetch("GET", f"/v1/token-keys/{key}/certificate.pem")
            wanted = {"organization": ORGANIZATION, "name": SERVER}
            file = await office.fetch(
                "POST", "/portal/servers", {**wanted, "certificate": pem.body.decode()}
            )
            owned = {"organization": ORGANIZATION, "server": SERVER, "serials": SERIALS}
            await office.call("POST", "/portal/devices", owned)
            upload = admin.call(
                "POST", f"/v1/token-keys/{key}/token", data=file.body, data_type="text/plain"
            )
            # The answer to the upload may or may not come before the kill.
            await asyncio.gather(upload, return_exceptions=True)
            assert await server.process.wait() == -signal.SIGKILL
        assert len(killer.cursors) == at

        async with serve(tmp_path, apple) as server:
            await server.logged("syncs_interrupted")
            assert "state=done" in await server.logged("sync_ended")
            admin = desk(server)
            (token,) = (await admin.call("GET", "/v1/tokens"))["tokens"]
            path = f"/v1/tokens/{token['token_id']}"
            syncs: list[dict[str, Any]] = (await admin.call("GET", f"{path}/syncs"))["syncs"]
            devices = (await admin.call("GET", f"{path}/devices"))["devices"]
    assert [sync["state"] for sync in syncs] == ["done", "interrupted"]
    assert killer.cursors[at] == killer.cursors[at - 1]  # the page that was on its way
    assert len(killer.cursors) == 4 + 1
    assert [(device["serial"], device["state"]) for device in devices] == [
        (serial, "listed") for serial in SERIALS
    ]
