"""`mdm-certs inspect` on the rarer forms that a file may have."""

import base64
import json
import plistlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from certs import cms, csr, der, names
from certs.acme.jws import base64url
from certs.ca import CertificateAuthority
from certs.cms_signed import SIGNED_DATA
from certs.inspection import scep_payload
from certs.keys import generate
from certs.scep import message
from tests.certs.inspection.told import (
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


def resigned(attributes: list[tuple[str, bytes]], **how: Any) -> bytes:
    """A pkiMessage with just these attributes."""
    return cms.sign(b"", RA, extra_attributes=attributes, **how)


TYPE = (message.MESSAGE_TYPE, der.printable("3"))
TRANSACTION = (message.TRANSACTION_ID, der.printable("T"))
FAILURE = (message.PKI_STATUS, der.printable("2"))
NONCE = (message.SENDER_NONCE, der.octet_string(bytes(16)))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (resigned([TYPE, TRANSACTION, FAILURE, NONCE]), "CertRep without recipientNonce"),
        (resigned([TYPE, TRANSACTION, FAILURE]), "CertRep FAILURE without failInfo"),
        (resigned([TYPE, TRANSACTION]), "pkiStatus: expected 0, 2 or 3"),
        (resigned([(message.MESSAGE_TYPE, der.printable("19")), NONCE]), "transactionID"),
        (
            resigned([TYPE, TRANSACTION, FAILURE, ("1.2.840.113549.1.9.7", der.printable("x"))]),
            "the challenge password stands in the clear",
        ),
    ],
)
def test_a_pki_message_that_lacks_something_is_told(data: bytes, problem: str) -> None:
    assert any(problem in said for said in tell(data).problems)


def test_an_unknown_message_type_and_a_missing_signer_are_told() -> None:
    data = resigned([(message.MESSAGE_TYPE, der.printable("99"))], certificates=[])
    report = tell(data)
    has(report, "messageType: 99 (unknown)", "transactionID: missing")
    has(report, "signer: its certificate is not in the message")
    assert "messageType 99 is none of RFC 8894" in report.problems
    # One that is known from elsewhere, as clients know it from GetCACert.
    has(tell(data, roots=[CA.certificate, RA.certificate]), "signature is valid, by: CN=RA")


def answer(status: str, content: bytes = b"", **more: str) -> bytes:
    """A CertRep with that content, and failInfo where it is given."""
    attributes = [
        (message.MESSAGE_TYPE, der.printable("3")),
        (message.PKI_STATUS, der.printable(status)),
        (message.TRANSACTION_ID, der.printable("T")),
        (message.RECIPIENT_NONCE, der.octet_string(bytes(16))),
        *((message.FAIL_INFO, der.printable(one)) for one in more.values()),
    ]
    return cms.sign(content, RA, extra_attributes=attributes)


SEALED = cms.encrypt(REQUEST, [DEVICE.certificate])
LEAF_ALONE = DEVICE.certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (answer("0"), "CertRep SUCCESS without an envelope"),
        (answer("0", SEALED), "the envelope of a CertRep does not hold certificates"),
        (
            answer("0", cms.encrypt(LEAF_ALONE, [DEVICE.certificate])),
            "the envelope of a CertRep does not hold certificates",
        ),
        (answer("2", SEALED, fail_info="2"), "CertRep FAILURE with content"),
        (answer("2", fail_info="9"), "failInfo 9 is none of RFC 8894"),
        (answer("3", fail_info="2"), "CertRep PENDING with failInfo"),
        (pki_request(envelope=REQUEST), "a request without an envelope"),
        (pki_request(envelope=b""), "a request without an envelope"),
        (
            pki_request(message_type="20", recipients=[DEVICE.certificate]),
            "the envelope of a CertPoll does not hold the names of issuer and subject",
        ),
        (
            pki_request(envelope=cms.encrypt(b"csr", [DEVICE.certificate])),
            "the envelope of a PKCSReq does not hold a certificate request",
        ),
        (pki_request(envelope=cms.encrypt(REQUEST, [])), "the envelope is for nobody"),
        (pki_request(transaction_id="T_1"), "transactionID has characters"),
        (resigned([(message.MESSAGE_TYPE, der.utf8("19")), NONCE]), "messageType is no Printable"),
        (cms.certs_only([]), "neither certificates nor revocation lists"),
        (REQUEST + b"\n", "1 bytes stand behind the end"),
        (csr.build(rsa_key(2), DEVICE.certificate.subject, version=2), "has version 2"),
        (
            csr.build(
                rsa_key(2),
                DEVICE.certificate.subject,
                challenge="x",
                key_usage=names.key_usage(5),
                in_order=False,
            ),
            "not in the order of DER",
        ),
    ],
)
def test_what_strict_peers_stumble_over_is_told(data: bytes, problem: str) -> None:
    problems = tell(data, identities=[DEVICE]).problems
    assert any(problem in said for said in problems), problems


