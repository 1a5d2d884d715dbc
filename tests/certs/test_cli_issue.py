"""`mdm-certs issue` and roll-over: the files, their modes, and what is refused."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from typer.testing import CliRunner

from certs.cli import app
from certs.clock import SystemClock
from certs.folder import CaFolder
from certs.identity import Identity
from certs.issued_index import IssuedIndex
from certs.trust import verify_chain
from tests.support import openssl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CA."""
    made = tmp_path / "mdm-ca"
    assert run("init", "--folder", str(made))[0] == 0
    return made


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def issue(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return run("issue", "--folder", str(folder), *arguments)


def root(folder: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((folder / "root.pem").read_bytes())


def test_an_identity_comes_as_pem_certificates_and_pkcs12(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "device"
    code, said, _ = issue(folder, "UDID-1", "--serial", "SIM0000001", "--out", str(out))
    assert code == 0
    assert [line.split()[-1] for line in said.splitlines()] == [
        f"{out}.pem",
        f"{out}.crt",
        f"{out}.p12",
        f"{out}.p12.password",
    ]
    modes = [stat.S_IMODE(Path(f"{out}{end}").stat().st_mode) for end in (".pem", ".crt", ".p12")]
    assert modes == [0o600, 0o644, 0o600]
    identity = Identity.from_own_pem(Path(f"{out}.pem").read_bytes())
    verify_chain(identity.certificate, identity.chain, root(folder), at=SystemClock().now())
    assert identity.certificate.subject.rfc4514_string() == "2.5.4.5=SIM0000001,CN=UDID-1"
    purposes = identity.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    password = Path(f"{out}.p12.password").read_text().strip()
    assert len(password) == 24
    same = Identity.from_pkcs12(Path(f"{out}.p12").read_bytes(), password)
    assert same.certificate == identity.certificate
    shown = x509.load_pem_x509_certificates(Path(f"{out}.crt").read_bytes())
    assert shown == [identity.certificate, *identity.chain]
    assert b"PRIVATE" not in Path(f"{out}.crt").read_bytes()
    # It stands in the CA's own record.
    issued = list(IssuedIndex(folder / "ca" / "issued.jsonl").history())
    assert identity.certificate.serial_number in {one.serial_number for one in issued}


def test_a_server_certificate_names_its_hosts(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "mdm.example",
        "--kind",
        "server",
        "--host",
        "127.0.0.1",
        "--days",
        "30",
        "--key",
        "rsa2048",
    ]
    code, _, _ = issue(folder, *arguments, "--out", str(tmp_path / "server"))
    assert code == 0
    identity = Identity.from_own_pem((tmp_path / "server.pem").read_bytes())
    certificate = identity.certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["mdm.example", "127.0.0.1"]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 30
    assert type(identity.key).__name__ == "RSAPrivateKey"


def test_a_given_password_is_used_and_not_written_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\nsecond line\n")
    arguments = ["--password-file", str(tmp_path / "password"), "--out", str(tmp_path / "x")]
    assert issue(folder, "X", *arguments)[0] == 0
    Identity.from_pkcs12((tmp_path / "x.p12").read_bytes(), "geheim")
    assert not (tmp_path / "x.p12.password").exists()


def test_nothing_is_replaced_and_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("mine")
    code, said, error = issue(folder, "X", "--out", str(tmp_path / "x"))
    assert (code, said) == (2, "")
    assert error.endswith(f"{tmp_path}/x.crt exists: name others with --out\n")
    assert (tmp_path / "x.crt").read_text() == "mine"
    assert not list(tmp_path.glob("x.p*"))


def test_a_name_leads_to_no_other_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert issue(folder, "../../etc/x")[0] == 0
    assert (tmp_path / "_.._etc_x.pem").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["X", "--host", "h"], "--host is for --kind server"),
        (["h", "--kind", "server", "--serial", "S"], "--serial is for an identity"),
        (["X", "--serial", ""], "--serial is empty"),
        (["x" * 65], "cannot stand in a certificate"),
        (["X", "--password-file", "/nowhere"], "/nowhere: No such file or directory"),
        (["X", "--out", "/nowhere/x"], "No such file or directory"),
    ],
)
def test_what_cannot_be_issued_is_refused_in_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x")]
    code, said, error = issue(folder, *arguments, *out)
    assert (code, said) == (2, "")
    assert error.startswith("mdm-certs: ")
    assert reason in error
    assert error.count("\n") == 1


def test_any_serial_number_can_be_issued(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "device"
    assert issue(folder, "UDID-1", "--serial", "SIM_é 1", "--out", str(out))[0] == 0
    certificate = x509.load_pem_x509_certificates(Path(f"{out}.crt").read_bytes())[0]
    (serial,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert serial.value == "SIM_é 1"


@pytest.mark.parametrize("days", ["inf", "nan", "1e12", "-1"])
@pytest.mark.parametrize("command", [["issue", "X"], ["serve"]])
def test_a_time_that_no_calendar_has_is_a_usage_error(
    tmp_path: Path, command: list[str], days: str
) -> None:
    ca = tmp_path / "mdm-ca"
    code, said, error = run(*command, "--folder", str(ca), "--days", days)
    assert (code, said) == (2, "")
    assert "Invalid value for '--days'" in error
    assert not ca.exists()


def test_without_a_ca_there_is_nothing_to_issue(tmp_path: Path) -> None:
    code, _, error = issue(tmp_path / "none", "X")
    assert code == 2
    assert "holds no CA: make one with mdm-certs init" in error
    assert not (tmp_path / "none").exists()


@pytest.mark.peer
def test_openssl_takes_the_files(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "device"
    issue(folder, "UDID-1", "--out", str(out))
    openssl("verify", "-CAfile", str(folder / "root.pem"), f"{out}.crt")
    opened = openssl("pkcs12", "-in", f"{out}.p12", "-passin", f"file:{out}.p12.password", "-nodes")
    assert b"PRIVATE KEY" in opened


def test_a_roll_over_makes_the_next_ca_and_keeps_the_first(folder: Path, tmp_path: Path) -> None:
    issue(folder, "old", "--out", str(tmp_path / "old"))
    code, said, _ = run("init", "--folder", str(folder), "--roll-over")
    assert code == 0
    assert f"{folder}/ca-2/certificate.pem" in said
    assert "renewed" in said  # RA and TLS identities follow
    issue(folder, "new", "--out", str(tmp_path / "new"))
    roots = root(folder)
    assert [one.subject.rfc4514_string() for one in roots] == [
        "CN=MDM Test CA G2,O=Simulated MDM",
        "CN=MDM Test CA,O=Simulated MDM",
    ]
    for name, issuer in (("old", roots[1]), ("new", roots[0])):
        identity = Identity.from_own_pem((tmp_path / f"{name}.pem").read_bytes())
        assert identity.certificate.issuer == issuer.subject
        verify_chain(identity.certificate, [], roots, at=SystemClock().now())
    opened = CaFolder.open(folder, "another name", ["localhost"], clock=SystemClock())
    assert opened.generations.number == 2
    assert opened.ra.certificate.issuer == roots[0].subject


def test_a_roll_over_of_nothing_makes_the_first(tmp_path: Path) -> None:
    assert run("init", "--folder", str(tmp_path / "new"), "--roll-over")[0] == 0
    assert len(root(tmp_path / "new")) == 1
