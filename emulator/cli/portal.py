"""`mdm-emulator portal …`: what a person does in Apple's portal with a mouse, at running stand-ins (`apple serve`).

Organisations, their people and terms, and whose devices are whose are here; servers and tokens in `portal_servers`.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from emulator.cli import portal_faults, portal_servers
from emulator.cli.options import RunningApple, refuse
from emulator.cli.portal_client import client

app = typer.Typer(no_args_is_help=True)
organization = typer.Typer(
    help="Organizations: made, listed, their terms of use.", no_args_is_help=True
)
person = typer.Typer(
    help="People: who may do what, and what happens to their Apple IDs.", no_args_is_help=True
)
app.add_typer(organization, name="organization")
app.add_typer(person, name="person")
app.add_typer(portal_servers.server, name="server")
app.add_typer(portal_servers.token, name="token")
app.add_typer(portal_faults.faults, name="faults")
app.command("push-certificate")(portal_servers.push_certificate)

Organization = Annotated[str, typer.Option("--organization", help="Who owns the devices.")]
Serials = Annotated[list[str], typer.Argument(help="Serial numbers.")]
Named = Annotated[str, typer.Argument(help="Name of the organization.")]
AppleId = Annotated[str, typer.Argument(help="Apple ID of the person.")]


class Role(StrEnum):
    """What a person may do; the first two download tokens and assign devices."""

    ADMINISTRATOR = "administrator"
    DEVICE_ENROLLMENT_MANAGER = "device_enrollment_manager"
    PEOPLE_MANAGER = "people_manager"
    CONTENT_MANAGER = "content_manager"
    STAFF = "staff"


@app.callback()
def portal(
    context: typer.Context,
    apple: RunningApple = None,
    admin: Annotated[
        str | None,
        typer.Option(
            envvar="MDM_EMULATOR_ADMIN",
            help="Instead of --apple: http://HOST:PORT of the administration.",
        ),
    ] = None,
    admin_token: Annotated[
        Path | None,
        typer.Option(
            envvar="MDM_EMULATOR_ADMIN_TOKEN",
            help="File that holds its bearer token, with --admin.",
        ),
    ] = None,
) -> None:
    """Apple's portal, for stand-ins that run (`mdm-emulator apple serve`).

    What a person does there with a mouse: organizations and their terms, people and their roles, MDM servers and their
    token files, devices assigned, unassigned and released, activation locks.

    A server token takes three commands:

    export MDM_EMULATOR_APPLE=./apple-state

    mdm-emulator portal server add "Example Inc" Production --certificate server.pem --out token.p7m

    mdm-emulator portal assign SERIAL SERIAL --organization "Example Inc" --server Production

    A year later `mdm-emulator portal token renew Production --out token.p7m` ends the token before at once, as Apple does.
    Exit 0: done; 1: the stand-ins said no, or are not there; 2: a mistake in what was typed.
    """
    context.obj = (apple, admin, admin_token)


@app.command()
def show(context: typer.Context) -> None:
    """The whole portal as JSON, in the shape of its file; `PUT /portal` takes it back."""
    _print(client(context).call("GET", "/portal"))


# ---- organizations and people ----


@organization.command("list")
def organization_list(context: typer.Context) -> None:
    """Every organization: servers, devices, terms."""
    for one in client(context).call("GET", "/portal")["organizations"]:
        servers = one["servers"]
        devices = sum(len(server["devices"]) for server in servers) + len(one["unassigned"])
        terms = "signed" if one.get("terms_signed", True) else "NOT SIGNED"
        print(f"{one['name']}  {len(servers)} servers  {devices} devices  terms {terms}")


@organization.command("add")
def organization_add(
    context: typer.Context,
    name: Named,
    email: Annotated[
        str | None, typer.Option(help="Contact; who acts where nobody is named.")
    ] = None,
    phone: Annotated[str | None, typer.Option(help="Contact.")] = None,
    org_id: Annotated[
        str | None, typer.Option(help="Derived from the name where it is left out.")
    ] = None,
    kind: Annotated[str, typer.Option("--type", help="org, edu or tvprovider.")] = "org",
) -> None:
    """Make an organization, or change its facts; its servers and devices stay."""
    facts = {"name": name, "email": email, "phone": phone, "org_id": org_id, "org_type": kind}
    content = {key: value for key, value in facts.items() if value is not None}
    _print(client(context).call("POST", "/portal/organizations", content))


@organization.command("terms")
def organization_terms(
    context: typer.Context,
    name: Named,
    signed: Annotated[
        bool,
        typer.Option(
            "--signed/--not-signed",
            help="Not signed: every request of its servers gets 403 T_C_NOT_SIGNED.",
        ),
    ],
) -> None:
    """Apple has new terms of use, and nobody has signed them yet; or somebody has."""
    path = f"/portal/organizations/{quote(name, safe='')}"
    _print(client(context).call("PATCH", path, {"terms_signed": signed}))


@person.command("add")
def person_add(
    context: typer.Context,
    organization: Named,
    apple_id: AppleId,
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.ADMINISTRATOR,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="MDM_EMULATOR_PASSWORD",
            help="Opens activation locks that servers put on without a bypass code.",
        ),
    ] = None,
) -> None:
    """Somebody comes, or gets another role. Where nobody is listed, anybody may do everything."""
    content = {"role": role.value, **({"password": password} if password else {})}
    _print(client(context).call("PUT", _person(organization, apple_id), content))


@person.command("password-changed")
def person_password_changed(context: typer.Context, organization: Named, apple_id: AppleId) -> None:
    """The person changed the password: tokens that the person downloaded are over."""
    _happens(context, organization, apple_id, {"event": "password_changed"})


@person.command("leave")
def person_leave(context: typer.Context, organization: Named, apple_id: AppleId) -> None:
    """The person leaves the organization: tokens that the person downloaded are over."""
    _happens(context, organization, apple_id, {"event": "left"})


@person.command("rename")
def person_rename(
    context: typer.Context,
    organization: Named,
    apple_id: AppleId,
    new: Annotated[str, typer.Argument(help="The new Apple ID.")],
) -> None:
    """The same person with another Apple ID; tokens stay good, `admin_id` is the new one."""
    _happens(context, organization, apple_id, {"event": "renamed", "apple_id": new})


def _happens(
    context: typer.Context, organization: str, apple_id: str, content: dict[str, str]
) -> None:
    _print(client(context).call("POST", f"{_person(organization, apple_id)}/events", content))


def _person(organization: str, apple_id: str) -> str:
    return f"/portal/organizations/{quote(organization, safe='')}/people/{quote(apple_id, safe='')}"


# ---- devices ----


@app.command()
def assign(
    context: typer.Context,
    serials: Serials,
    organization: Organization,
    server: Annotated[str, typer.Option(help="The MDM server that they go to.")],
    by: Annotated[str | None, typer.Option(help="Apple ID of who does it.")] = None,
    announce: Annotated[
        bool,
        typer.Option(
            "--announce/--silent",
            help="Silent: no sync tells of them, only a full fetch lists them (a known fault of bulk moves).",
        ),
    ] = True,
) -> None:
    """Assign devices to an MDM server; its next sync says `added`, and `deleted` at the server before."""
    content = {
        "organization": organization,
        "server": server,
        "serials": serials,
        "announce": announce,
        **({"by": by} if by else {}),
    }
    _print(client(context).call("POST", "/portal/devices", content))


@app.command()
def unassign(context: typer.Context, serials: Serials, organization: Organization) -> None:
    """Take devices from their MDM server; the organization keeps them."""
    content = {"organization": organization, "server": None, "serials": serials}
    _print(client(context).call("POST", "/portal/devices", content))


@app.command()
def release(
    context: typer.Context,
    serials: Serials,
    replaced: Annotated[
        bool, typer.Option("--replaced", help="They went back to Apple and were replaced.")
    ] = False,
) -> None:
    """Release devices from their organization, for good; its server's next sync says `deleted`."""
    content = {"serials": serials, "replaced": replaced}
    _print(client(context).call("POST", "/portal/devices/release", content))


