"""Which identifiers an order may have here: one device, or some DNS names (RFC 8555, section 7.4; certificates.md 2.3 and 2.4)."""

from collections.abc import Sequence
from typing import Final

from certs.acme import device_attest, http01
from certs.acme.jws import Json
from certs.acme.message import Identifier
from certs.acme.problem import Problem, problem
from certs.errors import AcmeProblem, MalformedMessage

MAX_NAMES: Final = 10  # in one order; every name is an authorization to remember


def wanted_identifiers(payload: Json, *, with_dns: bool) -> tuple[Identifier, ...]:
    """Each once. Raises MalformedMessage or AcmeProblem; with one subproblem for each of several bad identifiers."""
    listed = payload.get("identifiers")
    if not isinstance(listed, list) or not listed:
        raise MalformedMessage("identifiers", "a list of identifiers", listed)
    if "notBefore" in payload or "notAfter" in payload:
        raise MalformedMessage("notBefore, notAfter", "neither: the CA chooses the dates")
    if len(listed) > MAX_NAMES:
        raise problem("rejectedIdentifier", f"more than {MAX_NAMES} identifiers")
    if not all(isinstance(item, dict) for item in listed):
        raise MalformedMessage("identifiers", "JSON objects", listed)
    identifiers = tuple(dict.fromkeys(Identifier.from_fields(item) for item in listed))
    refusals = [
        (identifier, refusal)
        for identifier in identifiers
        if (refusal := _refusal(identifier, with_dns)) is not None
    ]
    if refusals:
        raise _together(refusals)
    devices = sum(one.type == device_attest.PERMANENT_IDENTIFIER for one in identifiers)
    if devices and len(identifiers) > 1:
        raise problem("rejectedIdentifier", "one certificate is for one device")
    return identifiers


def _refusal(identifier: Identifier, with_dns: bool) -> AcmeProblem | None:
    try:
        if identifier.type == device_attest.PERMANENT_IDENTIFIER:
            device_attest.check_permanent_identifier(identifier.value)
        elif identifier.type == http01.DNS and with_dns:
            http01.check_name(identifier.value)
        else:
            return problem(
                "unsupportedIdentifier", f"type {identifier.type!r:.40} cannot be proved here"
            )
    except MalformedMessage as error:
        return problem("malformed", str(error))
    except AcmeProblem as refusal:
        return refusal
    return None


def _together(refusals: Sequence[tuple[Identifier, AcmeProblem]]) -> AcmeProblem:
    """One refusal as it stands; several as subproblems (RFC 8555, section 6.7.1)."""
    if len(refusals) == 1:
        return refusals[0][1]
    types = {refusal.type for _, refusal in refusals}
    return problem(
        types.pop() if len(types) == 1 else "compound",
        f"{len(refusals)} identifiers are refused",
        subproblems=tuple(
            Problem(type=refusal.type, detail=refusal.detail).to_fields()
            | {"identifier": identifier.to_fields()}
            for identifier, refusal in refusals
        ),
    )
