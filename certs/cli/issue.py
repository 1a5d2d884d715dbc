"""`mdm-certs issue`: one identity or server certificate from the folder's CA, with its key."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certs.cli.init import DEFAULT_FOLDER, DEFAULT_HOSTS, DEFAULT_NAME, MAX_DAYS
from certs.cli.input import read_secret, stop
from certs.logs import log_to_stderr

if TYPE_CHECKING:
    from certs.folder import CaFolder
    from certs.identity import Identity


class Kind(StrEnum):
    """What a certificate is for."""

    IDENTITY = "identity"  # of a device: TLS client and signer
    SERVER = "server"  # of a TLS server


class Key(StrEnum):
    """Which key is made."""

    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"


def issue(
    name: Annotated[
        str, typer.Argument(help="Common name, such as a UDID; a host name with --kind server.")
    ],
    folder: Annotated[Path, typer.Option(help="Where the CA lives.")] = DEFAULT_FOLDER,
    kind: Annotated[Kind, typer.Option(help="What the certificate is for.")] = Kind.IDENTITY,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Further name or address of a server certificate; may be repeated."),
    ] = None,
    serial: Annotated[
        str | None, typer.Option(help="Serial number of the device, for its subject.")
    ] = None,
    days: Annotated[
        float, typer.Option(min=0, max=MAX_DAYS, help="How long it is valid, at most as the CA.")
    ] = 365,
    key: Annotated[Key, typer.Option(help="The key that is made for it.")] = Key.P256,
    out: Annotated[
        Path | None,
        typer.Option(help="Files are OUT.pem, OUT.crt and OUT.p12.", show_default="the name"),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="Holds the password of the PKCS#12.", show_default="OUT.p12.password"),
    ] = None,
) -> None:
    """Issue one certificate: key, certificate and chain as PEM, the certificates alone, and a PKCS#12.

    Existing files are never replaced. Without --password-file a password is made and kept beside the PKCS#12.
    """
    import secrets

    from certs.clock import SystemClock
    from certs.errors import CertsError
    from certs.folder import CaFolder

    log_to_stderr()
    if not (folder / "ca" / "key.pem").is_file():
        stop(f"{folder} holds no CA: make one with mdm-certs init --folder {folder}")
    base = str(out) if out is not None else _file_name(name)
    made_password = password_file is None
    password_file = password_file or Path(f"{base}.p12.password")
    password = secrets.token_urlsafe(18) if made_password else read_secret(password_file)
    try:
        opened = CaFolder.open(folder, DEFAULT_NAME, DEFAULT_HOSTS, clock=SystemClock())
        identity = _issued(opened, name, kind, host or [], serial, days, key)
        files = [
            ("key, certificate and chain", Path(f"{base}.pem"), identity.to_pem(), 0o600),
            ("certificate and chain", Path(f"{base}.crt"), identity.certificates_pem(), 0o644),
            ("PKCS#12", Path(f"{base}.p12"), identity.to_pkcs12(password, name), 0o600),
        ]
        if made_password:
            line = password.encode() + b"\n"
            files.append(("password of the PKCS#12", password_file, line, 0o600))
        _write(files)
    except CertsError as error:
        stop(str(error))
    except ValueError as error:
        stop(f"cannot stand in a certificate: {error}")
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}")
    for what, path, _, _ in files:
        typer.echo(f"{what:<26}  {path}")


def _issued(
    opened: "CaFolder",
    name: str,
    kind: Kind,
    hosts: list[str],
    serial: str | None,
    days: float,
    key: Key,
) -> "Identity":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    from certs import names
    from certs.ca import issue_server_identity
    from certs.keys import generate

    made = generate(key.value)
    if kind is Kind.SERVER:
        if serial is not None:
            stop("--serial is for an identity")
        return issue_server_identity(opened.ca, [name, *hosts], made, days=days)
    if hosts:
        stop("--host is for --kind server")
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if serial is not None:
        if not serial:
            stop("--serial is empty")
        attributes.append(names.attribute(NameOID.SERIAL_NUMBER, serial))
    return opened.ca.issue_identity(made, x509.Name(attributes), days=days)


def _file_name(name: str) -> str:
    """The common name as a file's, without what leads elsewhere."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in name).strip(". ")
    return kept or "certificate"


def _write(files: list[tuple[str, Path, bytes, int]]) -> None:
    from certs.whole_file import write_once

    taken = [str(path) for _, path, _, _ in files if path.exists()]
    if taken:
        stop(f"{', '.join(taken)} exists: name others with --out")
    for _, path, data, mode in files:
        if write_once(path, data, mode) != data:
            stop(f"{path} exists: name others with --out")
