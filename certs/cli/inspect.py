"""`mdm-certs inspect`: says in words what files hold, and what is wrong with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certs.cli.input import read, read_certificates, read_secret, stop

if TYPE_CHECKING:
    from certs.identity import Identity


def inspect(
    file: Annotated[list[Path], typer.Argument(help="Any file of this world, or - for stdin.")],
    ca: Annotated[
        list[Path] | None,
        typer.Option(help="PEM file with roots that certificates must lead to. Repeatable."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="PEM file with key and certificate that opens envelopes. Repeatable."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Holds the password of a PKCS#12 or key.")
    ] = None,
) -> None:
    """Read pkiMessages, CertReps, attestation objects, profiles, .p7m, requests, certificates, CRLs, PKCS#12 and more.

    Secrets show as length and hash. Exit 0 when nothing is wrong, 1 when something is, 2 when a file cannot be opened.
    """
    import sys
    from datetime import UTC, datetime

    from certs.inspection import files
    from certs.inspection.report import Context

    context = Context(
        at=datetime.now(UTC),
        roots=read_certificates(ca),
        identities=[_identity(path) for path in key or []],
        password=read_secret(password_file) if password_file is not None else None,
    )
    wrong = False
    for path in file:
        data = sys.stdin.buffer.read(files.MAX_FILE_BYTES + 1) if str(path) == "-" else read(path)
        report = files.inspect(data, context)
        if len(file) > 1:
            typer.echo(f"{path}:")
        for line in report.lines:
            typer.echo(line)
        for problem in report.problems:
            typer.echo(f"wrong: {problem}")
        wrong = wrong or bool(report.problems)
    raise typer.Exit(1 if wrong else 0)


def _identity(path: Path) -> "Identity":
    from certs.errors import MalformedMessage
    from certs.identity import Identity

    try:
        return Identity.from_own_pem(read(path))
    except MalformedMessage as error:
        stop(f"{path}: {error}")
