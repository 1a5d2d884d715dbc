"""From an error met while installing to the chain that a device reports (mdm.md 2.6, certificates.md 1.11)."""

from certs.errors import MalformedMessage, TransportError
from certs.scep.capabilities import InsufficientCapabilities
from certs.scep.client import AnswerLost
from emulator.device.error_chains import (
    HTTP_TRANSACTION,
    INSTALLATION,
    INSTALLATION_FAILED,
    MDM,
    SCEP,
    Chain,
)
from emulator.errors import EmulatorError, PeerRefused, ProfileRefused, StepTimeout

CHECK_IN_STEPS = ("authenticate", "token_update")


def chain_of(error: EmulatorError) -> Chain:
    """The ErrorChain for a failed installation."""
    if isinstance(error, ProfileRefused):
        return error.chain
    step = error.step if isinstance(error, PeerRefused | StepTimeout) else ""
    if _untrusted(error.__cause__):
        text = "The certificate for this server is invalid."
        return [INSTALLATION_FAILED, (HTTP_TRANSACTION, 23002, text)]
    if step == "scep":
        return [INSTALLATION_FAILED, (SCEP, _scep_code(error.__cause__), _scep_text(error))]
    if step in CHECK_IN_STEPS:
        status = error.status if isinstance(error, PeerRefused) else None
        text = "The device could not check in with the MDM server."
        chain: Chain = [INSTALLATION_FAILED, (MDM, 12002, text)]
        if status == 401:
            chain.append((MDM, 12020, "The device is not authorized by the MDM server."))
        return chain
    return [
        INSTALLATION_FAILED,
        (INSTALLATION, 4001, f"The payload could not be installed: {error}"),
    ]


def _scep_code(cause: BaseException | None) -> int:
    if _unreachable(cause):
        return 22005
    match cause:
        case InsufficientCapabilities():
            return 22006
        case MalformedMessage() if "our key" in cause.expected:
            return 22007
    return 22013


def _scep_text(error: EmulatorError) -> str:
    if _unreachable(error.__cause__):
        return "The SCEP server could not be reached."
    return "The SCEP server returned an invalid response."


def _unreachable(cause: BaseException | None) -> bool:
    """An answer that comes late, or never comes to a PKIOperation, is told as an invalid one is (rule 116; certificates.md 1.11)."""
    match cause:
        case AnswerLost():
            return False
        case TransportError():
            return cause.timeout_s is None
    return False


def _untrusted(cause: BaseException | None) -> bool:
    """The door's own words for a server that the device does not trust; a TLS alert is the server's doing."""
    return isinstance(cause, TransportError) and cause.reason.startswith(
        ("server certificate", "issuer certificate")
    )
