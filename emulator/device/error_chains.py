"""The error domains of mdm.md section 10, and the chains a device builds from them (sections 2.6 and 4.1).

A chain goes from the top-level error to its causes. Domains of the MC family carry `USEnglishDescription` beside the
localized text, as captured; DeviceManagement.error and others do not.
"""

from typing import Final

from emulator.errors import ProfileRefused

Chain = list[tuple[str, int, str]]  # (ErrorDomain, ErrorCode, description), top-level error first

PROFILE: Final = "MCProfileErrorDomain"
PAYLOAD: Final = "MCPayloadErrorDomain"
INSTALLATION: Final = "MCInstallationErrorDomain"
CERTIFICATE: Final = "MCCertificateErrorDomain"
SCEP: Final = "MCSCEPErrorDomain"
HTTP_TRANSACTION: Final = "MCHTTPTransactionErrorDomain"
MDM: Final = "MCMDMErrorDomain"
SETTINGS: Final = "MCSettingsErrorDomain"
CHAPERONE: Final = "MCChaperoneErrorDomain"

INVALID_PROFILE: Final = (INSTALLATION, 4000, "Invalid Profile")
INSTALLATION_FAILED: Final = (INSTALLATION, 4001, "Profile Installation Failed")


class CommandRefused(Exception):
    """A command (or one item of it) fails with this chain; the session turns it into the reply."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        super().__init__(" > ".join(f"{domain} {code}: {text}" for domain, code, text in chain))


def refused(code: int, text: str, domain: str = MDM) -> CommandRefused:
    """A refusal of one entry, by default of the MDM domain."""
    return CommandRefused([(domain, code, text)])


def invalid_profile(*causes: tuple[str, int, str]) -> ProfileRefused:
    """The profile itself is wrong: 4000 and why."""
    return ProfileRefused([INVALID_PROFILE, *causes])


def invalid_payload(code: int, text: str) -> ProfileRefused:
    """One payload of the profile is wrong: 4000 > 1000 > the payload's own error."""
    return invalid_profile((PROFILE, 1000, "The profile is malformed."), (PAYLOAD, code, text))


def installation_failed(domain: str, code: int, text: str) -> ProfileRefused:
    """The profile is well formed but cannot be installed: 4001 and why."""
    return ProfileRefused([INSTALLATION_FAILED, (domain, code, text)])
