"""Fleets on the whole road: what the devices say and what the server says must add up."""

import asyncio
from base64 import b64encode
from collections import Counter
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.faults import Action
from emulator.apple.portal import Portal
from emulator.device.device import Device
from emulator.device.snapshot import freeze, thaw
from emulator.device.surroundings import Surroundings
from emulator.device.user import erase
from emulator.fleet import fleet as fleet_file
from emulator.fleet.run import FleetRun
from emulator.fleet.runner import Outcome
from emulator.fleet.store import DeviceRow
from emulator.wire.checkin import Authenticate
from mdmserver.settings import Settings
from tests.e2e.conftest import ORGANIZATION, SERVER, OpenRoad, Road


async def enroll(run: FleetRun) -> list[Outcome]:
    rows = await run.manufacture()
    return await run.runner.enroll(rows, run.way)


async def test_a_fleet_of_fifty_adds_up_on_both_sides(road: Road) -> None:
    async with FleetRun(road.fleet(50), road.options()) as run:
        outcomes = await enroll(run)
        server = await road.server_devices(run)
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert Counter(outcome.identity for outcome in outcomes) == {"acme": 17, "scep": 33}
    assert len(server) == 50
    for outcome in outcomes:
        seen = server[outcome.serial]
        assert seen["udid"] == outcome.udid
        assert seen["state"] == "enrolled"
        facts = [(o["supervised"], o["locked"], o["name"], o["identity"]) for o in (seen,)]
        assert facts == [(True, True, outcome.name, outcome.identity)]
        assert (outcome.supervised, outcome.locked, outcome.state) == (True, True, "home")
    steps = run.stats.summary()
    assert steps["authenticate"]["count"] == 50
    assert steps["pki_operation"]["count"] == 33
    assert steps["finalize"]["count"] == 17
    assert all(step["errors"] == 0 for step in steps.values())


async def test_enrolled_devices_check_in_later_with_the_same_identity(road: Road) -> None:
    async with FleetRun(road.fleet(4), road.options()) as run:
        await enroll(run)
        before = await road.server_devices(run)
    async with FleetRun(road.fleet(4), road.options()) as run:
        outcomes = await run.runner.check_in(await run.manufacture())
        after = await road.server_devices(run)
    assert [outcome.error for outcome in outcomes] == [None] * 4
    for serial, device in after.items():
        assert device["certificate_sha256"] == before[serial]["certificate_sha256"]
        assert device["enrolled_at"] == before[serial]["enrolled_at"]
        assert device["last_seen"] >= before[serial]["last_seen"]
    assert set(run.stats.summary()) == {"idle", "command"}


@pytest.mark.parametrize("sign_message", [True, False], ids=["mdm-signature", "mtls-only"])
async def test_both_ways_to_prove_an_identity_are_accepted(
    open_road: OpenRoad, sign_message: bool
) -> None:
    settings = Settings(organization=ORGANIZATION, sign_message=sign_message)
    async with (
        open_road(settings=settings) as road,
        FleetRun(road.fleet(3), road.options()) as run,
    ):
        outcomes = await enroll(run)
    assert [(o.state, o.error) for o in outcomes] == [("home", None)] * 3


async def test_another_devices_identity_is_refused_and_nothing_changes(road: Road) -> None:
    async with FleetRun(road.fleet(2), road.options()) as run:
        await enroll(run)
        before = await road.server_devices(run)
        first, second = await run.store.rows()
        victim, thief = thaw(first.snapshot), thaw(second.snapshot)
        stolen = victim.installed_identity
        own = thief.installed_identity
        assert stolen is not None
        assert own is not None
        thief.keychain.add(replace(own, identity=stolen.identity))
        (outcome,) = await run.runner.check_in([replace(second, snapshot=freeze(thief))])
        after = await road.server_devices(run)
    assert outcome.error is not None
    assert "HTTP 400" in outcome.error
    assert after == before


async def test_a_server_of_a_ca_that_the_configuration_does_not_anchor_is_not_trusted(
    road: Road,
) -> None:
    foreign = await asyncio.to_thread(
        CertificateAuthority.create, "Foreign CA", clock=SystemClock()
    )
    profile = road.server.assignment_profile() | {
        "anchor_certs": [b64encode(foreign.certificate.public_bytes(Encoding.DER)).decode()]
    }
    road.services.apply(
        Portal.from_content(
            {
                "organizations": [
                    {"name": ORGANIZATION, "servers": [{"name": SERVER, "profile": profile}]}
                ]
            }
        )
    )
    async with FleetRun(road.fleet(2), road.options()) as run:
        outcomes = await enroll(run)
        server = await road.server_devices(run)
    assert server == {}
    for outcome in outcomes:
        assert outcome.state in {"failed", "refused"}
        assert str(outcome.error).startswith("enrollment_profile: ")
        assert "server certificate refused: self-signed certificate" in str(outcome.error)


async def test_a_refused_device_is_a_number_and_the_rest_goes_on(open_road: OpenRoad) -> None:
    broken = ""

    def break_one(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "authenticate" and isinstance(message, Authenticate) and message.udid == broken:
            return Action(name="status", arguments={"status": 500})
        return None

    async with (
        open_road(server_faults=break_one) as road,
        FleetRun(road.fleet(6), road.options()) as run,
    ):
        broken = fleet_file.plan(run.fleet)[2].hardware.udid
        outcomes = await enroll(run)
        server = await road.server_devices(run)
        broken = ""
        again = await run.runner.enroll(await run.store.rows(), run.way)
    assert [outcome.state for outcome in outcomes] == ["home"] * 2 + ["refused"] + ["home"] * 3
    assert "authenticate: HTTP 500" in str(outcomes[2].error)
    assert len(server) == 5
    assert [outcome.state for outcome in again] == ["home"] * 6


async def test_without_activation_an_erased_device_gets_a_new_device_certificate(
    road: Road,
) -> None:
    fleet = road.fleet(1, apple=road.apple() | {"activation": "off"})

    def signer(row: DeviceRow) -> bytes:
        identity = thaw(row.snapshot).factory.device
        assert identity is not None
        return identity.sha256

    async with FleetRun(fleet, road.options()) as run:
        (outcome,) = await enroll(run)
        (row,) = await run.store.rows()
        (unchanged,) = await run.manufacture()
        assert signer(unchanged) == signer(row)

        async def act(device: Device, surroundings: Surroundings) -> None:
            erase(device)

        await run.runner.act(row, act)
        (renewed,) = await run.manufacture()
        (again,) = await run.runner.enroll([renewed], run.way)
    assert (outcome.state, again.state) == ("home", "home")
    assert signer(renewed) != signer(row)
