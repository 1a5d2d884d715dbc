"""The signed JSON envelope in which a device asks Apple's services: AK signs, AC and its issuer go along (apple-services.md 3.2)."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.device.device import Device
from emulator.wire.cloud_errors import NO_CERTIFICATE, CloudConfigurationError
from emulator.wire.envelope import Envelope


def sign_envelope(device: Device, payload: bytes, step: str) -> Envelope:
    """Sign exactly these bytes. Raises CloudConfigurationError (33013) for a device that does not hold its two certificates."""
    attestation = device.factory.attestation
    if len(attestation.chain) != 1:
        raise CloudConfigurationError("", NO_CERTIFICATE, step=step, reason="nothing to sign with")
    return Envelope(
        payload=payload,
        payload_signature=ecdsa(attestation.key, payload),
        sign_cert=attestation.der,
        intermediate_cert=attestation.chain[0].public_bytes(Encoding.DER),
    )


def ecdsa(key: object, data: bytes) -> bytes:
    """DER signature, P-256 with SHA-256."""
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the attestation key is an EC key")
    return key.sign(data, ec.ECDSA(hashes.SHA256()))
