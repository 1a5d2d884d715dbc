"""An attestation authority that vouches for what is not so, when its FaultPoint says so (certificates.md, section 7).

Step `attestation_leaf` of side `server`, as Apple's service is what misbehaves; the message is the `Facts` of the honest leaf, so
that a FaultPoint can choose a device by its serial number. `n` counts per serial number.
"""

import secrets
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from certs.faults import Action, FaultPoint
from certs.keys import PublicKey

STEP: Final = "attestation_leaf"
MAX_COUNTED: Final = 100_000  # serial numbers; beyond, counting starts anew


class LeafFault(StrEnum):
    """What is wrong with the leaf."""

    NO_FRESHNESS = "no-freshness"
    FOREIGN_ROOT = "foreign-root"  # of an authority that nobody knows
    EXPIRED_LEAF = "expired-leaf"
    ANOTHER_DEVICE = "another-device"  # {serial_number, udid}
    ANONYMOUS = "anonymous"  # neither serial number nor UDID, as in User Enrollment
    BLANK_VALUES = "blank-values"  # both are there and empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a leaf shall say."""

    public_key: PublicKey
    serial_number: str | None
    udid: str | None
    freshness: bytes | None
    os_version: str | None = None
    software_update_device_id: str | None = None
    not_before: datetime
    days: float


class LeafFaults:
    """Asks a FaultPoint for each leaf, and changes the facts as it says."""

    def __init__(self, faults: FaultPoint) -> None:
        self._faults = faults
        self._asked: Counter[str] = Counter()

    def action(self, facts: Facts) -> Action | None:
        """What to do wrong with this leaf. Raises ValueError for a fault that leaves do not have."""
        serial_number = facts.serial_number or ""
        if len(self._asked) > MAX_COUNTED:
            self._asked.clear()
        self._asked[serial_number] += 1
        action = self._faults("server", STEP, facts, self._asked[serial_number])
        if action is not None and action.name not in set(LeafFault):
            raise ValueError(f"an attestation leaf has no fault {action.name!r}")
        return action


def changed(facts: Facts, action: Action) -> Facts:
    """The facts with the fault in them; `foreign-root` is no matter of facts."""
    match action.name:
        case LeafFault.NO_FRESHNESS:
            return replace(facts, freshness=None)
        case LeafFault.EXPIRED_LEAF:
            return replace(facts, not_before=facts.not_before - timedelta(days=facts.days + 1))
        case LeafFault.ANOTHER_DEVICE:
            another = action.arguments
            return replace(
                facts,
                serial_number=str(another.get("serial_number", f"SIM{secrets.token_hex(4)}")),
                udid=str(another.get("udid", f"00000000-{secrets.token_hex(8)}")),
            )
        case LeafFault.ANONYMOUS:
            return replace(facts, serial_number=None, udid=None)
        case LeafFault.BLANK_VALUES:
            return replace(facts, serial_number="", udid="")
        case _:
            return facts
