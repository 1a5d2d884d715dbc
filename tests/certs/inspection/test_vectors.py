"""`mdm-certs inspect` on every captured file: no crash, and the facts of each kind."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.inspection.files import inspect
from certs.inspection.report import MAX_LINES, MAX_TEXT, Context, Report
from tests.support import VECTORS, needs_vectors

CONTEXT = Context(at=datetime(2026, 11, 25, tzinfo=UTC))
FOLDERS = (
    "acme",
    "activation",
    "checkin",
    "commands",
    "ddm",
    "dep",
    "malformed",
    "profiles",
    "responses",
    "scep",
)


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted(path for path in (VECTORS / folder).rglob("*.*") if path.suffix != ".md")


def report(name: str, context: Context = CONTEXT) -> Report:
    return inspect((VECTORS / name).read_bytes(), context)


@needs_vectors
def test_every_captured_file_is_told_without_a_crash() -> None:
    unknown = []
    for path in files():
        found = inspect(path.read_bytes(), CONTEXT)
        assert found.lines, path
        assert len(found.lines) <= MAX_LINES + 1
        for line in found.lines + found.problems:
            assert line.isprintable(), path
            assert len(line) <= MAX_TEXT + 20
        if found.lines[0].startswith("not recognised"):
            unknown.append(path.name)
    # Fuzzers' work whose first bytes are no property list any more, and a text.
    assert unknown == [
        "plist-crasher-0d16bb1b5a9d.bin",
        "plist-crasher-d2e984d7ef5d.bin",
        "plist-invalid-start.failure.plist",
    ]


@needs_vectors
@pytest.mark.parametrize(
    ("name", "lines", "problems"),
    [
        (
            "scep/micromdm-PKCSReq.der",
            [
                "SCEP pkiMessage",
                "messageType: 19 (PKCSReq, a request for a certificate)",
                "transactionID: A13090761A30F66664F85D37433D2065E1112BA1",
                "senderNonce: 8 bytes ae7fe8816cc6bedd",
                "signature is valid, by: CN=MDM SCEP SIGNER,C=US",
                "for: serial number 1 of C=USA,O=etcd-ca,OU=CA, by RSA PKCS#1 v1.5",
                "cipher: des3-cbc",
            ],
            ["digest SHA-1", "expired on 2017-05-31"],
        ),
        (
            "scep/smallstep-CertRep.der",
            ["messageType: 3 (CertRep, an answer)", "pkiStatus: 0 (SUCCESS)", "cipher: des-cbc"],
            ["cipher single DES", "RSA key of 1024 bits", "not as the standard has it: Attribute"],
        ),
        ("scep/ber-indefinite-signed.ber", ["encoding: BER, indefinite lengths"], []),
        ("scep/micromdm-testca-ca.key", ["private key, encrypted: name its password"], []),
        (
            "scep/jscep-req0.der",
            [
                "challenge password: hidden, 23 characters, SHA-256",
                "alternative names: dave@wetas-r-us.com, http://www.wetas-r-us.com",
            ],
            ["RSA key of 1536 bits"],
        ),
        (
            "acme/mda-leaf-genuine.pem",
            [
                "attested serial number: TMWFWWWP67",
                "attested OS version: 15.5",
                "attested freshness: 32 bytes 9ff219",
            ],
            ["expired on 2025-10-12"],
        ),
        (
            "acme/webauthn-apple-attestation.cbor",
            ["attestation object: format apple", "certificates: 2, leaf first"],
            ["the leaf has no freshness"],
        ),
        ("acme/appattest-ios-14.4-attestation.cbor", [], ["format apple-appattest"]),
        (
            "malformed/smallstep-badsig.csr",
            ["wrongly signed PEM block"],
            ["signature is not valid"],
        ),
        (
            "dep/petarov-dep-server-token.p7m",
            ["MIME message: application/pkcs7-mime", "cipher: aes128-cbc"],
            [],
        ),
        ("checkin/client-cert-header-rfc9440.txt", ["base64 of", "certificate: "], ["expired"]),
        ("checkin/TokenUpdate-nanomdm-1.plist", ["check-in message TokenUpdate"], []),
        (
            "profiles/enroll-nanomdm.mobileconfig",
            [
                "configuration profile: Enrollment Profile",
                "payload: com.apple.mdm",
                "Challenge: hidden, 19 characters",
            ],
            [],
        ),
        ("profiles/sceptest-micromdm-scep.mobileconfig", [], ["SCEP Keysize is 1024"]),
        (
            "profiles/dns-quad9-default-tls.signed.mobileconfig",
            ["signature is valid, by: ", "configuration profile: Quad9"],
            [],
        ),
        ("activation/enroll-body-iphone12.p7", ["MachineInfo, what a device says"], ["SHA-1"]),
        ("responses/NotNow-commandment-iOS-11.3.1.plist", ["result of a command: NotNow"], []),
        ("commands/InstallProfile-micromdm.plist", ["command InstallProfile"], []),
    ],
)
def test_each_kind_is_recognised(name: str, lines: list[str], problems: list[str]) -> None:
    found = report(name)
    for line in lines:
        assert any(line in said for said in found.lines), (line, found.lines)
    for problem in problems:
        assert any(problem in said for said in found.problems), (problem, found.problems)


@needs_vectors
def test_an_encrypted_key_opens_with_its_password() -> None:
    for password in (None, "pass", "wrong"):
        context = Context(at=CONTEXT.at, password=password)
        found = report("scep/smallstep-authority-intermediate.key", context)
        assert ("private key: encrypted" in found.lines) is (password == "pass")


@needs_vectors
def test_no_secret_of_a_captured_file_is_shown() -> None:
    text = "\n".join(report("profiles/enroll-nanomdm.mobileconfig").lines)
    assert "nanomdm" in text
    challenge = (VECTORS / "profiles/enroll-nanomdm.mobileconfig").read_text()
    secret = challenge.partition("<key>Challenge</key>")[2].partition("<string>")[2]
    assert secret.partition("</string>")[0] not in text
