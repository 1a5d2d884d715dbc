"""`mdm-certs init`: what it makes, keeps, renews and refuses."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from certs.cli import app
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage
from certs.folder import CaFolder, ForeignFolder
from certs.identity import Identity
from certs.trust import verify_chain
from tests.support import openssl

FILES = {
    "ca/certificate.pem",
    "ca/issued.jsonl",
    "ca/key.pem",
    "ra/identity.pem",
    "root.pem",
    "tls/identity.pem",
}
CLOCK = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))


def init(folder: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["init", "--folder", str(folder), *arguments])
    return result.exit_code, result.stdout, result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_init_makes_a_folder_and_says_where_each_file_is(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "ca"
    code, out, err = init(folder, "--name", "My CA", "--host", "mdm.example")
    assert (code, err) == (0, "")
    assert set(contents(folder)) == FILES
    for name in FILES:
        assert f"made     {folder / name}" in out
    private = FILES - {"root.pem", "ca/certificate.pem"}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in private} == {0o600}
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    assert root.subject.rfc4514_string() == "CN=My CA,O=Simulated MDM"
    for name in "ra", "tls":
        identity = Identity.from_own_pem((folder / name / "identity.pem").read_bytes())
        assert verify_chain(identity.certificate, [], [root], at=datetime.now(UTC))


def test_init_again_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, "--host", "mdm.example")
    before = contents(tmp_path)
    code, out, _ = init(tmp_path, "--host", "mdm.example", "--name", "Another")
    assert code == 0
    assert out.count("  kept  ") == len(FILES)
    assert contents(tmp_path) == before


def test_other_hosts_renew_the_tls_identity_alone(tmp_path: Path) -> None:
    init(tmp_path)
    before = contents(tmp_path)
    code, out, _ = init(tmp_path, "--host", "mdm.example", "--host", "10.0.0.7")
    assert code == 0
    assert out.count("  renewed  ") == 1
    after = contents(tmp_path)
    assert {n for n in FILES if before[n] != after[n]} == {"tls/identity.pem", "ca/issued.jsonl"}


async def test_an_identity_about_to_expire_is_renewed(tmp_path: Path) -> None:
    import asyncio

    clock = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))

    def states() -> dict[str, str]:
        folder = CaFolder.open(tmp_path, "A", ["localhost"], clock=clock)
        return {entry.what: entry.state for entry in folder.entries}

    await asyncio.to_thread(states)
    await clock.advance(timedelta(days=380).total_seconds())
    found = await asyncio.to_thread(states)
    assert found["TLS server identity"] == "renewed"
    assert found["SCEP RA identity"] == "kept"


def test_a_missing_file_is_made_again(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "root.pem").unlink()
    (tmp_path / "ra" / "identity.pem").unlink()
    code, out, _ = init(tmp_path)
    assert code == 0
    assert out.count("  made  ") == 2


def test_a_start_that_was_killed_is_completed(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / ".key.pem.0123456789abcdef").write_bytes(b"half")
    assert init(tmp_path)[0] == 0


@pytest.mark.parametrize("name", ["notes.txt", "ca/readme"])
def test_a_folder_of_somebody_else_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    code, out, err = init(tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"mdm-certs: {tmp_path} holds {name}, but no CA: name an empty or new folder with --folder\n"
    )
    assert contents(tmp_path) == {name: b"mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ForeignFolder, match="is not a folder"):
        CaFolder.open(tmp_path / "x", "A", ["localhost"], clock=CLOCK)


@pytest.mark.parametrize(
    "arguments", [["--name", ""], ["--name", "x" * 65], ["--host", "ä.example"]]
)
def test_what_no_certificate_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str]
) -> None:
    code, _, err = init(tmp_path / "ca", *arguments)
    assert code == 2
    assert err.startswith("mdm-certs: --name or --host cannot stand in a certificate:")
    assert err.count("\n") == 1
    assert not (tmp_path / "ca").exists()


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "tls" / "identity.pem").write_text("nothing")
    code, _, err = init(tmp_path)
    assert code == 2
    assert str(tmp_path / "tls" / "identity.pem") in err
    with pytest.raises(MalformedMessage):
        CaFolder.open(tmp_path, "A", ["localhost"], clock=CLOCK)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("init", ["--folder", "--name", "--host", "root.pem"]),
        ("issue", ["--kind", "--serial", "--password-file"]),
        (
            "serve",
            [
                "--devices",
                "--attestation-root",
                "--user-enrollment",
                "--eab",
                "--http01-port",
                "Every client trusts root.pem",
                "certbot certonly",
            ],
        ),
        ("inspect", ["--ca", "--key", "Exit 0 when nothing is wrong"]),
    ],
)
def test_help_says_what_one_needs_and_imports_nothing_heavy(command: str, words: list[str]) -> None:
    script = (
        "import sys\nfrom certs.cli import app\n"
        f"try:\n    app(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'aiohttp', 'cryptography', 'structlog', 'OpenSSL'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={**os.environ, "COLUMNS": "200"},
    )
    for word in words:
        assert word in run.stdout, run.stdout
    assert run.stdout.rstrip().endswith("[]")


@pytest.mark.peer
def test_openssl_reads_what_init_made(tmp_path: Path) -> None:
    init(tmp_path)
    root, tls = str(tmp_path / "root.pem"), str(tmp_path / "tls" / "identity.pem")
    assert openssl("verify", "-CAfile", root, "-purpose", "sslserver", tls).strip().endswith(b"OK")


def test_the_key_of_a_new_ca_may_be_chosen(tmp_path: Path) -> None:
    assert init(tmp_path / "a")[0] == 0
    assert init(tmp_path / "b", "--ca-key", "p256")[0] == 0
    assert init(tmp_path / "c", "--ca-key", "rsa512")[0] == 2
    kinds = []
    for name in ("a", "b"):
        pem = (tmp_path / name / "ca" / "certificate.pem").read_bytes()
        kinds.append(type(x509.load_pem_x509_certificate(pem).public_key()))
    assert issubclass(kinds[0], rsa.RSAPublicKey)
    assert issubclass(kinds[1], ec.EllipticCurvePublicKey)
