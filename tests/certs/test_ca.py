"""The CA: what it writes into certificates, what it remembers, and what a kill leaves behind."""

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import certificate_parts, csr
from certs.ca import CertificateAuthority, issue_server_identity
from certs.certificate_profile import SIMULATED, SIMULATED_OID, key_usage
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.issued_index import IssuedIndex, Revocation
from certs.keys import KeyWorkOnEventLoop, generate
from certs.trust import verify_chain
from certs.whole_file import write_once, write_whole
from tests.support import openssl, rsa_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW)


@pytest.fixture
def ca(clock: SimulatedClock) -> CertificateAuthority:
    return CertificateAuthority.create("Test CA", clock=clock)


def oids(certificate: x509.Certificate) -> list[str]:
    return [extension.oid.dotted_string for extension in certificate.extensions]


def test_a_leaf_says_all_that_a_device_identity_needs(ca: CertificateAuthority) -> None:
    key = generate("p256")
    leaf = ca.issue(key.public_key(), NAME, days=90)
    get = leaf.extensions.get_extension_for_class
    assert get(x509.BasicConstraints).critical
    assert not get(x509.BasicConstraints).value.ca
    assert get(x509.KeyUsage).value == key_usage("digital_signature")
    assert list(get(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert get(x509.AuthorityKeyIdentifier).value.key_identifier == own.digest
    assert get(x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(
        key.public_key()
    )
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=10)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    leaf.verify_directly_issued_by(ca.certificate)


def test_an_rsa_leaf_may_also_receive_keys(ca: CertificateAuthority) -> None:
    leaf = ca.issue(rsa_key().public_key(), NAME)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage == key_usage("digital_signature", "key_encipherment")


def test_an_rsa_ca_may_be_its_own_scep_recipient(clock: SimulatedClock) -> None:
    ca = CertificateAuthority.create("RSA CA", key=rsa_key(), clock=clock)
    usage = ca.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment
    assert usage.key_cert_sign


def test_serial_numbers_are_positive_different_and_fit_twenty_octets(
    ca: CertificateAuthority,
) -> None:
    key = generate("p256").public_key()
    serials = {ca.issue(key, NAME).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert all(0 < serial < 1 << 128 for serial in serials)
    assert max(serials).bit_length() > 100


def test_a_leaf_never_outlives_or_predates_its_ca(clock: SimulatedClock) -> None:
    ca = CertificateAuthority.create("Short CA", clock=clock, lifetime_days=10)
    leaf = ca.issue(generate("p256").public_key(), NAME, days=365)
    assert leaf.not_valid_after_utc == ca.certificate.not_valid_after_utc
    late = SimulatedClock(NOW - timedelta(days=3))
    slow = CertificateAuthority(ca.identity, clock=late)
    early = slow.issue(generate("p256").public_key(), NAME, days=30)
    assert early.not_valid_before_utc == ca.certificate.not_valid_before_utc


def test_dates_asked_for_are_written_as_they_are(ca: CertificateAuthority) -> None:
    leaf = ca.issue(
        generate("p256").public_key(), NAME, days=5, not_before=NOW - timedelta(days=20)
    )
    assert leaf.not_valid_before_utc == NOW - timedelta(days=20)
    assert leaf.not_valid_after_utc == NOW - timedelta(days=15)


def test_a_names_extension_is_critical_without_a_subject(ca: CertificateAuthority) -> None:
    names = [x509.DNSName("a.example")]
    key = generate("p256").public_key()
    for subject, critical in (NAME, False), (x509.Name([]), True):
        leaf = ca.issue(key, subject, alternative_names=names)
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert extension.critical is critical


def test_a_given_extension_takes_the_place_of_the_usual_one(ca: CertificateAuthority) -> None:
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    sub = ca.issue(generate("p256").public_key(), NAME, ca=True, extensions=[(constraints, True)])
    assert sub.extensions.get_extension_for_class(x509.BasicConstraints).value == constraints
    assert x509.ExtendedKeyUsage.oid.dotted_string not in oids(sub)


def test_everything_under_a_simulated_ca_is_marked(clock: SimulatedClock) -> None:
    """apple-services.md, section 9: on every certificate, non-critical, DER UTF8String."""
    root = CertificateAuthority.create(
        "Sim Apple Root CA", clock=clock, organization="Sim Apple Inc.", simulated=True
    )
    sub = CertificateAuthority.create(
        "Sim iPhone Device CA", clock=clock, parent=root, organization="Sim Apple Inc."
    )
    leaf = sub.issue(generate("p256").public_key(), NAME)
    for certificate in root.certificate, sub.certificate, leaf:
        mark = certificate.extensions.get_extension_for_oid(SIMULATED_OID)
        assert mark.value == SIMULATED
        assert not mark.critical
    assert SIMULATED.value.hex() == "0c0953494d554c41544544"
    assert "O=Sim Apple Inc." in sub.certificate.subject.rfc4514_string()


def test_an_honest_ca_marks_nothing(ca: CertificateAuthority) -> None:
    assert SIMULATED_OID.dotted_string not in oids(ca.certificate)


def test_an_identity_shows_its_issuers_without_the_root(clock: SimulatedClock) -> None:
    root = CertificateAuthority.create("Root", clock=clock)
    middle = CertificateAuthority.create("Middle", clock=clock, parent=root)
    low = CertificateAuthority.create("Low", clock=clock, parent=middle)
    identity = low.issue_identity(generate("p256"), NAME)
    assert identity.chain == (low.certificate, middle.certificate)
    assert low.root == root.certificate
    assert verify_chain(identity.certificate, identity.chain, [root.certificate], at=NOW)


def test_a_server_identity_names_hosts_and_addresses(ca: CertificateAuthority) -> None:
    identity = issue_server_identity(ca, ["mdm.example", "127.0.0.1", "::1"], generate("p256"))
    names = identity.certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert names.get_values_for_type(x509.DNSName) == ["mdm.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_revocation_shows_in_the_crl(ca: CertificateAuthority, clock: SimulatedClock) -> None:
    leaf = ca.issue(generate("p256").public_key(), NAME)
    other = ca.issue(generate("p256").public_key(), NAME)
    empty = x509.load_der_x509_crl(ca.crl())
    assert len(list(empty)) == 0
    ca.revoke(leaf, x509.ReasonFlags.key_compromise)
    assert (ca.is_revoked(leaf), ca.is_revoked(other)) == (True, False)
    crl = x509.load_der_x509_crl(ca.crl())
    assert crl.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]
    entry = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is (
        x509.ReasonFlags.key_compromise
    )
    assert crl.get_revoked_certificate_by_serial_number(other.serial_number) is None


async def test_the_crl_is_signed_anew_before_it_runs_out(
    ca: CertificateAuthority, clock: SimulatedClock
) -> None:
    first = ca.crl()
    assert ca.crl() == first
    await clock.advance(timedelta(days=4).total_seconds())
    later = x509.load_der_x509_crl(ca.crl())
    assert later.next_update_utc == clock.now() + timedelta(days=7)


def test_a_second_revocation_changes_nothing(ca: CertificateAuthority) -> None:
    leaf = ca.issue(generate("p256").public_key(), NAME)
    ca.revoke(leaf, x509.ReasonFlags.superseded)
    ca.revoke(leaf, x509.ReasonFlags.key_compromise)
    assert ca.index.revoked[leaf.serial_number].reason is x509.ReasonFlags.superseded


def test_only_its_own_certificates_can_be_revoked(
    ca: CertificateAuthority, clock: SimulatedClock
) -> None:
    namesake = CertificateAuthority.create("Test CA", clock=clock)
    foreign = namesake.issue(generate("p256").public_key(), NAME)
    with pytest.raises(UntrustedCertificate, match="was not issued by CN=Test CA"):
        ca.revoke(foreign)
    assert not ca.is_revoked(foreign)


# In a folder


def test_a_folder_brings_the_same_ca_back(tmp_path: Path, clock: SimulatedClock) -> None:
    first = CertificateAuthority.open(tmp_path / "ca", "Test CA", clock=clock)
    leaf = first.issue(generate("p256").public_key(), NAME)
    first.revoke(leaf)
    again = CertificateAuthority.open(tmp_path / "ca", "another name", clock=clock)
    assert again.certificate == first.certificate
    assert again.is_revoked(leaf)
    assert again.index.count == 1
    assert [issued.sha256 for issued in again.index.history()] == [
        leaf.fingerprint(hashes.SHA256())
    ]
    assert sorted(p.name for p in (tmp_path / "ca").iterdir()) == [
        "certificate.pem",
        "issued.jsonl",
        "key.pem",
    ]
    assert stat.S_IMODE((tmp_path / "ca" / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


def test_a_start_killed_between_key_and_certificate_is_completed(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    first = CertificateAuthority.open(tmp_path, "Test CA", clock=clock)
    (tmp_path / "certificate.pem").unlink()
    again = CertificateAuthority.open(tmp_path, "Test CA", clock=clock)
    assert again.certificate.public_key() == first.certificate.public_key()


def test_a_torn_last_line_is_dropped_and_logged(tmp_path: Path, clock: SimulatedClock) -> None:
    ca = CertificateAuthority.open(tmp_path, "Test CA", clock=clock)
    leaf = ca.issue(generate("p256").public_key(), NAME)
    ca.revoke(leaf)
    index = tmp_path / "issued.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole + b'{"issued":"1234","sha2')
    with structlog.testing.capture_logs() as logs:
        again = CertificateAuthority.open(tmp_path, "Test CA", clock=clock)
    assert [(line["event"], line["dropped_bytes"]) for line in logs] == [("issued_index_cut", 22)]
    assert again.is_revoked(leaf)
    assert index.read_bytes() == whole
    again.issue(generate("p256").public_key(), NAME)
    assert CertificateAuthority.open(tmp_path, "Test CA", clock=clock).index.count == 2


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"revoked":"xyz"}', "[]", '{"revoked":"1","at":"x","reason":"y"}']
)
def test_a_damaged_line_in_the_middle_is_named(
    tmp_path: Path, clock: SimulatedClock, line: str
) -> None:
    CertificateAuthority.open(tmp_path, "Test CA", clock=clock)
    (tmp_path / "issued.jsonl").write_text(f"{line}\n")
    with pytest.raises(MalformedMessage, match="issued index, line 1"):
        CertificateAuthority.open(tmp_path, "Test CA", clock=clock)


def test_a_foreign_key_or_certificate_is_refused(tmp_path: Path, clock: SimulatedClock) -> None:
    CertificateAuthority.open(tmp_path / "a", "A", clock=clock)
    CertificateAuthority.open(tmp_path / "b", "B", clock=clock)
    (tmp_path / "b" / "key.pem").write_bytes((tmp_path / "a" / "key.pem").read_bytes())
    with pytest.raises(MalformedMessage, match="a certificate for this key"):
        CertificateAuthority.open(tmp_path / "b", "B", clock=clock)
    (tmp_path / "b" / "key.pem").write_bytes(b"no key")
    with pytest.raises(MalformedMessage, match="a private key in PEM"):
        CertificateAuthority.open(tmp_path / "b", "B", clock=clock)
    (tmp_path / "b" / "key.pem").unlink()
    with pytest.raises(MalformedMessage, match="key.pem beside certificate.pem"):
        CertificateAuthority.open(tmp_path / "b", "B", clock=clock)
    (tmp_path / "a" / "certificate.pem").write_bytes(b"nothing")
    with pytest.raises(MalformedMessage, match="a certificate in PEM"):
        CertificateAuthority.open(tmp_path / "a", "A", clock=clock)


def test_a_sub_ca_belongs_to_its_parent(tmp_path: Path, clock: SimulatedClock) -> None:
    root = CertificateAuthority.create("Root", clock=clock)
    other = CertificateAuthority.create("Root", clock=clock)
    CertificateAuthority.open(tmp_path, "Sub", clock=clock, parent=root)
    CertificateAuthority.open(tmp_path, "Sub", clock=clock, parent=root)
    with pytest.raises(UntrustedCertificate, match="was not issued by CN=Root"):
        CertificateAuthority.open(tmp_path, "Sub", clock=clock, parent=other)


def test_create_leaves_a_ca_that_is_there_alone(tmp_path: Path, clock: SimulatedClock) -> None:
    first = CertificateAuthority.create("A", clock=clock, folder=tmp_path)
    with pytest.raises(MalformedMessage, match="a CA lives there already"):
        CertificateAuthority.create("A", clock=clock, folder=tmp_path)
    assert CertificateAuthority.open(tmp_path, "A", clock=clock).certificate == first.certificate


def test_an_open_key_file_is_closed(tmp_path: Path, clock: SimulatedClock) -> None:
    CertificateAuthority.open(tmp_path, "A", clock=clock)
    (tmp_path / "key.pem").chmod(0o644)
    CertificateAuthority.open(tmp_path, "A", clock=clock)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


async def test_an_rsa_ca_is_not_made_on_the_event_loop(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    with pytest.raises(KeyWorkOnEventLoop):
        CertificateAuthority.open(tmp_path, "A", clock=clock, spec="rsa2048")


KILLED = """
import os, sys
from pathlib import Path
from cryptography import x509
from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.keys import generate
ca = CertificateAuthority.open(Path(sys.argv[1]), "A", clock=SystemClock())
key = generate("p256").public_key()
while True:
    print(f"{ca.issue(key, x509.Name([])).serial_number:x}", flush=True)
"""


def test_a_killed_ca_has_recorded_all_that_it_gave_out(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    given = [process.stdout.readline().strip() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    given += process.stdout.read().split()
    process.stdout.close()
    process.wait()
    ca = CertificateAuthority.open(tmp_path, "A", clock=clock)
    recorded = {f"{issued.serial_number:x}" for issued in ca.index.history()}
    assert set(given[:-1]) <= recorded  # the last one may have been cut in the pipe


def test_two_that_start_together_agree(tmp_path: Path) -> None:
    assert write_once(tmp_path / "x", b"first") == b"first"
    assert write_once(tmp_path / "x", b"second") == b"first"
    write_whole(tmp_path / "x", b"third", 0o644)
    assert (tmp_path / "x").read_bytes() == b"third"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_index_in_memory_writes_nothing() -> None:
    index = IssuedIndex()
    index.revoke(Revocation(1, NOW, x509.ReasonFlags.unspecified))
    assert list(index.history()) == []
    assert 1 in index.revoked


def test_the_index_is_one_json_line_per_event(tmp_path: Path, clock: SimulatedClock) -> None:
    ca = CertificateAuthority.open(tmp_path, "A", clock=clock)
    ca.revoke(ca.issue(generate("p256").public_key(), NAME))
    issued, revoked = map(json.loads, (tmp_path / "issued.jsonl").read_text().splitlines())
    assert set(issued) == {"issued", "sha256", "subject", "not_after"}
    assert set(revoked) == {"revoked", "at", "reason"}


@pytest.mark.peer
def test_openssl_verifies_chain_and_crl(tmp_path: Path, clock: SimulatedClock) -> None:
    root = CertificateAuthority.create("Root", clock=clock)
    sub = CertificateAuthority.create("Sub", clock=clock, parent=root)
    leaf = sub.issue(generate("p256").public_key(), NAME)
    at = str(int(NOW.timestamp()))
    for name, data in (
        ("root", root.certificate),
        ("sub", sub.certificate),
        ("leaf", leaf),
    ):
        (tmp_path / name).write_bytes(data.public_bytes(Encoding.PEM))
    chain = ["verify", "-x509_strict", "-attime", at, "-CAfile", str(tmp_path / "root")]
    chain += ["-untrusted", str(tmp_path / "sub"), "-purpose", "sslclient", str(tmp_path / "leaf")]
    assert openssl(*chain).strip().endswith(b"OK")
    sub.revoke(leaf)
    (tmp_path / "crl").write_bytes(x509.load_der_x509_crl(sub.crl()).public_bytes(Encoding.PEM))
    shown = openssl(
        "crl", "-in", str(tmp_path / "crl"), "-CAfile", str(tmp_path / "sub"), "-noout", "-text"
    )
    assert f"{leaf.serial_number:X}".encode() in shown.replace(b":", b"")


def test_a_request_is_certified_with_its_own_name_and_key_byte_for_byte() -> None:
    printable = x509.NameAttribute(NameOID.COMMON_NAME, "device", _ASN1Type.PrintableString)
    asked = csr.decode(
        csr.build(
            rsa_key(1),
            x509.Name([printable]),
            alternative_names=[x509.DNSName("device.example.com")],
        )
    )
    ca = CertificateAuthority.create("Test CA", clock=SimulatedClock())
    certificate = ca.certify(asked, key_usage=None)
    assert asked.subject_der.count(b"\x13\x06device") == 1
    assert certificate_parts.subject_der(certificate) == asked.subject_der
    assert certificate_parts.parts(certificate).spki == asked.spki
    names_ = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names_) == asked.alternative_names
    (recorded,) = ca.index.history()
    assert recorded.sha256 == certificate.fingerprint(hashes.SHA256())
    assert (recorded.subject, recorded.serial_number) == ("CN=device", certificate.serial_number)
    assert recorded.not_after == certificate.not_valid_after_utc
