"""A CA, an RA, a device and an attestation authority for files of our own making, and how they are told."""

from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr, names
from certs.acme.device_attest import AttestationObject
from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.inspection.files import inspect
from certs.inspection.report import Context, Report
from certs.keys import generate
from certs.scep import message
from tests.support import rsa_key

CLOCK = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))
CA = CertificateAuthority.create("Test CA", clock=CLOCK)
RA = CA.issue_identity(
    rsa_key(1), names.from_subject([[["CN", "RA"]]]), key_usage=names.key_usage(5)
)
DEVICE = CA.issue_identity(rsa_key(2), names.from_subject([[["CN", "device"]]]))
AUTHORITY = AttestationAuthority.create(CLOCK)
CONTEXT = Context(at=CLOCK.now())
REQUEST = csr.build(
    rsa_key(2),
    names.from_subject([[["CN", "device"]]]),
    challenge="very secret",
    key_usage=names.key_usage(5),
)


def tell(data: bytes, **context: Any) -> Report:
    return inspect(data, Context(**{"at": CLOCK.now(), **context}))


def has(report: Report, *lines: str) -> None:
    text = [line.strip() for line in report.lines]
    for line in lines:
        assert any(line in said for said in text), (line, text)


def pki_request(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "message_type": "19",
        "transaction_id": "T1",
        "sender_nonce": bytes(16),
        "signer": DEVICE,
        "recipients": [RA.certificate],
    }
    return message.encode_request(REQUEST, **{**values, **changes})


def attestation_object(**facts: Any) -> bytes:
    values = {"serial_number": "SIM1", "udid": "U1", "freshness": bytes(32), "os_version": "18.1"}
    chain = AUTHORITY.issue(generate("p384").public_key(), **{**values, **facts})
    return AttestationObject("apple", tuple(c.public_bytes(Encoding.DER) for c in chain)).encode()
