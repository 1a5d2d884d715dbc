"""A server started again on its folder is the same server (design.md 5)."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from certs.clock import SimulatedClock
from certs.errors import ScepFailure
from tests.mdmserver.harness import MINUTE, Apple, World, old_device, world

QUERIES = ["DeviceInformation", "ProfileList"]


class Restarts:
    """The same folder, clock and port through several lives of a server."""

    def __init__(self, state: Path) -> None:
        self.clock = SimulatedClock()
        self.apple = Apple.create(self.clock)
        self.state = state
        self.port = 0

    def life(self, **settings: Any) -> Any:
        return world(
            state=self.state, clock=self.clock, apple=self.apple, port=self.port, **settings
        )

    def remember(self, w: World) -> None:
        self.port = int(w.server.url.rpartition(":")[2])


async def test_devices_keys_and_queue_outlive_the_server(tmp_path: Path) -> None:
    restarts = Restarts(tmp_path / "state")
    async with restarts.life() as w:
        restarts.remember(w)
        device = w.device()
        await device.enroll(awaiting=True)
        await device.session()
        uuid = await device.enqueue("SecurityInfo")
        before = await device.shown()
        first_profile, token, roots = device.profile, w.server.token, w.server.tls_roots
    async with restarts.life() as w:
        device.world = w
        assert (w.server.token, w.server.tls_roots) == (token, roots)
        assert await device.shown() == before
        assert await device.session() == [*QUERIES, "SecurityInfo"]
        command = await w.server.store.command(uuid)
        assert command is not None
        assert command.state.value == "acknowledged"
        # Same topic, payload UUIDs and signer: what an update of the profile needs.
        again = await device.fetch_profile()
        assert first_profile is not None
        assert again.mdm == first_profile.mdm
        assert again.signer_certificates == first_profile.signer_certificates


async def test_windows_and_challenges_outlive_the_server(tmp_path: Path) -> None:
    restarts = Restarts(tmp_path)
    async with restarts.life() as w:
        restarts.remember(w)
        device = w.device(**old_device())
        used = await device.fetch_profile()
        await device.get_identity(used)
        fresh = await device.fetch_profile()
    await restarts.clock.advance(10 * MINUTE)
    async with restarts.life() as w:
        device.world = w
        with pytest.raises(ScepFailure, match="was used at"):
            await device.get_identity(used, key=1)
        device.identity = await device.get_identity(fresh, key=2)
        assert (await device.check_in(device.authenticate())).status == 200
        await w.clock.advance(6 * MINUTE)
        assert (await device.ask_for_profile()).status == 403


async def test_a_revocation_outlives_the_server(tmp_path: Path) -> None:
    restarts = Restarts(tmp_path)
    async with restarts.life() as w:
        restarts.remember(w)
        device = w.device()
        await device.enroll()
        assert device.identity is not None
        w.server.authority.acme.revoke(device.identity.certificate)
    async with restarts.life() as w:
        device.world = w
        answer = await device.idle()
        assert (answer.status, b"is revoked" in answer.body) == (400, True)


async def test_every_secret_in_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    mask = os.umask(0)
    try:
        async with world(state=folder) as w:
            await w.device().enroll()
            modes = await asyncio.to_thread(_modes, folder)
    finally:
        os.umask(mask)
    secret = {name: mode for name, mode in modes.items() if not name.endswith("certificate.pem")}
    assert {"server.sqlite", "server.sqlite-wal", "admin-token", "key.pem"} <= {
        Path(name).name for name in secret
    }
    assert {n: oct(m) for n, m in secret.items() if m & 0o077 and "issued" not in n} == {}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _modes(folder: Path) -> dict[str, int]:
    return {str(p): stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
