"""The command line as its users meet it: help, mistakes, results, exit codes."""

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from emulator.cli import app
from emulator.fleet.run import FleetRun
from tests.e2e.conftest import Road


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


async def cli(*arguments: str | Path) -> tuple[int, str, str]:
    """In a process of its own, beside servers that run in this one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emulator", *map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode or 0, stdout.decode(), stderr.decode()


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("demo",),
        ("enroll",),
        ("check-in",),
        ("device",),
        ("device", "show"),
        ("schema",),
        ("doctor",),
        ("apple", "serve"),
        ("portal",),
        ("portal", "token", "issue"),
        ("trust", "export"),
    ],
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_starts_without_the_heavy_modules() -> None:
    code = "import sys, emulator.cli; print([m for m in ('aiohttp', 'structlog', 'rich.progress') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_the_schema_is_json_schema() -> None:
    schema = json.loads(invoke("schema").stdout)
    assert schema["type"] == "object"
    assert {"groups", "apple", "seed"} <= set(schema["properties"])
    assert "portal" in invoke("schema", "nothing").stderr


def test_doctor_looks_at_the_machine() -> None:
    result = invoke("doctor")
    assert "python" in result.stdout
    assert "package certs" in result.stdout


def test_all_three_mistakes_of_a_fleet_file_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("seed: x\ncolour: red\ngroups:\n  - {count: 0}\n")
    result = invoke("enroll", file, "--state", tmp_path / "state")
    assert result.exit_code == 2
    for place in ("seed", "colour", "groups.0.count"):
        assert f"  {place}: " in result.stderr
    assert not (tmp_path / "state").exists()


def test_what_only_the_whole_file_shows_is_told_at_once_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(
        'enroll_url: "ftp://x"\ngroups:\n'
        '  - {os_version: ["3.1", "99.9"], count: 2}\n'
        "  - {organization: Nobody}\n"
    )
    result = invoke("enroll", file, "--state", tmp_path / "state")
    assert result.exit_code == 2
    for words in ("3.1", "99.9", "enroll_url: expected https://", "no 'Nobody'"):
        assert words in result.stderr
    assert not (tmp_path / "state").exists()


async def test_a_check_in_of_devices_that_are_not_enrolled_is_no_success(road: Road) -> None:
    async with FleetRun(road.fleet(1), road.options()) as opened:
        await opened.remember()
        await opened.manufacture()
    code, _, err = await cli("check-in", "--state", road.folder / "fleet", "--ca", road.ca_file())
    assert (code, "none of these devices is enrolled" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("enroll",), "give a fleet file, --profile, --enroll-url, or --apple"),
        (("check-in",), "enroll a fleet first"),
        (("device", "show", "SIM1"), "enroll a fleet first"),
        (("enroll", "--profile", "none.mobileconfig"), "none.mobileconfig"),
        (("enroll", "--enroll-url", "https://x", "--map", "nonsense"), "--map"),
        (
            ("enroll", "--enroll-url", "https://x", "--map", "albert.apple.com=192.0.2.1:1"),
            "real Apple host",
        ),
        (("enroll", "--enroll-url", "https://x", "--ca", "none.pem"), "none.pem"),
        (("enroll", "--enroll-url", "https://x", "--log", "loud"), "expected debug, info"),
        (("doctor", "--target", "https://x", "--ca", "none.pem"), "none.pem"),
    ],
)
def test_a_mistake_in_usage_is_one_line_that_helps(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    result = invoke(*arguments, "--state", tmp_path / "state")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_anchors_of_a_state_folder_are_exported_without_a_key(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "anchors"
    result = invoke("trust", "export", out, "--state", state)
    assert result.exit_code == 0
    files = {file.name: file.read_text() for file in out.iterdir()}
    root = (state / "apple" / "root" / "certificate.pem").read_text()
    assert files["sim-apple-root-ca.pem"].strip() == root.strip()
    assert all(name in result.stdout for name in files)
    assert not any("PRIVATE KEY" in text for text in files.values())


async def test_a_fleet_from_the_command_line_to_its_last_profile(road: Road) -> None:
    """enroll, list, show, rename, a removal that is denied, check-in, erase, and enroll again."""
    file, state = road.folder / "fleet.yaml", road.folder / "state"
    fleet = road.fleet(3).model_dump(mode="json", exclude_defaults=True)
    file.write_text(yaml.safe_dump(fleet))
    trust = ("--ca", road.ca_file())
    kept = ("--state", state)

    code, out, err = await cli("enroll", file, *kept, *trust, "--json", "-")
    assert code == 0, err
    assert "enroll: 3/3" in err
    devices = json.loads(out)["devices"]
    serial, name = devices[0]["serial"], devices[0]["name"]

    code, out, _ = await cli("device", "list", *kept)
    assert code == 0
    assert all(device["serial"] in out for device in devices)

    code, out, _ = await cli("device", "show", serial, *kept)
    shown = json.loads(out)
    assert (code, shown["state"], shown["identity"]["kind"]) == (0, "enrolled", "acme")
    assert shown["enrollment"]["push_token"].startswith("32 bytes, sha256 ")
    assert "PRIVATE" not in out

    before = shown["enrollment"]["push_token"]
    code, _, err = await cli("device", "new-token", serial, *kept, *trust)
    assert code == 0, err
    code, out, _ = await cli("device", "show", serial, *kept)
    after = json.loads(out)["enrollment"]["push_token"]
    assert after != before
    targets = [await road.server.store.push_target(device["udid"]) for device in devices]
    told = [hashlib.sha256(one.token).hexdigest() for one in targets if one is not None]
    assert any(digest.startswith(after.rpartition(" ")[2].rstrip("…")) for digest in told)

    code, out, _ = await cli("device", "rename", serial, "Mine", *kept)
    assert (code, "Mine" in out) == (0, True)
    code, _, err = await cli("device", "remove-profile", serial, *kept, *trust)
    assert (code, "locked to its management" in err) == (1, True)

    code, out, _ = await cli("check-in", *kept, *trust, "--json", "-")
    assert code == 0
    assert json.loads(out)["devices"][0]["name"] == name

    code, _, _ = await cli("device", "erase", serial, *kept)
    assert code == 0
    code, out, err = await cli("enroll", file, *kept, *trust, "--json", "-")
    assert code == 0, err
    assert [device["state"] for device in json.loads(out)["devices"]] == ["home"] * 3


async def test_devices_enroll_by_url_with_stand_ins_of_their_own(
    road: Road, pki_folder: Path
) -> None:
    """`--enroll-url` needs no Apple service that runs already: the server only has to trust our simulated root."""
    state = road.folder / "own"
    state.mkdir()
    (state / "apple").symlink_to(pki_folder)
    code, out, err = await cli(
        *("enroll", "--enroll-url", road.server.ade_url, "--count", "2", "--model", "iPhone14,5"),
        *("--os-version", "18.1", "--state", state, "--ca", road.ca_file(), "--json", "-"),
        *("--locked", "--await-configuration"),
    )
    assert code == 0, err
    devices = json.loads(out)["devices"]
    assert {device["identity"] for device in devices} == {"acme"}
    # As devices that are assigned to this server: supervised, locked, and named before they were released.
    assert {(device["supervised"], device["locked"]) for device in devices} == {(True, True)}
    assert [device["name"] for device in devices] == [f"iPhone-{d['serial']}" for d in devices]


async def test_a_server_that_nobody_answers_for_is_a_number_and_exit_1(tmp_path: Path) -> None:
    code, out, err = await cli(
        *("enroll", "--enroll-url", "https://127.0.0.1:9/ade", "--state", tmp_path, "--json", "-")
    )
    (device,) = json.loads(out)["devices"]
    assert code == 1
    assert "1 devices, 1 failed" in err
    assert device["error"].startswith("enrollment_profile: ")
