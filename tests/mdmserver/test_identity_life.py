"""An identity's life with the server: renewed before its end, revoked, and outlived by a CA that was rolled over."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from certs import crl
from certs.acme.client import AcmeClient
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem, ScepFailure
from certs.keys import FreshKeys
from certs.transport import HttpResponse
from emulator.http import HttpDoor, TrustSet
from emulator.wire import profile
from emulator.wire.command import Command, Status
from emulator.wire.profile import AcmePayload, ScepPayload
from mdmserver.authority import Authority, roll_over
from mdmserver.cli import app
from mdmserver.settings import Settings
from tests.mdmserver.harness import RawDevice, World, fingerprint, old_device, world

DAY = 86400.0
QUIET = ["DeviceInformation", "ProfileList"]
RENEWED = [*QUIET, "InstallProfile", "DeviceInformation"]


def refused(answer: HttpResponse, reason: str) -> None:
    assert answer.status == 400, (answer.status, answer.body)
    assert reason in answer.body.decode()


async def rule(device: RawDevice) -> dict[str, Any]:
    (found,) = [r for r in (await device.shown())["policy"] if r["rule"] == "identity"]
    return {key: found[key] for key in ("wanted", "reported", "state", "failures")}


async def renew(device: RawDevice, command: Command) -> None:
    """What a device does with the profile that came again: a new key, a new certificate, used from then on."""
    device.profile = profile.decode(command.fields["Payload"])
    device.identity = await device.get_identity(key=3)


class Renewing(RawDevice):
    """A device that does so within its session, before it acknowledges."""

    async def answer(
        self, command: Command, status: Status = Status.ACKNOWLEDGED, **fields: Any
    ) -> HttpResponse:
        if command.request_type == "InstallProfile" and status is Status.ACKNOWLEDGED:
            await renew(self, command)
        return await super().answer(command, status, **fields)


def renewing(w: World, **facts: Any) -> Renewing:
    return Renewing(world=w, signer=w.apple.activate(), **facts)


async def get(w: World, url: str) -> HttpResponse:
    trust = TrustSet().with_roots(*w.server.tls_roots)
    async with HttpDoor(clock=w.clock).session(trust=trust) as session:
        return await session.request("GET", url, step="raw")


@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_an_identity_is_renewed_before_its_end_by_the_protocol_of_its_enrollment(
    kind: str,
) -> None:
    async with world(identity_days=30, renew_days_before=7) as w:
        device = renewing(w, **(old_device() if kind == "scep" else {}))
        await device.enroll()
        await device.session()
        first = device.identity
        assert first is not None
        await w.clock.advance(22 * DAY)
        assert await device.session() == QUIET
        assert (await rule(device))["state"] == "ok"

        await w.clock.advance(2 * DAY)
        assert await device.session() == RENEWED
        payload_type = AcmePayload if kind == "acme" else ScepPayload
        assert device.profile is not None
        assert any(isinstance(payload, payload_type) for payload in device.profile.payloads)
        assert device.identity is not None
        assert device.identity.certificate != first.certificate
        shown = await device.shown()
        assert (shown["identity"], shown["certificate_sha256"]) == (
            kind,
            fingerprint(device.identity),
        )
        assert await rule(device) == {
            "wanted": "current",
            "reported": "current",
            "state": "ok",
            "failures": 0,
        }
        refused(await device.idle(tls=first, sign=first), "was replaced by a later one")
        # Past the end of the first certificate the device is as welcome as before, without Authenticate.
        await w.clock.advance(8 * DAY)
        assert await device.session() == QUIET


async def test_a_device_that_keeps_its_old_identity_is_asked_again_and_after_three_times_daily() -> (
    None
):
    async with world(identity_days=30, renew_days_before=20) as w:
        device = w.device()  # acknowledges, but gets no new certificate
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        for failures in (1, 2, 3):
            assert await device.session() == RENEWED
            found = await rule(device)
            assert found["reported"] == "ends 2026-01-31T00:00:00Z"
            assert (found["state"], found["failures"]) == ("failed", failures)
        assert await device.session() == QUIET
        assert (await rule(device))["state"] == "suspended"
        await w.clock.advance(DAY)
        assert await device.session() == RENEWED


async def test_a_refused_profile_is_a_failed_renewal() -> None:
    async with world(identity_days=30, renew_days_before=20) as w:
        device = w.device()
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        assert await device.session(InstallProfile=Status.ERROR) == [*QUIET, "InstallProfile"]
        assert (await rule(device))["state"] == "failed"
        assert await device.session(InstallProfile=Status.NOT_NOW) == [*QUIET, "InstallProfile"]
        assert (await rule(device))["failures"] == 1  # NotNow is none


async def test_lock_and_renewal_due_together_are_mended_by_one_profile() -> None:
    async with world(identity_days=30, renew_days_before=20) as w:
        device = renewing(w)
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        device.removal_disallowed = False
        assert (await device.session()).count("InstallProfile") == 1
        assert await device.session() == QUIET
        assert {r["state"] for r in (await device.shown())["policy"]} == {"ok"}


@pytest.mark.parametrize("reason", ["unsupervised", "not listed"])
async def test_a_profile_is_not_sent_again_where_it_must_not_be(reason: str) -> None:
    async with world(identity_days=30, renew_days_before=20) as w:
        device = w.device()
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        if reason == "unsupervised":
            device.supervised = False
        else:
            device.lists_profile = False
        assert await device.session() == QUIET
        assert (await rule(device))["state"] == "drift"


async def test_renewal_can_be_switched_off() -> None:
    async with world(identity_days=30, renew_days_before=0) as w:
        device = w.device()
        await device.enroll()
        await device.session()
        await w.clock.advance(30 * DAY)
        assert await device.session() == QUIET
        await w.clock.advance(1)
        refused(await device.idle(), "expired on 2026-01-31T00:00:00Z")


@pytest.mark.parametrize(("days", "before"), [(365.0, 30.0), (30.0, 10.0), (0.3, 0.1)])
def test_by_itself_renewal_starts_a_third_of_the_life_before_the_end_at_most_thirty_days(
    days: float, before: float
) -> None:
    wanted = Settings(identity_days=days).renewal_before
    assert wanted is not None
    assert wanted.total_seconds() == pytest.approx(timedelta(days=before).total_seconds())


def test_a_renewal_longer_than_the_life_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="renew_days_before must be less than identity_days"):
        Settings(identity_days=30, renew_days_before=30)


# Revocation


async def revoke(device: RawDevice, body: bytes = b"") -> HttpResponse:
    return await device.world.admin("POST", f"/v1/devices/{device.udid}/revoke", body=body)


@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_an_admin_revokes_a_device_which_is_refused_and_stands_in_the_crl(kind: str) -> None:
    async with world() as w:
        device = w.device(**(old_device() if kind == "scep" else {}))
        await device.enroll()
        assert device.identity is not None
        certificate = device.identity.certificate
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert points[0].full_name is not None
        url = points[0].full_name[0].value
        assert url == f"{w.server.url}/crl/{kind}.crl"
        assert len(crl.read((await get(w, url)).body)) == 0

        answer = await revoke(device, b'{"reason": "keyCompromise"}')
        assert (answer.status, json.loads(answer.body)) == (
            200,
            {
                "udid": device.udid,
                "certificate_sha256": fingerprint(device.identity),
                "reason": "keyCompromise",
            },
        )
        refused(await device.idle(), f"that of {device.udid} is revoked")
        refused(await device.check_in(device.authenticate()), "is revoked")
        served = await get(w, url)
        assert served.content_type == "application/pkix-crl"
        listed = crl.read(served.body)
        entry = listed.get_revoked_certificate_by_serial_number(certificate.serial_number)
        assert entry is not None
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason is x509.ReasonFlags.key_compromise


async def test_whoever_holds_the_key_revokes_by_acme_and_the_device_is_refused() -> None:
    """RFC 8555, section 7.6: an owner who finds a key stolen needs no administrator."""
    async with world() as w:
        device, other = w.device(), w.device(udid="00008110-000000000000001E", serial="SIM0000002")
        for one in device, other:
            await one.enroll()
        assert device.identity is not None
        assert other.identity is not None
        certificate = device.identity.certificate
        trust = TrustSet().with_roots(*w.server.tls_roots)
        async with HttpDoor(clock=w.clock).session(trust=trust) as session:
            client = AcmeClient(
                session, f"{w.server.url}/acme/directory", clock=w.clock, keys=FreshKeys()
            )
            await client.revoke(certificate, reason=1, key=device.identity.key)
            with pytest.raises(AcmeProblem, match="unauthorized"):
                await client.revoke(other.identity.certificate, key=device.identity.key)
        refused(await device.idle(), "is revoked")
        listed = crl.read((await get(w, f"{w.server.url}/crl/acme.crl")).body)
        entry = listed.get_revoked_certificate_by_serial_number(certificate.serial_number)
        assert entry is not None
        assert (await other.idle()).status == 200


@pytest.mark.parametrize("first", ["idle", "authenticate"])
@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_a_revocation_counts_for_a_successor_that_was_not_used_yet(
    kind: str, first: str
) -> None:
    """Whoever stole a key has had the time to renew with it."""
    async with world(identity_days=30, renew_days_before=20) as w:
        device = w.device(**(old_device() if kind == "scep" else {}))
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        assert await device.session() == RENEWED
        before = await device.get_identity(key=3)
        assert (await revoke(device)).status == 200
        device.identity = before
        message = device.idle() if first == "idle" else device.check_in(device.authenticate())
        refused(await message, f"that of {device.udid} is revoked, and with it this later one")
        assert (await device.shown())["certificate_sha256"] != fingerprint(before)
        device.signer = w.apple.activate()
        await device.enroll(key=4)
        assert (await device.idle()).status == 200
        refused(await device.idle(tls=before, sign=before), "was replaced by a later one")


@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_a_code_that_came_to_renew_ends_with_a_revocation_or_a_new_life(kind: str) -> None:
    async with world(identity_days=30, renew_days_before=20) as w:
        device = w.device(**(old_device() if kind == "scep" else {}))
        await device.enroll()
        await device.session()
        await w.clock.advance(11 * DAY)
        assert await device.session() == RENEWED
        sent_again = device.profile
        assert (await revoke(device)).status == 200
        late = await device.get_identity(sent_again, key=3)
        refused(await device.idle(tls=late, sign=late), "is revoked, and with it this later one")

        device.signer = w.apple.activate()
        await device.enroll(key=4)
        await device.session()
        await w.clock.advance(11 * DAY)
        assert await device.session() == RENEWED
        sent_again = device.profile
        device.signer = w.apple.activate()
        await device.enroll(key=5)
        with pytest.raises((AcmeProblem, ScepFailure)):
            await device.get_identity(sent_again, key=6)
        assert (await device.idle()).status == 200


async def test_a_revoked_device_may_enroll_again() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert (await revoke(device)).status == 200
        await device.enroll()
        assert (await device.idle()).status == 200


async def test_a_revocation_outlives_the_process(tmp_path: Path) -> None:
    async with world(state=tmp_path) as w:
        device = w.device()
        await device.enroll()
        await revoke(device)
        apple, clock = w.apple, w.clock
    async with world(state=tmp_path, apple=apple, clock=clock) as w:
        device.world = w
        refused(await device.idle(), "is revoked")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"reason": "because"}', "reason: expected one of unspecified"),
        (b'{"reason": "removeFromCRL"}', "reason: expected one of unspecified"),
        (b'{"reason": 1}', "reason: expected"),
        (b"[]", "body: expected a JSON object"),
        (b"{", "body: expected a JSON object"),
    ],
)
async def test_a_wrong_reason_revokes_nothing(body: bytes, error: str) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await revoke(device, body)
        assert answer.status == 400
        assert json.loads(answer.body)["error"].startswith(error)
        assert (await device.idle()).status == 200


async def test_only_a_device_that_is_known_can_be_revoked() -> None:
    async with world() as w:
        assert (await revoke(w.device())).status == 404


# Roll-over


async def test_after_a_roll_over_old_devices_stay_and_new_ones_get_the_new_ca(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"identity_days": 30, "renew_days_before": 7}
    async with world(state=tmp_path, **settings) as w:
        old, oldest = renewing(w), w.device(**old_device())
        await old.enroll()
        await oldest.enroll()
        apple, clock = w.apple, w.clock
    made = roll_over(tmp_path, ("scep", "acme"), "Simulated MDM", clock=clock)
    assert made == ["O=Simulated MDM,CN=MDM SCEP CA G2", "O=Simulated MDM,CN=MDM ACME CA G2"]

    async with world(state=tmp_path, apple=apple, clock=clock, **settings) as w:
        old.world = oldest.world = w
        new = w.device(udid="00008110-000000000000001E", serial="SIM0000002")
        newest = w.device(**old_device(udid="b" * 40, serial="SIM000000003"))
        await new.enroll()
        await newest.enroll(key=2)
        for device in (old, oldest, new, newest):
            await device.session()
        assert [(await d.shown())["issuer"] for d in (old, oldest, new, newest)] == [
            "MDM ACME CA",
            "MDM SCEP CA",
            "MDM ACME CA G2",
            "MDM SCEP CA G2",
        ]
        authority = w.server.authority
        assert authority.ra.certificate.issuer == authority.scep.certificate.subject
        # Each generation has a list of its own, and a revocation by either counts.
        assert (await revoke(oldest)).status == 200
        refused(await oldest.idle(), "is revoked")
        counts = [
            len(crl.read((await get(w, f"{w.server.url}/crl/{name}.crl")).body))
            for name in ("scep", "scep-2", "acme", "acme-2")
        ]
        assert counts == [1, 0, 0, 0]
        # A renewal moves a device to the new one.
        await clock.advance(24 * DAY)
        assert await old.session() == RENEWED
        assert (await old.shown())["issuer"] == "MDM ACME CA G2"


async def test_after_a_roll_over_whoever_holds_an_old_key_revokes_by_acme_still(
    tmp_path: Path,
) -> None:
    async with world(state=tmp_path) as w:
        device = w.device()
        await device.enroll()
        apple, clock = w.apple, w.clock
    roll_over(tmp_path, ("acme",), "Simulated MDM", clock=clock)
    async with world(state=tmp_path, apple=apple, clock=clock) as w:
        device.world = w
        assert device.identity is not None
        trust = TrustSet().with_roots(*w.server.tls_roots)
        async with HttpDoor(clock=w.clock).session(trust=trust) as session:
            client = AcmeClient(
                session, f"{w.server.url}/acme/directory", clock=w.clock, keys=FreshKeys()
            )
            await client.revoke(device.identity.certificate, key=device.identity.key)
        refused(await device.idle(), "is revoked")
        counts = [
            len(crl.read((await get(w, f"{w.server.url}/crl/{name}.crl")).body))
            for name in ("acme", "acme-2")
        ]
        assert counts == [1, 0]


# What C11, C13, C15 and C17 of the bug list do to us


async def test_a_silently_renewed_certificate_counts_with_its_first_request() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        await device.session()
        device.removal_disallowed = False
        answer = await device.idle()
        assert answer.status == 200  # the session breaks off; the profile comes in the next
        await device.session()
        install = next(c for c in device.seen if c.request_type == "InstallProfile")
        await renew(device, install)
        assert (await device.idle()).status == 200
        assert device.identity is not None
        assert (await device.shown())["certificate_sha256"] == fingerprint(device.identity)


@pytest.mark.parametrize("seconds", [-5, 0, 300])
async def test_a_certificate_is_good_for_a_clock_up_to_ten_minutes_slow(seconds: int) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert device.identity is not None
        start = device.identity.certificate.not_valid_before_utc
        assert start + timedelta(minutes=10) <= w.clock.now()
        assert start < w.clock.now() + timedelta(seconds=seconds)


async def test_a_wave_of_new_devices_at_once_gets_one_certificate_each() -> None:
    async with world() as w:
        devices = [
            w.device(udid=f"00008110-{number:016X}", serial=f"SIM00001{number:02}")
            for number in range(16)
        ]
        await asyncio.gather(*(device.enroll() for device in devices))
        serials = {
            device.identity.certificate.serial_number for device in devices if device.identity
        }
        assert len(serials) == 16
        for device in devices:
            assert device.identity is not None
            assert (await device.shown())["certificate_sha256"] == fingerprint(device.identity)


@pytest.mark.parametrize(("chosen", "made"), [("both", 2), ("scep", 1), ("acme", 1)])
def test_the_command_rolls_over_what_is_asked_for(tmp_path: Path, chosen: str, made: int) -> None:
    Authority.open(tmp_path / "authority", "Example", clock=SimulatedClock())
    result = CliRunner().invoke(
        app, ["roll-over", "--state", str(tmp_path), "--identities", chosen]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.count("from the next start on") == made
    folders = {path.name for path in (tmp_path / "authority").iterdir() if path.is_dir()}
    assert len(folders - {"tls", "scep", "acme"}) == made


def test_without_a_server_there_is_nothing_to_roll_over(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["roll-over", "--state", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("cannot roll over: ")
    assert "holds no CA that could be rolled over" in result.stderr
