"""`enroll --profile` with every captured profile of others: what becomes of each is stated here."""

import base64
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from certs import cms
from certs.authorize import StaticChallenge
from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.hosts import HostMap
from certs.scep.server import ScepServer
from emulator.fleet.run import FleetRun
from emulator.fleet.runner import Outcome
from emulator.wire import checkin
from tests.e2e.conftest import Road
from tests.support import VECTORS, needs_vectors, rsa_key

FOLDER = VECTORS / "profiles"
NO_MDM = "MCInstallationErrorDomain 4022: The profile must contain an MDM payload."
CHALLENGE = "SCEP-CHALLENGE-HERE"  # as NanoMDM's documentation has it
REACHES_ITS_SERVER = "enroll-nanomdm.mobileconfig"

# Only one of them is an enrollment profile; each of the others is read whole, its signature checked, and refused.
EXPECTED = {
    "dns-adguard-default-https.mobileconfig": NO_MDM,
    "dns-adguard-default-https.signed.mobileconfig": NO_MDM,
    "dns-adguard-family-tls.mobileconfig": NO_MDM,
    "dns-adguard-family-tls.signed.mobileconfig": NO_MDM,
    "dns-cleanbrowsing-security-tls.mobileconfig": NO_MDM,
    "dns-cleanbrowsing-security-tls.signed.mobileconfig": NO_MDM,
    "dns-cloudflare-default-tls.mobileconfig": NO_MDM,
    "dns-cloudflare-default-tls.signed.mobileconfig": NO_MDM,
    "dns-google-default-https.mobileconfig": NO_MDM,
    "dns-google-default-https.signed.mobileconfig": NO_MDM,
    "dns-opendns-family-https.mobileconfig": NO_MDM,
    "dns-opendns-family-https.signed.mobileconfig": NO_MDM,
    "dns-quad9-default-https.mobileconfig": NO_MDM,
    "dns-quad9-default-https.signed.mobileconfig": NO_MDM,
    "dns-quad9-default-tls.mobileconfig": NO_MDM,
    "dns-quad9-default-tls.signed.mobileconfig": NO_MDM,
    REACHES_ITS_SERVER: "scep: ",  # an unknown host, unless it is mapped
    "example-projectimas.mobileconfig": NO_MDM,
    "micromdm-docs-screensaver.mobileconfig": NO_MDM,
    "rtrouton-AppleIntelligenceDisableWritingTools.mobileconfig": NO_MDM,
    "rtrouton-BlockAirDrop.mobileconfig": NO_MDM,
    "rtrouton-BlockiPhoneMirroring.mobileconfig": NO_MDM,
    "rtrouton-DisableEraseAllContentsAndSettings.mobileconfig": NO_MDM,
    "rtrouton-DisableScreenshotCreation.mobileconfig": NO_MDM,
    "rtrouton-SkipAppAnalyticsSetup.mobileconfig": NO_MDM,
    "rtrouton-SkipDarkorLightAppearance.mobileconfig": NO_MDM,
    "rtrouton-SkipDataAndPrivacy.mobileconfig": NO_MDM,
    "rtrouton-SkipFileVaultSetup.mobileconfig": NO_MDM,
    "sceptest-micromdm-scep.mobileconfig": NO_MDM,  # SCEP and a root, but nothing to manage
    "test-nanocmd.mobileconfig": NO_MDM,
    "test-zentral.mobileconfig": NO_MDM,
}


@dataclass
class NanoServer:
    """The two doors that the profile names: /scep, and /mdm for check-ins under Mdm-Signature."""

    port: int = 0
    challenge: StaticChallenge = field(default_factory=lambda: StaticChallenge(CHALLENGE))
    messages: list[checkin.Message] = field(default_factory=list)

    async def mdm(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.content_type == "application/x-apple-aspen-mdm-checkin":
            signed = cms.decode_signed(base64.b64decode(request.headers["Mdm-Signature"]))
            signer = cms.verify_signed(signed, content=body)
            assert signer in self.challenge.issued_to
            self.messages.append(checkin.decode(body))
        return web.Response()


@asynccontextmanager
async def nano_server() -> AsyncIterator[NanoServer]:
    server, clock = NanoServer(), SystemClock()
    ca = CertificateAuthority.create("Test CA", key=rsa_key(0), clock=clock)
    app = web.Application()
    ScepServer(ca, ca.identity, server.challenge, clock=clock).add_routes(app, "/scep")
    app.router.add_put("/mdm", server.mdm)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


async def enroll_with(road: Road, profile: Path, hosts: HostMap | None = None) -> Outcome:
    """`mdm-emulator enroll --profile FILE [--map …]` for one device."""
    group = {"model": ["iPhone14,5"], "os_version": ["18.1"]}
    apple = road.apple() | {"activation": "off"}
    seed = zlib.crc32(profile.name.encode())  # a device of its own for each profile
    fleet = road.fleet(1, seed=seed, profile=profile, groups=[group], apple=apple)
    options = road.options(state=road.folder / "states" / profile.name, hosts=hosts or HostMap())
    async with FleetRun(fleet, options) as run:
        (outcome,) = await run.runner.enroll(await run.manufacture(), run.way)
    return outcome


@needs_vectors
@pytest.mark.vectors
def test_the_table_names_every_captured_profile() -> None:
    assert {file.name for file in FOLDER.glob("*.mobileconfig")} == set(EXPECTED)


@needs_vectors
@pytest.mark.vectors
async def test_every_captured_profile_ends_as_the_table_says(road: Road) -> None:
    found = {name: await enroll_with(road, FOLDER / name) for name in EXPECTED}
    errors = {name: str(outcome.error) for name, outcome in found.items()}
    assert {name: error[: len(EXPECTED[name])] for name, error in errors.items()} == EXPECTED
    assert {outcome.state for outcome in found.values()} <= {"failed", "refused"}
    assert all(outcome.identity is None for outcome in found.values())


@needs_vectors
@pytest.mark.vectors
async def test_nanomdms_profile_is_followed_to_its_scep_url_and_home(road: Road) -> None:
    async with nano_server() as server:
        hosts = HostMap.parse([f"https://mdm.example.org=http://127.0.0.1:{server.port}"])
        outcome = await enroll_with(road, FOLDER / REACHES_ITS_SERVER, hosts)
    assert (outcome.state, outcome.identity, outcome.error) == ("home", "scep", None)
    assert [type(message) for message in server.messages] == [
        checkin.Authenticate,
        checkin.TokenUpdate,
    ]
    assert {getattr(message, "udid", None) for message in server.messages} == {outcome.udid}
    assert len(server.challenge.issued_to) == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "MCInstallationErrorDomain 4000"),
        (b"<html>not a profile</html>", "MCInstallationErrorDomain 4000"),
        (b"\x30\x80\x06\x09", "MCInstallationErrorDomain 400"),
        (
            b'<?xml version="1.0"?><plist version="1.0"><array/></plist>',
            "MCInstallationErrorDomain 4000",
        ),
    ],
    ids=["empty", "html", "cut-cms", "array"],
)
async def test_a_damaged_profile_leaves_nothing_behind(
    road: Road, tmp_path: Path, content: bytes, error: str
) -> None:
    file = tmp_path / "damaged.mobileconfig"
    file.write_bytes(content)
    outcome = await enroll_with(road, file)
    assert str(outcome.error).startswith(error)
    assert outcome.identity is None
