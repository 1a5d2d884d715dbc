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
from emulator.device.device import After, Device
from emulator.device.profile_installation import enrollment_of
from emulator.device.profiles import InstalledProfile
from emulator.device.session import SessionReport, check_in
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import IllegalTransition, PeerRefused
from emulator.wire import profile
from emulator.wire.command import Command, Status, encode_command
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    Killed,
    Memory,
    ScriptedMdm,
    apple_services,
    make_device,
    root_payload,
    scep_payload,
    scep_profile,
    scripted_mdm,
    surroundings,
    with_command,
)

UNRECOGNIZED = (403, b'{"code":"com.apple.unrecognized.device"}', "application/json")
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


# --- the end of management


@pytest.mark.parametrize(
    ("answer", "os_version", "ends"),
    [
        ((401, b""), "18.1", True),
        ((401, b""), "15.1", True),
        (UNRECOGNIZED, "18.1", True),
        (UNRECOGNIZED, "17.0", True),
        (UNRECOGNIZED, "16.1", False),
        ((403, UNRECOGNIZED[1], "text/plain"), "18.1", False),  # names no type that is read
        ((403, b'{"code":"com.example.other"}', "application/json"), "18.1", False),
    ],
)
async def test_401_and_an_unrecognized_device_end_the_management(
    mdm: ScriptedMdm, answer: tuple[int, bytes], os_version: str, ends: bool
) -> None:
    device, memory = _device(mdm, hardware={"os_version": os_version}), Memory()
    device.profiles.install(InstalledProfile(identifier="com.example.w", uuid="W", managed=True))
    mdm.commands.append(answer)
    if not ends:
        with pytest.raises(PeerRefused, match="idle: HTTP 403"):
            await check_in(device, surroundings(memory))
        assert device.managed
        return
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert device.state is State.HOME_UNMANAGED
    assert (device.profiles.all(), device.enrollment) == ((), None)
    assert mdm.names_of() == []  # no CheckOut
    assert memory.snapshots[-1] == freeze(device)
    with pytest.raises(IllegalTransition, match="home_unmanaged has no MDM session"):
        await check_in(device, surroundings())


@pytest.mark.parametrize("says_goodbye", [True, False])
@pytest.mark.parametrize("status", [200, 500])
async def test_removing_the_enrollment_profile_acknowledges_and_then_checks_out(
    mdm: ScriptedMdm, says_goodbye: bool, status: int
) -> None:
    device, memory = _device(mdm, check_out_when_removed=says_goodbye), Memory()
    mdm.statuses["CheckOut"] = (status, b"")
    mdm.commands.append(with_command("RemoveProfile", "R", Identifier=PROFILE_IDENTIFIER))
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert [type(item.message).__name__ for item in mdm.received] == [
        "Response",
        "Response",
        *(["CheckOut"] if says_goodbye else []),
    ]
    assert mdm.results[0].status is Status.ACKNOWLEDGED
    assert device.state is State.HOME_UNMANAGED
    assert memory.snapshots[-1] == freeze(device)


async def test_a_device_killed_before_it_left_leaves_when_it_wakes(mdm: ScriptedMdm) -> None:
    device, memory = _device(mdm), Memory(kill_at=1)
    mdm.commands.append(with_command("RemoveProfile", "R", Identifier=PROFILE_IDENTIFIER))
    with pytest.raises(Killed):
        await check_in(device, surroundings(memory))
    woken = thaw(memory.snapshots[-1])
    assert woken.outbox is not None
    assert woken.outbox.after is After.UNENROLL
    report = await check_in(woken, surroundings())
    assert report.unenrolled
    assert woken.state is State.HOME_UNMANAGED


@pytest.mark.parametrize("answer", [(200, b""), (500, b""), (401, b"")])
async def test_erase_is_acknowledged_first_and_done_whatever_the_server_says(
    mdm: ScriptedMdm, answer: tuple[int, bytes]
) -> None:
    device, memory = _device(mdm), Memory()
    device.name = "Ward 3"
    mdm.commands += [with_command("EraseDevice", "E"), answer]
    report = await check_in(device, surroundings(memory))
    assert report.unenrolled
    assert mdm.results[0].status is Status.ACKNOWLEDGED
    assert device == make_device()
    assert memory.snapshots[-1] == freeze(device)
    assert mdm.names_of() == []


