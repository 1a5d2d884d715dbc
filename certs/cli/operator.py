"""`mdm-certs requests`, `approve`, `deny`: an operator decides on SCEP requests that wait for `serve --approval manual`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from certs.cli.init import DEFAULT_FOLDER

Folder = Annotated[Path, typer.Option(help="The folder of the CA that serves.")]
Request = Annotated[
    str,
    typer.Argument(help="The request's id: what `mdm-certs requests` shows first.", metavar="ID"),
]


def requests(folder: Folder = DEFAULT_FOLDER) -> None:
    """Show the SCEP requests that wait for a decision, oldest first: id, seconds, polls, key, transactionID, subject."""
    from certs.errors import CertsError
    from certs.inspection.report import shortened
    from certs.operator_door import Operator

    try:
        waiting = Operator.read(folder).waiting()
    except CertsError as error:
        _failed(str(error))
    for one in waiting:
        typer.echo(
            f"{one['id']}  {one['waited_s']} s  {one['polls']} polls  key {one['key_sha256'][:16]}  "
            f"transaction {shortened(one['transaction_id'])}  {shortened(one['subject'])}"
        )


def approve(request: Request, folder: Folder = DEFAULT_FOLDER) -> None:
    """Let a request that waits have its certificate; the client gets it at its next poll."""
    _decide(folder, request, "approve")


def deny(request: Request, folder: Folder = DEFAULT_FOLDER) -> None:
    """Refuse a request that waits; the client gets badRequest at its next poll."""
    _decide(folder, request, "deny")


def _decide(folder: Path, request: str, decision: str) -> None:
    from certs.errors import CertsError
    from certs.operator_door import Operator

    try:
        Operator.read(folder).decide(request, decision)
    except CertsError as error:
        _failed(str(error))


def _failed(reason: str) -> NoReturn:
    """One line, exit 1: nothing was decided."""
    typer.echo(f"mdm-certs: {reason}", err=True)
    raise typer.Exit(1)
