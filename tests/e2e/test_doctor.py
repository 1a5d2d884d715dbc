"""`mdm-emulator doctor --target` before a run against the built-in server."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import names
from certs.attestation import AttestationAuthority
from certs.clock import SystemClock
from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.e2e.conftest import Road
from tests.e2e.test_cli import cli


async def test_doctor_finds_the_built_in_server_in_order(road: Road, pki_folder: Path) -> None:
    state = road.folder / "state"
    state.mkdir()
    (state / "apple").symlink_to(pki_folder)
    where = ("--state", state, "--ca", road.ca_file())
    code, out, err = await cli("doctor", "--target", road.server.ade_url, *where)
    assert code == 0, out + err
    for line in ("ok   open files: ", "ok   tls: ", "ok   clock: ", "ok   anchors: accepts "):
        assert line in out
    root = road.services.pki.attestation.root
    assert f"ok   attestation: accepts device attestations under {names.text(root.subject)}" in out
    assert "ok   signer: refuses MachineInfo of a root that it does not know" in out


async def test_doctor_finds_a_server_that_does_not_know_our_root(road: Road) -> None:
    where = ("--state", road.folder / "another", "--ca", road.ca_file())
    code, out, _ = await cli("doctor", "--target", road.server.ade_url, *where)
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BAD")]
    assert line.startswith("BAD  anchors: HTTP 403: ")
    assert line.endswith("/another/apple/root/certificate.pem)")


async def test_doctor_finds_a_server_that_does_not_know_our_attestation_root(
    road: Road, pki_folder: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "apple").symlink_to(pki_folder)
    another = AttestationAuthority.create(SystemClock())
    async with MdmServer(
        Settings(),
        state=tmp_path / "another",
        machine_info_roots=[road.services.pki.root],
        attestation_roots=[another.root],
    ) as server:
        ca = tmp_path / "another.pem"
        ca.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in server.tls_roots))
        where = ("--state", state, "--ca", ca)
        code, out, _ = await cli("doctor", "--target", server.ade_url, *where)
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BAD")]
    assert line.startswith("BAD  attestation: badAttestationStatement: ")
    assert "give it that root (`mdm-emulator trust export`)" in line
    assert "ok   anchors: accepts MachineInfo" in out


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("ulimit -S -n 256", "limit 256: raise it with 'ulimit -n "),
        ("ulimit -n 256", "limit 256: the hard limit is 256: an administrator raises it"),
    ],
)
def test_doctor_finds_a_low_limit_of_open_files(limits: str, words: str) -> None:
    command = f'{limits} && exec "$0" -m emulator doctor'
    ran = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert f"BAD  open files: {words}" in ran.stdout
