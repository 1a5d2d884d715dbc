"""`mdm-certs inspect` on files of our own making, whole and with one thing wrong."""

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, names
from certs.acme.device_attest import AttestationObject
from certs.ca import CertificateAuthority
from certs.keys import generate, to_der, to_pem
from certs.scep import message
from tests.certs.inspection.told import (
    AUTHORITY,
    CA,
    CLOCK,
    DEVICE,
    RA,
    REQUEST,
    attestation_object,
    has,
    pki_request,
    tell,
)
from tests.support import rsa_key


def test_a_certificate_of_ours_has_nothing_wrong() -> None:
    CA.crl_url = "http://127.0.0.1/crl/ca.crl"
    one = CA.issue(
        generate("p256").public_key(),
        names.from_subject([[["CN", "x"]]]),
        alternative_names=[x509.DNSName("x.example")],
    )
    CA.crl_url = None
    for encoding in (Encoding.PEM, Encoding.DER):
        report = tell(one.public_bytes(encoding), roots=[CA.certificate])
        assert report.problems == []
        has(
            report,
            "certificate: CN=x",
            "issuer: O=Simulated MDM,CN=Test CA",
            "key: EC, secp256r1",
            "alternative names: x.example",
            "extended key usage: clientAuth",
            "revocation list: http://127.0.0.1/crl/ca.crl",
        )


@pytest.mark.parametrize(
    ("at", "problem"),
    [
        (CLOCK.now() + timedelta(days=400), "expired on"),
        (CLOCK.now() - timedelta(days=1), "before"),
    ],
)
def test_dates_are_told_by_the_time_given(at: datetime, problem: str) -> None:
    (said,) = tell(DEVICE.der, at=at).problems
    assert problem in said


def test_a_name_is_written_alike_wherever_it_stands() -> None:
    data = CA.certificate.public_bytes(Encoding.DER)
    report = tell(data, at=CLOCK.now() + timedelta(days=5000), roots=[CA.certificate])
    name = "O=Simulated MDM,CN=Test CA"
    has(report, f"certificate: {name}", f"issuer: {name}")
    assert all(f"certificate {name}: " in problem for problem in report.problems)
    assert report.problems


def test_a_pki_message_is_opened_with_the_right_key_only() -> None:
    closed = tell(pki_request())
    has(
        closed,
        "SCEP pkiMessage",
        "messageType: 19 (PKCSReq",
        "cipher: aes128-cbc",
        "digest: sha256",
    )
    assert closed.problems == []
    opened = tell(pki_request(), identities=[DEVICE, RA])
    has(opened, "opened with the key of: CN=RA", "certificate request: CN=device")
    has(opened, "challenge password: hidden, 11 characters, SHA-256 ")
    assert "very secret" not in "".join(opened.lines)
    assert opened.problems == []
    assert tell(pki_request(), identities=[DEVICE]).problems == [
        "none of the given keys opens the envelope, or it is damaged"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"digest": "sha1"}, "digest SHA-1: some servers refuse it"),
        ({"cipher": "des"}, "cipher single DES: some devices and servers refuse it"),
    ],
)
def test_weak_algorithms_are_named(changes: dict[str, Any], problem: str) -> None:
    assert tell(pki_request(**changes)).problems == [problem]


