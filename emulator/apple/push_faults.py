"""What goes wrong with pushes while the services run: planned by an administrator, by chance or so many times.

The first entry that fits a push is used up by it. An entry with a `share` hits that part of the pushes, drawn from a seed,
and one without a `count` stays until it is taken away. A FaultPoint that a test gives comes before all of them.
"""

import random
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certs.errors import MalformedMessage
from certs.faults import Action, FaultPoint, Side, no_faults
from emulator.apple.push_provider import ProviderRequest
from emulator.settings_file import FileModel
from emulator.wire.push import Reason, token_of

PUSH: Final = "push"
CONNECTION: Final = "push_connection"
SEED: Final = 0


def _token(text: str) -> str:
    try:
        return token_of(text).hex()
    except MalformedMessage as error:
        raise ValueError(str(error)) from error


class PushFault(FileModel):
    """One entry; which arguments count depends on the action."""

    step: Literal["push", "push_connection"] = PUSH
    action: Literal[
        "answer",
        "lose",
        "delay",
        "duplicate",
        "hold",
        "drop",
        "refuse-stream",
        "goaway",
        "settings",
    ]
    token: Annotated[str, AfterValidator(_token)] | None = Field(
        None, description="hexadecimal; only pushes to this device"
    )
    share: float = Field(1, gt=0, le=1, description="of the pushes that fit, by chance")
    count: int | None = Field(None, ge=1, description="how often; none: until it is taken away")
    reason: Reason | None = Field(None, description="of answer and goaway")
    seconds: float | None = Field(None, gt=0, le=3600, description="of delay, duplicate and hold")
    up_to_s: float | None = Field(
        None, gt=0, le=3600, description="of delay: any time from seconds to this, by chance"
    )
    timestamp_ms: int | None = Field(
        None, ge=0, le=253_402_300_799_000, description="of an answer with status 410; none: now"
    )
    times: int = Field(1, ge=1, le=10, description="further copies of a duplicate")
    max_concurrent_streams: int | None = Field(None, ge=1, description="of settings")
    initial_window_size: int | None = Field(None, ge=0, le=2**31 - 1, description="of settings")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.action == "answer" and self.reason is None:
            raise ValueError("action answer needs a reason")
        if self.action in ("delay", "hold") and self.seconds is None:
            raise ValueError(f"action {self.action} needs seconds")
        if self.up_to_s is not None and (
            self.action != "delay" or self.up_to_s < (self.seconds or 0)
        ):
            raise ValueError("up_to_s belongs to delay, and is no less than seconds")
        if self.timestamp_ms is not None and (self.reason is None or self.reason.status != 410):
            raise ValueError("timestamp_ms belongs to Unregistered and ExpiredToken")
        if self.action == "settings" and self.step != CONNECTION:
            raise ValueError(f"action settings belongs to step {CONNECTION}")
        if self.step == CONNECTION and self.action not in ("settings", "goaway"):
            raise ValueError(f"step {CONNECTION} knows settings and goaway")
        if self.step == CONNECTION and self.token is not None:
            raise ValueError("a connection is for no token")
        return self

    def to_action(self, chance: random.Random) -> Action:
        arguments = self.model_dump(
            include={
                "reason",
                "seconds",
                "timestamp_ms",
                "max_concurrent_streams",
                "initial_window_size",
            },
            exclude_none=True,
        )
        if self.seconds is not None and self.up_to_s is not None:
            arguments["seconds"] = chance.uniform(self.seconds, self.up_to_s)
        if self.action == "duplicate":
            arguments["times"] = self.times
        return Action(name=self.action, arguments=arguments)


class PushFaults:
    """The plan, as a FaultPoint."""

    def __init__(self, given: FaultPoint = no_faults, *, seed: int = SEED) -> None:
        self._given = given
        self._planned: list[tuple[PushFault, int | None]] = []
        self._chance = random.Random(seed)

    def __bool__(self) -> bool:
        """Whether anything may go wrong; false costs a push nothing."""
        return bool(self._planned) or self._given is not no_faults

    def __call__(self, side: Side, step: str, message: object, n: int) -> Action | None:
        action = self._given(side, step, message, n)
        if action is not None:
            return action
        path = message.path if isinstance(message, ProviderRequest) else ""
        token = path.partition("?")[0].rpartition("/")[2].lower()
        for index, (fault, left) in enumerate(self._planned):
            if fault.step != step or (fault.token is not None and fault.token != token):
                continue
            if fault.share < 1 and self._chance.random() >= fault.share:
                continue
            if left == 1:
                del self._planned[index]
            elif left is not None:
                self._planned[index] = (fault, left - 1)
            return fault.to_action(self._chance)
        return None

    def plan(self, faults: Iterable[PushFault]) -> None:
        """Make this the plan, in place of what was left of another."""
        self._planned = [(fault, fault.count) for fault in faults]

    def shown(self) -> list[dict[str, Any]]:
        """What is left, as JSON, defaults left out."""
        return [
            fault.model_copy(update={"count": left}).model_dump(mode="json", exclude_defaults=True)
            for fault, left in self._planned
        ]


class PushFaultsPlan(FileModel):
    """The body of `PUT /push/faults`."""

    faults: tuple[PushFault, ...]
