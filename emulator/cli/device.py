"""`mdm-emulator device …`: look at devices of a fleet, or act as their user."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emulator.cli.options import (
    DEFAULT_STATE,
    Authorities,
    JsonFile,
    Maps,
    State,
    log_to_stderr,
    record,
    run,
    run_options,
    write,
)

if TYPE_CHECKING:
    from emulator.device.device import Device
    from emulator.device.surroundings import Surroundings
    from emulator.fleet.runner import Outcome

app = typer.Typer(help="Look at devices of a fleet, or act as their user.", no_args_is_help=True)


@app.command("list")
def device_list(state: State = DEFAULT_STATE, json_file: JsonFile = None) -> None:
    """List the devices of a fleet."""
    from emulator.fleet.run import stored_outcomes
    from emulator.tables import print_devices

    outcomes = run(stored_outcomes(state))
    rows = [record(outcome) for outcome in outcomes]
    if json_file is not None:
        write(json_file, json.dumps({"devices": rows}, indent=2) + "\n")
    else:
        print_devices(rows)


@app.command("show")
def device_show(serial: str, state: State = DEFAULT_STATE) -> None:
    """Show one device as JSON: hardware, state, profiles, certificates, enrollment. Never a key or a token."""
    from emulator.fleet.description import describe_fully
    from emulator.fleet.run import stored_device

    async def work() -> dict[str, Any]:
        return describe_fully(await stored_device(state, serial))

    print(json.dumps(run(work()), indent=2))


@app.command("rename")
def device_rename(serial: str, name: str, state: State = DEFAULT_STATE) -> None:
    """Be the user who gives the device another name in Settings."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import rename

        rename(device, name)

    _act(serial, act, state)


@app.command("remove-profile")
def device_remove_profile(
    serial: str,
    identifier: Annotated[
        str | None, typer.Argument(help="PayloadIdentifier; none: the enrollment profile.")
    ] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
) -> None:
    """Be the user who removes a profile in Settings; a locked one is denied (exit 1)."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import remove_profile
        from emulator.errors import ConfigurationError

        chosen = identifier or (device.enrollment and device.enrollment.profile_identifier)
        if not chosen:
            raise ConfigurationError(serial, ["is not enrolled: name a profile"])
        await remove_profile(device, chosen, surroundings)

    _act(serial, act, state, maps, ca)


@app.command("erase")
def device_erase(serial: str, state: State = DEFAULT_STATE) -> None:
    """Be the user who erases all content and settings; `enroll` then starts from power-on."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import erase

        erase(device)

    _act(serial, act, state)


Action = Callable[["Device", "Surroundings"], Awaitable[None]]


def _act(
    serial: str,
    action: Action,
    state: Path,
    maps: list[str] | None = None,
    ca: list[Path] | None = None,
) -> None:
    log_to_stderr("warning")

    async def work() -> "Outcome":
        from emulator.fleet.run import FleetRun

        async with FleetRun(None, run_options(state, maps, ca, 1)) as run:
            (row,) = await run.select([serial])
            return await run.runner.act(row, action)

    from emulator.tables import print_devices

    print_devices([record(run(work()))])
