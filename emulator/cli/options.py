"""What the commands share: options, how a run ends, what goes to stdout and what to stderr."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from emulator.fleet.run import RunOptions
    from emulator.fleet.runner import Outcome
    from emulator.fleet.stats import StepSummary


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
RunningApple = Annotated[
    Path | None,
    typer.Option(
        "--apple",
        envvar="MDM_EMULATOR_APPLE",
        help="State folder of a running `mdm-emulator apple serve` on this machine: use its stand-ins.",
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


def run_options(
    state: Path, maps: list[str] | None, ca: list[Path] | None, concurrency: int
) -> "RunOptions":
    from certs.errors import CertsError
    from certs.hosts import HostMap
    from emulator.errors import ConfigurationError
    from emulator.fleet.run import RunOptions, read_authorities

    try:
        hosts = HostMap.parse(maps or [])
    except CertsError as error:
        raise ConfigurationError("--map", [str(error)]) from error
    return RunOptions(
        state=state,
        hosts=hosts,
        authorities=read_authorities(ca or []),
        concurrency=concurrency,
    )


def record(outcome: "Outcome") -> dict[str, Any]:
    return dataclasses.asdict(outcome)


def finish(
    outcomes: "list[Outcome]", steps: "dict[str, StepSummary]", json_file: Path | None
) -> NoReturn:
    """Print the result and exit: 0 only if every device did what was asked."""
    from emulator.tables import print_devices, print_steps

    records = [record(outcome) for outcome in outcomes]
    if json_file is not None:
        write(json_file, json.dumps({"devices": records, "steps": steps}, indent=2) + "\n")
    if json_file != Path("-"):
        print_devices(records)
        print()
        print_steps(steps)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{len(outcomes)} devices, {failed} failed", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


def write(file: Path, text: str) -> None:
    if file == Path("-"):
        sys.stdout.write(text)
    else:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            refuse(f"--json {file}: cannot be written: {error}")


class Commands(TyperGroup):
    """The commands, of which each ends in one line and an exit code when something is wrong."""

    def invoke(self, ctx: Any) -> Any:
        from certs.errors import CertsError
        from emulator.errors import ConfigurationError, EmulatorError

        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            refuse(str(error))
        except (EmulatorError, CertsError) as error:
            print(f"mdm-emulator: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            print(
                "mdm-emulator: interrupted; the same command goes on where it was", file=sys.stderr
            )
            raise typer.Exit(1) from None


def refuse(text: str) -> NoReturn:
    print(f"mdm-emulator: {text}", file=sys.stderr)
    raise typer.Exit(2)


def log_to_stderr(level: str) -> None:
    import logging

    from certs import logs

    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        refuse(f"--log {level}: expected debug, info, warning or error")
    logs.log_to_stderr(number)
