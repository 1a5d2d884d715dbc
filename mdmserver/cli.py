"""`mdm-server`: `serve` is the server as a program, `token` asks a running one. Heavy imports happen inside the command."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from certs.logs import log_to_stderr
from mdmserver import token_cli

if TYPE_CHECKING:
    from mdmserver.settings import Settings

app = typer.Typer(
    name="mdm-server",
    help="A minimal MDM server for testing on servers and devices you own.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(token_cli.app, name="token")


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="Settings, a YAML file.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for database, keys and token; without it all is lost at the end."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for devices; 0 takes a free one.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port for the management API; 0 takes a free one.")
    ] = None,
    apple_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM file: a root to which signers of MachineInfo must lead. Repeatable."
        ),
    ] = None,
    attestation_root: Annotated[
        list[Path] | None,
        typer.Option(help="PEM file: a root to which device attestations must lead. Repeatable."),
    ] = None,
    assignment_url: Annotated[
        str | None, typer.Option(help="Base URL of the device assignment API (a stand-in).")
    ] = None,
    assignment_root: Annotated[
        list[Path] | None,
        typer.Option(help="PEM file: a root to which that URL must lead. Repeatable."),
    ] = None,
) -> None:
    """Serve until Ctrl-C."""
    log_to_stderr()
    from certs.event_loop import run_program
    from emulator.errors import ConfigurationError

    overrides: dict[str, Any] = {
        name: value
        for name, value in (
            ("host", host),
            ("port", port),
            ("admin_port", admin_port),
            ("assignment_url", assignment_url),
        )
        if value is not None
    }
    try:
        settings = _settings(config, overrides)
        with contextlib.ExitStack() as stack:
            folder = state or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="mdm-server-"))
            )
            roots = (apple_root or [], attestation_root or [], assignment_root or [])
            run_program(_serve(settings, folder, *roots))
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


class Identities(StrEnum):
    """Which identities a roll-over is about."""

    SCEP = "scep"
    ACME = "acme"
    BOTH = "both"


@app.command()
def roll_over(
    state: Annotated[Path, typer.Option(help="Folder of a server that does not run now.")],
    identities: Annotated[Identities, typer.Option(help="Whose CA is replaced.")] = Identities.BOTH,
    config: Annotated[
        Path | None, typer.Option(help="Settings of that server, for its organization.")
    ] = None,
) -> None:
    """Give device identities a new CA from the next start on; devices of the old one stay accepted."""
    log_to_stderr()
    from certs.clock import SystemClock
    from certs.errors import CertsError
    from emulator.errors import ConfigurationError
    from mdmserver.authority import roll_over as make

    kinds: list[Literal["scep", "acme"]] = []
    if identities is not Identities.ACME:
        kinds.append("scep")
    if identities is not Identities.SCEP:
        kinds.append("acme")
    try:
        organization = _settings(config, {}).organization
        made = make(state, kinds, organization, clock=SystemClock())
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"cannot roll over: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    except CertsError as error:
        typer.echo(f"cannot roll over: {error}", err=True)
        raise typer.Exit(1) from error
    for name in made:
        typer.echo(f"from the next start on  {name}")


def _settings(config: Path | None, overrides: dict[str, Any]) -> "Settings":
    from emulator.settings_file import validate
    from mdmserver.settings import Settings, load

    settings = load(config) if config is not None else Settings()
    merged = {**settings.model_dump(), **overrides}
    return validate(merged, Settings, source=str(config or "options"))


async def _serve(
    settings: "Settings",
    state: Path,
    apple_roots: list[Path],
    attestation_roots: list[Path],
    assignment_roots: list[Path],
) -> None:
    from mdmserver.app import TOKEN_FILE, MdmServer
    from mdmserver.settings import read_certificates

    server = MdmServer(
        settings,
        state=state,
        machine_info_roots=read_certificates(
            [*settings.machine_info_roots, *apple_roots], "machine_info_roots"
        ),
        attestation_roots=read_certificates(
            [*settings.attestation_roots, *attestation_roots], "attestation_roots"
        ),
        assignment_roots=read_certificates(
            [*settings.assignment_roots, *assignment_roots], "assignment_roots"
        ),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with server:
        typer.echo(f"enrollment URL   {server.ade_url}")
        typer.echo(f"check-in URL     {server.url}/checkin")
        typer.echo(f"server URL       {server.url}/mdm")
        typer.echo(f"SCEP             {server.url}/scep")
        typer.echo(f"ACME directory   {server.url}/acme/directory")
        typer.echo(f"management API   {server.admin_url}/v1/devices")
        typer.echo(f"admin token      in {state / TOKEN_FILE}")
        typer.echo(f"TLS root         {state / 'authority' / 'tls' / 'certificate.pem'}")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Entry point of `mdm-server`."""
    app()


if __name__ == "__main__":
    main()
