"""DevicePropertiesAttestation: a DeviceInformation query that asks the attestation service (mdm.md 5.1, certificates.md 2.9)."""

import hashlib
from datetime import datetime
from typing import Final

import structlog

from emulator.device.attestation import request_attestation
from emulator.device.device import AttestationCache, Device
from emulator.device.error_chains import refused
from emulator.device.surroundings import Behaviour, Surroundings
from emulator.errors import EmulatorError

log = structlog.get_logger()

MAX_NONCE_BYTES: Final = 32


async def device_properties_attestation(
    device: Device, surroundings: Surroundings, nonce: bytes | None
) -> list[bytes] | None:
    """The chain, new or remembered; None for a device that cannot attest, or while the service gives nothing."""
    if nonce is not None and len(nonce) > MAX_NONCE_BYTES:
        raise refused(12008, f"DeviceAttestationNonce: expected at most {MAX_NONCE_BYTES} bytes")
    if not device.hardware.attests:
        return None
    now = surroundings.clock.now()
    anonymous = device.enrollment is not None and device.enrollment.user_enrollment
    if not _is_due(device.attestation, nonce, anonymous, now, surroundings.behaviour):
        assert device.attestation is not None
        return list(device.attestation.chain)
    freshness = nonce
    if nonce is not None and surroundings.behaviour.attestation_hashes_nonce:
        freshness = hashlib.sha256(nonce).digest()
    key = await surroundings.keys.take("p384")  # of the system, bound to nothing else
    try:
        chain = await request_attestation(
            device,
            surroundings,
            key.public_key(),
            freshness,
            anonymous=anonymous,
        )
    except EmulatorError as error:
        log.warning("attestation_failed", error=str(error), **device.facts())
        return None
    device.attestation = AttestationCache(
        chain=chain, nonce=nonce, issued_at=now, anonymous=anonymous
    )
    return list(chain)


def _is_due(
    cache: AttestationCache | None,
    nonce: bytes | None,
    anonymous: bool,
    now: datetime,
    behaviour: Behaviour,
) -> bool:
    """A new one only for a new nonce, and not sooner than seven days after the last; at once where the last names too much or too little."""
    if cache is None or cache.anonymous is not anonymous:
        return True
    if nonce is None or nonce == cache.nonce:
        return False
    return (now - cache.issued_at).total_seconds() >= behaviour.attestation_interval_s
