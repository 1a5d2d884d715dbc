"""Challenge device-attest-01 with the `apple` format (draft-ietf-acme-device-attest, certificates.md 2.3 to 2.7).

In comes the payload of a challenge response; out comes what Apple's attestation authority says about the device, or the
problem badAttestationStatement with the exact reason. The same file writes what a device sends.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import cbor2
from cryptography import x509

from certs import attestation, der
from certs.acme.jws import Json, base64url, from_base64url
from certs.acme.message import Identifier
from certs.acme.problem import ERROR_PREFIX, problem
from certs.attestation import Attestation
from certs.authorize import Grant
from certs.errors import AcmeProblem, MalformedMessage, UntrustedCertificate

CHALLENGE_TYPE: Final = "device-attest-01"
PERMANENT_IDENTIFIER: Final = "permanent-identifier"
ON_PERMANENT_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3")  # RFC 4043

MAX_ATTESTATION_BYTES: Final = 64 * 1024  # a genuine one has about 1.4 KB
MAX_CERTIFICATES: Final = 8
MAX_IDENTIFIER: Final = 1024  # characters

Unattested = Literal["none", "empty", "object", "error"]

# The head of a CBOR item: its kind in three bits, then its length or what says how long that is (RFC 8949, section 3).
_STRINGS: Final = (2, 3)
_TAG: Final = 6
_INDEFINITE: Final = 31

# `identity` or `identity/assigner-OID`; no slash inside either (the draft, section 3).
_IDENTIFIER: Final = re.compile(r"[^/]+(/[0-2](\.(0|[1-9][0-9]*))+)?")


@dataclass(frozen=True, slots=True)
class AttestationObject:
    """The WebAuthn frame without authData: a format and the certificates of its statement, leaf first."""

    format: str
    certificates: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        statement = {"x5c": list(self.certificates)} if self.certificates else {}
        return cbor2.dumps({"fmt": self.format, "attStmt": statement})

    @classmethod
    def decode(cls, data: bytes) -> "AttestationObject":
        """Extra members and indefinite lengths pass. Raises MalformedMessage."""
        if len(data) > MAX_ATTESTATION_BYTES:
            raise MalformedMessage("attObj", f"at most {MAX_ATTESTATION_BYTES} bytes", len(data))
        _refuse_tags(data)
        try:
            value = cbor2.loads(data)
        except Exception as error:
            raise MalformedMessage("attObj", "CBOR", str(error)) from error
        frame = _map(value, "attObj")
        format_ = frame.get("fmt")
        if not isinstance(format_, str):
            raise MalformedMessage("attObj.fmt", "a text", format_)
        certificates = _map(frame.get("attStmt"), "attObj.attStmt").get("x5c", ())
        if not isinstance(certificates, list | tuple) or not all(
            isinstance(certificate, bytes) for certificate in certificates
        ):
            raise MalformedMessage("attObj.attStmt.x5c", "byte strings", certificates)
        if len(certificates) > MAX_CERTIFICATES:
            raise MalformedMessage(
                "attObj.attStmt.x5c", f"at most {MAX_CERTIFICATES} certificates", len(certificates)
            )
        return cls(format_, tuple(certificates))


def _refuse_tags(data: bytes) -> None:
    """Raises MalformedMessage at the first tag; WebAuthn has none (CTAP 2.1, section 8).

    cbor2 builds whatever a tag asks for: numbers that cannot be printed, and lists inside themselves, which fill all memory
    when they are printed or hashed. Heads stand one after the other in CBOR, so that no nesting needs to be followed.
    """
    at = 0
    while at < len(data):
        kind, length = data[at] >> 5, data[at] & 31
        at += 1
        argument = length
        if 24 <= length <= 27:  # it follows, in 1, 2, 4 or 8 bytes
            size = 1 << (length - 24)
            argument = int.from_bytes(data[at : at + size], "big")
            at += size
        if kind == _TAG:
            raise MalformedMessage("attObj", "CBOR without tags", f"tag {argument}")
        if kind in _STRINGS and length != _INDEFINITE:
            at += argument


def freshness(token: str) -> bytes:
    """What a device has attested together with its key: SHA-256 of the token's characters, not of what they encode."""
    return hashlib.sha256(token.encode()).digest()


def response(chain: Sequence[bytes]) -> Json:
    """The challenge response of a device that can attest."""
    return {"attObj": base64url(AttestationObject("apple", tuple(chain)).encode())}


