"""What a command came to: the status, the result keys, the ErrorChain, and what happens after the reply."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from emulator.device.device import After, Device
from emulator.device.error_chains import Chain
from emulator.wire.command import Command, ErrorItem, Status
from emulator.wire.fields import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A reply in the making; the session adds identity key and CommandUUID."""

    status: Status = Status.ACKNOWLEDGED
    fields: Fields = field(default_factory=dict)
    error_chain: tuple[ErrorItem, ...] = ()
    after: After = After.NOTHING


# A command that needs nothing but the device and the time.
Handler = Callable[[Device, Command, datetime], Outcome]

ACKNOWLEDGED = Outcome()


def failed(chain: Chain) -> Outcome:
    """The reply `Error` with this chain."""
    return Outcome(status=Status.ERROR, error_chain=error_items(chain))


def error_items(chain: Chain) -> tuple[ErrorItem, ...]:
    """The chain as it stands in a reply; only domains of the MC family carry the English text too (mdm.md 4.1)."""
    return tuple(
        ErrorItem(
            code=code,
            domain=domain,
            localized_description=text,
            us_english_description=text if domain.startswith("MC") else None,
        )
        for domain, code, text in chain
    )
