"""Canned failures of the device assignment API: for each endpoint a list of `{count, response}`, used up in order (4.11).

From YAML at the start, and over the admin API while the services run. Most take the place of an answer or spoil it on its way,
which `door` does; two are the service's own: results that are forced, and a page whose cursor leads nowhere.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certs.faults import Action
from emulator.settings_file import FileModel
from emulator.wire import assignment
from emulator.wire.assignment import Result

# Endpoints as a person writes them, and the steps of logs and faults.
STEPS: Final = {
    f"GET {assignment.SESSION_PATH}": "assignment_session",
    f"GET {assignment.ACCOUNT_PATH}": "assignment_account",
    f"POST {assignment.FETCH_PATH}": "assignment_fetch",
    f"POST {assignment.SYNC_PATH}": "assignment_sync",
    f"POST {assignment.DETAILS_PATH}": "assignment_details",
    f"POST {assignment.DISOWN_PATH}": "assignment_disown",
    f"POST {assignment.PROFILE_PATH}": "assignment_define",
    f"GET {assignment.PROFILE_PATH}": "assignment_profile",
    f"POST {assignment.ASSIGN_PATH}": "assignment_assign",
    f"PUT {assignment.ASSIGN_PATH}": "assignment_assign",
    f"DELETE {assignment.ASSIGN_PATH}": "assignment_unassign",
    f"POST {assignment.LOCK_PATH}": "assignment_lock",
    f"GET {assignment.REPLACEMENT_PATH}": "assignment_replacement",
    f"POST {assignment.DISCOVERY_PATH}": "assignment_discovery_set",
    f"GET {assignment.DISCOVERY_PATH}": "assignment_discovery",
    f"DELETE {assignment.DISCOVERY_PATH}": "assignment_discovery_delete",
    f"GET {assignment.BETA_PATH}": "assignment_beta",
}
RESULTS: Final = "results"
REPEAT: Final = "repeat_cursor"
EVERY: Final = "*"  # serial number of everything that `results` does not name


def _endpoint(text: str) -> str:
    method, _, path = text.strip().partition(" ")
    endpoint = f"{method.upper()} {path.strip()}"
    if endpoint not in STEPS:
        raise ValueError(f"no such endpoint; there are {', '.join(STEPS)}")
    return endpoint


class CannedResponse(FileModel):
    """What goes wrong. With a `status` the request is not acted upon."""

    status: int | None = Field(None, ge=200, le=599)
    body: str = ""
    content_type: str | None = None
    headers: dict[str, str] = Field({})
    seconds: float = Field(0, ge=0, le=86400, description="what comes, comes so much later")
    connection: Literal["reset", "drop", "cut"] | None = Field(
        None,
        description="reset: closed instead of acting; drop: closed after acting; cut: closed within the body",
    )
    bytes: int | None = Field(
        None, ge=0, description="how much of the body comes, with cut or alone"
    )
    results: dict[str, Result] | None = Field(
        None, description="by serial number, or * for all: these instead of acting"
    )
    repeat_cursor: bool = Field(
        False, description="more_to_follow, and the cursor that came (bug D01)"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [
            self.status is not None,
            self.connection is not None,
            self.results is not None,
            self.repeat_cursor,
            self.bytes is not None and self.connection != "cut",
        ]
        wrong_type = self.content_type is not None and self.status is None
        if sum(kinds) + wrong_type > 1:
            raise ValueError(
                "one of status, connection, bytes, content_type, results, repeat_cursor"
            )
        if not any(kinds) and not wrong_type and not self.seconds:
            raise ValueError("says nothing that goes wrong")
        if (self.body or self.headers) and self.status is None:
            raise ValueError("body and headers go with a status")
        return self

    def to_action(self) -> Action:
        arguments: dict[str, Any] = {"seconds": self.seconds}
        if self.connection is not None:
            return Action(name=self.connection, arguments={**arguments, "bytes": self.bytes})
        if self.results is not None:
            return Action(name=RESULTS, arguments={RESULTS: self.results})
        if self.repeat_cursor:
            return Action(name=REPEAT)
        if self.bytes is not None:
            return Action(name="truncate", arguments={**arguments, "bytes": self.bytes})
        if self.status is not None:
            return Action(
                name="body",
                arguments={
                    **arguments,
                    "status": self.status,
                    "body": self.body,
                    "content_type": self.content_type or "text/plain",
                    "headers": self.headers,
                },
            )
        if self.content_type is not None:
            return Action(
                name="content_type", arguments={**arguments, "content_type": self.content_type}
            )
        return Action(name="delay", arguments=arguments)


class CannedFault(FileModel):
    """One entry of an endpoint's list."""

    response: CannedResponse
    count: int | None = Field(1, ge=1, description="how often; absent: once")
    forever: bool = False
    server: str | None = Field(None, description="name of the one server that meets it")

    @property
    def left(self) -> int | None:
        return None if self.forever else self.count


Faults = dict[Annotated[str, AfterValidator(_endpoint)], tuple[CannedFault, ...]]


class FaultsFile(FileModel):
    """`{"faults": {"POST /devices/sync": [{"count": 1, "response": {…}}]}}`."""

    faults: Faults = Field({})


class AssignmentFaults:
    """What is planned for each endpoint; the first entry that fits a request is used up by it."""

    def __init__(self, faults: Mapping[str, tuple[CannedFault, ...]] | None = None) -> None:
        self._planned: dict[str, list[tuple[CannedFault, int | None]]] = {}
        for endpoint, entries in (faults or {}).items():
            self.plan(endpoint, entries)

    def plan(self, endpoint: str, entries: tuple[CannedFault, ...]) -> None:
        """Make this the list of an endpoint; an empty one takes it away."""
        self._planned.pop(endpoint, None)
        if entries:
            self._planned[endpoint] = [(entry, entry.left) for entry in entries]

    def clear(self) -> None:
        self._planned.clear()

    def shown(self) -> dict[str, list[dict[str, Any]]]:
        """What is left, defaults left out."""
        return {
            endpoint: [
                {
                    **entry.model_dump(mode="json", exclude_defaults=True),
                    **({} if left is None else {"count": left}),
                }
                for entry, left in entries
            ]
            for endpoint, entries in self._planned.items()
            if entries
        }

    def take(self, step: str, subject: str, actions: Collection[str]) -> Action | None:
        """The action for this request, if one of `actions` is planned; `subject` is the server's name."""
        for endpoint, entries in self._planned.items():
            if STEPS[endpoint] != step:
                continue
            for index, (entry, left) in enumerate(entries):
                if entry.server not in (None, subject):
                    continue
                action = entry.response.to_action()
                if action.name not in actions:
                    continue
                if left == 1:
                    del entries[index]
                elif left is not None:
                    entries[index] = (entry, left - 1)
                return action
        return None
