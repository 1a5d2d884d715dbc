"""Each kind that `mdm-certs inspect` is for, sound and with one thing wrong: pkiMessage, CertRep, attestation object, profile, .p7m, certificate."""

import base64
import json
import plistlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, names
from certs.acme.device_attest import AttestationObject
from certs.ca import CertificateAuthority
from certs.cms_enveloped import encrypt
from certs.identity import Identity
from certs.keys import generate
from certs.scep import message
from tests.certs.inspection.test_profiles import profile
from tests.certs.inspection.told import (
    AUTHORITY,
    CA,
    CLOCK,
    DEVICE,
    RA,
    attestation_object,
    has,
    pki_request,
    tell,
)
from tests.support import VECTORS, needs_vectors, rsa_key

ISSUED = CA.issue(rsa_key(2).public_key(), names.from_subject([[["CN", "issued"]]]))
OTHER = CertificateAuthority.create("Other CA", clock=CLOCK)
STRANGER = OTHER.issue_identity(rsa_key(3), names.from_subject([[["CN", "stranger"]]]))
TOKEN = {
    "consumer_key": "CK_1",
    "consumer_secret": "CS_hush",
    "access_token": "AT_hush",
    "access_secret": "AS_hush",
    "access_token_expiry": "2027-01-01T00:00:00Z",
}


def cert_rep() -> bytes:
    return message.encode_success(
        ISSUED,
        DEVICE.certificate,
        transaction_id="T",
        sender_nonce=bytes(16),
        recipient_nonce=bytes(16),
        signer=RA,
    )


def mobileconfig() -> bytes:
    return cms.sign(plistlib.dumps(profile()), RA)


def p7m(**changes: Any) -> bytes:
    """A server token as Apple's portal hands it out."""
    text = json.dumps({key: v for key, v in {**TOKEN, **changes}.items() if v is not None})
    inner = f"Content-Type: text/plain\n\n-----BEGIN MESSAGE-----\n{text}\n-----END MESSAGE-----\n"
    envelope = base64.encodebytes(encrypt(inner.encode(), [RA.certificate]))
    head = b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
    return head + envelope


def certificate() -> bytes:
    return ISSUED.public_bytes(Encoding.PEM)


def trusting(*roots: x509.Certificate, keys: tuple[Identity, ...] = (), **more: Any) -> Any:
    return {"roots": list(roots), "identities": list(keys), **more}


