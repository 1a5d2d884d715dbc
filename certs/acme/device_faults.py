"""What an ACME client sends in place of the honest thing when its FaultPoint says so: freshness, identifier, payload, CSR.

Each function takes the honest value and gives the spoilt one; names are those of `faults.DeviceFault`.
"""

import base64
import hashlib
import secrets
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import csr
from certs.acme import device_attest, jws
from certs.acme.device_attest import AttestationObject
from certs.acme.faults import DeviceFault
from certs.acme.jws import Json, base64url, from_base64url
from certs.attestation import FRESHNESS_BYTES
from certs.faults import Action
from certs.keys import KeySource, KeySpec, PrivateKey, PublicKey
from certs.names import from_subject

ANOTHER_NAME: Final = "another-device"
SPECS: Final[dict[str, KeySpec]] = {
    "secp192r1": "p192",
    "secp256r1": "p256",
    "secp384r1": "p384",
    "secp521r1": "p521",
}


def freshness(token: str, account_key: PublicKey, fault: Action | None) -> bytes:
    """The freshness code for a token, by the rule or by a wrong one (certificates.md 0.8)."""
    match fault.name if fault else None:
        case None:
            return device_attest.freshness(token)
        case DeviceFault.FRESHNESS_OF_ANOTHER_TOKEN:
            return device_attest.freshness(base64url(secrets.token_bytes(32)))
        case DeviceFault.FRESHNESS_OF_KEY_AUTHORIZATION:
            return hashlib.sha256(jws.key_authorization(token, account_key).encode()).digest()
        case DeviceFault.RAW_TOKEN:
            return _raw(token)
        case other:
            raise ValueError(f"freshness has no fault {other!r}")


def _raw(token: str) -> bytes:
    """Its characters where they fit into a freshness code, else what they encode."""
    if len(token) <= FRESHNESS_BYTES:
        return token.encode()
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[:FRESHNESS_BYTES]


def payload(step: str, honest: Json | None, fault: Action | None) -> Json | None:
    """The payload of a step; a fault that changes no payload leaves it as it is."""
    if fault is None:
        return honest
    if fault.name == DeviceFault.SEND_PAYLOAD:
        sent: Json | None = fault.arguments["payload"]
        return sent
    if honest is None:
        return None
    match step, fault.name:
        case "new_order", DeviceFault.IDENTIFIER_WITH_SLASH:
            first, *others = honest["identifiers"]
            return {**honest, "identifiers": [{**first, "value": f"a/{first['value']}"}, *others]}
        case "challenge", DeviceFault.MISSING_INTERMEDIATE:
            leaf = _attestation(honest).certificates[:1]
            return device_attest.response(leaf)
        case "challenge", DeviceFault.FORMAT_NONE:
            return device_attest.unattested_response("none")
        case "challenge", DeviceFault.PADDED:
            return {"attObj": base64.urlsafe_b64encode(_bytes(honest)).decode().rstrip("=") + "="}
        case "challenge", DeviceFault.NOT_CBOR:
            return {"attObj": base64url(b"\xff" + _bytes(honest))}
        case "challenge", DeviceFault.ERROR_MEMBER:
            return device_attest.unattested_response("error")
    return honest


async def certificate_request(
    honest: bytes, fault: Action | None, key: PrivateKey | None, keys: KeySource
) -> bytes:
    """The CSR, or one like it for another name or another key."""
    match fault.name if fault else None:
        case DeviceFault.WRONG_COMMON_NAME:
            assert fault is not None
            if key is None:
                raise ValueError(f"{fault.name} needs the key of the request")
            name = str(fault.arguments.get("common_name", ANOTHER_NAME))
            return _built(honest, key, from_subject([[["CN", name]]]))
        case DeviceFault.ANOTHER_KEY:
            return _built(honest, await keys.take(_spec(csr.decode(honest).public_key)), None)
        case _:
            return honest


def _built(honest: bytes, key: PrivateKey, subject: x509.Name | None) -> bytes:
    request = csr.decode(honest)
    is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size == 384
    return csr.build(
        key,
        request.subject if subject is None else subject,
        key_usage=request.key_usage,
        alternative_names=request.alternative_names,
        extended_key_usage=request.extended_key_usage,
        digest="sha384" if is_p384 else "sha256",
    )


def _spec(key: PublicKey) -> KeySpec:
    return "rsa2048" if isinstance(key, rsa.RSAPublicKey) else SPECS[key.curve.name]


def _bytes(honest: Json) -> bytes:
    return from_base64url(honest.get("attObj", ""), "attObj")


def _attestation(honest: Json) -> AttestationObject:
    return AttestationObject.decode(_bytes(honest))