def test_the_names_in_a_poll_and_a_look_up_are_told_and_nothing_is_wrong_with_them() -> None:
    issuer = CA.certificate.subject.public_bytes()
    poll = message.issuer_and_subject(issuer, DEVICE.certificate.subject.public_bytes())
    by_number = der.sequence(issuer, der.integer(0x1A2B))
    for kind, inside, said in (
        ("20", poll, "subject: CN=device"),
        ("21", by_number, "serial number: 1a2b"),
        ("22", by_number, "serial number: 1a2b"),
    ):
        sealed = cms.encrypt(inside, [RA.certificate])
        report = tell(pki_request(message_type=kind, envelope=sealed), identities=[RA])
        has(report, "issuer: O=Simulated MDM,CN=Test CA", said)
        assert report.problems == []


def test_the_revocation_list_that_answers_a_get_crl_is_read() -> None:
    lists = der.sequence(
        der.oid(SIGNED_DATA),
        der.context(
            0,
            der.sequence(
                der.integer(1),
                der.tlv(der.SET),
                der.sequence(der.oid(cms.DATA)),
                der.context(1, CA.crl()),
                der.tlv(der.SET),
            ),
        ),
    )
    report = tell(lists)
    has(report, "revocation list of: O=Simulated MDM,CN=Test CA")
    assert report.problems == []


def test_two_signers_are_one_too_many() -> None:
    data = cms.sign(b"x", RA)
    node = der.read(data)
    signed = node.children()[1].children()[0]
    parts = [part.raw for part in signed.children()]
    signer = signed.children()[-1].children()[0].raw
    parts[-1] = der.tlv(der.SET, signer, signer)
    doubled = der.sequence(node.children()[0].raw, der.context(0, der.sequence(*parts)))
    assert any("2 signers" in said for said in tell(doubled).problems)


def test_a_recipient_named_by_key_identifier_and_a_cipher_that_nobody_speaks() -> None:
    data = cms.encrypt(b"content", [RA.certificate])
    other = data.replace(der.oid("2.16.840.1.101.3.4.1.2"), der.oid("2.16.840.1.101.3.4.1.6"))
    (problem,) = tell(other).problems
    assert problem.startswith("cipher 2.16.840.1.101.3.4.1.6 is none of")


def test_an_envelope_that_ends_too_early_is_told() -> None:
    """Counted with the originator, its fields are as many as there should be."""
    originator = der.context(0, der.sequence())
    enveloped = der.sequence(der.integer(0), originator, der.tlv(der.SET))
    data = der.sequence(der.oid("1.2.840.113549.1.7.3"), der.context(0, enveloped))
    (problem,) = tell(data).problems
    assert problem.startswith("EnvelopedData: expected recipientInfos and encryptedContentInfo")


@pytest.mark.peer
def test_what_openssl_envelops_for_a_key_identifier_is_told(tmp_path: Path) -> None:
    (tmp_path / "ra.pem").write_bytes(RA.certificate.public_bytes(Encoding.PEM))
    made = subprocess.run(
        ["openssl", "cms", "-encrypt", "-keyid", "-aes256", "-outform", "DER", "ra.pem"],
        cwd=tmp_path,
        input=b"content",
        capture_output=True,
        check=True,
        timeout=30,
    )
    report = tell(made.stdout, identities=[RA])
    has(
        report,
        "for: key identifier 20 bytes",
        "cipher: aes256-cbc",
        "opened with the key of: CN=RA",
    )


