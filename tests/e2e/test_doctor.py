"""`mdm-emulator doctor --target` before a run against the built-in server."""

from pathlib import Path

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
    assert "ok   signer: refuses MachineInfo of a root that it does not know" in out


async def test_doctor_finds_a_server_that_does_not_know_our_root(road: Road) -> None:
    where = ("--state", road.folder / "another", "--ca", road.ca_file())
    code, out, _ = await cli("doctor", "--target", road.server.ade_url, *where)
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BAD")]
    assert line.startswith("BAD  anchors: HTTP 403: ")
    assert line.endswith("/another/apple/root/certificate.pem)")
