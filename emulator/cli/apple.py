"""`mdm-emulator apple serve`: the stand-ins for Apple's services as a program of their own."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certs.event_loop import run_program
from emulator.cli.options import LogLevel, log_to_stderr

if TYPE_CHECKING:
    from emulator.apple.serve_file import AppleFile
    from emulator.apple.serving import Serving

app = typer.Typer(
    help="The stand-ins for Apple's services, as a program that servers and fleets use.",
    no_args_is_help=True,
)


@app.callback()
def apple() -> None:
    """The stand-ins for Apple's services, as a program that servers and fleets use."""


@app.command("serve")
def serve(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Settings (YAML; see `mdm-emulator schema apple`). None: an empty portal."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps anchors, portal, tokens and devices; without it all is lost at the end."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of services and push.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the services (9443); 0: any free one.")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of the administration (9444), on loopback.")
    ] = None,
    push_port: Annotated[
        int | None, typer.Option(help="Port of the push provider API (9445).")
    ] = None,
    proxy_port: Annotated[
        str | None,
        typer.Option(
            help="Port of the proxy for servers whose Apple URLs are fixed (9446), or off."
        ),
    ] = None,
    level: LogLevel = "info",
) -> None:
    """Serve activation, cloud configuration, attestation, device assignment and push until Ctrl-C.

    Prints where everything is, and for each server product the settings that point it here. An option goes before the same
    key of the file. Exit 0: it was ended; 1: a port is taken; 2: a mistake in file or options.
    """
    log_to_stderr(level)
    from emulator.apple.serve_file import read

    options: dict[str, Any] = {
        "state": state,
        "host": host,
        "port": port,
        "admin_port": admin_port,
        "push_port": push_port,
        "proxy_port": proxy_port,
    }
    settings = read(file, **{key: value for key, value in options.items() if value is not None})
    with contextlib.ExitStack() as stack:
        folder = settings.state or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mdm-apple-"))
        )
        run_program(_serve(settings, folder))


async def _serve(settings: "AppleFile", folder: Path) -> None:
    from certs.clock import SystemClock
    from emulator.apple.serving import Serving

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    keep = settings.state is not None
    async with Serving(settings, folder, SystemClock(), keep=keep) as serving:
        _print(serving)
        sys.stdout.flush()
        await stop.wait()


def _print(serving: "Serving") -> None:
    from emulator.apple.pointers import fleet_section, pointers

    at, state = serving.addresses, serving.state.absolute()
    rows = [
        ("services", at.url),
        ("push", at.push_url),
        ("push without TLS", at.push_plain_url),
        ("proxy", at.proxy_url),
        ("administration", at.admin_url),
        ("admin token", f"in {at.token_file}"),
        ("TLS root", at.tls_root),
        ("proxy and TLS roots", at.trust_bundle),
        ("all anchors", f"{at.anchors} (README.md there: which server takes which)"),
    ]
    for label, value in rows:
        if value is not None:
            print(f"{label:<21}{value}")
    print(f"\nfleet, with --apple {state} or in its file:")
    for line in fleet_section(at):
        print(f"  {line}")
    for product, lines in pointers(at, state).items():
        print(f"\n{product}:")
        for line in lines:
            print(f"  {line}")
    kept = "kept there" if serving.file.state else "gone at the end: --state keeps it"
    print(f"\nstate in {state} ({kept}); Ctrl-C ends it")
