"""Downloading the enrollment profile: a POST of signed MachineInfo, and what each answer means (mdm.md 1a, 1f)."""

from typing import Final

import structlog
from cryptography import x509

from certs.errors import CertsError
from certs.transport import HttpResponse
from emulator.config import REQUEST_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.channel import device_trust
from emulator.device.device import Device
from emulator.device.machine_info import signed_machine_info
from emulator.device.profile_checks import decode_profile
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.device.typed_errors import refusal
from emulator.errors import PeerRefused
from emulator.http import TrustSet
from emulator.wire import profile

log = structlog.get_logger()

STEP: Final = "enrollment_profile"
SIGNED: Final = "application/pkcs7-signature"


async def fetch_profile(
    device: Device,
    surroundings: Surroundings,
    url: str,
    *,
    anchors: tuple[x509.Certificate, ...] = (),
) -> bytes:
    """The bytes of a configuration profile; with `anchors` only they are trusted. Raises PeerRefused or StepTimeout."""
    body = signed_machine_info(device, surroundings.behaviour, surroundings.clock.now())
    trust = TrustSet().with_roots(*anchors) if anchors else device_trust(device, surroundings)
    session = surroundings.door.session(
        trust=trust,
        user_agent=user_agent.profiled(device),
        device=device.hardware.udid,
        on_timing=surroundings.timing_for(device),
    )
    async with session as transport:
        with peer_errors(STEP):
            response = await transport.request(
                "POST",
                url,
                step=STEP,
                headers={"Content-Type": SIGNED},
                body=body,
                timeout_s=REQUEST_TIMEOUT_S,
            )
    return _profile_in(response)


def _profile_in(response: HttpResponse) -> bytes:
    if response.status == 401:
        challenge = (response.header("www-authenticate") or "none").partition(" ")[0]
        raise PeerRefused(STEP, f"the server asks for a login ({challenge})", status=401)
    if response.status != 200:
        raise refusal(STEP, response)
    try:
        decode_profile(response.body)
    except CertsError as error:
        kind = response.content_type or "no Content-Type"
        raise PeerRefused(STEP, f"Invalid Profile: {error} ({kind})") from error
    if response.content_type != profile.CONTENT_TYPE:
        log.warning("profile_content_type", content_type=response.content_type, url=response.url)
    return response.body