def unattested_response(form: Unattested) -> Json:
    """What a device without attestation answers; which form is real is not known (certificates.md 2.4)."""
    match form:
        case "none":
            return {"attObj": base64url(AttestationObject("none").encode())}
        case "empty":
            return {"attObj": ""}
        case "object":
            return {}
        case "error":
            return {"error": f"{ERROR_PREFIX}rejectedIdentifier"}


def check_permanent_identifier(value: str) -> None:
    """Raises MalformedMessage for what the draft does not allow in an order."""
    well_formed = value.isprintable() and _IDENTIFIER.fullmatch(value)
    if len(value) > MAX_IDENTIFIER or not well_formed:
        raise MalformedMessage(PERMANENT_IDENTIFIER, "identity or identity/assigner-OID", value)


def permanent_identifier_name(value: str) -> x509.OtherName:
    """The identifier as a subject alternative name (RFC 4043); what the draft does not allow, such as a code with a slash, as it stands."""
    identity, _, assigner = (
        value.partition("/") if _IDENTIFIER.fullmatch(value) else (value, "", "")
    )
    parts = [der.utf8(identity)] + ([der.oid(assigner)] if assigner else [])
    return x509.OtherName(ON_PERMANENT_IDENTIFIER, der.sequence(*parts))


def judge(
    payload: Json,
    *,
    token: str,
    identifier: str,
    grant: Grant,
    roots: Sequence[x509.Certificate],
    at: datetime,
    allow_unattested: bool,
    user_enrollment: bool = False,
    accept_padding: bool = False,
) -> Attestation | None:
    """Every check of certificates.md 2.7 that needs no CSR; None for an unattested answer that is allowed.

    Raises AcmeProblem badAttestationStatement.
    """
    try:
        statement = _statement(payload, accept_padding)
        if statement is None:
            if allow_unattested:
                return None
            raise problem("badAttestationStatement", "an attestation is required")
        found = attestation.verify(statement.certificates, roots, at=at)
    except (MalformedMessage, UntrustedCertificate) as error:
        raise problem("badAttestationStatement", str(error)) from error
    if found.freshness is None:
        raise problem("badAttestationStatement", "the attestation carries no freshness code")
    if not hmac.compare_digest(found.freshness, freshness(token)):
        raise problem(
            "badAttestationStatement",
            "the freshness code is not the hash of this challenge's token",
        )
    names_nobody = not (found.serial_number or found.udid)
    if user_enrollment and names_nobody and _is_one_time(grant):
        return found
    if not _is_device(found, identifier, grant):
        raise _wrong_device(identifier)
    return found


def _statement(payload: Json, accept_padding: bool) -> AttestationObject | None:
    """None for each of the forms in which a device says that it cannot attest."""
    if "attObj" not in payload or payload["attObj"] == "":
        return None
    text = payload["attObj"]
    if accept_padding and isinstance(text, str) and len(text) % 4 == 0:
        text = text.rstrip("=")
    statement = AttestationObject.decode(from_base64url(text, "attObj"))
    if statement.format == "none":
        return None
    if statement.format != "apple":
        raise MalformedMessage("attObj.fmt", "apple", statement.format)
    if not statement.certificates:
        raise MalformedMessage("attObj.attStmt.x5c", "at least one certificate")
    return statement


def _is_one_time(grant: Grant) -> bool:
    """Whether the identifier is all that the host knows. Where it knows the hardware, a leaf without names shows nothing."""
    return grant.serial_number is None and grant.udid is None


def _is_device(found: Attestation, identifier: str, grant: Grant) -> bool:
    """One fact at least must match, and none that both sides know may differ.

    The identifier is the serial number, the UDID, or a one-time code whose grant names the device.
    """
    attested = {fact for fact in (found.serial_number, found.udid) if fact}
    known = (grant.serial_number, found.serial_number), (grant.udid, found.udid)
    pairs = [(ours, theirs) for ours, theirs in known if ours and theirs]
    if any(ours != theirs for ours, theirs in pairs):
        return False
    return identifier in attested or bool(pairs)


def _wrong_device(identifier: str) -> AcmeProblem:
    return problem(
        "badAttestationStatement",
        "the attested device is not the one of the permanent identifier",
        subproblems=(
            {
                "type": f"{ERROR_PREFIX}rejectedIdentifier",
                "detail": "another device is attested",
                "identifier": Identifier(PERMANENT_IDENTIFIER, identifier).to_fields(),
            },
        ),
    )


def _map(value: Any, field: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise MalformedMessage(field, "a CBOR map", type(value).__name__)
    return value
