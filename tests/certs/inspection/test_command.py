"""`mdm-certs inspect` as a command: exit codes, options, several files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from certs.ca import CertificateAuthority
from certs.cli import app
from certs.clock import SimulatedClock
from certs.identity import Identity
from tests.certs.inspection.told import CA, DEVICE, RA, pki_request


def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["inspect", *arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_says_what_is_wrong_and_ends_with_1(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pem", tmp_path / "bad"
    ca = CertificateAuthority.create("Now", clock=SimulatedClock(datetime.now(UTC)))
    good.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    bad.write_bytes(b"nothing at all")
    assert command(str(good))[0] == 0
    code, said = command(str(good), str(bad))
    assert code == 1
    assert f"{good}:\n" in said
    assert "wrong: no file of a kind that is known here" in said
    assert command(str(tmp_path / "none"))[0] == 2
    assert command("-", stdin=good.read_bytes())[0] == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "nowhere: No such file or directory"),
        (["."], ".: Is a directory"),
        (["big"], "big: more than 67108864 bytes"),
        (["good.pem", "--password-file", "binary"], "binary: is not text in UTF-8"),
        (["good.pem", "--ca", "binary"], "binary: holds no certificate in PEM"),
        (["good.pem", "--key", "good.pem"], "good.pem: identity PEM: expected a key"),
    ],
)
def test_what_cannot_be_read_ends_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.pem").write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    Path("binary").write_bytes(b"\xff\xfe")
    with open("big", "wb") as big:
        big.truncate(64 * 1024 * 1024 + 1)  # a hole, no bytes on the disk
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"mdm-certs: {reason}")
    assert result.stderr.count("\n") == 1


def test_the_command_opens_envelopes_and_files_with_passwords(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("message", "ra.pem", "p12", "password")}
    files["message"].write_bytes(pki_request())
    files["ra.pem"].write_bytes(Identity(RA.key, RA.certificate, RA.chain).to_pem())
    files["p12"].write_bytes(DEVICE.to_pkcs12("geheim"))
    files["password"].write_text("geheim\n")
    assert "certificate request" in command(str(files["message"]), "--key", str(files["ra.pem"]))[1]
    assert "opened" in command(str(files["p12"]), "--password-file", str(files["password"]))[1]
    for option in ("--key", "--ca"):
        code, said = command(str(files["message"]), option, str(files["password"]))
        assert (code, said.startswith("mdm-certs: ")) == (2, True)
