"""Whether a server's ACME door believes our simulated attestations: an order as far as ready, never finalized.

`doctor_target` brings the profile that the server sent; nothing is issued, no device enrolls.
"""

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs import names
from certs.acme.client import AcmeClient
from certs.clock import Clock
from certs.errors import AcmeProblem, CertsError
from certs.keys import FreshKeys, generate
from certs.transport import Transport
from emulator.apple.pki import SimPKI
from emulator.device.device import Device
from emulator.doctor import Finding
from emulator.wire.identity_payloads import AcmePayload
from emulator.wire.profile import Profile

SUBJECT: Final = "attestation"
REFUSED: Final = ("badAttestationStatement", "unauthorized")


async def attestation_finding(
    profile: Profile, device: Device, pki: SimPKI, transport: Transport, clock: Clock
) -> Finding | None:
    """None: the profile asks for no attestation, so there is nothing to believe."""
    payload = next((one for one in profile.payloads if isinstance(one, AcmePayload)), None)
    if payload is None or not payload.attest:
        return None
    key, facts = generate("p384"), device.hardware

    async def attest(freshness: bytes) -> Sequence[bytes]:
        chain = pki.attestation.issue(
            key.public_key(),
            serial_number=facts.serial_number,
            udid=facts.udid,
            freshness=freshness,
            os_version=facts.os_version,
        )
        return [certificate.public_bytes(Encoding.DER) for certificate in chain]

    root = names.text(pki.attestation.root.subject)
    client = AcmeClient(transport, payload.directory_url, clock=clock, keys=FreshKeys())
    try:
        await client.prove(identifier=payload.client_identifier, attest=attest)
    except AcmeProblem as problem:
        advice = (
            f": if it does not trust {root}, give it that root (`mdm-emulator trust export`)"
            if problem.type in REFUSED
            else ": the server's log says more"
        )
        return Finding(subject=SUBJECT, good=False, text=f"{problem}{advice}")
    except CertsError as error:
        return Finding(subject=SUBJECT, good=False, text=f"its ACME door: {error}")
    return Finding(subject=SUBJECT, good=True, text=f"accepts device attestations under {root}")
