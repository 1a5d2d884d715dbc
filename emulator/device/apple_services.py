"""The way to Apple's services: TLS against the root a device was made with, besides what its surroundings trust."""

from emulator.device.device import Device
from emulator.device.surroundings import Surroundings
from emulator.errors import PeerRefused
from emulator.http import HttpSession


def open_service(device: Device, surroundings: Surroundings, user_agent: str) -> HttpSession:
    """A session for one exchange with a service; `async with` closes it."""
    return surroundings.door.session(
        trust=surroundings.trust.with_roots(device.factory.anchors.tls_root),
        user_agent=user_agent,
        device=device.hardware.udid,
        on_timing=surroundings.timing_for(device),
    )


def service_url(base: str | None, path: str, step: str) -> str:
    """The full URL; a device without Apple services cannot take this step."""
    if base is None:
        raise PeerRefused(step, "no Apple services are configured for this device")
    return base.rstrip("/") + path
