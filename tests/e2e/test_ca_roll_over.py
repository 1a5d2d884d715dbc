"""One fleet below an old and a new CA on the whole road: both are served, each has a revocation list, renewal leads to the new one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from certs import crl
from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.device.snapshot import thaw
from emulator.fleet.run import FleetRun
from emulator.http import HttpDoor, TrustSet
from mdmserver.app import MdmServer
from mdmserver.authority import roll_over
from mdmserver.settings import Settings
from tests.e2e.conftest import ORGANIZATION, SERVER, Road

DAY = 86_400.0
OLD, NEW = {"MDM ACME CA", "MDM SCEP CA"}, {"MDM ACME CA G2", "MDM SCEP CA G2"}


@asynccontextmanager
async def server_of(
    state: Path, pki: SimPKI, clock: SimulatedClock, port: int = 0
) -> AsyncIterator[MdmServer]:
    """One start of the server that lives in `state`."""
    async with MdmServer(
        Settings(organization=ORGANIZATION, identity_days=30, renew_days_before=7, port=port),
        state=state,
        clock=clock,
        machine_info_roots=[pki.root],
        attestation_roots=[pki.attestation.root],
    ) as server:
        yield server


async def identities(run: FleetRun) -> dict[str, x509.Certificate]:
    """What each device holds, by serial number."""
    found = {}
    for row in await run.store.rows():
        identity = thaw(row.snapshot).identity
        assert identity is not None
        found[row.serial] = identity.certificate
    return found


async def issuers(road: Road, run: FleetRun) -> dict[str, str]:
    return {serial: shown["issuer"] for serial, shown in (await road.server_devices(run)).items()}


async def check_in(run: FleetRun) -> dict[str, str | None]:
    """Everybody, and what came of it."""
    seen = await run.runner.check_in(await run.store.rows())
    return {outcome.serial: outcome.error for outcome in seen}


async def listed(
    server: MdmServer, clock: SimulatedClock, certificates: Iterable[x509.Certificate]
) -> list[bool]:
    """Whether the list that each certificate names, read over HTTPS, is signed by its issuer and has it."""
    found = []
    cas = [ca for _, ca in server.authority.issuing.items()]
    async with HttpDoor(clock=clock).session(
        trust=TrustSet().with_roots(*server.tls_roots)
    ) as session:
        for certificate in certificates:
            points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
            names = points.value[0].full_name
            assert names is not None
            revoked = crl.read((await session.request("GET", names[0].value, step="crl")).body)
            (issuer,) = [ca for ca in cas if ca.certificate.subject == certificate.issuer]
            assert revoked.is_signature_valid(issuer.identity.key.public_key())
            entry = revoked.get_revoked_certificate_by_serial_number(certificate.serial_number)
            found.append(entry is not None)
    return found


async def test_a_fleet_below_an_old_and_a_new_ca(tmp_path: Path) -> None:
    clock, state = SimulatedClock(), tmp_path / "server"
    pki = await asyncio.to_thread(SimPKI.open, tmp_path / "pki", clock)
    async with AsyncExitStack() as stack:
        async with server_of(state, pki, clock) as server:
            port = urlsplit(server.url).port or 0
            assigned = {"name": SERVER, "profile": server.assignment_profile()}
            portal = Portal.from_content(
                {"organizations": [{"name": ORGANIZATION, "servers": [assigned]}]}
            )
            services = await stack.enter_async_context(
                AppleServices(pki=pki, clock=clock, portal=portal)
            )
            road = Road(services=services, server=server, folder=tmp_path)
            run = await stack.enter_async_context(
                FleetRun(road.fleet(6), road.options(clock=clock))
            )
            rows = await run.manufacture()
            outcomes = await run.runner.enroll(rows[:3], run.way)
            assert [(o.state, o.error) for o in outcomes] == [("home", None)] * 3
            old = [row.serial for row in rows[:3]]
            assert set((await issuers(road, run)).values()) == OLD

        await asyncio.to_thread(roll_over, state, ("scep", "acme"), ORGANIZATION, clock=clock)
        server = await stack.enter_async_context(server_of(state, pki, clock, port))
        road = replace(road, server=server)
        outcomes = await run.runner.enroll(rows[3:], run.way)
        assert [(o.state, o.error) for o in outcomes] == [("home", None)] * 3
        new = [row.serial for row in rows[3:]]

        # Both are served side by side.
        assert set((await check_in(run)).values()) == {None}
        below = await issuers(road, run)
        assert {below[serial] for serial in old} == OLD
        assert {below[serial] for serial in new} == NEW

        # One of each is revoked: it stands in the list that its certificate names, and the server refuses it.
        held, devices = await identities(run), await road.server_devices(run)
        admin = run.admin_client(server.admin_url, server.token, step="revoke")
        gone = {old[0], new[0]}
        for serial in gone:
            await admin.call("POST", f"/v1/devices/{devices[serial]['udid']}/revoke")
        order = [*old, *new]
        assert await listed(server, clock, [held[serial] for serial in order]) == [
            serial in gone for serial in order
        ]
        refused = {serial: error for serial, error in (await check_in(run)).items() if error}
        assert set(refused) == gone

        # Renewal leads the others to the new CA, with the identity protocol of their enrollment.
        await clock.advance(24 * DAY)
        assert {s for s, error in (await check_in(run)).items() if error is None} == {
            *old[1:],
            *new[1:],
        }
        after = await identities(run)
        kept = [*old[1:], *new[1:]]
        assert all(after[serial] != held[serial] for serial in kept)
        await check_in(run)
        moved = await issuers(road, run)
        assert {serial: moved[serial].removesuffix(" G2") for serial in kept} == {
            serial: below[serial].removesuffix(" G2") for serial in kept
        }
        assert {moved[serial] for serial in kept} <= NEW