def test_keys_in_every_wrapping_are_told() -> None:
    key = generate("p256")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    has(tell(public), "public key", "key: EC, secp256r1")
    has(tell(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)), "EC")
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"geheim")
    )
    has(tell(encrypted), "private key, encrypted: name its password")
    has(tell(encrypted, password="geheim"), "private key: encrypted", "key: EC")
    as_der = key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"geheim")
    )
    has(tell(as_der), "private key, encrypted: convert it to PEM")
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    has(
        tell(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        "key: Ed25519",
    )


def test_a_pkcs12_without_key_is_no_identity() -> None:
    data = pkcs12.serialize_key_and_certificates(
        None, None, None, [CA.certificate], BestAvailableEncryption(b"geheim")
    )
    assert tell(data, password="geheim").problems == ["holds no private key with its certificate"]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"type": "urn:ietf:params:acme:error:badNonce", "detail": "stale"}, "detail: stale"),
        (
            {"attObj": base64url(attestation_object())},
            "response to a device-attest-01 challenge",
        ),
        ([1, 2], "JSON: a list"),
        ({"a": {"b": 1}, "c": [1], "d": None}, "a: an object of 1"),
        ({str(n): n for n in range(50)}, "and 10 more"),
    ],
)
def test_json_of_each_kind_is_told(value: object, line: str) -> None:
    has(tell(json.dumps(value).encode()), line)


def test_a_jws_whose_parts_are_nonsense_is_told() -> None:
    data = json.dumps({"protected": "!!", "payload": "", "signature": "x"}).encode()
    report = tell(data)
    has(report, "payload: empty: POST-as-GET")
    assert any("header of the JWS" in said for said in report.problems)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"Command": {"RequestType": "DeviceLock"}, "CommandUUID": "X"}, "command DeviceLock"),
        ({"ActivationRecord": {}}, "activation message"),
        ({"a": {"b": 1}, "c": [1]}, "a: a dictionary of 1: b"),
        ({f"key{n}": n for n in range(50)}, "and 10 more"),
        ([1, 2], "property list: a list, where devices send dictionaries"),
    ],
)
def test_property_lists_of_each_kind_are_told(content: Any, line: str) -> None:
    has(tell(plistlib.dumps(content)), line)


def test_a_profile_inside_a_command_is_told_too() -> None:
    inner = {"PayloadType": "Configuration", "PayloadContent": [], "PayloadDisplayName": "Inner"}
    command = {"Command": {"RequestType": "InstallProfile", "Payload": plistlib.dumps(inner)}}
    has(tell(plistlib.dumps(command)), "configuration profile: Inner")


def test_an_encrypted_profile_keeps_its_payloads_to_itself() -> None:
    content = {
        "PayloadType": "Configuration",
        "PayloadIdentifier": "p",
        "PayloadUUID": "P",
        "PayloadVersion": 1,
        "IsEncrypted": True,
        "PayloadRemovalDisallowed": True,
        "EncryptedPayloadContent": bytes(10),
    }
    report = tell(plistlib.dumps(content))
    has(report, "payloads: encrypted, 10 bytes", "may not be removed")
    assert report.problems == []


def test_a_url_that_is_none_has_no_scheme() -> None:
    assert scep_payload.scheme("https://[") == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"Content-Type: text/plain\n\n", "has no body that can be decoded"),
        (
            b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes(cms.encrypt(b"x", [RA.certificate])),
            "",
        ),
    ],
)
def test_a_mime_message_is_unwrapped(text: bytes, problem: str) -> None:
    report = tell(text)
    has(report, "MIME message: ")
    assert bool(report.problems) is bool(problem)
    assert problem in "".join(report.problems)


def test_many_pem_blocks_are_counted() -> None:
    block = b"-----BEGIN ODD-----\nAAAA\n-----END ODD-----\n"
    has(tell(block * 60), "and 10 more PEM blocks")


def test_a_long_revocation_list_is_cut_short() -> None:
    ca = CertificateAuthority.create("Other CA", clock=CLOCK)
    for _ in range(25):
        ca.revoke(ca.issue(generate("p256").public_key(), names.from_subject([[["CN", "x"]]])))
    has(tell(ca.crl()), "revoked certificates: 25", "and 5 more")


def test_names_of_every_kind_are_told() -> None:
    one = CA.issue(
        rsa_key(2).public_key(),
        x509.Name([]),
        alternative_names=[
            x509.OtherName(
                x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3"), der.sequence(der.utf8("SIM1"))
            ),
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), der.utf8("other")),
            x509.OtherName(x509.ObjectIdentifier("1.2.4"), der.octet_string(b"bytes")),
            x509.DirectoryName(names.from_subject([[["CN", "directory"]]])),
            x509.RFC822Name("a@b.example"),
        ],
        extensions=[
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.5"), b"\x05\x00"), False)
        ],
    )
    report = tell(one.public_bytes(Encoding.DER))
    has(
        report,
        "certificate: (empty subject)",
        "permanent identifier SIM1",
        "other name 1.2.3 other",
        "CN=directory",
        "extension 1.2.5: 2 bytes 0500",
    )
