"""`mdm-server token …`: the steps of a server token from the shell, as requests to the management API of a running server."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

if TYPE_CHECKING:
    from certs.transport import HttpResponse

app = typer.Typer(
    help="Server tokens of a running server: make a key, upload, renew, sync, define a profile.",
    no_args_is_help=True,
)

Admin = Annotated[
    str,
    typer.Option(
        "--admin", help="http://HOST:PORT of the management API.", envvar="MDM_SERVER_ADMIN"
    ),
]
TokenFile = Annotated[
    Path,
    typer.Option(
        "--admin-token", help="File with the admin token.", envvar="MDM_SERVER_ADMIN_TOKEN"
    ),
]
TokenId = Annotated[str, typer.Argument(help="As `token list` shows it.")]


@app.command("key")
def make_key(
    admin: Admin,
    admin_token: TokenFile,
    consent: Annotated[
        bool, typer.Option(help="I agree that Apple's side is told about devices.")
    ] = False,
    pem: Annotated[Path, typer.Option(help="Where to put the certificate.")] = Path(
        "mdm-server.pem"
    ),
    renew: Annotated[str | None, typer.Option(help="A new key for this token.")] = None,
) -> None:
    """Make a key pair and download its certificate, to be uploaded in the portal."""
    content = {"consent": consent, **({"token_id": renew} if renew else {})}
    key = _json(_call(admin, admin_token, "POST", "/v1/token-keys", content))
    certificate = _call(
        admin, admin_token, "GET", f"/v1/token-keys/{key['key_id']}/certificate.pem"
    )
    pem.write_bytes(certificate.body)
    typer.echo(f"certificate in {pem}: upload it in the portal, then")
    typer.echo(
        f"mdm-server token renew {renew} FILE.p7m --key {key['key_id']}"
        if renew
        else f"mdm-server token create {key['key_id']} FILE.p7m"
    )


@app.command()
def create(
    key: Annotated[str, typer.Argument(help="As `token key` printed it.")],
    file: Annotated[Path, typer.Argument(help="The .p7m that the portal made.")],
    admin: Admin,
    admin_token: TokenFile,
    name: str = "Server token",
    apple_id: Annotated[str, typer.Option(help="Who made it; kept with the token.")] = "",
) -> None:
    """Upload a server token; its first sync starts by itself."""
    query = urlencode({"name": name, "apple_id": apple_id})
    path = f"/v1/token-keys/{key}/token?{query}"
    _print(_call(admin, admin_token, "POST", path, _file(file)))


@app.command()
def renew(
    token: TokenId,
    file: Annotated[Path, typer.Argument(help="The newer .p7m.")],
    admin: Admin,
    admin_token: TokenFile,
    key: Annotated[str | None, typer.Option(help="If it was made for another key.")] = None,
    force: Annotated[
        bool, typer.Option(help="Take another consumer key, or an older file.")
    ] = False,
) -> None:
    """Replace a server token by a newer one of the same server."""
    query = urlencode({**({"key": key} if key else {}), **({"force": "1"} if force else {})})
    _print(_call(admin, admin_token, "PUT", f"/v1/tokens/{token}/token?{query}", _file(file)))


@app.command("list")
def show(admin: Admin, admin_token: TokenFile) -> None:
    """Every token: until when it is good, how many devices, how its latest sync ended."""
    for token in _json(_call(admin, admin_token, "GET", "/v1/tokens"))["tokens"]:
        latest = token["sync"]["latest"] or {}
        error = token["error"] or {}
        typer.echo(
            f"{token['token_id']}  {token['name']}  {token['state']} {error.get('word', '')}"
            f"  until {token['expires_at']}  {token['devices']['listed']} devices"
            f"  sync {latest.get('kind', '-')} {latest.get('state', '-')}"
        )
        for warning in token["warnings"]:
            typer.echo(f"  {warning}")


@app.command()
def sync(
    token: TokenId,
    admin: Admin,
    admin_token: TokenFile,
    full: Annotated[bool, typer.Option(help="The whole list; every 7 days.")] = False,
) -> None:
    """Start a sync now."""
    content = {"kind": "full"} if full else {}
    _print(_call(admin, admin_token, "POST", f"/v1/tokens/{token}/sync", content))


@app.command()
def profile(
    token: TokenId,
    admin: Admin,
    admin_token: TokenFile,
    file: Annotated[
        Path | None, typer.Argument(help="JSON with the assignment API's keys; none: our own.")
    ] = None,
    default: Annotated[bool, typer.Option(help="For every device without one.")] = False,
) -> None:
    """Define a profile that sends devices to this server."""
    fields: dict[str, Any] = {}
    if file is not None:
        try:
            fields = json.loads(_file(file))
        except ValueError as error:
            raise _mistake(f"{file}: is not JSON: {error}") from error
    content = {**fields, "default": default}
    _print(_call(admin, admin_token, "POST", f"/v1/tokens/{token}/profiles", content))


def _call(
    admin: str, token_file: Path, method: str, path: str, content: object = None
) -> "HttpResponse":
    from certs.clock import SystemClock
    from certs.errors import CertsError
    from emulator.http import HttpDoor, TrustSet

    headers = {"Authorization": f"Bearer {_file(token_file).decode(errors='replace').strip()}"}
    body = b""
    if isinstance(content, bytes):
        body, headers["Content-Type"] = content, "application/pkcs7-mime"
    elif content is not None:
        body, headers["Content-Type"] = json.dumps(content).encode(), "application/json"

    async def ask() -> "HttpResponse":
        async with HttpDoor(clock=SystemClock()).session(trust=TrustSet(system=True)) as session:
            return await session.request(
                method, admin.rstrip("/") + path, step="admin", headers=headers, body=body
            )

    try:
        answer = asyncio.run(ask())
    except CertsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if answer.status >= 300:
        typer.echo(_words(answer), err=True)
        raise typer.Exit(1)
    return answer


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _mistake(f"{path}: cannot be read: {error.strerror}") from error


def _mistake(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(2)


def _words(answer: "HttpResponse") -> str:
    try:
        return str(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status}"


def _json(answer: "HttpResponse") -> Any:
    return json.loads(answer.body)


def _print(answer: "HttpResponse") -> None:
    typer.echo(json.dumps(_json(answer), indent=2))
