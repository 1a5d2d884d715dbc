"""`mdm-emulator enroll` and `check-in`: a fleet, from power-on to home and back to its server."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certs.event_loop import run_program
from emulator.cli.options import (
    DEFAULT_STATE,
    Authorities,
    Concurrency,
    JsonFile,
    LogLevel,
    Maps,
    RunningApple,
    State,
    finish,
    log_to_stderr,
    run_options,
)

if TYPE_CHECKING:
    from emulator.fleet.run import FleetRun
    from emulator.fleet.runner import Outcome
    from emulator.fleet.stats import StepSummary


def enroll(
    fleet: Annotated[
        Path | None, typer.Argument(help="Fleet file (YAML; see `mdm-emulator schema fleet`).")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Install this .mobileconfig, of any server, signed or not."),
    ] = None,
    enroll_url: Annotated[
        str | None,
        typer.Option(
            help="POST signed MachineInfo to this URL, as automated device enrollment does."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Without a fleet file: how many devices.", min=1)] = 1,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Without a fleet file: product types, such as iPhone14,5."),
    ] = None,
    os_version: Annotated[
        list[str] | None, typer.Option(help="Without a fleet file: systems, such as 18.1.")
    ] = None,
    locked: Annotated[
        bool,
        typer.Option("--locked", help="With --enroll-url: users cannot remove the management."),
    ] = False,
    await_configuration: Annotated[
        bool,
        typer.Option(
            "--await-configuration",
            help="With --enroll-url: stay in Setup Assistant until DeviceConfigured.",
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same devices.")] = None,
    apple: RunningApple = None,
    organization: Annotated[
        str | None,
        typer.Option(help="With --apple and no fleet file: who owns the devices in its portal."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="With --organization: the MDM server that they are assigned to."),
    ] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
    concurrency: Concurrency = 50,
    json_file: JsonFile = None,
    level: LogLevel = "warning",
) -> None:
    """Take devices from power-on to their home screen. A run that was killed goes on where it was."""
    log_to_stderr(level)
    from emulator.errors import ConfigurationError
    from emulator.fleet import fleet as fleet_file

    def chosen() -> fleet_file.FleetFile:
        if fleet is None and profile is None and enroll_url is None and organization is None:
            raise ConfigurationError(
                "enroll", ["give a fleet file, --profile, --enroll-url, or --apple --organization"]
            )
        if fleet is None:
            group = {"count": count, "model": model or (), "os_version": os_version or ()}
            owner = {"organization": organization, "server": server}
            content: dict[str, object] = {"seed": seed or 0, "groups": [group | owner]}
        else:
            changed = {} if seed is None else {"seed": seed}
            content = fleet_file.read(fleet).model_dump() | changed
        if apple is not None:
            content["apple"] = _stand_ins(apple, content.get("apple"))
        if profile is not None or enroll_url is not None:
            content |= {"profile": profile, "enroll_url": enroll_url}
        if locked or await_configuration:
            content["assigned"] = {
                "removable": not locked,
                "await_configuration": await_configuration,
            }
        return fleet_file.validate(content, source=str(fleet or "command line"))

    async def work() -> "tuple[list[Outcome], dict[str, StepSummary]]":
        from emulator.fleet.progress import Shown
        from emulator.fleet.run import FleetRun

        file = chosen()
        async with FleetRun(file, run_options(state, maps, ca, concurrency)) as opened:
            await opened.remember()
            rows = await opened.manufacture()
            with Shown("enroll", len(rows)) as progress:
                outcomes = await opened.runner.enroll(rows, opened.way, progress)
            if file.wake.push:
                await _sleep_until_pushed(opened, None)
                outcomes = await opened.outcomes()
            if file.wake.poll_s is not None:
                print(f"polling every {file.wake.poll_s:g} s until interrupted", file=sys.stderr)
                await opened.runner.keep_checking_in(await opened.store.rows(), file.wake.poll_s)
            return outcomes, opened.stats.summary()

    outcomes, steps = run_program(work())
    finish(outcomes, steps, json_file)


def listen(
    seconds: Annotated[
        float | None, typer.Option("--for", help="Stop after so many seconds; none: Ctrl-C.")
    ] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
    concurrency: Concurrency = 50,
    json_file: JsonFile = None,
    level: LogLevel = "warning",
) -> None:
    """Let enrolled devices sleep until a push wakes them; each then asks its server for commands."""
    log_to_stderr(level)

    async def work() -> "tuple[list[Outcome], dict[str, StepSummary]]":
        from emulator.fleet.run import FleetRun

        async with FleetRun(None, run_options(state, maps, ca, concurrency)) as opened:
            await opened.select([])
            await _sleep_until_pushed(opened, seconds)
            return await opened.outcomes(), opened.stats.summary()

    outcomes, steps = run_program(work())
    finish(outcomes, steps, json_file)


def _stand_ins(folder: Path, section: object) -> dict[str, object]:
    """The `apple` section of a fleet that uses running stand-ins; how devices activate stays as it was."""
    from emulator.apple.addresses import Addresses

    at = Addresses.read(folder)
    kept = {"activation": section["activation"]} if isinstance(section, dict) else {}
    running = {"url": at.url, "admin_url": at.admin_url, "token_file": at.token_file}
    return {**kept, **running, "ca": at.tls_root}


async def _sleep_until_pushed(opened: "FleetRun", seconds: float | None) -> None:
    """Until time is up or someone presses Ctrl-C; says where the fleet's own APNs and proxy are."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows
        loop.add_signal_handler(signal.SIGINT, stop.set)
    for line in opened.addresses():
        print(line, file=sys.stderr)
    print("sleeping until pushed; Ctrl-C ends it", file=sys.stderr)
    asleep = asyncio.create_task(opened.sleep_until_pushed())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({asleep, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if asleep.done():
            await asleep  # it ends by itself only with an error
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        for task in (asleep, stopped):
            task.cancel()
        await asyncio.gather(asleep, stopped, return_exceptions=True)


def check_in(
    serials: Annotated[
        list[str] | None, typer.Argument(help="Serial numbers or UDIDs; none: the whole fleet.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each device checks in.", min=1)] = 1,
    every: Annotated[
        float, typer.Option(help="Seconds between two check-ins of one device.")
    ] = 10.0,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
    concurrency: Concurrency = 50,
    json_file: JsonFile = None,
    level: LogLevel = "warning",
) -> None:
    """Let enrolled devices ask their server for commands, as after a push."""
    log_to_stderr(level)

    async def work() -> "tuple[list[Outcome], dict[str, StepSummary]]":
        from dataclasses import replace

        from emulator.device.state import MANAGED
        from emulator.errors import PeerRefused
        from emulator.fleet.progress import Shown
        from emulator.fleet.run import FleetRun

        managed = {place.name for place in MANAGED}
        async with FleetRun(None, run_options(state, maps, ca, concurrency)) as opened:
            rows = await opened.select(serials or [])
            enrolled = {row.serial for row in rows if row.state in managed}
            if not enrolled:
                raise PeerRefused("check-in", "none of these devices is enrolled")
            with Shown("check in", len(rows)) as progress:
                outcomes = await opened.runner.check_in(rows, progress)
            if rounds > 1:
                outcomes = await opened.runner.keep_checking_in(rows, every, rounds - 1)
            if serials:  # whoever was named should have checked in
                outcomes = [
                    outcome
                    if outcome.serial in enrolled
                    else replace(outcome, error=outcome.error or "is not enrolled")
                    for outcome in outcomes
                ]
            return outcomes, opened.stats.summary()

    outcomes, steps = run_program(work())
    finish(outcomes, steps, json_file)
