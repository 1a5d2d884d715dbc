"""Policy on every check-in, over the wire: what is asked, mended, written down, and what it costs when all is well."""

from pathlib import Path
from typing import Any

import pytest

from certs.clock import SimulatedClock
from emulator.wire.command import Command, Status, decode_command
from emulator.wire.profile import AcmePayload, ScepPayload
from tests.mdmserver.harness import MINUTE, Apple, RawDevice, old_device, world

QUERIES = ["DeviceInformation", "ProfileList"]
DAY = 24 * 60 * MINUTE


async def settled(device: RawDevice) -> None:
    await device.enroll()
    await device.session()
    device.seen.clear()


async def rule(device: RawDevice, name: str) -> dict[str, Any]:
    policy = (await device.shown())["policy"]
    return next(r for r in policy if r["rule"] == name)


async def test_a_check_in_without_differences_costs_two_queries_and_two_writes() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        assert (
            await device.session() == QUERIES
        )  # the first after the mend still notes the agreement
        await w.clock.advance(60)
        before = w.server.store.rows_written
        shown = await device.shown()
        assert await device.session() == QUERIES
        assert w.server.store.rows_written - before == 2  # last seen, last reported
        after = await device.shown()
        assert {k for k in after if after[k] != shown[k]} == {"last_seen", "last_reported"}


async def test_the_two_queries_ask_for_name_supervision_and_all_profiles() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        await device.session()
        information, profiles = device.seen
        assert {"DeviceName", "IsSupervised"} <= set(information.fields["Queries"])
        assert profiles.fields == {"ManagedOnly": False}


@pytest.mark.ade(41)
async def test_a_renamed_device_gets_its_name_back_once() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        device.name = "Bob's phone"
        await w.clock.advance(60)
        assert await device.session() == [*QUERIES, "Settings", "DeviceInformation"]
        assert device.seen[2].fields == {
            "Settings": [{"Item": "DeviceName", "DeviceName": "iPhone-SIM0000001"}]
        }
        assert device.name == "iPhone-SIM0000001"
        shown = await device.shown()
        assert shown["name"] == "iPhone-SIM0000001"
        found = await rule(device, "name")
        assert (found["state"], found["last_enforced"]) == ("ok", "2026-01-01T00:01:00Z")
        assert await device.session() == QUERIES


async def test_an_unsupervised_device_is_not_renamed() -> None:
    async with world() as w:
        device = w.device(supervised=False)
        await device.enroll()
        assert await device.session() == QUERIES
        assert (await rule(device, "name"))["state"] == "drift"
        assert (await rule(device, "lock"))["state"] == "drift"
        assert (await rule(device, "supervision")) == {
            "rule": "supervision",
            "wanted": True,
            "reported": False,
            "state": "drift",
            "last_enforced": None,
            "failures": 0,
        }
        shown = await device.shown()
        assert (shown["supervised"], shown["locked"]) == (False, False)


class Stubborn(RawDevice):
    """Says yes to everything and changes nothing, or says no to one item."""

    item_status = "Acknowledged"

    def result(self, command: Command) -> dict[str, Any]:
        if command.request_type == "Settings":
            return {"Settings": [{"Item": "DeviceName", "Status": self.item_status}]}
        if command.request_type == "InstallProfile":
            return {}
        return super().result(command)


@pytest.mark.parametrize("how", ["refused", "item refused", "ignored"])
async def test_a_failed_mend_waits_for_the_next_session_and_after_three_for_a_day(how: str) -> None:
    async with world() as w:
        device = Stubborn(world=w, signer=w.apple.activate())
        device.item_status = "Error" if how == "item refused" else "Acknowledged"
        statuses = {"Settings": Status.ERROR} if how == "refused" else {}
        await device.enroll()
        for failures in (1, 2, 3):
            assert (await device.session(**statuses)).count("Settings") == 1
            found = await rule(device, "name")
            assert (found["state"], found["failures"]) == ("failed", failures)
        assert await device.session(**statuses) == QUERIES
        assert (await rule(device, "name"))["state"] == "suspended"
        await w.clock.advance(DAY - 1)
        assert await device.session(**statuses) == QUERIES
        await w.clock.advance(1)
        assert (await device.session(**statuses)).count("Settings") == 1
        assert await device.session(**statuses) == QUERIES
        assert (await rule(device, "name"))["failures"] == 4


