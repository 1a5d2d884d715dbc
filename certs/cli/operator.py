"""`mdm-certs requests`, `approve`, `deny`: an operator decides on SCEP requests that wait for `serve --approval manual`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from certs.cli.init import DEFAULT_FOLDER

Folder = Annotated[Path, typer.Option(help="The folder of the CA that serves.")]
Transaction = Annotated[
    str, typer.Argument(help="transactionID, as `mdm-certs requests` shows it.")
]


def requests(folder: Folder = DEFAULT_FOLDER) -> None:
    """Show the SCEP requests that wait for a decision, oldest first: transactionID, seconds, polls, key, subject."""
    from certs.errors import CertsError
    from certs.operator_door import Operator

    try:
        waiting = Operator.read(folder).waiting()
    except CertsError as error:
        _failed(str(error))
    for one in waiting:
        typer.echo(
            f"{one['transaction_id']}  {one['waited_s']} s  {one['polls']} polls  "
            f"key {one['key_sha256'][:16]}  {one['subject']}"
        )


def approve(transaction: Transaction, folder: Folder = DEFAULT_FOLDER) -> None:
    """Let a request that waits have its certificate; the client gets it at its next poll."""
    _decide(folder, transaction, "approve")


def deny(transaction: Transaction, folder: Folder = DEFAULT_FOLDER) -> None:
    """Refuse a request that waits; the client gets badRequest at its next poll."""
    _decide(folder, transaction, "deny")


def _decide(folder: Path, transaction: str, decision: str) -> None:
    from certs.errors import CertsError
    from certs.operator_door import Operator

    try:
        Operator.read(folder).decide(transaction, decision)
    except CertsError as error:
        _failed(str(error))


def _failed(reason: str) -> NoReturn:
    """One line, exit 1: nothing was decided."""
    typer.echo(f"mdm-certs: {reason}", err=True)
    raise typer.Exit(1)
