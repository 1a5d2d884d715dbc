"""Faults that an administrator plans while the services run: for one device or for all, at one step, so many times.

The first entry that fits a request is used up by it; without a `count` an entry stays until it is taken away.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from certs.errors import MalformedMessage
from certs.faults import Action

EVERYBODY: Final = "*"
OUTCOME: Final = "outcome"
ACTIVATION_STEP: Final = "device_activation"

# Of activation, once a request has passed every check but A9 and A10.
ActivationOutcome = Literal["activated", "acknowledged", "locked", "device_unknown", "server_error"]
Step = Literal[
    "drm_handshake",
    "device_activation",
    "cloud_configuration",
    "provisional_enrollment",
    "provisional_leave",
    "device_register",
    "start_migration",
    "end_migration",
    "legacy_certificate",
    "legacy_session",
    "legacy_cloud_configuration",
    "attestation",
]
Bytes = Annotated[int, Field(ge=0)]


class PlannedFault(BaseModel):
    """One entry; which arguments count depends on the action."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Step
    action: Literal["status", "body", "delay", "drop", "cut", "truncate", "content_type", "outcome"]
    status: int = Field(200, ge=200, le=599)
    body: str = ""
    content_type: str = "text/plain"
    headers: dict[str, str] = {}
    seconds: float = Field(0, ge=0, le=3600)
    bytes: Bytes | None = None  # how much of the body is sent; None: half of it
    outcome: ActivationOutcome | None = None
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.action == OUTCOME) != (self.outcome is not None):
            raise ValueError("action outcome and an outcome belong together")
        if self.outcome is not None and self.step != ACTIVATION_STEP:
            raise ValueError(f"outcomes belong to step {ACTIVATION_STEP}")
        return self

    def to_action(self) -> Action:
        arguments = self.model_dump(exclude={"step", "action", "count"})
        return Action(name=self.action, arguments=arguments)


class PlannedFaults:
    """What is planned, by serial number."""

    def __init__(self) -> None:
        self._planned: dict[str, list[tuple[PlannedFault, int | None]]] = {}

    def plan(self, serial_number: str, faults: Iterable[PlannedFault]) -> None:
        """Make this the plan for a device, or for `EVERYBODY`; nothing at all takes its plan away."""
        entries = [(fault, fault.count) for fault in faults]
        if entries:
            self._planned[serial_number] = entries
        else:
            self._planned.pop(serial_number, None)

    def planned(self, serial_number: str) -> list[PlannedFault]:
        """What is left of a plan."""
        return [
            fault.model_copy(update={"count": left})
            for fault, left in self._planned.get(serial_number, ())
        ]

    def take(self, step: str, serial_number: str, actions: Collection[str]) -> Action | None:
        """The action for this request, if one is planned; the device's own plan comes first."""
        if not self._planned:
            return None
        for serial in (serial_number, EVERYBODY):
            entries = self._planned.get(serial, [])
            for index, (fault, left) in enumerate(entries):
                if fault.step == step and fault.action in actions:
                    self._use(entries, index, left)
                    return fault.to_action()
        return None

    @staticmethod
    def _use(entries: list[tuple[PlannedFault, int | None]], index: int, left: int | None) -> None:
        if left == 1:
            del entries[index]
        elif left is not None:
            entries[index] = (entries[index][0], left - 1)


def read(items: Sequence[object]) -> list[PlannedFault]:
    """Entries as an administrator wrote them. Raises MalformedMessage naming the first mistake."""
    faults = []
    for number, item in enumerate(items):
        try:
            faults.append(PlannedFault.model_validate(item))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["faults", str(number), *(str(part) for part in first["loc"])])
            raise MalformedMessage(place, first["msg"]) from error
    return faults


def shown(faults: Iterable[PlannedFault]) -> list[dict[str, Any]]:
    """Entries as JSON, defaults left out."""
    return [fault.model_dump(exclude_defaults=True) for fault in faults]