async def test_a_mend_put_off_is_no_failure_and_keeps_its_uuid() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        for _ in range(5):
            assert (await device.session(Settings=Status.NOT_NOW)).count("Settings") == 1
        assert (await rule(device, "name"))["failures"] == 0
        await device.session()
        sent = {c.command_uuid for c in device.seen if c.request_type == "Settings"}
        assert len(sent) == 1
        assert device.name == "iPhone-SIM0000001"


async def test_a_refusal_that_is_sent_again_counts_once() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        mend = await mend_in_flight(device)
        for _ in range(2):  # the answer to the first got lost
            await device.answer(mend, Status.ERROR)
        assert (await rule(device, "name"))["failures"] == 1


async def test_the_late_answer_to_a_withdrawn_mend_counts_for_nothing() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        mend = await mend_in_flight(device)
        device.name = "iPhone-SIM0000001"
        assert await device.session() == QUERIES
        await device.answer(mend, Status.ERROR)
        found = await rule(device, "name")
        assert (found["state"], found["failures"]) == ("ok", 0)


async def test_a_device_that_answered_nothing_has_not_reported() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        await device.session(DeviceInformation=Status.ERROR, ProfileList=Status.ERROR)
        assert (await device.shown())["last_reported"] is None


async def mend_in_flight(device: RawDevice) -> Command:
    """A session up to the command that gives the name."""
    answer = await device.idle()
    for _ in QUERIES:
        query = decode_command(answer.body)
        answer = await device.answer(query, **device.result(query))
    mend = decode_command(answer.body)
    assert mend.request_type == "Settings"
    return mend


async def test_an_open_mend_that_is_no_longer_needed_is_withdrawn() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        await device.session(Settings=Status.NOT_NOW)
        device.name = "iPhone-SIM0000001"  # the user was faster
        assert await device.session() == QUERIES
        states = [c.state.value for c in await w.server.store.commands(device.udid)]
        assert states == ["withdrawn"]


async def test_an_edited_template_renames_at_the_next_check_in(tmp_path: Path) -> None:
    clock = SimulatedClock()
    apple = Apple.create(clock)
    async with world(state=tmp_path, clock=clock, apple=apple) as w:
        device = w.device()
        await settled(device)
        port = int(w.server.url.rpartition(":")[2])
    async with world(
        state=tmp_path, clock=clock, apple=apple, port=port, name_template="Ward-{{SERIAL}}"
    ) as w:
        device.world = w
        assert await device.session() == [*QUERIES, "Settings", "DeviceInformation"]
        shown = await device.shown()
        assert shown["name"] == shown["expected_name"] == "Ward-SIM0000001"


@pytest.mark.ade(40)
async def test_lock_and_supervision_stay_those_of_the_profile_the_device_enrolled_with(
    tmp_path: Path,
) -> None:
    clock = SimulatedClock()
    apple = Apple.create(clock)
    async with world(state=tmp_path, clock=clock, apple=apple, locked=False) as w:
        device = w.device()
        await settled(device)
        port = int(w.server.url.rpartition(":")[2])
    async with world(state=tmp_path, clock=clock, apple=apple, port=port, locked=True) as w:
        device.world = w
        device.removal_disallowed = False
        assert await device.session() == QUERIES
        assert (await rule(device, "lock"))["wanted"] is False
        device.signer = apple.activate()
        await settled(device)  # erased and enrolled again
        assert (await rule(device, "lock"))["wanted"] is True


# -- the lock ---------------------------------------------------------------------------------------------------------


