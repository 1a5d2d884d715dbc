"""The one hook through which a part misbehaves on purpose.

Transport, servers and device responders call a `FaultPoint` at each step they name. It answers None (behave) or an
`Action`; the part that asked carries the action out. Every switch that makes a part misbehave is an action behind
this hook, named once.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Side = Literal["device", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What to do wrong: the name says which fault, the arguments how much of it."""

    name: str  # such as "drop-response", "delay", "answer", "stale-attestation"
    arguments: dict[str, Any] = field(default_factory=dict)


class FaultPoint(Protocol):
    """Asked before (requests) or in place of (responses) the honest act."""

    def __call__(self, side: Side, step: str, message: object, n: int) -> Action | None:
        """`step` names the protocol step, `message` what is about to be sent, `n` counts from 1 per step and device."""
        ...


def no_faults(side: Side, step: str, message: object, n: int) -> Action | None:
    """The honest FaultPoint."""
    return None
