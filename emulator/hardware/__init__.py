"""Who a device is: models, systems, and all the numbers of one device, from the tables in `emulator/data` and a seed."""

from emulator.hardware.device import Hardware
from emulator.hardware.identifiers import SERIAL_PREFIX, luhn_digit, printed_imei
from emulator.hardware.models import Model, model, models
from emulator.hardware.releases import (
    OSRelease,
    acme_capable,
    family_of,
    os_name,
    release,
    releases,
    version_of_build,
)
from emulator.hardware.versions import version_key

__all__ = [
    "SERIAL_PREFIX",
    "Hardware",
    "Model",
    "OSRelease",
    "acme_capable",
    "family_of",
    "luhn_digit",
    "model",
    "models",
    "os_name",
    "printed_imei",
    "release",
    "releases",
    "version_key",
    "version_of_build",
]