@pytest.mark.ade(8)
@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_a_removable_profile_is_sent_again_with_the_identity_protocol_of_its_enrollment(
    kind: str,
) -> None:
    async with world() as w:
        device = w.device(**(old_device() if kind == "scep" else {}))
        await settled(device)
        first, identity = device.profile, device.identity
        assert first is not None
        device.removal_disallowed = False
        await w.clock.advance(30 * DAY)  # long after the window of its enrollment
        assert await device.session() == [*QUERIES, "InstallProfile", *QUERIES]
        assert (await rule(device, "lock"))["state"] == "ok"

        again = device.profile
        assert again is not None
        assert again.removal_disallowed is True
        assert again.signer_certificates == first.signer_certificates
        assert again.mdm == first.mdm
        assert type(again.payloads[1]) is (AcmePayload if kind == "acme" else ScepPayload)

        # The identity that came with it takes over at its first use, and the old one is done.
        renewed = await device.get_identity(again, key=1)
        assert (await device.idle(tls=identity, sign=identity)).status == 200
        device.identity = renewed
        assert await device.session() == QUERIES
        shown = await device.shown()
        assert shown["certificate_sha256"] == renewed.sha256.hex()
        assert shown["identity"] == kind
        answer = await device.idle(tls=identity, sign=identity)
        assert (answer.status, b"was replaced by a later one" in answer.body) == (400, True)


async def test_a_profile_that_is_not_listed_is_drift_and_never_sent() -> None:
    async with world() as w:
        device = w.device(lists_profile=False)
        await device.enroll()
        assert "InstallProfile" not in await device.session()
        found = await rule(device, "lock")
        assert (found["reported"], found["state"]) == (None, "drift")


async def test_a_profile_put_off_is_made_anew_because_its_code_grows_old() -> None:
    async with world() as w:
        device = Stubborn(world=w, signer=w.apple.activate(), name="iPhone-SIM0000001")
        await device.enroll()
        device.removal_disallowed = False
        for _ in range(2):
            await device.session(InstallProfile=Status.NOT_NOW)
            await w.clock.advance(16 * MINUTE)
        sent = [c.fields["Payload"] for c in device.seen if c.request_type == "InstallProfile"]
        assert len(set(sent)) == 2
        states = [c.state.value for c in await w.server.store.commands(device.udid)]
        assert states == ["withdrawn", "not_now"]
        assert (await rule(device, "lock"))["failures"] == 0


async def test_the_profile_list_is_asked_for_only_as_often_as_set() -> None:
    async with world(profile_list_every_s=3600) as w:
        device = w.device(name="iPhone-SIM0000001")
        await device.enroll()
        assert await device.session() == QUERIES
        await w.clock.advance(3599)
        assert await device.session() == ["DeviceInformation"]
        assert (await device.shown())["locked"] is True  # still what it reported last
        await w.clock.advance(1)
        assert await device.session() == QUERIES


class Babbling(RawDevice):
    """Answers with the wrong types (M06)."""

    def result(self, command: Command) -> dict[str, Any]:
        if command.request_type == "DeviceInformation":
            return {"QueryResponses": {"DeviceName": 7, "IsSupervised": "yes"}}
        if command.request_type == "ProfileList":
            return {"ProfileList": ["nonsense"]}
        return super().result(command)


async def test_answers_of_the_wrong_type_block_nothing_and_change_nothing() -> None:
    async with world() as w:
        device = Babbling(world=w, signer=w.apple.activate())
        await device.enroll()
        await device.enqueue("SecurityInfo")
        assert await device.session() == [*QUERIES, "SecurityInfo"]
        shown = await device.shown()
        assert (shown["name"], shown["supervised"], shown["policy"]) == (None, None, [])


async def test_no_template_means_no_names() -> None:
    async with world(name_template="") as w:
        device = w.device()
        await device.enroll()
        assert await device.session() == QUERIES
        assert (await device.shown())["expected_name"] is None


async def test_a_serial_that_makes_the_name_too_long_leaves_the_name_alone() -> None:
    async with world(name_template="{{SERIAL}}" + "x" * 50) as w:
        device = w.device(serial="S" * 14)
        await device.enroll()
        assert await device.session() == QUERIES
        assert (await device.shown())["expected_name"] is None


async def test_an_update_of_the_system_is_noticed() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        device.os_version, device.build = "18.2", "22C152"
        await device.session()
        shown = await device.shown()
        assert (shown["os_version"], shown["build"]) == ("18.2", "22C152")
