"""Command `mdm-certs`: a private CA for tests, from the command line."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A private CA for testing MDM servers: keys, certificates, SCEP and ACME.",
)


@app.callback()
def _commands() -> None:
    """Keeps `init` a subcommand while it is the only one."""


@app.command()
def init(
    folder: Annotated[
        Path, typer.Option(help="Where the CA lives; made if missing.", file_okay=True)
    ] = Path("mdm-ca"),
    name: Annotated[
        str, typer.Option(help="Common name of a new CA; one that is there keeps its own.")
    ] = "MDM Test CA",
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS name or IP address of the TLS server identity; may be repeated.",
            show_default="localhost, 127.0.0.1 and ::1",
        ),
    ] = None,
) -> None:
    """Make a CA folder: root CA, RSA registration authority for SCEP, TLS server identity.

    Run again, it keeps what is there, makes what is missing, and renews what is about to expire or is for other hosts.
    Nothing is installed system-wide: whoever is to trust the CA is given root.pem.
    """
    import structlog

    from certs.clock import SystemClock
    from certs.errors import CertsError
    from certs.folder import CaFolder

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    hosts = host or ["localhost", "127.0.0.1", "::1"]
    try:
        opened = CaFolder.open(folder, name, hosts, clock=SystemClock())
    except CertsError as error:
        _stop(str(error))
    except ValueError as error:
        _stop(f"--name or --host cannot stand in a certificate: {error}")
    except OSError as error:
        _stop(f"{error.filename or folder}: {error.strerror}; name another --folder")
    width = max(len(entry.what) for entry in opened.entries)
    for entry in opened.entries:
        typer.echo(f"{entry.what:<{width}}  {entry.state:<7}  {entry.path}")


def _stop(reason: str) -> NoReturn:
    """One line on stderr, exit 2: nothing can be done with what was asked for."""
    typer.echo(f"mdm-certs: {reason}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
