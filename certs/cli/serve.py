"""`mdm-certs serve`: SCEP and ACME alone, for anybody's tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certs.cli.init import DEFAULT_FOLDER, DEFAULT_HOSTS, DEFAULT_NAME, MAX_DAYS
from certs.cli.input import read_certificates, read_secret, stop
from certs.logs import log_to_stderr

if TYPE_CHECKING:
    from certs.authorize import Approval
    from certs.folder import CaFolder
    from certs.serving import ServeOptions


AT, SCEP, ACME = "Where", "SCEP", "ACME"


def serve(
    folder: Annotated[
        Path, typer.Option(help="Where the CA lives; made if missing.", rich_help_panel=AT)
    ] = DEFAULT_FOLDER,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Anything but loopback opens the doors to others.",
            rich_help_panel=AT,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Port for HTTP: SCEP, ACME and the revocation list; 0 takes a free one.",
            rich_help_panel=AT,
        ),
    ] = 0,
    https_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Port for HTTPS, with the TLS identity of the CA folder; 0 takes a free one.",
            rich_help_panel=AT,
        ),
    ] = 0,
    days: Annotated[
        float,
        typer.Option(
            min=0,
            max=MAX_DAYS,
            help="How long certificates are valid, at most as the CA.",
            rich_help_panel=AT,
        ),
    ] = 365,
    challenge_file: Annotated[
        Path | None,
        typer.Option(
            help="Holds the challenge password in its first line.",
            show_default="challenge in the CA folder, made there once",
            rich_help_panel=SCEP,
        ),
    ] = None,
    no_challenge: Annotated[
        bool,
        typer.Option("--no-challenge", help="Nobody is asked for one.", rich_help_panel=SCEP),
    ] = False,
    approval: Annotated[
        str | None,
        typer.Option(
            metavar="manual|SECONDS",
            help="Requests wait (PENDING) until `mdm-certs approve` or `deny`, or for so many seconds.",
            show_default="decided at once",
            rich_help_panel=SCEP,
        ),
    ] = None,
    devices: Annotated[
        Path | None,
        typer.Option(
            help="YAML: which devices may order: a list of {identifier, serial_number, udid}.",
            show_default="whoever is attested as the identifier",
            rich_help_panel=ACME,
        ),
    ] = None,
    attestation_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM: a root to which attestations must lead. Repeatable; without one, no attestation is good.",
            rich_help_panel=ACME,
        ),
    ] = None,
    allow_unattested: Annotated[
        bool,
        typer.Option(
            "--allow-unattested",
            help="Devices whose chip cannot attest get certificates, too.",
            rich_help_panel=ACME,
        ),
    ] = False,
    user_enrollment: Annotated[
        bool,
        typer.Option(
            "--user-enrollment",
            help="Attestations that name no device are good for entries of --devices with an identifier alone.",
            rich_help_panel=ACME,
        ),
    ] = False,
    eab: Annotated[
        Path | None,
        typer.Option(
            help="YAML: external accounts, a list of {key_id, hmac_key}. No other account is "
            "made then; Apple devices cannot name one.",
            show_default="every account is taken",
            rich_help_panel=ACME,
        ),
    ] = None,
    http01_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Where on loopback the proof of a DNS name is looked for, whatever the name; 0 refuses such orders.",
            rich_help_panel=ACME,
        ),
    ] = 80,
) -> None:
    """Serve SCEP, ACME and the revocation list of a CA folder until Ctrl-C, for anybody's tests.

    The URLs go to stdout, one line each; what clients do is logged on stderr. Every client trusts root.pem of the folder:

    mdm-certs serve --port 8080 --https-port 8443 --attestation-root sim-attestation-root-ca.pem

    mdm-certs serve --approval manual       # then: mdm-certs requests; mdm-certs approve ID

    mdm-certs serve --http01-port 5002      # then: certbot certonly --standalone --http-01-port 5002 --server URL
    """

    from certs import devices_file, external_accounts_file
    from certs.acme.http01 import LoopbackFetcher
    from certs.acme.policy import AcmePolicy
    from certs.authorize import StaticChallenge
    from certs.clock import SystemClock
    from certs.errors import CertsError
    from certs.event_loop import run_program
    from certs.folder import CaFolder
    from certs.serving import ServeOptions

    log_to_stderr()
    if user_enrollment and devices is None:
        stop("--user-enrollment needs --devices: nothing else says who has which identifier")
    try:
        hosts = list(dict.fromkeys([*DEFAULT_HOSTS, host]))
        opened = CaFolder.open(folder, DEFAULT_NAME, hosts, clock=SystemClock())
        known = devices_file.read(devices) if devices else devices_file.AnyAttestedDevice()
        options = ServeOptions(
            challenges=StaticChallenge(
                None if no_challenge else _challenge(folder, challenge_file)
            ),
            devices=known,
            attestation_roots=tuple(read_certificates(attestation_root)),
            allow_unattested=allow_unattested,
            approval=_approval(approval),
            certificate_days=days,
            acme=AcmePolicy(
                http01=LoopbackFetcher(http01_port) if http01_port else None,
                eab_keys=external_accounts_file.read(eab) if eab else {},
                user_enrollment=user_enrollment,
            ),
            host=host,
            port=port,
            https_port=https_port,
        )
        where = "nobody is asked" if no_challenge else f"in {challenge_file or folder / CHALLENGE}"
        run_program(_serve(opened, options, where))
    except CertsError as error:
        stop(str(error))
    except ValueError as error:
        stop(f"--host cannot stand in a certificate: {error}")
    except OSError as error:
        stop(f"{error.filename or host}: {error.strerror or error}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


CHALLENGE = "challenge"


def _approval(text: str | None) -> "Approval | None":
    """Who decides; None is at once."""
    from certs.clock import SystemClock
    from certs.scep.approval import ManualApproval, TimedApproval

    if text is None:
        return None
    if text == "manual":
        return ManualApproval()
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 86400:
        stop(f"--approval {text}: expected manual, or seconds below a day")
    return TimedApproval(SystemClock(), seconds=seconds)


def _challenge(folder: Path, given: Path | None) -> str:
    """The password of the file; one is made in the CA folder where no file is named."""
    import secrets

    from certs.whole_file import write_once

    if given is not None:
        password = read_secret(given)
        if not password:
            stop(f"{given}: holds no password in its first line")
        return password
    write_once(folder / CHALLENGE, secrets.token_urlsafe(18).encode() + b"\n")
    return read_secret(folder / CHALLENGE)


async def _serve(folder: "CaFolder", options: "ServeOptions", challenge: str) -> None:
    import asyncio
    import contextlib
    import signal

    from certs.clock import SystemClock
    from certs.serving import CertsServer

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    async with CertsServer(folder, options, clock=SystemClock()) as server:
        for what, value in (
            ("SCEP", server.scep_url),
            ("SCEP challenge", challenge),
            ("ACME directory", server.acme_directory),
            ("revocation list", folder.ca.crl_url),
            ("root to trust", folder.root),
        ):
            typer.echo(f"{what:<16}  {value}")
        if server.operator is not None:
            typer.echo(f"{'approval':<16}  mdm-certs requests --folder {folder.root.parent}")
        await stopped.wait()