def test_a_flipped_byte_in_the_content_breaks_the_signature() -> None:
    data = bytearray(pki_request())
    data[200] ^= 1
    assert any(problem.startswith("signature: ") for problem in tell(bytes(data)).problems)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (
            message.encode_failure(
                "2",
                "wrong challenge",
                transaction_id="T",
                sender_nonce=bytes(16),
                recipient_nonce=bytes(16),
                signer=RA,
            ),
            ["pkiStatus: 2 (FAILURE)", "failInfo: 2 (badRequest", "failInfoText: wrong challenge"],
        ),
        (
            message.encode_pending(
                transaction_id="T",
                sender_nonce=bytes(16),
                recipient_nonce=bytes(16),
                signer=RA,
            ),
            ["pkiStatus: 3 (PENDING: ask again later)"],
        ),
        (
            message.encode_success(
                DEVICE.certificate,
                DEVICE.certificate,
                transaction_id="T",
                sender_nonce=bytes(16),
                recipient_nonce=bytes(16),
                signer=RA,
            ),
            ["pkiStatus: 0 (SUCCESS)", "encrypted message (CMS EnvelopedData)"],
        ),
        (cms.certs_only([DEVICE.certificate, CA.certificate]), ["certificates alone", "CN=device"]),
        (REQUEST, ["signature is valid: the asker holds the key", "key usage: digital signature"]),
        (CA.crl(), ["revocation list of: O=Simulated MDM,CN=Test CA", "revoked certificates: 0"]),
        (to_pem(rsa_key(1)), ["private key: unencrypted", "key: RSA, 2048 bits"]),
        (to_der(generate("p384")), ["private key: unencrypted", "key: EC, secp384r1"]),
        (
            cms.sign(b"body", DEVICE, detached=True),
            ["content: none: a detached signature", "signed message (CMS SignedData)"],
        ),
    ],
)
def test_what_we_write_is_recognised_and_sound(data: bytes, lines: list[str]) -> None:
    report = tell(data)
    has(report, *lines)
    assert report.problems == []
    again = tell(base64.b64encode(data))  # as it is pasted into a ticket
    if not data.startswith(b"-----"):
        has(again, "base64 of", *lines)


def test_a_revoked_certificate_is_listed_with_its_reason() -> None:
    ca = CertificateAuthority.create("Other CA", clock=CLOCK)
    leaf = ca.issue(generate("p256").public_key(), names.from_subject([[["CN", "x"]]]))
    ca.revoke(leaf, x509.ReasonFlags.key_compromise)
    report = tell(ca.crl(), roots=[ca.certificate])
    has(report, f"{leaf.serial_number:x}: since 2026-01-01 00:00:00Z, keyCompromise")
    has(report, "signature is valid")
    namesake = CertificateAuthority.create("Other CA", clock=CLOCK)
    (problem,) = tell(ca.crl(), roots=[namesake.certificate]).problems
    assert "not signed by" in problem
    (problem,) = tell(ca.crl(), at=CLOCK.now() + timedelta(days=8)).problems
    assert "ended on 2026-01-08" in problem


def test_a_pkcs12_is_opened_with_its_password() -> None:
    data = DEVICE.to_pkcs12("geheim")
    has(tell(data), "PKCS#12 file", "closed: name its password")
    opened = tell(data, password="geheim")
    has(opened, "opened: with the password", "certificate: CN=device")
    assert opened.problems == []
    assert tell(data, password="falsch").problems == [
        "the password is not the file's, or the file is damaged"
    ]


# Attestation


def test_an_attestation_object_is_read_to_its_last_property() -> None:
    report = tell(attestation_object(), roots=[AUTHORITY.root])
    has(
        report,
        "attestation object: format apple",
        "attested serial number: SIM1",
        "attested UDID: U1",
        "marked as simulated",
        "trusted: the chain leads to a given root",
    )
    assert report.problems == []


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"freshness": None}, "the leaf has no freshness: not made for an ACME challenge"),
        ({"freshness": b"nonce"}, "freshness of 5 bytes: an ACME challenge wants the 32"),
    ],
)
def test_freshness_that_no_challenge_takes_is_told(facts: dict[str, Any], problem: str) -> None:
    (said,) = tell(attestation_object(**facts)).problems
    assert said.startswith(problem)


def test_an_attestation_of_another_authority_is_not_trusted() -> None:
    (problem,) = tell(attestation_object(), roots=[CA.certificate]).problems
    assert problem.startswith("not trusted: ")


def test_a_leaf_of_user_enrollment_names_nobody() -> None:
    has(tell(attestation_object(serial_number=None, udid=None)), "names no device")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (AttestationObject("packed"), "format packed"),
        (AttestationObject("apple"), "no certificates (x5c)"),
    ],
)
def test_an_odd_attestation_object_is_told(value: AttestationObject, problem: str) -> None:
    assert any(said.startswith(problem) for said in tell(value.encode()).problems)
