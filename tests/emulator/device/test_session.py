"""One MDM session against a scripted server: results, repeats, refusals, crashes (mdm.md 4)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from certs.errors import TransportError
from certs.faults import Action
from emulator.device import session as session_module
from emulator.device.device import Device
from emulator.device.profile_installation import enrollment_of
from emulator.device.session import SessionReport, check_in
from emulator.device.snapshot import freeze, thaw
from emulator.device.surroundings import Behaviour
from emulator.errors import PeerRefused
from emulator.wire.command import Command, Status, encode_command
from tests.emulator.device.enrollment_profiles import scep_profile
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    Killed,
    Memory,
    ScriptedMdm,
    scripted_mdm,
    surroundings,
    with_command,
)

XML = "application/xml"


@pytest_asyncio.fixture
async def mdm() -> AsyncIterator[ScriptedMdm]:
    async with scripted_mdm() as server:
        yield server


def _device(mdm: ScriptedMdm, **changes: Any) -> Device:
    return managed_device(url=mdm.url, **changes)


def _statuses(mdm: ScriptedMdm) -> list[str]:
    return [item.message.status.value for item in mdm.received if item.path == "/mdm"]


async def test_a_session_runs_every_command_and_ends_with_an_empty_answer(
    mdm: ScriptedMdm,
) -> None:
    device, memory = _device(mdm), Memory()
    mdm.commands += [
        with_command("DeviceInformation", "A", Queries=["UDID"]),
        with_command("FooBar", "B"),
        with_command("SecurityInfo", "C"),
    ]
    report = await check_in(device, surroundings(memory))
    assert report == SessionReport(commands=3, not_now=False, unenrolled=False)
    assert _statuses(mdm) == ["Idle", "Acknowledged", "Error", "Acknowledged"]
    assert [item.command_uuid for item in mdm.results] == ["A", "B", "C"]
    assert {item.udid for item in mdm.results} == {device.hardware.udid}
    assert mdm.results[0].fields == {"QueryResponses": {"UDID": device.hardware.udid}}
    assert memory.steps == ["idle", "command", "command", "command"]
    assert device.outbox is None
    assert memory.snapshots[-1] == freeze(device)


async def test_an_idle_session_stores_nothing(mdm: ScriptedMdm) -> None:
    memory = Memory()
    await check_in(_device(mdm), surroundings(memory))
    assert memory.snapshots == []


async def test_a_repeated_command_is_answered_from_memory_and_not_run_again(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    naming = with_command(
        "Settings", "N", Settings=[{"Item": "DeviceName", "DeviceName": "Ward 3"}]
    )
    mdm.commands += [naming, naming]
    await check_in(device, surroundings())
    device.name = "renamed meanwhile"
    mdm.commands.append(naming)
    await check_in(device, surroundings())
    assert device.name == "renamed meanwhile"
    first, second, third = mdm.results
    assert first == second == third


async def test_a_uuid_that_comes_again_for_another_command_is_a_new_command(
    mdm: ScriptedMdm,
) -> None:
    mdm.commands += [with_command("SecurityInfo", "1"), with_command("CertificateList", "1")]
    await check_in(_device(mdm), surroundings())
    assert [set(item.fields) for item in mdm.results] == [{"SecurityInfo"}, {"CertificateList"}]


async def test_the_memory_of_answers_is_bounded(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    mdm.commands += [with_command("SecurityInfo", str(number)) for number in range(40)]
    await check_in(device, surroundings())
    assert list(device.answered) == [str(number) for number in range(24, 40)]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 500, 503])
async def test_an_undelivered_result_is_kept_and_sent_first_next_time(
    mdm: ScriptedMdm, status: int
) -> None:
    device, memory = _device(mdm), Memory()
    mdm.commands += [with_command("SecurityInfo", "A"), (status, b"not now", "text/plain")]
    with pytest.raises(PeerRefused, match=f"command: HTTP {status}: not now"):
        await check_in(device, surroundings(memory))
    assert device.outbox is not None
    assert device.managed
    woken = thaw(memory.snapshots[-1])
    assert woken.outbox == device.outbox
    report = await check_in(woken, surroundings(memory))
    assert report.commands == 0
    assert _statuses(mdm) == ["Idle", "Acknowledged", "Acknowledged"]
    assert mdm.received[1].body == mdm.received[2].body
    assert woken.outbox is None
    assert thaw(memory.snapshots[-1]).outbox is None


async def test_a_result_survives_a_crash_between_effect_and_delivery(mdm: ScriptedMdm) -> None:
    device, memory = _device(mdm), Memory(kill_at=1)
    naming = with_command("Settings", "N", Settings=[{"Item": "DeviceName", "DeviceName": "x"}])
    mdm.commands.append(naming)
    with pytest.raises(Killed):
        await check_in(device, surroundings(memory))
    assert _statuses(mdm) == ["Idle"]
    woken = thaw(memory.snapshots[-1])
    woken.name = "a user came first"
    mdm.commands.append(naming)  # the server never saw a result
    await check_in(woken, surroundings())
    assert _statuses(mdm) == ["Idle", "Acknowledged", "Acknowledged"]
    assert woken.name == "a user came first"


async def test_not_now_is_said_not_stored_and_reported_when_it_was_the_last_word(
    mdm: ScriptedMdm,
) -> None:
    device, memory = _device(mdm), Memory()
    device.change(locked=True)
    naming = with_command("Settings", "N", Settings=[{"Item": "DeviceName", "DeviceName": "x"}])
    mdm.commands.append(naming)
    report = await check_in(device, surroundings(memory))
    assert report.not_now
    assert memory.snapshots == []
    assert (device.outbox, device.answered) == (None, {})
    mdm.commands += [naming, with_command("ProfileList", "P")]
    assert not (await check_in(device, surroundings())).not_now
    device.change(locked=False)
    mdm.commands.append(naming)
    await check_in(device, surroundings())
    assert device.name == "x"
    assert [item.status.value for item in mdm.results] == [
        "NotNow",
        "NotNow",
        "Acknowledged",
        "Acknowledged",
    ]
    assert mdm.results[0].fields == {}


async def test_which_commands_wait_is_a_setting(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    device.change(locked=True)
    behaviour = Behaviour(not_now_while_locked=frozenset({"SecurityInfo"}))
    mdm.commands.append(with_command("SecurityInfo"))
    assert (await check_in(device, surroundings(behaviour=behaviour))).not_now


async def test_a_malformed_command_with_a_uuid_is_a_command_format_error(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    mdm.commands += [
        (
            200,
            b'<plist version="1.0"><dict><key>CommandUUID</key><string>A</string></dict></plist>',
            XML,
        ),
        with_command("SecurityInfo", "B"),
    ]
    await check_in(device, surroundings())
    assert [(item.command_uuid, item.status) for item in mdm.results] == [
        ("A", Status.COMMAND_FORMAT_ERROR),
        ("B", Status.ACKNOWLEDGED),
    ]
    assert mdm.results[0].error_chain == ()


@pytest.mark.parametrize("garbage", [b"<html>", b"\x00\x01", b"<plist><array/></plist>", b" "])
async def test_garbage_that_names_no_command_ends_the_session_with_an_error(
    mdm: ScriptedMdm, garbage: bytes
) -> None:
    device = _device(mdm)
    mdm.commands.append((200, garbage, XML))
    with pytest.raises(PeerRefused, match="command: not a command: "):
        await check_in(device, surroundings())
    assert device.managed
    assert device.outbox is None
    assert _statuses(mdm) == ["Idle"]


async def test_an_endless_server_is_given_up(
    mdm: ScriptedMdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MAX_COMMANDS_PER_SESSION", 5)
    same = with_command("SecurityInfo", "A")
    mdm.commands += [same] * 50
    with pytest.raises(PeerRefused, match="command: 5 commands in one session, and no end of it"):
        await check_in(_device(mdm), surroundings())
    assert len(mdm.results) == 5


# --- the door


async def test_another_devices_identity_is_what_the_server_sees(mdm: ScriptedMdm) -> None:
    """Each of two devices shows its own certificate, at the same time."""
    first, second = _device(mdm), _device(mdm, hardware={"index": 1})
    around = surroundings()
    await asyncio.gather(*(check_in(device, around) for device in (first, second) for _ in "abc"))
    seen = {(item.message.udid, item.certificate) for item in mdm.received}
    assert seen == {
        (device.hardware.udid, device.identity.certificate if device.identity else None)
        for device in (first, second)
    }


async def test_a_server_that_is_gone_leaves_the_device_as_it_was() -> None:
    device = managed_device(url="https://127.0.0.1:1")
    with pytest.raises(PeerRefused, match="idle: ") as caught:
        await check_in(device, surroundings())
    assert isinstance(caught.value.__cause__, TransportError)
    assert device.managed


async def test_a_device_told_to_misbehave_answers_as_it_is_told(mdm: ScriptedMdm) -> None:
    device = _device(mdm)

    def faults(side: str, step: str, message: object, n: int) -> Action | None:
        if isinstance(message, Command) and n == 1:
            return Action(name="answer", arguments={"status": "NotNow"})
        return None

    mdm.commands += [with_command("SecurityInfo", "A"), with_command("SecurityInfo", "A")]
    await check_in(device, surroundings(faults=faults))
    assert [item.status.value for item in mdm.results] == ["NotNow", "Acknowledged"]


@pytest.mark.parametrize("since", ["13.4", "13.3"])
async def test_pinned_certificates_are_the_only_trust_from_13_4_on(
    mdm: ScriptedMdm, since: str
) -> None:
    device = _device(mdm)
    device.hardware = replace(device.hardware, os_version=since)
    served = scep_profile(mdm.url, server_url_pinning_certificate_uuids=("NOTHING",))
    assert served.mdm is not None
    device.enrollment = enrollment_of(device, served, served.mdm, automated=True)
    if since == "13.4":
        with pytest.raises(PeerRefused, match="idle: .*certificate"):
            await check_in(device, surroundings())
        device.enrollment = replace(device.enrollment, server_url_pins=("ROOT-UUID",))
    await check_in(device, surroundings())


def test_commands_of_this_file_are_what_a_server_sends() -> None:
    assert b"<key>RequestType</key>" in encode_command(with_command("SecurityInfo"))
