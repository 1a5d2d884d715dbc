"""`mdm-emulator device …`: look at devices of a fleet, or act as their user."""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certs.event_loop import run_program
from emulator.cli.options import (
    DEFAULT_STATE,
    Authorities,
    JsonFile,
    Maps,
    State,
    log_to_stderr,
    record,
    refuse,
    run_options,
    write,
)

if TYPE_CHECKING:
    from emulator.device.device import Device
    from emulator.device.surroundings import Surroundings
    from emulator.fleet.admin_client import AdminClient
    from emulator.fleet.runner import Outcome
    from emulator.fleet.store import DeviceRow

app = typer.Typer(help="Look at devices of a fleet, or act as their user.", no_args_is_help=True)


@app.command("list")
def device_list(state: State = DEFAULT_STATE, json_file: JsonFile = None) -> None:
    """List the devices of a fleet."""
    from emulator.fleet.stored import stored_outcomes
    from emulator.tables import print_devices

    outcomes = run_program(stored_outcomes(state))
    rows = [record(outcome) for outcome in outcomes]
    if json_file is not None:
        write(json_file, json.dumps({"devices": rows}, indent=2) + "\n")
    else:
        print_devices(rows)


@app.command("show")
def device_show(serial: str, state: State = DEFAULT_STATE) -> None:
    """Show one device as JSON: hardware, state, profiles, certificates, enrollment. Never a key or a token."""
    from emulator.fleet.description import describe_fully
    from emulator.fleet.stored import stored_device

    async def work() -> dict[str, Any]:
        return describe_fully(await stored_device(state, serial))

    print(json.dumps(run_program(work()), indent=2))


@app.command("rename")
def device_rename(serial: str, name: str, state: State = DEFAULT_STATE) -> None:
    """Be the user who gives the device another name in Settings."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import rename

        rename(device, name)

    _act(serial, act, state)


@app.command("new-token")
def device_new_token(
    serial: str,
    new_magic: Annotated[bool, typer.Option("--new-magic", help="Another PushMagic, too.")] = False,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
) -> None:
    """Give the device another push token, as after a restore, and let it tell its server by TokenUpdate."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.push import rotate_token

        await rotate_token(device, surroundings, new_magic=new_magic)

    _act(serial, act, state, maps, ca)


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


@app.command("unlock")
def device_unlock(
    serial: str,
    login: Annotated[
        str | None, typer.Option(help="The owner's account; the password is asked for.")
    ] = None,
    bypass_code: Annotated[
        str | None, typer.Option(help="The lock's bypass code instead of an account.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="MDM_EMULATOR_PASSWORD", help="The owner's password, for scripts."),
    ] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
) -> None:
    """Be the owner, or who has the bypass code, at a device that met an activation lock."""
    if (login is None) == (bypass_code is None):
        refuse("device unlock: give --login or --bypass-code")
    if login is not None and password is None:
        password = typer.prompt("Password", hide_input=True)

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.activation import Credentials, activate
        from emulator.device.state import State as DeviceState
        from emulator.errors import ConfigurationError

        if device.state is not DeviceState.LOCKED_OUT:
            raise ConfigurationError(serial, [f"is not locked out, but {device.state.value}"])
        secret = bypass_code if password is None or login is None else password
        await activate(device, surroundings, Credentials(login=login or "", password=secret or ""))

    _act(serial, act, state, maps, ca)


@app.command("activate")
def device_activate(
    serial: str, state: State = DEFAULT_STATE, maps: Maps = None, ca: Authorities = None
) -> None:
    """Be the program on a USB host that activates a device; an activated one asks again."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.activation import activate
        from emulator.device.usb_host import activation_state, reactivate

        if activation_state(device) == "Unactivated":
            await activate(device, surroundings)
        else:
            new = await reactivate(device, surroundings)
            print(f"{serial}: {'a new record' if new else 'acknowledged'}", file=sys.stderr)

    _act(serial, act, state, maps, ca)


@app.command("deactivate")
def device_deactivate(
    serial: str, state: State = DEFAULT_STATE, maps: Maps = None, ca: Authorities = None
) -> None:
    """Be the program on a USB host that takes a device's activation away, and tell the registry."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.usb_host import deactivate

        deactivate(device)

    async def tell(registry: "AdminClient", row: "DeviceRow") -> None:
        await registry.call("POST", f"/registry/devices/{row.serial}/deactivate")

    _act(serial, act, state, maps, ca, tell)


@app.command("join")
def device_join(
    serial: str,
    nonce: Annotated[str, typer.Argument(help="From Apple Configurator (/v2/nonce).")],
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
) -> None:
    """Be the host that adds an activated device to an organization, provisionally for 30 days."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.provisional import enroll_provisionally

        until = await enroll_provisionally(device, surroundings, nonce)
        print(f"{serial}: the user may leave until {until:%Y-%m-%d %H:%M} UTC", file=sys.stderr)

    _act(serial, act, state, maps, ca)


@app.command("leave")
def device_leave(
    serial: str, state: State = DEFAULT_STATE, maps: Maps = None, ca: Authorities = None
) -> None:
    """Be the user who leaves remote management while the provisional period lasts; later it is denied (exit 1)."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.provisional import leave_provisionally

        await leave_provisionally(device, surroundings)

    _act(serial, act, state, maps, ca)


Action = Callable[["Device", "Surroundings"], Awaitable[None]]
Notice = Callable[["AdminClient", "DeviceRow"], Awaitable[None]]


def _act(
    serial: str,
    action: Action,
    state: Path,
    maps: list[str] | None = None,
    ca: list[Path] | None = None,
    tell: Notice | None = None,
) -> None:
    """Let one device do something; `tell` the registry of it afterwards."""
    log_to_stderr("warning")

    async def work() -> "Outcome":
        from emulator.fleet.run import FleetRun

        async with FleetRun(None, run_options(state, maps, ca, 1)) as run:
            (row,) = await run.select([serial])
            outcome = await run.runner.act(row, action)
            if tell is not None:
                await tell(run.registry, row)
            return outcome

    from emulator.tables import print_devices

    print_devices([record(run_program(work()))])
