"""Identities over time on the whole road: devices whose clocks are wrong, and renewal by the server's policy."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from certs.clock import SimulatedClock
from certs.scep.message import MessageType
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.device.device import Device
from emulator.device.snapshot import thaw
from emulator.device.surroundings import Surroundings
from emulator.fleet.run import FleetRun
from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.e2e.conftest import ORGANIZATION, SERVER, Road

HOUR = 3600.0


@pytest.mark.parametrize(
    ("scep_renewal", "message_type"),
    [("pkcs-req", MessageType.PKCS_REQ), ("renewal-req", MessageType.RENEWAL_REQ)],
)
async def test_a_fleet_with_wrong_clocks_is_renewed_in_time_and_outlives_its_first_identities(
    tmp_path: Path, scep_renewal: str, message_type: MessageType
) -> None:
    clock = SimulatedClock()
    async with AsyncExitStack() as stack:
        pki = await asyncio.to_thread(SimPKI.open, tmp_path / "pki", clock)
        server = await stack.enter_async_context(
            MdmServer(
                Settings(organization=ORGANIZATION, identity_days=1, renew_days_before=0.25),
                clock=clock,
                machine_info_roots=[pki.root],
                attestation_roots=[pki.attestation.root],
            )
        )
        assigned = {"name": SERVER, "profile": server.assignment_profile()}
        portal = Portal.from_content(
            {"organizations": [{"name": ORGANIZATION, "servers": [assigned]}]}
        )
        services = await stack.enter_async_context(
            AppleServices(pki=pki, clock=clock, portal=portal)
        )
        road = Road(services=services, server=server, folder=tmp_path)
        behaviour = {
            "awaiting_poll_s": "0.05",
            "clock_skew_s": ["-5", "300"],
            "scep_renewal": scep_renewal,
        }
        fleet = road.fleet(3, behaviour=behaviour)
        run = await stack.enter_async_context(FleetRun(fleet, road.options(clock=clock)))

        outcomes = await run.runner.enroll(await run.manufacture(), run.way)
        assert [(o.state, o.error) for o in outcomes] == [("home", None)] * 3
        assert {o.identity for o in outcomes} == {"acme", "scep"}
        first = await road.server_devices(run)
        skews = []

        async def look_at_the_clock(device: Device, surroundings: Surroundings) -> None:
            skews.append((surroundings.clock.now() - clock.now()).total_seconds())

        for row in await run.store.rows():
            await run.runner.act(row, look_at_the_clock)
        assert all(-5 <= skew <= 300 for skew in skews)
        assert len(set(skews)) == 3

        async def check_in() -> dict[str, str]:
            seen = await run.runner.check_in(await run.store.rows())
            assert [o.error for o in seen] == [None] * 3
            devices = await road.server_devices(run)
            return {serial: device["certificate_sha256"] for serial, device in devices.items()}

        await clock.advance(15 * HOUR)
        bound = await check_in()
        assert bound == {serial: d["certificate_sha256"] for serial, d in first.items()}
        await clock.advance(5 * HOUR)
        with capture_logs() as lines:
            renewed = await check_in()
        asked = [line["message_type"] for line in lines if line["event"] == "scep_transaction"]
        assert asked
        assert set(asked) == {message_type}
        assert all(renewed[serial] != bound[serial] for serial in bound)
        await clock.advance(6 * HOUR)  # two hours past the end of the first ones
        assert await check_in() == renewed
        after = await road.server_devices(run)
        for serial, device in after.items():
            assert device["identity"] == first[serial]["identity"]
            assert device["enrolled_at"] == first[serial]["enrolled_at"]
            states = {rule["rule"]: rule["state"] for rule in device["policy"]}
            assert states["identity"] == "ok"
        # One certificate each, on both sides the same: the old one is gone from the device (bug C15).
        for row in await run.store.rows():
            woken = thaw(row.snapshot)
            assert woken.identity is not None
            assert woken.identity.sha256.hex() == renewed[row.serial]
            assert len(woken.keychain.identities) == 1
            end = woken.identity.certificate.not_valid_after_utc
            assert end - clock.now() > timedelta(hours=17)
