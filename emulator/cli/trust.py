"""`mdm-emulator trust …`: what a server under test has to trust before it believes our devices."""

from pathlib import Path
from typing import Annotated

import typer

from emulator.cli.options import DEFAULT_STATE, State, refuse

app = typer.Typer(help="The trust anchors of the simulated devices.", no_args_is_help=True)


@app.callback()
def trust() -> None:
    """The trust anchors of the simulated devices."""


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write the PEM files.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Write each anchor as PEM, and a README.md that says which server takes which; no private key is among them.

    The README has a table for NanoMDM, NanoDEP, MicroMDM, Fleet, Zentral, step-ca and mdmserver, with the values to paste.
    The PKI of --state is made when there is none yet; a running `apple serve --state` has the same.
    """
    from certs.clock import SystemClock
    from emulator.apple import trust_guide
    from emulator.apple.pki import SimPKI

    try:
        pki = SimPKI.open(state / "apple", SystemClock())
    except OSError as error:
        refuse(f"trust export: --state {state}: cannot be used: {error.strerror}")
    uses = {**trust_guide.USES, trust_guide.README: "which server takes which, ready to paste"}
    try:
        written = trust_guide.export(pki, folder)
    except OSError as error:
        refuse(f"trust export {folder}: cannot be written: {error.strerror}")
    for path in written:
        print(f"{path}  {uses.get(path.name, '')}".rstrip())
