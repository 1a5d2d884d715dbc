"""ProfileList, InstallProfile and RemoveProfile (mdm.md 5.3, 5.4)."""

from datetime import datetime

from emulator.device.commands.outcome import ACKNOWLEDGED, Outcome, failed
from emulator.device.device import After, Device
from emulator.device.error_chains import refused
from emulator.device.install_errors import chain_of
from emulator.device.profile_installation import install_managed_profile
from emulator.device.profiles import InstalledProfile
from emulator.device.surroundings import Surroundings
from emulator.errors import PeerRefused, ProfileRefused, StepTimeout
from emulator.wire.command import Command
from emulator.wire.fields import Fields, optional, present, required


def profile_list(device: Device, command: Command, now: datetime) -> Outcome:
    """Every profile with its payloads' common keys; the enrollment profile is among them, and not "managed"."""
    managed_only = optional(command.fields, "ManagedOnly", bool) and device.runs("13.0")
    listed = [
        _item(device, profile, now)
        for profile in device.profiles.all()
        if profile.managed or not managed_only
    ]
    return Outcome(fields={"ProfileList": listed})


def _item(device: Device, profile: InstalledProfile, now: datetime) -> Fields:
    forbidden = profile.removal_disallowed and device.supervised
    if profile.enrollment:
        forbidden = device.removal_forbidden and not device.is_provisional(now)
    return present(
        {
            "HasRemovalPasscode": profile.has_removal_passcode,
            "IsEncrypted": profile.is_encrypted,
            "IsManaged": None if device.supervised else profile.managed,
            "PayloadContent": None
            if profile.is_encrypted
            else [payload.to_fields(with_uuid=device.runs("17.0")) for payload in profile.payloads],
            "PayloadDescription": profile.description,
            "PayloadDisplayName": profile.display_name,
            "PayloadIdentifier": profile.identifier,
            "PayloadOrganization": profile.organization,
            "PayloadRemovalDisallowed": forbidden,
            "PayloadUUID": profile.uuid,
            "PayloadVersion": profile.version,
            "SignerCertificates": list(profile.signer_certificates) or None,
        }
    )


async def install_profile(device: Device, command: Command, surroundings: Surroundings) -> Outcome:
    """Install, replace, or update the enrollment; a failure is reported with its chain and leaves nothing."""
    data = required(command.fields, "Payload", bytes)
    try:
        await install_managed_profile(device, surroundings, data)
    except (ProfileRefused, PeerRefused, StepTimeout) as error:
        return failed(chain_of(error))
    return ACKNOWLEDGED


def remove_profile(device: Device, command: Command, now: datetime) -> Outcome:
    """The enrollment profile goes after the reply, and the management with it."""
    identifier = required(command.fields, "Identifier", str)
    profile = device.profiles.find(identifier)
    if profile is None:
        raise refused(12075, f"The profile “{identifier}” is not installed.")
    if profile.enrollment:
        return Outcome(after=After.UNENROLL)
    # On a supervised device the server may remove what others installed (mdm.md 5.4).
    if not profile.managed and not device.supervised:
        raise refused(12013, f"The profile “{identifier}” is not managed by MDM.")
    device.profiles.remove(identifier)
    device.keychain.remove_profile(identifier)
    return ACKNOWLEDGED
