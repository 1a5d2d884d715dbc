"""`mdm-emulator trust …`: what a server under test has to trust before it believes our devices."""

from pathlib import Path
from typing import Annotated, Final

import typer

from emulator.cli.options import DEFAULT_STATE, State

app = typer.Typer(help="The trust anchors of the simulated devices.", no_args_is_help=True)

USES: Final = {
    "sim-apple-root-ca.pem": "signers of MachineInfo lead here (in place of Apple Root CA)",
    "sim-iphone-device-ca.pem": "issues the identities that sign MachineInfo",
    "sim-attestation-root-ca.pem": "ACME device attestations lead here",
    "sim-attestation-sub-ca.pem": "issues the attestations",
    "sim-tls-ca.pem": "issues the TLS certificates of the stand-ins",
    "sim-apns-ca.pem": "issues push certificates",
    "sim-activation-service-key.pem": "signs activation handshakes (devices check it)",
}


@app.callback()
def trust() -> None:
    """The trust anchors of the simulated devices."""


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write the PEM files.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Write each anchor as PEM; no private key is among them. The PKI of --state is made when there is none yet."""
    from certs.clock import SystemClock
    from emulator.apple.pki import SimPKI

    for path in SimPKI.open(state / "apple", SystemClock()).export(folder):
        print(f"{path}  {USES.get(path.name, '')}".rstrip())
