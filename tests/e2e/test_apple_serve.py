"""`mdm-emulator apple serve` over sockets: what it prints, what it keeps, how it ends, and a fleet of another process."""

import json
import shutil
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from emulator.apple.addresses import Addresses
from tests.e2e.apple_process import apple_serve
from tests.e2e.test_cli import cli, invoke

PORTAL: dict[str, Any] = {
    "organizations": [
        {
            "name": "Example Hospital",
            "email": "it@example.com",
            "servers": [
                {
                    "name": "main",
                    "profile": {"url": "https://mdm.example.com/enroll"},
                    "devices": ["SIM0000001"],
                }
            ],
            "unassigned": ["SIM0000002"],
        }
    ],
    "devices": [{"serial_number": "SIM0000001", "asset_tag": "007"}],
}


@pytest.fixture
def state(tmp_path: Path, pki_folder: Path) -> Path:
    """A state folder whose PKI is made already, as that takes a while."""
    folder = tmp_path / "state"
    shutil.copytree(pki_folder, folder / "apple")
    return folder


def settings(folder: Path, **more: Any) -> Path:
    file = folder / "apple.yaml"
    file.write_text(yaml.safe_dump({**PORTAL, **more}))
    return file


def text(file: str) -> str:
    return Path(file).read_text()


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def mode(file: str | Path) -> int:
    return Path(file).stat().st_mode & 0o777


async def admin(at: Addresses, method: str, path: str, content: object = None) -> Any:
    """One request to the administration, with the token of its file."""
    headers = {"Authorization": f"Bearer {text(at.token_file).strip()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, at.admin_url + path, json=content) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def status(url: str, root: Path) -> int:
    """What a GET gets over TLS that this root vouches for."""
    context = ssl.create_default_context(cafile=str(root))
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        return answer.status


async def test_it_says_where_everything_is_and_it_is_there(tmp_path: Path, state: Path) -> None:
    async with apple_serve(settings(tmp_path), state=state) as apple:
        at = apple.at
        assert apple.value("services") == at.url
        assert apple.value("push") == at.push_url
        assert apple.value("proxy") == at.proxy_url
        assert apple.value("administration") == at.admin_url
        assert apple.value("admin token") == f"in {at.token_file}"
        root = Path(apple.value("TLS root"))
        assert (
            await status(f"{at.url}/session", root) == 400
        )  # no User-Agent that Apple knows: signed by nobody
        assert (await admin(at, "GET", "/portal/servers"))["total"] == 1
        device = await admin(at, "GET", "/registry/devices/SIM0000001")
        assert device["server"] == "main"
        assert mode(at.token_file) == 0o600
        assert mode(state / "apple" / "registry.sqlite") == 0o600
        assert mode(state / "apple" / "serving.json") == 0o600


async def test_the_settings_of_every_product_name_the_real_addresses(
    tmp_path: Path, state: Path
) -> None:
    async with apple_serve(settings(tmp_path), state=state) as apple:
        at, said = apple.at, "\n".join(apple.said)
        await apple.stop()
    for product in ("NanoMDM", "NanoDEP", "MicroMDM", "Fleet", "Zentral", "step-ca", "mdmserver"):
        assert f"\n{product}:\n" in said
    for words in (
        f"HTTPS_PROXY={at.proxy_url} SSL_CERT_FILE={at.trust_bundle} nanomdm ",
        f'{{"base_url": "{at.url}/"}}',
        f"micromdm serve -depsim {at.url} ",
        f"FLEET_DEV_MDM_APPLE_PUSH_SERVER_URL={at.push_url}\n",
        f'DEPClient.API_URL = "{at.url}/"',
        f"--assignment-url {at.url} --assignment-root {at.tls_root}",
        f"push_url: {at.push_url}",
        f"mdm-emulator portal --apple {state} token issue",
    ):
        assert words in said
    section = said.partition("in its file:\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(section) == {
        "apple": {
            "url": at.url,
            "admin_url": at.admin_url,
            "token_file": at.token_file,
            "ca": at.tls_root,
        }
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(state: Path, number: int) -> None:
    async with apple_serve(state=state) as apple:
        code, log = await apple.stop(number)
    assert code == 0
    assert "apple_services_stopped" in log
    assert "Traceback" not in log
    assert not (state / "apple" / "serving.json").exists()


async def test_without_state_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    async with apple_serve(TMPDIR=str(folder)) as apple:
        (inside,) = folder.iterdir()
        assert "gone at the end: --state keeps it" in apple.said[-1]
        assert not (inside / "apple" / "registry.sqlite").exists()
        code, _ = await apple.stop()
    assert code == 0
    assert list(folder.iterdir()) == []


async def test_a_restart_keeps_anchors_tokens_portal_and_devices(
    tmp_path: Path, state: Path
) -> None:
    wanted = {"organization": "Example Hospital", "server": "main", "format": "json"}
    file = settings(tmp_path, tokens=[{**wanted, "file": "main.json"}])
    fleet = tmp_path / "fleet"
    async with apple_serve(file, state=state) as apple:
        first = apple.at
        anchors = contents(first.anchors)
        token = (tmp_path / "main.json").read_bytes()
        admin_token = text(first.token_file)
        code, out, err = await cli(
            *("enroll", "--apple", state, "--organization", "Example Hospital"),
            *("--model", "iPhone14,5", "--os-version", "18.1", "--state", fleet, "--json", "-"),
        )
        assert code == 0, err
        (device,) = json.loads(out)["devices"]
        assert device["state"] == "not_assigned"
        await admin(
            first,
            "POST",
            "/portal/devices",
            {"organization": "Example Hospital", "server": "main", "serials": ["SIM0000002"]},
        )
        before = await admin(first, "GET", "/portal")
        registered = await admin(first, "GET", f"/registry/devices/{device['serial']}")
        apple.process.kill()  # no goodbye
        await apple.process.wait()
    assert registered["activation_state"] == "Activated"

    async with apple_serve(file, state=state) as apple:
        again = apple.at
        assert contents(again.anchors) == anchors
        assert (tmp_path / "main.json").read_bytes() == token
        assert text(again.token_file) == admin_token
        assert await admin(again, "GET", "/portal") == before
        after = await admin(again, "GET", f"/registry/devices/{device['serial']}")
        assert after == registered
        (server,) = (await admin(again, "GET", "/portal/servers"))["servers"]
        assert server["token"]["consumer_key"] == json.loads(token)["consumer_key"]


async def test_faults_of_the_file_are_planned(tmp_path: Path, state: Path) -> None:
    canned = [{"count": 2, "response": {"status": 403, "body": "T_C_NOT_SIGNED"}}]
    planned = [{"step": "device_activation", "action": "outcome", "outcome": "locked", "count": 1}]
    faults = {"assignment": {"POST /devices/sync": canned}, "devices": {"*": planned}}
    async with apple_serve(settings(tmp_path, faults=faults), state=state) as apple:
        shown = await admin(apple.at, "GET", "/portal/faults")
        assert shown["faults"] == {"POST /devices/sync": canned}
        assert (await admin(apple.at, "GET", "/registry/devices/*/faults"))["faults"] == planned


# ---- mistakes ----


def test_a_taken_port_is_one_line_that_says_what_to_do(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others = ("--admin-port", "0", "--push-port", "0", "--proxy-port", "off")
        result = invoke("apple", "serve", "--state", state, "--port", str(port), *others)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("mdm-emulator: ")]
    assert line == (
        f"mdm-emulator: services: cannot listen on 127.0.0.1 port {port} (address already in use): "
        "end the program that has it, or choose another host or port"
    )
    assert "Traceback" not in result.stderr


def test_every_mistake_of_the_file_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "apple.yaml"
    file.write_text(
        "port: x\n"
        "colour: red\n"
        "assignment: {oauth: never}\n"
        "push: {mode: loose}\n"
        "activation: {mode: half}\n"
        "faults: {assignment: {'GET /nothing': []}, devices: {'*': [{step: x, action: drop}]}}\n"
        "organizations:\n"
        "  - {name: A, unassigned: [SIM1, SIM1]}\n"
        "  - {name: A}\n"
    )
    result = invoke("apple", "serve", file)
    assert result.exit_code == 2
    for place in (
        "port",
        "colour",
        "assignment.oauth",
        "push.mode",
        "activation.mode",
        "faults.assignment.GET /nothing.[key]",
        "faults.devices.*.0.step",
        "organizations.0.unassigned.1",
        "organizations.1.name",
    ):
        assert f"\n  {place}: " in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.yaml",), "none.yaml: 1 mistake\n  cannot be read"),
        (("--port", "70000"), "port: input should be less than or equal to 65535"),
        (("--proxy-port", "maybe"), "proxy_port: "),
        (("--port", "9444"), "the ports must differ"),
        (("--log", "loud"), "expected debug, info"),
        (("--host", "192.0.2.1"), "with host 192.0.2.1 say off"),
    ],
)
def test_a_mistake_in_usage_ends_it_with_two(
    arguments: tuple[str, ...], words: str, state: Path
) -> None:
    ports = () if "--port" in arguments else ("--port", "0")
    result = invoke("apple", "serve", *arguments, "--state", state, *ports)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_state_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file")
    for command in (("apple", "serve"), ("trust", "export", tmp_path / "anchors")):
        result = invoke(*command, "--state", state)
        assert result.exit_code == 2, result.output
        assert "Not a directory" in result.stderr
        assert "Traceback" not in result.output


