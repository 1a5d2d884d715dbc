"""How a device introduces itself to an enrollment URL: MachineInfo with the keys that its OS knows (mdm.md 1a)."""

from datetime import datetime

from emulator.device.device import Device
from emulator.device.surroundings import Behaviour
from emulator.errors import IllegalTransition
from emulator.wire import machineinfo
from emulator.wire.machineinfo import MachineInfo


def machine_info(device: Device, language: str) -> MachineInfo:
    """Keys newer than the device's release are absent, as captured."""
    hardware = device.hardware
    since_17 = device.runs("17.0")
    return MachineInfo(
        product=hardware.model.product_type,
        version=hardware.build,
        udid=hardware.udid,
        serial=hardware.serial_number,
        os_version=hardware.os_version if since_17 else None,
        language=language,
        imei=hardware.printed_imei,
        meid=hardware.meid,
        mdm_can_request_software_update=True if since_17 else None,
        software_update_device_id=hardware.model.product_type if device.runs("17.4") else None,
    )


def signed_machine_info(device: Device, behaviour: Behaviour, now: datetime) -> bytes:
    """Signed by the DeviceCertificate of the present activation."""
    if device.keychain.device is None:
        raise IllegalTransition("a device that is not activated has no DeviceCertificate")
    return machineinfo.sign(
        machine_info(device, behaviour.language),
        device.keychain.device,
        form=behaviour.machine_info_form,
        signing_time=now,
    )