@app.command()
def add(
    context: typer.Context,
    serials: Serials,
    organization: Organization,
    server: Annotated[str | None, typer.Option(help="The MDM server that they go to.")] = None,
) -> None:
    """Add devices as Apple Configurator does: for 30 days their users may leave again."""
    content = {"organization": organization, "server": server, "serials": serials}
    content = {key: value for key, value in content.items() if value is not None}
    _print(client(context).call("POST", "/portal/devices/configurator", content))


@app.command()
def device(context: typer.Context, serial: Annotated[str, typer.Argument()]) -> None:
    """One device as JSON: owner, server, profile, activation."""
    _print(client(context).call("GET", f"/registry/devices/{quote(serial, safe='')}"))


@app.command()
def lock(
    context: typer.Context,
    serial: Annotated[str, typer.Argument()],
    login: Annotated[str | None, typer.Option(help="Account that opens it.")] = None,
    password: Annotated[
        str | None, typer.Option(envvar="MDM_EMULATOR_PASSWORD", help="Of that account.")
    ] = None,
    bypass_code: Annotated[str | None, typer.Option(help="Opens it, too, or alone.")] = None,
    message: Annotated[str | None, typer.Option(help="What the lock page says.")] = None,
) -> None:
    """Put an activation lock on a device that exists; its next activation asks for it."""
    if login is None and bypass_code is None:
        refuse("portal lock: give --login, --bypass-code or both")
    if login is not None and password is None:
        password = typer.prompt("Password", hide_input=True)
    given = {"login": login, "password": password if login else None}
    content = {**given, "bypass_code": bypass_code, "message": message}
    content = {key: value for key, value in content.items() if value is not None}
    _print(client(context).call("POST", _lock(serial), content))


@app.command()
def unlock(context: typer.Context, serial: Annotated[str, typer.Argument()]) -> None:
    """Take the activation lock off."""
    _print(client(context).call("DELETE", _lock(serial)))


def _lock(serial: str) -> str:
    return f"/registry/devices/{quote(serial, safe='')}/activation-lock"


def _print(answer: Any) -> None:
    print(json.dumps(answer, indent=2))
