"""`mdm-emulator`: virtual iPhones and iPads for testing an MDM server that you own.

Results go to stdout or `--json FILE`, progress and logs to stderr. Exit 0: all that was asked for happened; 1: some of
it failed; 2: usage. Heavy modules are imported inside the commands that need them.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from certs.event_loop import run_program
from emulator.cli import apple, device, fleet, portal, trust
from emulator.cli.options import (
    DEFAULT_STATE,
    Authorities,
    Commands,
    JsonFile,
    LogLevel,
    Maps,
    State,
    log_to_stderr,
    refuse,
    run_options,
    write,
)

app = typer.Typer(
    cls=Commands,
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    log_to_stderr(level)
    from emulator.demo import DemoOptions, run_demo, to_json
    from emulator.tables import print_devices, print_steps

    report, as_planned = run_program(run_demo(DemoOptions(devices=devices, seed=seed)))
    if json_file is not None:
        write(json_file, to_json(report))
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


app.command("enroll")(fleet.enroll)
app.command("check-in")(fleet.check_in)
app.command("listen")(fleet.listen)
app.add_typer(device.app, name="device")
app.add_typer(apple.app, name="apple")
app.add_typer(portal.app, name="portal")
app.add_typer(trust.app, name="trust")


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="Which file: fleet, apple or portal.")] = "fleet",
) -> None:
    """Print the JSON Schema of a file, for editors and for reading."""
    match kind:
        case "fleet":
            from emulator.fleet.fleet import FleetFile as Model
        case "apple":
            from emulator.apple.serve_file import AppleFile as Model  # type: ignore[assignment]
        case "portal":
            from emulator.apple.portal import Portal as Model  # type: ignore[assignment]
        case _:
            refuse(f"schema: no file is called '{kind}' (fleet, apple, portal)")
    print(json.dumps(Model.model_json_schema(), indent=2))


@app.command()
def doctor(
    target: Annotated[
        str | None,
        typer.Option(help="Look at this server, too: its URL for automated enrollment."),
    ] = None,
    state: State = DEFAULT_STATE,
    maps: Maps = None,
    ca: Authorities = None,
) -> None:
    """Check this machine: Python, foreign packages of our names, file limits, TLS; and a server before a run.

    With --target: its name, TCP, TLS, clock, and whether it trusts our simulated devices.
    """
    log_to_stderr("error")
    from emulator.doctor import findings

    results = findings()
    if target is not None:
        from emulator.doctor_target import Target, target_findings
        from emulator.http import TrustSet

        options = run_options(state, maps, ca, 1)
        results += run_program(
            target_findings(
                Target(
                    url=target,
                    hosts=options.hosts,
                    trust=TrustSet(system=options.system_trust).with_roots(*options.authorities),
                    state=options.state,
                    clock=options.clock,
                )
            )
        )
    for finding in results:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.subject}: {finding.text}")
    raise typer.Exit(0 if all(finding.good for finding in results) else 1)


def main() -> None:
    """Entry point of the console script."""
    app()
