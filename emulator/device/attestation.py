"""Asking the attestation service to vouch for a key (apple-services.md 9, certificates.md 2.4 step 6)."""

from cryptography.hazmat.primitives.serialization import Encoding

from certs import attestation as certs_attestation
from certs.keys import PublicKey, spki_der
from emulator.config import REQUEST_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.apple_services import open_service, service_url
from emulator.device.device import Device
from emulator.device.envelope import sign_envelope
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.errors import PeerRefused
from emulator.wire import attestation

STEP = "attestation"


async def request_attestation(
    device: Device,
    surroundings: Surroundings,
    public_key: PublicKey,
    freshness: bytes | None,
    *,
    anonymous: bool = False,
) -> tuple[bytes, ...]:
    """The chain for `public_key` as DER, leaf first; `anonymous`: without serial number and UDID, as in User Enrollment.

    Raises PeerRefused or StepTimeout.
    """
    apple = surroundings.apple
    url = service_url(apple.attestation_url if apple else None, attestation.PATH, STEP)
    request = attestation.AttestationRequest(
        serial_number=device.hardware.serial_number,
        udid=device.hardware.udid,
        public_key=spki_der(public_key),
        freshness=freshness,
        os_version=device.hardware.os_version,
        user_enrollment=anonymous,
    )
    envelope = sign_envelope(device, attestation.encode_request(request), STEP)
    async with open_service(device, surroundings, user_agent.profiled(device)) as service:
        with peer_errors(STEP):
            response = await service.request(
                "POST",
                url,
                step=STEP,
                headers={"Content-Type": "application/json"},
                body=attestation.encode_envelope(envelope),
                timeout_s=REQUEST_TIMEOUT_S,
            )
            if response.status != 200:
                words = response.body[:200].decode(errors="replace").strip()
                raise PeerRefused(STEP, words or "no attestation", status=response.status)
            chain = attestation.decode_answer(response.body).x5c
            attested = certs_attestation.parse(chain[0]).public_key
    if spki_der(attested) != spki_der(public_key):
        raise PeerRefused(STEP, "the attestation is for another key")
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
