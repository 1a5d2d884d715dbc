"""A device that is enrolled already, made without network, and a few good and bad things to do with it."""

from typing import Any

from certs import names
from certs.keys import generate
from emulator.device.commands.outcome import Outcome
from emulator.device.commands.registry import run
from emulator.device.device import Device, Enrollment
from emulator.device.keychain import InstalledCertificate, InstalledIdentity
from emulator.device.profiles import InstalledProfile
from emulator.device.state import State
from emulator.device.surroundings import Surroundings
from emulator.wire.cloudconfig import CloudConfiguration, Organization
from tests.emulator.device.enrollment_profiles import scep_profile
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    TOPIC,
    make_device,
    mdm_authority,
    surroundings,
    with_command,
)

URL = "https://mdm.example.com"


def managed_device(
    *,
    supervised: bool = True,
    unremovable: bool = True,
    rights: int = 8191,
    url: str = URL,
    hardware: dict[str, Any] | None = None,
    **enrollment: Any,
) -> Device:
    """On its home screen, by automated enrollment when supervised."""
    device = make_device(**(hardware or {}))
    device.state = State.ENROLLED
    if supervised:
        device.cloud_configuration = CloudConfiguration(
            organization=Organization(name="Example Inc"),
            url=f"{url}/enroll",
            is_supervised=True,
            is_mandatory=True,
            is_mdm_removable=not unremovable,
        )
    ca, _, _ = mdm_authority()
    values: dict[str, Any] = {
        "profile_identifier": PROFILE_IDENTIFIER,
        "identity_uuid": "IDENTITY-UUID",
        "identity_kind": "acme",
        "topic": TOPIC,
        "server_url": f"{url}/mdm",
        "check_in_url": f"{url}/checkin",
        "access_rights": rights,
        "sign_message": True,
        "check_out_when_removed": True,
        "automated": supervised,
        "push_token": bytes(32),
        "push_magic": "MAGIC",
    }
    device.enrollment = Enrollment(**{**values, **enrollment})
    profile = scep_profile(url)
    device.profiles.install(InstalledProfile.of(profile, managed=False, enrollment=True))
    device.keychain.add(
        InstalledCertificate(
            profile_identifier=PROFILE_IDENTIFIER,
            payload_uuid="ROOT-UUID",
            payload_type="com.apple.security.root",
            certificate=ca.certificate,
        )
    )
    device.keychain.add(
        InstalledIdentity(
            profile_identifier=PROFILE_IDENTIFIER,
            payload_uuid="IDENTITY-UUID",
            kind="acme",
            identity=ca.issue_identity(
                generate("p256"), names.from_subject([[["CN", "device identity"]]])
            ),
        )
    )
    return device


async def answer(
    device: Device, request_type: str, around: Surroundings | None = None, **fields: Any
) -> Outcome:
    """What the device makes of one command."""
    return await run(device, with_command(request_type, **fields), around or surroundings())


def chain(outcome: Outcome) -> list[tuple[str, int, str]]:
    """The ErrorChain of a refusal; the English text must be there for MC domains and for no other."""
    assert outcome.status.value == "Error"
    for item in outcome.error_chain:
        expected = item.localized_description if item.domain.startswith("MC") else None
        assert item.us_english_description == expected
    return [
        (item.domain, item.code, item.localized_description or "") for item in outcome.error_chain
    ]
