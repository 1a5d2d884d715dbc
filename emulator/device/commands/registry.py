"""Which commands a device knows, who may send them, and how one is carried out.

`run` turns a command into an Outcome and never raises for what a server sent: every refusal is a reply.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from certs.errors import MalformedMessage
from emulator.device.commands.apps import installed_application_list
from emulator.device.commands.attestation import device_properties_attestation
from emulator.device.commands.information import ATTESTATION, query_responses
from emulator.device.commands.outcome import Handler, Outcome, failed
from emulator.device.commands.power import erase_device, restart_device
from emulator.device.commands.profiles import install_profile, profile_list, remove_profile
from emulator.device.commands.queries import queries
from emulator.device.commands.security import certificate_list, security_info
from emulator.device.commands.settings import NOT_SUPERVISED, settings
from emulator.device.commands.setup import device_configured
from emulator.device.device import Device
from emulator.device.error_chains import MDM, CommandRefused, refused
from emulator.device.surroundings import Surroundings
from emulator.wire.command import Command, Status
from emulator.wire.fields import optional, optional_list

log = structlog.get_logger()

# A command that needs the network as well.
NetworkHandler = Callable[[Device, Command, Surroundings], Awaitable[Outcome]]

# Apple's older list of commands that are never put off (mdm.md 4.2).
NEVER_NOT_NOW: Final = frozenset(
    {
        "DeviceInformation",
        "ProfileList",
        "DeviceLock",
        "EraseDevice",
        "ClearPasscode",
        "CertificateList",
        "ProvisioningProfileList",
        "InstalledApplicationList",
        "Restrictions",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table of commands (mdm.md 5)."""

    handler: Handler | None = None
    network_handler: NetworkHandler | None = None
    introduced: str = "4.0"
    access_rights: int = 0
    supervised: bool = False


async def device_information(
    device: Device, command: Command, surroundings: Surroundings
) -> Outcome:
    """The hardware's and the settings' answers, and the attestation where it is asked for."""
    asked = optional_list(command.fields, "Queries", str)
    names = surroundings.behaviour.default_queries if asked is None else asked
    nonce = optional(command.fields, "DeviceAttestationNonce", bytes)
    answers = query_responses(device, names)
    if ATTESTATION in names and queries()[ATTESTATION].answered_by(device):
        chain = await device_properties_attestation(device, surroundings, nonce)
        if chain is not None:
            answers[ATTESTATION] = chain
    return Outcome(fields={"QueryResponses": answers})


RULES: Final[dict[str, Rule]] = {
    "DeviceInformation": Rule(network_handler=device_information),
    "SecurityInfo": Rule(handler=security_info, access_rights=1024),
    "CertificateList": Rule(handler=certificate_list, access_rights=1),
    "InstalledApplicationList": Rule(
        handler=installed_application_list, introduced="5.0", access_rights=256
    ),
    "ProfileList": Rule(handler=profile_list, access_rights=1),
    "InstallProfile": Rule(network_handler=install_profile, access_rights=2),
    "RemoveProfile": Rule(handler=remove_profile, access_rights=2),
    "Settings": Rule(handler=settings, introduced="5.0", access_rights=2048),
    "DeviceConfigured": Rule(handler=device_configured, introduced="9.0"),
    "RestartDevice": Rule(
        handler=restart_device, introduced="10.3", access_rights=4, supervised=True
    ),
    "EraseDevice": Rule(handler=erase_device, access_rights=8),
}


async def run(device: Device, command: Command, surroundings: Surroundings) -> Outcome:
    """Carry out one command: its effect on the device, and what to reply."""
    try:
        return await _run(device, command, surroundings)
    except CommandRefused as error:
        return failed(error.chain)
    except MalformedMessage as error:  # a parameter is missing or mistyped (mdm.md 4.1)
        return failed([(MDM, 12008, f"The command is malformed: {error}.")])


async def _run(device: Device, command: Command, surroundings: Surroundings) -> Outcome:
    rule = RULES.get(command.request_type)
    if rule is None or not device.runs(rule.introduced):
        raise refused(12021, f"“{command.request_type}” is not a valid request type.")
    if device.enrollment is None or not device.enrollment.allows(rule.access_rights):
        raise refused(12007, "The MDM server is not authorized to send this command.")
    if rule.supervised and not device.supervised:
        raise CommandRefused([NOT_SUPERVISED])
    if command.requires_network_tether and not device.settings.network_tethered:
        raise refused(12081, "The device is not tethered to a network.")
    if _must_wait(device, command, surroundings):
        return Outcome(status=Status.NOT_NOW)
    if rule.network_handler is not None:
        return await rule.network_handler(device, command, surroundings)
    assert rule.handler is not None
    return rule.handler(device, command, surroundings.clock.now())


def _must_wait(device: Device, command: Command, surroundings: Surroundings) -> bool:
    return (
        device.settings.locked
        and command.request_type in surroundings.behaviour.not_now_while_locked
    )