async def test_a_restart_ends_the_session(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    mdm.commands += [with_command("RestartDevice", "R"), with_command("SecurityInfo", "S")]
    await check_in(device, surroundings())
    assert [item.command_uuid for item in mdm.results] == ["R"]
    assert device.settings.restarts == 1
    assert device.managed


# --- profiles


async def test_install_profile_installs_replaces_and_refuses(mdm: ScriptedMdm) -> None:
    device = _device(mdm)

    def install(uuid: str, data: bytes) -> Command:
        return with_command("InstallProfile", uuid, Payload=data)

    def wifi(version: str) -> bytes:
        return profile.encode(
            profile.Profile(
                identifier="com.example.wifi",
                uuid=version,
                payloads=(
                    profile.OtherPayload(
                        identifier="w",
                        uuid=f"W{version}",
                        payload_type="com.apple.wifi.managed",
                        fields={},
                    ),
                ),
            )
        )

    mdm.commands += [install("1", wifi("A")), install("2", wifi("B")), install("3", b"<html>")]
    await check_in(device, surroundings())
    assert [item.status.value for item in mdm.results] == ["Acknowledged", "Acknowledged", "Error"]
    assert [(item.domain, item.code) for item in mdm.results[2].error_chain] == [
        ("MCInstallationErrorDomain", 4000)
    ]
    installed = device.profiles.find("com.example.wifi")
    assert installed is not None
    assert (installed.uuid, installed.managed) == ("B", True)
    assert [item.identifier for item in device.profiles.all()] == [
        PROFILE_IDENTIFIER,
        "com.example.wifi",
    ]


async def test_an_update_of_the_enrollment_brings_a_new_identity_used_at_once(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    old = device.identity
    update = scep_profile(mdm.url, sign_message=False, access_rights=4095)
    mdm.commands += [
        with_command("InstallProfile", "I", Payload=profile.encode(update)),
        with_command("SecurityInfo", "S"),
    ]
    await check_in(device, surroundings())
    assert [item.status.value for item in mdm.results] == ["Acknowledged", "Acknowledged"]
    assert device.enrollment is not None
    assert device.enrollment.identity_kind == "scep"
    assert (device.enrollment.push_magic, device.enrollment.access_rights) == ("MAGIC", 4095)
    assert old is not None
    assert device.identity is not None
    certificates = [item.certificate for item in mdm.received]
    assert certificates == [old.certificate, *mdm.challenges.issued_to * 2]
    assert device.identity.certificate == mdm.challenges.issued_to[0]
    assert "mdm-signature" in mdm.received[0].headers
    assert "mdm-signature" not in mdm.received[1].headers


async def test_an_update_whose_identity_is_refused_changes_nothing(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    before = (
        device.enrollment,
        device.profiles.copy(),
        device.keychain.copy(),
    )
    mdm.challenges.password = "used up"
    payload = profile.encode(scep_profile(mdm.url))
    mdm.commands.append(with_command("InstallProfile", "I", Payload=payload))
    await check_in(device, surroundings())
    (refused,) = mdm.results
    assert [(item.domain, item.code) for item in refused.error_chain] == [
        ("MCInstallationErrorDomain", 4001),
        ("MCSCEPErrorDomain", 22013),
    ]
    assert (device.enrollment, device.profiles, device.keychain) == before


async def test_a_scep_server_that_cannot_be_reached_is_22005_and_an_untrusted_one_23002(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)

    def identity(url: str) -> bytes:
        return profile.encode(
            profile.Profile(identifier="i", uuid="I", payloads=(scep_payload(url),))
        )

    async with apple_services() as other:  # its TLS root is none of this device's
        mdm.commands += [
            with_command("InstallProfile", "1", Payload=identity("http://127.0.0.1:1")),
            with_command("InstallProfile", "2", Payload=identity(other.url)),
        ]
        await check_in(device, surroundings())
    assert [[(item.domain, item.code) for item in one.error_chain] for one in mdm.results] == [
        [("MCInstallationErrorDomain", 4001), ("MCSCEPErrorDomain", 22005)],
        [("MCInstallationErrorDomain", 4001), ("MCHTTPTransactionErrorDomain", 23002)],
    ]


async def test_a_profile_brings_an_identity_by_scep_and_its_removal_takes_it(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    served = profile.Profile(
        identifier="com.example.vpn",
        uuid="V",
        payloads=(root_payload(), scep_payload(mdm.url)),
    )
    mdm.commands += [
        with_command("InstallProfile", "I", Payload=profile.encode(served)),
        with_command("CertificateList", "L"),
        with_command("RemoveProfile", "R", Identifier="com.example.vpn"),
        with_command("CertificateList", "M"),
    ]
    await check_in(device, surroundings())
    assert {item.status.value for item in mdm.results} == {"Acknowledged"}
    assert len(mdm.results[1].fields["CertificateList"]) == 4
    assert len(mdm.results[3].fields["CertificateList"]) == 2


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
