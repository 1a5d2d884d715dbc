"""SCEP requests that wait for an operator: seen, approved and denied from the command line, beside a server that runs."""

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from certs import csr, names
from certs.authorize import StaticChallenge
from certs.cli import app
from certs.clock import SystemClock
from certs.devices_file import AnyAttestedDevice
from certs.errors import ScepFailure
from certs.folder import CaFolder
from certs.keys import FreshKeys
from certs.operator_door import FILE, Operator, OperatorRefused
from certs.scep import message as scep
from certs.scep.approval import ManualApproval
from certs.scep.client import ScepClient, transaction_id
from certs.serving import CertsServer, ServeOptions
from emulator.http import HttpDoor, TrustSet
from tests.certs.serving_program import LINES, program
from tests.certs.test_cms_signed import self_signed
from tests.support import rsa_key

CHALLENGE = "s3cret"
CLOCK = SystemClock()
GUARD_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ca") / "mdm-ca"
    CaFolder.open(made, "Test CA", ["127.0.0.1", "localhost"], clock=CLOCK)
    for number in (60, 61):
        rsa_key(number)
    return made


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[CertsServer]:
    ca = await asyncio.to_thread(CaFolder.open, folder, "Test CA", ["127.0.0.1"], clock=CLOCK)
    options = ServeOptions(
        challenges=StaticChallenge(CHALLENGE),
        devices=AnyAttestedDevice(),
        approval=ManualApproval(),
    )
    async with CertsServer(ca, options, clock=CLOCK) as server:
        yield server


async def enroll(url: str, number: int) -> tuple[x509.Certificate, ...]:
    """A client that polls often."""
    key = rsa_key(number)
    subject = names.from_subject([[["CN", f"device {number}"]]])
    async with HttpDoor(clock=CLOCK).session(trust=TrustSet()) as session:
        client = ScepClient(
            session,
            url,
            clock=CLOCK,
            keys=FreshKeys(),
            signer="same-key",
            retries=100_000,
            retry_delay_s=0.005,
        )
        return await client.enroll(key, csr.build(key, subject, challenge=CHALLENGE))


async def mdm_certs(*arguments: str | Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "certs", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), GUARD_S)
    return process.returncode or 0, out.decode(), err.decode()


async def waiting(operator: Operator, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(GUARD_S):
        while len(found := await asyncio.to_thread(operator.waiting)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return found


async def test_an_operator_approves_one_and_denies_another(folder: Path) -> None:
    async with served(folder) as server, asyncio.timeout(2 * GUARD_S):
        assert server.operator is not None
        approved = asyncio.create_task(enroll(server.scep_url, 60))
        (first,) = await waiting(server.operator, 1)
        denied = asyncio.create_task(enroll(server.scep_url, 61))
        await waiting(server.operator, 2)
        assert first["transaction_id"] == transaction_id(rsa_key(60).public_key())
        assert first["subject"] == "CN=device 60"

        code, out, _ = await mdm_certs("requests", "--folder", folder)
        assert code == 0
        lines = out.splitlines()
        assert [line.rpartition("  ")[2] for line in lines] == ["CN=device 60", "CN=device 61"]
        assert CHALLENGE not in out
        one, other = [line.partition("  ")[0] for line in lines]
        assert (await mdm_certs("approve", one, "--folder", folder))[0] == 0
        assert (await mdm_certs("deny", other, "--folder", folder))[0] == 0
        leaf, *_ = await approved
        assert leaf.public_key() == rsa_key(60).public_key()
        with pytest.raises(ScepFailure, match="denied") as failure:
            await denied
        assert failure.value.fail_info == "2"
        assert await asyncio.to_thread(server.operator.waiting) == []

        code, _, err = await mdm_certs("approve", one, "--folder", folder)
        assert (code, f"no request '{one}' waits" in err) == (1, True)


async def test_what_a_client_chose_is_shown_on_one_line_of_plain_text(folder: Path) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\n\x1b[2Jb\u202ec")])
    request = csr.build(rsa_key(60), subject, challenge=CHALLENGE)
    async with served(folder) as server, asyncio.timeout(2 * GUARD_S):
        message = scep.encode_request(
            request,
            message_type=scep.MessageType.PKCS_REQ,
            transaction_id="x\r\x1b[31my",
            sender_nonce=bytes(16),
            signer=self_signed(rsa_key(60), "client"),
            recipients=[server.folder.ra.certificate],
        )
        async with HttpDoor(clock=CLOCK).session(trust=TrustSet()) as session:
            answer = await session.request(
                "POST", f"{server.scep_url}?operation=PKIOperation", step="test", body=message
            )
        assert scep.CertRep.decode(answer.body).status is scep.PkiStatus.PENDING
        code, out, _ = await mdm_certs("requests", "--folder", folder)
    assert code == 0
    (line,) = out.splitlines()
    assert line.isprintable()
    assert line.endswith("transaction x��[31my  CN=a��[2Jb�c")


async def test_the_door_is_for_the_owner_of_the_folder_and_goes_with_the_server(
    folder: Path,
) -> None:
    async with served(folder) as server:
        assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
        assert server.operator is not None
        stranger = Operator(url=server.operator.url, token="another token altogether")
        with pytest.raises(OperatorRefused, match="token"):
            await asyncio.to_thread(stranger.waiting)
    assert not (folder / FILE).exists()
    code, out, err = await mdm_certs("requests", "--folder", folder)
    assert (code, out) == (1, "")
    assert "no `mdm-certs serve --approval manual` runs" in err


def test_a_file_that_names_no_door_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(OperatorRefused, match="cannot be read"):
        Operator.read(tmp_path)
    (tmp_path / FILE).write_text(json.dumps({"url": "http://127.0.0.1:1", "token": "x"}))
    with pytest.raises(OperatorRefused, match="127.0.0.1:1: the `mdm-certs serve .* has ended"):
        Operator.read(tmp_path).waiting()


def test_the_program_offers_manual_approval(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    with program("--folder", str(folder), "--approval", "manual", lines=LINES + 1) as said:
        assert said["approval"] == f"mdm-certs requests --folder {folder}"
        assert (folder / FILE).is_file()
    assert not (folder / FILE).exists()


def test_the_program_approves_after_some_time(tmp_path: Path) -> None:
    with program("--folder", str(tmp_path / "ca"), "--approval", "0.05") as said:
        file = Path(said["SCEP challenge"].removeprefix("in "))
        leaf, *_ = asyncio.run(enroll_with(said["SCEP"], file.read_text().strip()))
        assert leaf.public_key() == rsa_key(60).public_key()


async def enroll_with(url: str, challenge: str) -> tuple[x509.Certificate, ...]:
    key = rsa_key(60)
    request = csr.build(key, names.from_subject([[["CN", "device"]]]), challenge=challenge)
    async with HttpDoor(clock=CLOCK).session(trust=TrustSet()) as session:
        client = ScepClient(
            session, url, clock=CLOCK, keys=FreshKeys(), signer="same-key", retries=100_000,
            retry_delay_s=0.005,
        )  # fmt: skip
        impatient = ScepClient(
            session, url, clock=CLOCK, keys=FreshKeys(), signer="same-key", retries=0
        )
        with pytest.raises(ScepFailure, match="pending"):
            await impatient.enroll(key, request)
        return await client.enroll(key, request)


@pytest.mark.parametrize("text", ["never", "0", "-3", "nan", "1e9"])
def test_an_approval_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    arguments = ["serve", "--folder", str(tmp_path / "ca"), "--approval", text]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "expected manual, or seconds" in result.stderr