async def test_a_token_file_that_cannot_be_written_is_refused(tmp_path: Path, state: Path) -> None:
    wanted = {"organization": "Example Hospital", "server": "main", "format": "json"}
    (tmp_path / "file").write_text("")
    file = settings(tmp_path, tokens=[{**wanted, "file": "file/main.json"}])
    ports = [f"--{port}=0" for port in ("port", "admin-port", "push-port", "proxy-port")]
    code, _, err = await cli("apple", "serve", file, "--state", state, *ports)
    assert code == 2
    assert "file/main.json: 1 mistake\n  cannot be written" in err
    assert not (state / "apple" / "serving.json").exists()


async def test_a_state_that_is_in_use_is_refused(state: Path) -> None:
    async with apple_serve(state=state) as apple:
        code, _, err = await cli("apple", "serve", "--state", state, "--port", "0")
        assert code == 2
        assert "registry.sqlite" in err
        assert "in use" in err
        assert (await admin(apple.at, "GET", "/healthz")) == {"status": "ok"}


def test_the_schema_of_the_file_is_json_schema() -> None:
    schema = json.loads(invoke("schema", "apple").stdout)
    assert {"organizations", "devices", "tokens", "faults", "push", "state"} <= set(
        schema["properties"]
    )
    assert schema["properties"]["port"]["default"] == 9443


def test_a_fleet_is_told_when_no_stand_ins_run(tmp_path: Path) -> None:
    result = invoke("enroll", "--apple", tmp_path, "--organization", "X", "--state", tmp_path / "f")
    assert result.exit_code == 2
    assert "no stand-ins run here" in result.stderr
