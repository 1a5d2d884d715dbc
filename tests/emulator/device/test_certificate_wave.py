"""A wave of devices that asks for several certificates each at once (bug C17)."""

import asyncio

from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.wire import profile
from tests.emulator.device.enrollment_profiles import (
    acme_payload,
    enrollment_profile,
    mdm_payload,
    root_payload,
)
from tests.emulator.device.world import (
    apple_services,
    grant,
    make_device,
    scripted_mdm,
    surroundings,
)

DEVICES, EACH = 4, 4


async def test_each_device_of_a_wave_gets_each_of_its_certificates() -> None:
    devices = [make_device(number) for number in range(DEVICES)]
    async with scripted_mdm() as mdm, apple_services(*devices) as apple:
        around = surroundings(apple=apple)

        async def enroll(number: int) -> None:
            payloads = []
            for copy in range(EACH):
                code = f"code-{number}-{copy}"
                mdm.devices.devices[code] = grant(devices[number])
                own = {} if copy == 0 else {"uuid": f"OTHER-{copy}", "identifier": f"other.{copy}"}
                subject = ((("CN", code),),)
                payloads.append(
                    acme_payload(mdm.url, client_identifier=code, subject=subject, **own)
                )
            served = enrollment_profile(root_payload(), *payloads, mdm_payload(mdm.url))
            await set_up(devices[number], around, ProfileEnrollment(profile.encode(served)))

        await asyncio.gather(*(enroll(number) for number in range(DEVICES)))
        issued = mdm.devices.issued_to
    serials = set()
    for device in devices:
        identities = [item.identity for item in device.keychain.identities.values()]
        assert len(identities) == EACH
        serials |= {identity.certificate.serial_number for identity in identities}
    assert len(serials) == len(issued) == DEVICES * EACH
