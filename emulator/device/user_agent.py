"""What the daemons of a device call themselves in HTTP requests (mdm.md 0, apple-services.md 2.1 and 3.2)."""

from typing import Final

from emulator.device.device import Device

MDM: Final = "MDM/1.0"
ACTIVATION: Final = (
    "iOS Device Activator (MobileActivation-592.103.2 built on Jan 15 2023 at 19:07:28)"
)

# CFNetwork and Darwin of one release of each major version.
NETWORK_STACKS: Final = {
    11: ("897.15", "17.5.0"),
    12: ("978.0.7", "18.7.0"),
    13: ("1128.0.1", "19.6.0"),
    14: ("1240.0.4", "20.6.0"),
    15: ("1335.0.3", "21.6.0"),
    16: ("1410.1", "22.6.0"),
    17: ("1498.700.2", "23.6.0"),
    18: ("1568.300.101", "24.2.0"),
    26: ("3860.100.1", "25.0.0"),
}


def profiled(device: Device) -> str:
    """The daemon that fetches profiles and speaks SCEP and ACME."""
    major = int(device.hardware.os_version.partition(".")[0])
    known = max((number for number in NETWORK_STACKS if number <= major), default=11)
    network, darwin = NETWORK_STACKS[known]
    return f"profiled/1.0 CFNetwork/{network} Darwin/{darwin}"


def cloud_configuration(device: Device) -> str:
    """The daemon that asks for the cloud configuration; the build stands there twice."""
    build = device.hardware.build
    return f"ConfigClient/1.0 ({device.hardware.device_class}; iPhone OS; {build}; {build})"
