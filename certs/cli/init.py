"""`mdm-certs init`: makes a CA folder, or brings an existing one up to date."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from certs.cli.input import stop
from certs.logs import log_to_stderr

DEFAULT_FOLDER = Path("mdm-ca")
DEFAULT_NAME = "MDM Test CA"
DEFAULT_HOSTS = ["localhost", "127.0.0.1", "::1"]
MAX_DAYS = 36500  # of a certificate; its CA ends before that


class CaKey(StrEnum):
    """What `--ca-key` knows."""

    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    P256 = "p256"
    P384 = "p384"


def init(
    folder: Annotated[
        Path, typer.Option(help="Where the CA lives; made if missing.", file_okay=True)
    ] = DEFAULT_FOLDER,
    name: Annotated[
        str, typer.Option(help="Common name of a new CA; one that is there keeps its own.")
    ] = DEFAULT_NAME,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS name or IP address of the TLS server identity; may be repeated.",
            show_default="localhost, 127.0.0.1 and ::1",
        ),
    ] = None,
    roll_over: Annotated[
        bool, typer.Option("--roll-over", help="Make the next generation of a CA that is there.")
    ] = False,
    ca_key: Annotated[
        CaKey,
        typer.Option(help="Key of a new CA. Every SCEP client can use rsa2048; p256 is faster."),
    ] = CaKey.RSA2048,
) -> None:
    """Make a CA folder: root CA, RSA registration authority for SCEP, TLS server identity.

    Run again, it keeps what is there, makes what is missing, and renews what is about to expire or is for other hosts.
    Nothing is installed system-wide: whoever is to trust the CA is given root.pem.
    """
    from certs.clock import SystemClock
    from certs.errors import CertsError
    from certs.folder import CaFolder

    log_to_stderr()
    try:
        opened = CaFolder.open(
            folder,
            name,
            host or DEFAULT_HOSTS,
            clock=SystemClock(),
            roll_over=roll_over,
            ca_key=ca_key.value,
        )
    except CertsError as error:
        stop(str(error))
    except ValueError as error:
        stop(f"--name or --host cannot stand in a certificate: {error}")
    except OSError as error:
        stop(f"{error.filename or folder}: {error.strerror}; name another --folder")
    width = max(len(entry.what) for entry in opened.entries)
    for entry in opened.entries:
        typer.echo(f"{entry.what:<{width}}  {entry.state:<7}  {entry.path}")
