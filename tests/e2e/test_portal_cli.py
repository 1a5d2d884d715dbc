"""`mdm-emulator portal …` at running stand-ins: what the registry and a server's token file say afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from typer.testing import CliRunner, Result

from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.keys import spki_der
from emulator.apple import tokens
from emulator.apple.addresses import Addresses
from emulator.apple.app import AppleServices
from emulator.apple.operations import Kind
from emulator.cli import app
from emulator.wire.token import ServerToken
from tests.emulator.apple.support import pki
from tests.support import rsa_key

ORGANIZATION = "Example / Inc"  # a slash, as a name may have
TOKEN = "a-token-file"
Portal = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """The stand-ins run in this process: their log must not end up in what the command printed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    pki()
    rsa_key(1)


@pytest.fixture
async def services() -> AsyncIterator[AppleServices]:
    async with AppleServices(pki=pki(), clock=SimulatedClock()) as running:
        yield running


@pytest.fixture
def portal(services: AppleServices, tmp_path: Path) -> Portal:
    """The command as the shell would run it, in a thread of its own."""
    token_file = tmp_path / "admin-token"
    token_file.write_text(services.token + "\n")
    environment = {
        "MDM_EMULATOR_ADMIN": services.admin_url,
        "MDM_EMULATOR_ADMIN_TOKEN": str(token_file),
    }

    async def run(*arguments: str | Path, exit_code: int = 0) -> Result:
        words = ["portal", *map(str, arguments)]
        result = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
        assert result.exit_code == exit_code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def own(tmp_path: Path) -> Identity:
    """The server's key; its certificate is in `server.pem`."""
    key = rsa_key(1)
    assert isinstance(key, rsa.RSAPrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "depserver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return Identity(key, certificate)


@pytest.fixture
async def signed_up(portal: Portal) -> None:
    await portal("organization", "add", ORGANIZATION, "--email", "it@example.com")


def opened(file: Path, own: Identity) -> ServerToken:
    assert file.stat().st_mode & 0o777 == 0o600
    return tokens.unseal(file.read_bytes(), own)


async def made(portal: Portal, folder: Path, name: str = "main") -> dict[str, Any]:
    """A server with its first token in `first.p7m`."""
    files = ("--certificate", folder / "server.pem", "--out", folder / "first.p7m")
    said = await portal("server", "add", ORGANIZATION, name, *files)
    server: dict[str, Any] = json.loads(said.stdout)
    return server


@pytest.mark.usefixtures("signed_up")
async def test_a_token_is_issued_renewed_and_taken_back(
    portal: Portal, services: AppleServices, own: Identity, tmp_path: Path
) -> None:
    server = await made(portal, tmp_path)
    first = opened(tmp_path / "first.p7m", own)
    said = await portal("token", "renew", "main", "--out", tmp_path / "second.p7m")
    second = opened(tmp_path / "second.p7m", own)
    expires = f"{second.access_token_expiry:%Y-%m-%dT%H:%M:%SZ}"
    assert said.stdout == f"{tmp_path / 'second.p7m'}  token of main, good until {expires}\n"
    assert second.consumer_key == first.consumer_key
    assert second.access_token != first.access_token
    ledger = services.registry.ledgers[server["uuid"]]
    assert ledger.token is not None
    assert ledger.token.token == second
    assert ledger.ended[first.access_token] == "replaced"

    await portal(
        *("token", "issue", "main", "--out", tmp_path / "third.json", "--format", "json"),
        "--new-consumer-key",
    )
    third = json.loads((tmp_path / "third.json").read_text())
    assert third["consumer_key"] != first.consumer_key

    said = await portal("token", "invalidate", server["uuid"])
    assert json.loads(said.stdout) == {"invalidated": True}
    assert ledger.token is None
    assert "no token" in (await portal("server", "list")).stdout


@pytest.mark.usefixtures("signed_up")
async def test_a_file_may_be_made_otherwise(portal: Portal, own: Identity, tmp_path: Path) -> None:
    await portal("server", "add", ORGANIZATION, "main")
    await portal(
        *("token", "issue", "main", "--certificate", tmp_path / "server.pem"),
        *("--out", tmp_path / "t.p7m", "--cipher", "aes256", "--lengths", "definite"),
    )
    assert opened(tmp_path / "t.p7m", own).consumer_key.startswith("CK_")


@pytest.mark.usefixtures("signed_up", "own")
async def test_servers_are_listed_blocked_and_removed(
    portal: Portal, services: AppleServices, tmp_path: Path
) -> None:
    server = await made(portal, tmp_path)
    listed = (await portal("server", "list")).stdout
    assert listed.startswith(f"{server['uuid']}  {ORGANIZATION}/main  0 devices  token until 20")
    await portal("server", "block", f"{ORGANIZATION}/main")
    assert "BLOCKED" in (await portal("server", "list")).stdout
    assert services.registry.ledgers[server["uuid"]].blocked
    await portal("server", "block", "main", "--off")
    assert json.loads((await portal("server", "show", "main")).stdout)["blocked"] is False
    assert (await portal("server", "calls", "main")).stdout == ""
    await portal("server", "remove", "main")
    assert list(services.registry.servers()) == []


@pytest.mark.usefixtures("signed_up")
async def test_devices_go_from_server_to_server_and_away(
    portal: Portal, services: AppleServices
) -> None:
    records = services.registry.records
    for name in ("main", "other"):
        await portal("server", "add", ORGANIZATION, name)
    place = ("--organization", ORGANIZATION)
    await portal("assign", "sim1", "SIM2", *place, "--server", "main", "--by", "x@example.com")
    assert [record.server.name for record in records.values() if record.server] == ["main"] * 2
    assert records["SIM1"].assigned_by == "x@example.com"
    await portal("assign", "SIM1", *place, "--server", "other", "--silent")
    (ledger,) = [one for one in services.registry.ledgers.values() if one.name == "other"]
    assert list(ledger.roster) == ["SIM1"]
    assert [entry.kind for entry in ledger.operations.since(0)] == [Kind.SILENT]
    await portal("unassign", "SIM1", *place)
    assert records["SIM1"].server is None
    said = await portal("release", "SIM1", "--replaced")
    assert json.loads(said.stdout) == {"released": ["SIM1"]}
    assert "SIM1" not in records
    await portal("add", "SIM3", *place, "--server", "main")
    assert json.loads((await portal("device", "sim3")).stdout)["provisional_until"]


@pytest.mark.usefixtures("signed_up", "own")
async def test_people_terms_and_apple_ids(
    portal: Portal, services: AppleServices, tmp_path: Path
) -> None:
    registry = services.registry
    await portal("organization", "terms", ORGANIZATION, "--not-signed")
    assert registry.organizations[ORGANIZATION].terms_signed is False
    assert "terms NOT SIGNED" in (await portal("organization", "list")).stdout
    await portal("organization", "terms", ORGANIZATION, "--signed")
    await portal("person", "add", ORGANIZATION, "a@example.com")
    await portal("person", "add", ORGANIZATION, "s@example.com", "--role", "staff")
    server = await made(portal, tmp_path)
    refused = await portal(
        *("token", "renew", "main", "--out", tmp_path / "x.p7m", "--by", "s@example.com"),
        exit_code=1,
    )
    assert "s@example.com is staff: server tokens are for an administrator" in refused.stderr
    assert not (tmp_path / "x.p7m").exists()
    said = await portal("person", "rename", ORGANIZATION, "a@example.com", "b@example.com")
    assert json.loads(said.stdout)["tokens_ended"] == []
    said = await portal("person", "password-changed", ORGANIZATION, "b@example.com")
    assert json.loads(said.stdout)["tokens_ended"] == ["main"]
    assert registry.ledgers[server["uuid"]].token is None
    await portal("person", "leave", ORGANIZATION, "b@example.com")
    assert list(registry.organizations[ORGANIZATION].people) == ["s@example.com"]


async def test_locks_go_on_and_off(portal: Portal, services: AppleServices) -> None:
    record = services.registry.record("SIM1")
    options = ("--login", "a@example.com", "--password", "secret", "--message", "Ward 3")
    said = await portal("lock", "SIM1", *options)
    assert "secret" not in said.stdout
    assert record.activation_lock is not None
    assert record.activation_lock.account == ("a@example.com", "secret")
    await portal("unlock", "SIM1")
    assert record.activation_lock is None
    refused = await portal("lock", "SIM1", exit_code=2)
    assert "give --login, --bypass-code or both" in refused.stderr
    assert (
        "no device has serial number SIM9" in (await portal("unlock", "SIM9", exit_code=1)).stderr
    )


async def test_a_push_certificate_comes_with_its_key(portal: Portal, tmp_path: Path) -> None:
    topic, out = "com.apple.mgmt.External.one", tmp_path / "push.pem"
    await portal("push-certificate", topic, "--out", out)
    assert out.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(out.read_bytes())
    key = load_pem_private_key(out.read_bytes(), None)
    assert spki_der(certificate.public_key()) == spki_der(key.public_key())  # type: ignore[arg-type]
    (uid,) = certificate.subject.get_attributes_for_oid(x509.NameOID.USER_ID)
    assert uid.value == topic
    refused = await portal("push-certificate", "mine", "--out", out, exit_code=1)
    assert "com.apple.mgmt." in refused.stderr


@pytest.mark.usefixtures("signed_up")
async def test_a_server_that_is_not_the_only_one_of_its_name_needs_more(portal: Portal) -> None:
    await portal("organization", "add", "Other")
    for organization in (ORGANIZATION, "Other"):
        await portal("server", "add", organization, "main")
    refused = await portal("server", "show", "main", exit_code=2)
    assert f"2 servers are called 'main': write ORGANIZATION/NAME ({ORGANIZATION}/main, " in (
        refused.stderr
    )
    shown = json.loads((await portal("server", "show", "Other/main")).stdout)
    assert shown["organization"] == "Other"
    refused = await portal("server", "show", "nobody", exit_code=2)
    assert "no server is called 'nobody'" in refused.stderr


async def test_show_is_the_portal_file(portal: Portal, signed_up: None) -> None:
    shown = json.loads((await portal("show")).stdout)
    assert shown["organizations"][0]["name"] == ORGANIZATION


async def test_what_the_stand_ins_say_no_to_ends_with_one(portal: Portal, tmp_path: Path) -> None:
    refused = await portal("server", "add", "Nobody", "main", exit_code=1)
    assert refused.stderr == (
        "mdm-emulator: portal: HTTP 404: no organization 'Nobody' in the portal\n"
    )
    (tmp_path / "bad.pem").write_text("no certificate")
    await portal("organization", "add", "A")
    files = ("--certificate", tmp_path / "bad.pem", "--out", tmp_path / "t.p7m")
    refused = await portal("server", "add", "A", "main", *files, exit_code=1)
    assert "certificate" in refused.stderr
    assert not (tmp_path / "t.p7m").exists()


FAULTS = """
assignment:
  POST /devices/sync: [{count: 2, response: {status: 403, body: T_C_NOT_SIGNED}}]
devices:
  "*": [{step: attestation, action: drop, count: 1}]
  sim1: [{step: device_activation, action: outcome, outcome: locked}]
push:
  - {action: answer, reason: Unregistered, count: 3}
"""


async def test_faults_are_planned_shown_and_taken_away(portal: Portal, tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(FAULTS)
    planned = {
        "assignment": {
            "POST /devices/sync": [
                {"response": {"status": 403, "body": "T_C_NOT_SIGNED"}, "count": 2}
            ]
        },
        "devices": {
            "*": [{"step": "attestation", "action": "drop", "count": 1}],
            "SIM1": [{"step": "device_activation", "action": "outcome", "outcome": "locked"}],
        },
        "push": [{"action": "answer", "reason": "Unregistered", "count": 3}],
    }
    assert json.loads((await portal("faults", "plan", file)).stdout) == planned
    assert json.loads((await portal("faults", "show", "SIM1")).stdout) == planned
    file.write_text("push: [{action: delay, seconds: 1}]\n")
    shown = json.loads((await portal("faults", "plan", file)).stdout)
    assert shown["assignment"] == planned["assignment"]
    assert [fault["action"] for fault in shown["push"]] == ["delay"]
    nothing: dict[str, Any] = {"assignment": {}, "devices": {}, "push": []}
    assert json.loads((await portal("faults", "clear", "SIM1")).stdout) == nothing


async def test_every_mistake_of_a_faults_file_is_told_and_nothing_planned(
    portal: Portal, tmp_path: Path
) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("assignment: {GET /x: []}\npush: [{action: sing}]\ncolour: red\n")
    refused = await portal("faults", "plan", file, exit_code=2)
    for place in ("assignment.GET /x", "push.0.action", "colour"):
        assert f"\n  {place}" in refused.stderr
    assert json.loads((await portal("faults", "show")).stdout)["push"] == []


# ---- which stand-ins ----


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["portal", *map(str, arguments)])


async def test_the_state_folder_of_apple_serve_is_enough(
    services: AppleServices, tmp_path: Path
) -> None:
    (tmp_path / "apple").mkdir()
    (tmp_path / "token").write_text(services.token)
    at = Addresses(
        url=services.url,
        push_url=services.push_url,
        admin_url=services.admin_url,
        token_file=str(tmp_path / "token"),
        tls_root="",
        trust_bundle="",
        anchors="",
    )
    at.write(tmp_path)
    result = await asyncio.to_thread(invoke, "--apple", tmp_path, "organization", "add", "A")
    assert result.exit_code == 0, result.output
    assert list(services.registry.organizations) == ["A"]
    (tmp_path / "token").write_text("another-token-of-somebody")
    result = await asyncio.to_thread(invoke, "--apple", tmp_path, "server", "list")
    assert result.exit_code == 1
    assert "the token is not that of the stand-ins" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, "say where the stand-ins are: --apple DIR, or --admin URL"),
        (("--admin", "http://127.0.0.1:1"), 2, "say where the stand-ins are"),
        (("--apple", "none"), 2, "no stand-ins run here"),
        (("--apple", "none", "--admin", "http://127.0.0.1:1"), 2, "exclude each other"),
        (("--admin", "http://127.0.0.1:1", "--admin-token", "none"), 2, "none: cannot be read"),
        (
            ("--admin", "http://127.0.0.1:1", "--admin-token", "pyproject.toml"),
            2,
            "holds no bearer token",
        ),
        (
            ("--admin", "http://127.0.0.1:1", "--admin-token", TOKEN),
            1,
            "does `mdm-emulator apple serve` run there?",
        ),
    ],
)
def test_stand_ins_that_are_not_there(
    options: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / TOKEN).write_text("a-token-of-nobody")
    given = [str(tmp_path / TOKEN) if option == TOKEN else option for option in options]
    result = invoke(*given, "server", "list")
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("organization",),
        ("person", "add"),
        ("server", "add"),
        ("token", "issue"),
        ("token", "renew"),
        ("assign",),
        ("release",),
        ("lock",),
        ("push-certificate",),
        ("faults", "plan"),
    ],
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
