"""`mdm-emulator`: virtual iPhones and iPads for testing an MDM server that you own.

Results go to stdout or `--json FILE`, progress and logs to stderr. Exit 0: all that was asked for happened; 1: some of
it failed; 2: usage. Heavy modules are imported inside the commands that need them.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from emulator.device.device import Device
    from emulator.device.surroundings import Surroundings
    from emulator.fleet.run import FleetRun, RunOptions
    from emulator.fleet.runner import Outcome

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
device_app = typer.Typer(
    help="Look at devices of a fleet, or act as their user.", no_args_is_help=True
)
app.add_typer(device_app, name="device")

DEFAULT_STATE: Final = Path(".mdm-emulator")

State = Annotated[
    Path,
    typer.Option(
        "--state", help="Folder that keeps the fleet: devices, identities, simulated PKI."
    ),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="Reach HOST elsewhere: HOST[:PORT]=HOST:PORT, or https://HOST=http://127.0.0.1:PORT "
        "(plain only to loopback). URL, Host header and signatures stay. Repeatable.",
    ),
]
Authorities = Annotated[
    list[Path] | None,
    typer.Option(
        "--ca", help="PEM file with certificate authorities that devices trust too. Repeatable."
    ),
]
Concurrency = Annotated[
    int, typer.Option(help="Devices that run at the same time.", min=1, max=10_000)
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result here as JSON ('-': stdout).")
]
LogLevel = Annotated[
    str, typer.Option("--log", help="Log lines on stderr: debug, info, warning or error.")
]


@app.command()
def demo(
    devices: Annotated[
        int, typer.Option(help="How many devices, two of them without a profile.")
    ] = 25,
    seed: Annotated[int, typer.Option(help="The same seed gives the same devices.")] = 1,
    json_file: JsonFile = None,
    level: LogLevel = "error",
) -> None:
    """Enroll a mixed fleet with the built-in server, everything on loopback, and check the result."""
    _log_to_stderr(level)
    from emulator.demo import DemoOptions, run_demo, to_json
    from emulator.tables import print_devices, print_steps

    report, as_planned = _run(run_demo(DemoOptions(devices=devices, seed=seed)))
    if json_file is not None:
        _write(json_file, to_json(report))
    if json_file != Path("-"):
        print_devices(report["devices"])
        print()
        print_steps(report["steps"])
        print()
        failed = sum(device["error"] is not None for device in report["devices"])
        print(
            f"{len(report['devices'])} devices, {failed} not as planned; "
            f"{report['renamed_back']} renamed back, {report['removal_denied']} removal denied"
        )
    raise typer.Exit(0 if as_planned else 1)


@app.command()
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
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same devices.")] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
    concurrency: Concurrency = 50,
    json_file: JsonFile = None,
    level: LogLevel = "warning",
) -> None:
    """Take devices from power-on to their home screen. A run that was killed goes on where it was."""
    _log_to_stderr(level)
    from emulator.errors import ConfigurationError
    from emulator.fleet import fleet as fleet_file

    def chosen() -> fleet_file.FleetFile:
        if fleet is None and profile is None and enroll_url is None:
            raise ConfigurationError("enroll", ["give a fleet file, --profile or --enroll-url"])
        if fleet is None:
            group = {"count": count, "model": model or (), "os_version": os_version or ()}
            content: dict[str, object] = {"seed": seed or 0, "groups": [group]}
        else:
            changed = {} if seed is None else {"seed": seed}
            content = fleet_file.read(fleet).model_dump() | changed
        if profile is not None or enroll_url is not None:
            content |= {"profile": profile, "enroll_url": enroll_url}
        return fleet_file.validate(content, source=str(fleet or "command line"))

    async def work() -> tuple[list[Outcome], FleetRun]:
        from emulator.fleet.progress import Shown
        from emulator.fleet.run import FleetRun

        file = chosen()
        async with FleetRun(file, _options(state, maps, ca, concurrency)) as run:
            await run.remember()
            rows = await run.manufacture()
            with Shown("enroll", len(rows)) as progress:
                outcomes = await run.runner.enroll(rows, run.way, progress)
            if file.wake.poll_s is not None:
                print(f"polling every {file.wake.poll_s:g} s until interrupted", file=sys.stderr)
                await run.runner.keep_checking_in(await run.store.rows(), file.wake.poll_s)
            return outcomes, run

    outcomes, run = _run(work())
    _finish(outcomes, run, json_file)


@app.command("check-in")
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
    _log_to_stderr(level)

    async def work() -> tuple[list[Outcome], FleetRun]:
        from emulator.fleet.progress import Shown
        from emulator.fleet.run import FleetRun

        async with FleetRun(None, _options(state, maps, ca, concurrency)) as run:
            rows = await run.select(serials or [])
            with Shown("check in", len(rows)) as progress:
                outcomes = await run.runner.check_in(rows, progress)
            if rounds > 1:
                outcomes = await run.runner.keep_checking_in(rows, every, rounds - 1)
            return outcomes, run

    outcomes, run = _run(work())
    _finish(outcomes, run, json_file)


@device_app.command("list")
def device_list(state: State = DEFAULT_STATE, json_file: JsonFile = None) -> None:
    """List the devices of a fleet."""
    from emulator.tables import print_devices

    outcomes = _run(_stored(state))
    rows = [_record(outcome) for outcome in outcomes]
    if json_file is not None:
        _write(json_file, json.dumps({"devices": rows}, indent=2) + "\n")
    else:
        print_devices(rows)


@device_app.command("show")
def device_show(serial: str, state: State = DEFAULT_STATE) -> None:
    """Show one device as JSON: hardware, state, profiles, certificates, enrollment. Never a key or a token."""
    from emulator.fleet.description import describe_fully

    async def work() -> dict[str, Any]:
        return describe_fully(await _stored_device(state, serial))

    print(json.dumps(_run(work()), indent=2))


@device_app.command("rename")
def device_rename(serial: str, name: str, state: State = DEFAULT_STATE) -> None:
    """Be the user who gives the device another name in Settings."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import rename

        rename(device, name)

    _act(serial, act, state)


