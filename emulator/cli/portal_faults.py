"""`mdm-emulator portal faults …`: what goes wrong at running stand-ins, planned from a file of the shape that `apple serve` reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from emulator.cli.portal_client import PortalClient, client

if TYPE_CHECKING:
    from pydantic import BaseModel

faults = typer.Typer(
    help="Faults: planned from a file, shown, taken away, while the stand-ins run.",
    no_args_is_help=True,
)

ASSIGNMENT: Final = "/portal/faults"
PUSH: Final = "/push/faults"
EVERYBODY: Final = "*"

Serials = Annotated[
    list[str] | None, typer.Argument(help="Devices with faults of their own, beside *.")
]


@faults.command()
def plan(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="YAML with assignment, devices and push, as under faults in the settings of apple serve."
        ),
    ],
) -> None:
    """Plan what a file says; endpoints, devices and pushes that it does not name stay as they are.

    For example: {assignment: {"POST /devices/sync": [{count: 1, response: {status: 403, body: T_C_NOT_SIGNED}}]}}
    """
    from emulator.apple.serve_file import FaultsSection
    from emulator.settings_file import read

    wanted, desk = read(file, FaultsSection), client(context)
    if wanted.assignment:
        content = {endpoint: _plain(entries) for endpoint, entries in wanted.assignment.items()}
        desk.call("PUT", ASSIGNMENT, {"faults": content})
    for serial, entries in wanted.devices.items():
        desk.call("PUT", _device(serial), {"faults": _plain(entries)})
    if wanted.push:
        desk.call("PUT", PUSH, {"faults": _plain(wanted.push)})
    _print(_shown(desk, list(wanted.devices)))


@faults.command()
def show(context: typer.Context, serials: Serials = None) -> None:
    """What is still planned, as JSON of the same shape."""
    _print(_shown(client(context), serials or []))


@faults.command()
def clear(context: typer.Context, serials: Serials = None) -> None:
    """From now on everything goes well again, for the devices that are named, too."""
    desk = client(context)
    for path in (ASSIGNMENT, PUSH, *(_device(serial) for serial in (EVERYBODY, *(serials or [])))):
        desk.call("DELETE", path)
    _print(_shown(desk, serials or []))


def _shown(desk: PortalClient, serials: list[str]) -> dict[str, Any]:
    wanted = dict.fromkeys((EVERYBODY, *serials))
    devices = {serial: desk.call("GET", _device(serial))["faults"] for serial in wanted}
    return {
        "assignment": desk.call("GET", ASSIGNMENT)["faults"],
        "devices": {serial: planned for serial, planned in devices.items() if planned},
        "push": desk.call("GET", PUSH)["faults"],
    }


def _plain(entries: "tuple[BaseModel, ...]") -> list[dict[str, Any]]:
    return [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]


def _device(serial: str) -> str:
    return f"/registry/devices/{quote(serial, safe='*')}/faults"


def _print(answer: Any) -> None:
    print(json.dumps(answer, indent=2))