SOUND: dict[str, tuple[Callable[[], bytes], Any, list[str]]] = {
    "pkiMessage": (
        pki_request,
        trusting(CA.certificate, keys=(RA,)),
        ["SCEP pkiMessage", "opened with the key of: CN=RA", "certificate request: CN=device"],
    ),
    "CertRep": (
        cert_rep,
        trusting(CA.certificate, keys=(DEVICE,)),
        ["messageType: 3 (CertRep", "pkiStatus: 0 (SUCCESS)", "certificate: CN=issued"],
    ),
    "attestation": (
        attestation_object,
        trusting(AUTHORITY.root),
        ["attestation object: format apple", "attested serial number: SIM1", "trusted: "],
    ),
    "mobileconfig": (
        mobileconfig,
        trusting(CA.certificate),
        ["signature is valid, by: CN=RA", "configuration profile: Enrollment", "trusted: "],
    ),
    "p7m": (
        p7m,
        trusting(CA.certificate, keys=(RA,)),
        ["MIME message", "server token of automated device enrollment", "consumer_key: CK_1"],
    ),
    "certificate": (
        certificate,
        trusting(CA.certificate),
        ["certificate: CN=issued", "trusted: leads to O=Simulated MDM,CN=Test CA"],
    ),
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_file_of_each_kind_has_nothing_wrong(kind: str) -> None:
    make, context, lines = SOUND[kind]
    report = tell(make(), **context)
    has(report, *lines)
    assert report.problems == []
    assert "hush" not in "".join(report.lines)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def der_of(make: Callable[[], bytes]) -> bytes:
    return x509.load_pem_x509_certificate(make()).public_bytes(Encoding.DER)


def chain_of_another_leaf() -> bytes:
    """Where each certificate is sound and the first is not the second's."""
    leaf = AttestationObject.decode(attestation_object()).certificates[0]
    other = OTHER.certificate.public_bytes(Encoding.DER)
    return AttestationObject("apple", (leaf, other)).encode()


WRONG: list[tuple[str, Callable[[], bytes], dict[str, Any], str]] = [
    ("pkiMessage", lambda: pki_request()[:-9], {}, "message: expected"),
    ("pkiMessage", lambda: flipped(pki_request(), -3), {}, "signature"),
    ("pkiMessage", pki_request, trusting(keys=(STRANGER,)), "none of the given keys opens"),
    ("pkiMessage", pki_request, trusting(OTHER.certificate), "not trusted: "),
    ("CertRep", lambda: cert_rep()[:900], {}, "message: expected"),
    ("CertRep", lambda: flipped(cert_rep(), -3), {}, "signature"),
    ("CertRep", cert_rep, trusting(keys=(RA,)), "none of the given keys opens"),
    ("CertRep", cert_rep, trusting(OTHER.certificate), "not trusted: "),
    ("attestation", lambda: attestation_object()[:-9], {}, "attObj: expected CBOR"),
    (
        "attestation",
        lambda: attestation_object().replace(b"SIM1", b"SIM2"),
        {},
        "not signed by the one after it",
    ),
    ("attestation", chain_of_another_leaf, {}, "not signed by the one after it"),
    ("attestation", lambda: attestation_object(freshness=None), {}, "the leaf has no freshness"),
    ("attestation", attestation_object, trusting(OTHER.certificate), "not trusted: "),
    ("mobileconfig", lambda: mobileconfig().replace(b"8191", b"8190"), {}, "signature"),
    ("mobileconfig", lambda: mobileconfig()[:-40], {}, "message: expected"),
    ("mobileconfig", mobileconfig, trusting(OTHER.certificate), "not trusted: "),
    ("mobileconfig", lambda: plistlib.dumps(profile())[:-60], {}, "property list"),
    ("p7m", p7m, trusting(keys=(STRANGER,)), "none of the given keys opens"),
    ("p7m", lambda: p7m()[:400], {}, "content"),
    ("p7m", lambda: p7m(access_secret=None), trusting(keys=(RA,)), "token has no access_secret"),
    (
        "p7m",
        lambda: p7m(access_token_expiry="2025-12-31T00:00:00Z"),
        trusting(keys=(RA,)),
        "the server token expired on 2025-12-31",
    ),
    ("p7m", lambda: p7m(access_token_expiry="soon"), trusting(keys=(RA,)), "no time of RFC 3339"),
    (
        "p7m",
        lambda: p7m(access_token_expiry="2027-01-01T00:00:00"),
        trusting(keys=(RA,)),
        "no time of RFC 3339",
    ),
    ("certificate", certificate, trusting(OTHER.certificate), "not trusted: "),
    (
        "certificate",
        certificate,
        {"at": CLOCK.now() + timedelta(days=4000), "roots": [CA.certificate]},
        "expired on",
    ),
    ("certificate", lambda: der_of(certificate)[:-5], {}, "expected"),
    ("certificate", lambda: flipped(der_of(certificate), -3), trusting(CA.certificate), "not"),
]


@pytest.mark.parametrize(("kind", "make", "context", "problem"), WRONG)
def test_a_file_with_one_thing_wrong_says_so(
    kind: str, make: Callable[[], bytes], context: dict[str, Any], problem: str
) -> None:
    problems = tell(make(), **context).problems
    assert problems
    assert any(problem in said for said in problems), problems


def test_each_kind_has_wrong_examples() -> None:
    assert {kind for kind, *_ in WRONG} == set(SOUND)


@needs_vectors
def test_the_captured_server_token_opens_with_its_key() -> None:
    folder = VECTORS / "dep"
    pem = (folder / "petarov-dep.pem").read_bytes() + (folder / "petarov-dep.crt").read_bytes()
    data = (folder / "petarov-dep-server-token.p7m").read_bytes()
    identity = Identity.from_own_pem(pem)
    report = tell(data, identities=[identity])
    has(report, "server token of automated device enrollment", "consumer_secret: hidden")
    assert report.problems == []
    late = tell(data, identities=[identity], at=CLOCK.now() + timedelta(days=30))
    assert late.problems == ["the server token expired on 2026-01-17T11:02:21Z"]


def test_the_issuers_of_a_certificate_may_stand_in_the_same_file() -> None:
    middle = CertificateAuthority.create("Middle", clock=CLOCK, parent=CA, key=generate("p256"))
    leaf = middle.issue(generate("p256").public_key(), names.from_subject([[["CN", "leaf"]]]))
    pem = [one.public_bytes(Encoding.PEM) for one in (leaf, middle.certificate, CA.certificate)]
    whole = tell(b"".join(pem), roots=[CA.certificate])
    assert whole.problems == []
    assert sum("trusted: leads to O=Simulated MDM,CN=Test CA" in line for line in whole.lines) == 3
    (problem,) = tell(b"".join(pem[::2]), roots=[CA.certificate]).problems
    assert problem.startswith("not trusted: ")


def test_a_root_that_a_profile_carries_need_not_be_one_that_is_given() -> None:
    payload = {
        "PayloadType": "com.apple.security.root",
        "PayloadIdentifier": "r",
        "PayloadUUID": "R",
        "PayloadVersion": 1,
        "PayloadContent": OTHER.certificate.public_bytes(Encoding.DER),
    }
    whole = {**profile(), "PayloadContent": [*profile()["PayloadContent"], payload]}
    report = tell(cms.sign(plistlib.dumps(whole), RA), roots=[CA.certificate])
    has(report, "certificate: O=Simulated MDM,CN=Other CA")
    assert report.problems == []
