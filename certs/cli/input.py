"""What commands read: files, passwords, certificates; and how they stop when that cannot be used."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from cryptography import x509


def stop(reason: str) -> NoReturn:
    """One line on stderr, exit 2: nothing can be done with what was asked for."""
    typer.echo(f"mdm-certs: {reason}", err=True)
    raise typer.Exit(2)


def read(path: Path, limit: int = 64 * 1024 * 1024) -> bytes:
    """The content of a file; stops where there is none, or too much."""
    try:
        if path.stat().st_size > limit:
            stop(f"{path}: more than {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        stop(f"{path}: {error.strerror}")


def read_secret(path: Path) -> str:
    """The first line of a file that holds a password."""
    try:
        return read(path, 64 * 1024).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        stop(f"{path}: is not text in UTF-8")


def read_certificates(paths: "list[Path] | None") -> "list[x509.Certificate]":
    """Every certificate of some PEM files."""
    from cryptography import x509

    found: list[x509.Certificate] = []
    for path in paths or []:
        try:
            found += x509.load_pem_x509_certificates(read(path))
        except ValueError:
            stop(f"{path}: holds no certificate in PEM")
    return found