@device_app.command("remove-profile")
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


@device_app.command("erase")
def device_erase(serial: str, state: State = DEFAULT_STATE) -> None:
    """Be the user who erases all content and settings; `enroll` then starts from power-on."""

    async def act(device: "Device", surroundings: "Surroundings") -> None:
        from emulator.device.user import erase

        erase(device)

    _act(serial, act, state)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="Which file: fleet or portal.")] = "fleet",
) -> None:
    """Print the JSON Schema of a file, for editors and for reading."""
    match kind:
        case "fleet":
            from emulator.fleet.fleet import FleetFile as Model
        case "portal":
            from emulator.apple.portal import Portal as Model  # type: ignore[assignment]
        case _:
            _refuse(f"schema: no file is called '{kind}' (fleet, portal)")
    print(json.dumps(Model.model_json_schema(), indent=2))


@app.command()
def doctor() -> None:
    """Check this machine: Python, foreign packages of our names, file limits, TLS, clock."""
    from emulator.doctor import findings

    results = findings()
    for finding in results:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.subject}: {finding.text}")
    raise typer.Exit(0 if all(finding.good for finding in results) else 1)


Action = Callable[["Device", "Surroundings"], Awaitable[None]]
T = TypeVar("T")


def _act(
    serial: str,
    action: Action,
    state: Path,
    maps: list[str] | None = None,
    ca: list[Path] | None = None,
) -> None:
    _log_to_stderr("warning")

    async def work() -> "Outcome":
        from emulator.fleet.run import FleetRun

        async with FleetRun(None, _options(state, maps, ca, 1)) as run:
            (row,) = await run.select([serial])
            return await run.runner.act(row, action)

    from emulator.tables import print_devices

    print_devices([_record(_run(work()))])


def _options(
    state: Path, maps: list[str] | None, ca: list[Path] | None, concurrency: int
) -> "RunOptions":
    from certs.hosts import HostMap
    from emulator.fleet.run import RunOptions, read_authorities

    return RunOptions(
        state=state,
        hosts=HostMap.parse(maps or []),
        authorities=read_authorities(ca or []),
        concurrency=concurrency,
    )


async def _stored(state: Path) -> "list[Outcome]":
    from emulator.fleet.run import stored_outcomes

    return await stored_outcomes(state)


async def _stored_device(state: Path, serial: str) -> "Device":
    from emulator.fleet.run import stored_device

    return await stored_device(state, serial)


def _record(outcome: "Outcome") -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(outcome)


def _finish(outcomes: "list[Outcome]", run: "FleetRun", json_file: Path | None) -> NoReturn:
    """Print the result and exit: 0 only if every device did what was asked."""
    from emulator.tables import print_devices, print_steps

    steps = run.stats.summary()
    records = [_record(outcome) for outcome in outcomes]
    if json_file is not None:
        _write(json_file, json.dumps({"devices": records, "steps": steps}, indent=2) + "\n")
    if json_file != Path("-"):
        print_devices(records)
        print()
        print_steps(steps)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{len(outcomes)} devices, {failed} failed", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


def _write(file: Path, text: str) -> None:
    if file == Path("-"):
        sys.stdout.write(text)
    else:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            _refuse(f"--json {file}: cannot be written: {error}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed; errors become one line and an exit code."""
    from certs.errors import CertsError
    from emulator.errors import ConfigurationError, EmulatorError

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except ConfigurationError as error:
        _refuse(str(error))
    except (EmulatorError, CertsError) as error:
        print(f"mdm-emulator: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print("mdm-emulator: interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(1) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _refuse(text: str) -> NoReturn:
    print(f"mdm-emulator: {text}", file=sys.stderr)
    raise typer.Exit(2)


def _log_to_stderr(level: str) -> None:
    import logging

    import structlog

    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        _refuse(f"--log {level}: expected debug, info, warning or error")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Entry point of the console script."""
    app()
