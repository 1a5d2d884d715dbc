"""The demo ends as planned, gives the same devices for the same seed, and notices a device that does not."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certs.faults import Action
from emulator import demo, demo_assignment
from emulator.cli import app
from emulator.fleet import fleet as fleet_file
from emulator.fleet.runner import Outcome
from emulator.wire.fields import Fields
from mdmserver.assignment_client import AssignmentClient
from mdmserver.enforcement import Enforcement


def run(*arguments: str) -> tuple[int, demo.DemoReport]:
    result = CliRunner().invoke(app, ["demo", "--devices", "8", "--json", "-", *arguments])
    return result.exit_code, json.loads(result.stdout)


def test_every_device_of_the_demo_ends_as_planned() -> None:
    code, report = run("--seed", "7")
    assert code == 0
    devices = report["devices"]
    assert [device["error"] for device in devices] == [None] * 8
    assert [device["state"] for device in devices] == ["home"] * 6 + ["not_assigned"] * 2
    assert (devices[0]["model"], devices[0]["os_version"], devices[0]["identity"]) == (
        "iPad7,5",
        "17.7.2",
        "scep",  # by its chip, whatever its system
    )
    assert {device["identity"] for device in devices} == {"acme", "scep", None}
    for device in devices[:6]:
        assert (device["supervised"], device["locked"]) == (True, True)
        assert device["name"] == device["expected_name"]
    for device in devices[6:]:
        unmanaged = (device["identity"], device["supervised"], device["locked"], device["name"])
        assert unmanaged == (None, None, None, None)
    assert (report["renamed_back"], report["removal_denied"]) == (5, 1)
    steps = report["steps"]
    assert steps["token_update"]["count"] == 12  # one more after DeviceConfigured
    assert all(step["p50_ms"] <= step["p99_ms"] and step["count"] for step in steps.values())


def test_the_devices_are_assigned_by_the_server_through_the_assignment_api() -> None:
    result = CliRunner().invoke(app, ["demo", "--devices", "8"])
    assert result.exit_code == 0
    said = [line for line in result.stderr.splitlines() if line.startswith("device assignment: ")]
    assert "server token: " in said[0]
    assert "token uploaded; default profile " in said[1]
    assert said[2] == "device assignment: 6 devices synced, each with its profile assigned"


def test_a_server_that_assigns_nothing_makes_the_demo_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No shortcut: without the server's assignment no device has a profile."""

    async def nothing(self: AssignmentClient, uuid: str, serials: Sequence[str]) -> Fields:
        return {"devices": dict.fromkeys(serials, "NOT_ACCESSIBLE")}

    monkeypatch.setattr(AssignmentClient, "assign", nothing)
    monkeypatch.setattr(demo_assignment, "DEADLINE_S", 0.5)
    result = CliRunner().invoke(app, ["demo", "--devices", "8"])
    assert result.exit_code == 1
    assert "device assignment" in result.stderr


def test_the_same_seed_gives_the_same_devices_and_another_seed_others() -> None:
    def devices(seed: int) -> list[object]:
        return [plan.hardware for plan in fleet_file.plan(demo.demo_fleet(25, seed))]

    assert devices(7) == devices(7)
    assert not {str(device) for device in devices(7)} & {str(device) for device in devices(8)}


def test_one_device_that_the_server_refuses_makes_the_demo_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = fleet_file.plan(demo.demo_fleet(8, 1))[3].hardware.udid

    def refuse(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "authenticate" and getattr(message, "udid", None) == broken:
            return Action(name="status", arguments={"status": 400})
        return None

    monkeypatch.setattr(
        demo, "DemoOptions", functools.partial(demo.DemoOptions, server_faults=refuse)
    )
    code, report = run()
    assert code == 1
    errors = {device["udid"]: device["error"] for device in report["devices"] if device["error"]}
    assert list(errors) == [broken]
    assert "authenticate: HTTP 400" in str(errors[broken])


def test_a_server_that_does_not_name_devices_back_makes_the_demo_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is claimed is read back: a server that never hears the second wave keeps the users' names."""

    def deaf(side: str, step: str, message: object, n: int) -> Action | None:
        # The first session of a device is its setup; the second is the check-in after the renaming.
        return (
            Action(name="status", arguments={"status": 503}) if step == "idle" and n > 1 else None
        )

    monkeypatch.setattr(
        demo, "DemoOptions", functools.partial(demo.DemoOptions, server_faults=deaf)
    )
    code, report = run()
    assert code == 1
    assert any(device["error"] for device in report["devices"])


def test_a_server_that_names_nobody_makes_the_demo_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Enforcement, "name_of", lambda self, device: None)
    code, report = run()
    assert (code, report["renamed_back"]) == (1, 0)
    assert all("name" in str(device["error"]) for device in report["devices"][:6])


def test_a_user_who_renames_nothing_makes_the_demo_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "rename", lambda device, name: None)
    code, report = run()
    assert (code, report["renamed_back"]) == (1, 0)


def test_a_removal_that_is_not_denied_makes_the_demo_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def allowed(*_: object) -> None:
        pass

    monkeypatch.setattr(demo, "remove_profile", allowed)
    code, report = run()
    assert (code, report["removal_denied"]) == (1, 0)


RIGHT = {
    "state": "home",
    "identity": "acme",
    "issuer": "MDM ACME CA",
    "supervised": True,
    "locked": True,
    "name": "iPhone-SIM1",
}
EXPECTED = demo.Expectation(
    serial="SIM1",
    udid="U1",
    state="home",
    identity="acme",
    issuer="MDM ACME CA",
    name="iPhone-SIM1",
    managed=True,
)
AT_SERVER = RIGHT | {"state": "enrolled", "expected_name": "iPhone-SIM1"}


def outcome(**changes: object) -> Outcome:
    facts = {"serial": "SIM1", "udid": "U1", "model": "iPhone14,5", "os_version": "18.1"}
    return Outcome(**(facts | RIGHT | changes))  # type: ignore[arg-type]


def test_a_device_as_planned_differs_in_nothing() -> None:
    assert demo.differences_of(EXPECTED, outcome(), AT_SERVER) == []


@pytest.mark.parametrize("key", RIGHT)
def test_whatever_a_device_says_wrong_is_a_difference(key: str) -> None:
    (found,) = demo.differences_of(EXPECTED, outcome(**{key: "wrong"}), AT_SERVER)
    assert found.startswith("the device ")
    assert "wrong" in found


@pytest.mark.parametrize("key", AT_SERVER)
def test_whatever_the_server_says_wrong_is_a_difference(key: str) -> None:
    (found,) = demo.differences_of(EXPECTED, outcome(), AT_SERVER | {key: "wrong"})
    assert found.startswith(f"the server says {key} is 'wrong'")


def test_too_few_devices_are_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["demo", "--devices", "3"])
    assert result.exit_code == 2
    assert "at least 4 devices" in result.stderr


def test_the_json_file_is_the_report(tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    result = CliRunner().invoke(app, ["demo", "--devices", "4", "--json", str(file)])
    assert result.exit_code == 0
    report = json.loads(file.read_text())
    assert set(report) == {"devices", "steps", "renamed_back", "removal_denied"}
    assert set(report["devices"][0]) == {
        "serial",
        "udid",
        "model",
        "os_version",
        "identity",
        "state",
        "supervised",
        "locked",
        "name",
        "expected_name",
        "error",
    }
    assert report["devices"][0]["serial"] in result.stdout  # the table for people
