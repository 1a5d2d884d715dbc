"""`mdm-emulator portal server …`, `token …` and `push-certificate`: MDM servers, and the files that they are given."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emulator.cli.options import refuse
from emulator.cli.portal_client import PortalClient, client, keep, read

if TYPE_CHECKING:
    from certs.transport import HttpResponse

server = typer.Typer(
    help="MDM servers: made, listed, blocked, taken away, and what they asked.",
    no_args_is_help=True,
)
token = typer.Typer(
    help="Server tokens: the .p7m file for a server's certificate, renewed or taken back.",
    no_args_is_help=True,
)

Server = Annotated[
    str, typer.Argument(help="Name, ORGANIZATION/NAME where names repeat, or UUID of the server.")
]
Certificate = Annotated[
    Path | None,
    typer.Option(help="PEM of the server's RSA key; token files are sealed for it from now on."),
]
Out = Annotated[Path, typer.Option(help="Where the file goes; made for its owner only.")]
By = Annotated[str | None, typer.Option(help="Apple ID of who does it; none: the first who may.")]


class Cipher(StrEnum):
    """Of token files; Apple's are aes128."""

    AES128 = "aes128"
    AES256 = "aes256"
    DES3 = "des3"


class Lengths(StrEnum):
    """Of token files; Apple's are indefinite (BER)."""

    INDEFINITE = "indefinite"
    DEFINITE = "definite"


class Form(StrEnum):
    """What a token file is."""

    P7M = "p7m"
    JSON = "json"


@server.command("list")
def server_list(context: typer.Context) -> None:
    """Every server: devices, and until when its token is good."""
    for one in client(context).servers():
        held = one["token"]
        state = "no token" if held is None else f"token until {held['expires']}"
        if held is not None and held["expired"]:
            state += ", EXPIRED"
        blocked = "  BLOCKED" if one["blocked"] else ""
        print(
            f"{one['uuid']}  {one['organization']}/{one['name']}  {one['devices']} devices  {state}{blocked}"
        )


@server.command("show")
def server_show(context: typer.Context, server: Server) -> None:
    """One server as JSON; no secret is in it."""
    _print(client(context).server(server))


@server.command("add")
def server_add(
    context: typer.Context,
    organization: Annotated[str, typer.Argument(help="Whose server it is.")],
    name: Annotated[str, typer.Argument(help="Its name in the portal.")],
    certificate: Certificate = None,
    out: Annotated[
        Path | None, typer.Option(help="With --certificate: where its first token file goes.")
    ] = None,
    uuid: Annotated[
        str | None, typer.Option(help="Derived from the names where it is left out.")
    ] = None,
    by: By = None,
) -> None:
    """Add an MDM server; with its certificate, download its first token file, too."""
    if (certificate is None) != (out is None):
        refuse("portal server add: --certificate and --out belong together")
    content = _said(
        organization=organization,
        name=name,
        uuid=uuid,
        by=by,
        certificate=None if certificate is None else read(certificate),
    )
    desk = client(context)
    answer = desk.fetch("POST", "/portal/servers", content)
    if out is not None:
        _download(answer, out)
    location = (answer.header("location") or "").rpartition("/")[2]
    _print(desk.call("GET", f"/portal/servers/{location}"))


@server.command("remove")
def server_remove(context: typer.Context, server: Server) -> None:
    """Take a server away; its devices stay with the organization."""
    desk, uuid = _found(context, server)
    _print(desk.call("DELETE", f"/portal/servers/{uuid}"))


@server.command("block")
def server_block(
    context: typer.Context,
    server: Server,
    blocked: Annotated[bool, typer.Option("--on/--off", help="Off: it may ask again.")] = True,
) -> None:
    """Block a server: every request gets 403 ACCESS_DENIED."""
    desk, uuid = _found(context, server)
    _print(desk.call("PATCH", f"/portal/servers/{uuid}", {"blocked": blocked}))


@server.command("calls")
def server_calls(context: typer.Context, server: Server) -> None:
    """The last 100 requests of a server, oldest first."""
    desk, uuid = _found(context, server)
    for call in desk.call("GET", f"/portal/servers/{uuid}/calls")["calls"]:
        print(
            f"{call['at']}  {call['status']}  {call['step']}  {call['outcome']}  {call['devices']} devices"
        )


@token.command("issue")
def token_issue(
    context: typer.Context,
    server: Server,
    out: Out,
    certificate: Certificate = None,
    by: By = None,
    new_consumer_key: Annotated[
        bool, typer.Option("--new-consumer-key", help="As a renewal by another person may bring.")
    ] = False,
    cipher: Annotated[Cipher, typer.Option(help="Of the file.")] = Cipher.AES128,
    lengths: Annotated[Lengths, typer.Option(help="Of the file.")] = Lengths.INDEFINITE,
    form: Annotated[
        Form, typer.Option("--format", help="json: what is inside, for servers that take no file.")
    ] = Form.P7M,
) -> None:
    """Download a server's token as a .p7m file; the token before it is over at once.

    The file is sealed for the certificate that the server made (its public key, PEM), kept for renewals.
    """
    _issue(
        context,
        server,
        out,
        certificate=None if certificate is None else read(certificate),
        by=by,
        new_consumer_key=new_consumer_key,
        cipher=cipher.value,
        lengths=lengths.value,
        format=form.value,
    )


@token.command("renew")
def token_renew(context: typer.Context, server: Server, out: Out, by: By = None) -> None:
    """Download a newer token for the certificate that is there, with the same consumer key and a year to go."""
    _issue(context, server, out, by=by)


@token.command("invalidate")
def token_invalidate(context: typer.Context, server: Server) -> None:
    """Take the token back: the server's next request is refused."""
    desk, uuid = _found(context, server)
    _print(desk.call("DELETE", f"/portal/servers/{uuid}/token"))


def push_certificate(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="Starts with com.apple.mgmt.")],
    out: Annotated[
        Path, typer.Option(help="Where certificate and key go, as PEM; for its owner only.")
    ],
    csr: Annotated[
        Path | None, typer.Option(help="PEM request of a key that exists; no key is written then.")
    ] = None,
    days: Annotated[float, typer.Option(help="How long it is good.")] = 365,
) -> None:
    """Make an MDM push certificate, as Apple's push certificates portal does; its topic is what devices listen to."""
    content = _said(topic=topic, days=days, csr=None if csr is None else read(csr))
    answer = client(context).call("POST", "/push/certificates", content)
    keep(out, (answer["certificate"] + answer.get("private_key", "")).encode())
    print(f"{out}  push certificate for {topic}")


def _issue(context: typer.Context, server: str, out: Path, **said: object) -> None:
    desk, uuid = _found(context, server)
    _download(desk.fetch("POST", f"/portal/servers/{uuid}/token", _said(**said)), out)
    held = desk.call("GET", f"/portal/servers/{uuid}")["token"]
    print(f"{out}  token of {server}, good until {held['expires']}")


def _download(answer: "HttpResponse", out: Path) -> None:
    keep(out, answer.body)


def _found(context: typer.Context, name: str) -> tuple[PortalClient, str]:
    desk = client(context)
    return desk, str(desk.server(name)["uuid"])


def _said(**options: object) -> dict[str, object]:
    return {key: value for key, value in options.items() if value is not None}


def _print(answer: Any) -> None:
    print(json.dumps(answer, indent=2))
