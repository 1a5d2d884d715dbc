"""MDM servers of the portal over the admin API: made, renamed, blocked, taken away, and their token files (apple-services.md 5).

A token file leaves only in the answer that makes it; no other answer holds a secret.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, cast, get_args

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple import tokens
from emulator.apple.assignment_account import admin_of
from emulator.apple.claims import RegistryConflict
from emulator.apple.ledger import Ledger
from emulator.apple.portal import PortalServer
from emulator.apple.records import Organization, Server
from emulator.apple.registry import Registry, UnknownOwner
from emulator.apple.tokens import Lengths, TokenCipher
from emulator.settings_file import validate
from emulator.wire import json_object
from emulator.wire import token as wire
from emulator.wire.assignment import time_text
from emulator.wire.fields import Fields, optional, present, required

log = structlog.get_logger()

SERVERS: Final = "/portal/servers"
SERVER: Final = f"{SERVERS}/{{uuid}}"
TOKEN: Final = f"{SERVER}/token"
PAGE: Final = 1000
Format = Literal["p7m", "json"]


class ServerAdmin:
    """Handlers for the admin application, whose middleware turns errors into answers."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(SERVERS, self.servers),
            web.post(SERVERS, self.make),
            web.get(SERVER, self.server),
            web.patch(SERVER, self.change),
            web.delete(SERVER, self.remove),
            web.get(f"{SERVER}/calls", self.calls),
            web.post(TOKEN, self.issue),
            web.delete(TOKEN, self.invalidate),
        ]

    async def servers(self, request: web.Request) -> web.Response:
        """`GET /portal/servers?offset=&limit=`."""
        offset, limit = _count(request, "offset", 0), _count(request, "limit", PAGE)
        everything = list(self._registry.servers())
        return web.json_response(
            {
                "total": len(everything),
                "servers": [self._shown(*pair) for pair in everything[offset : offset + limit]],
            }
        )

    async def make(self, request: web.Request) -> web.Response:
        """`POST /portal/servers` {organization, name, certificate, uuid, profile, by}: one more server.

        With a certificate the answer is its first token file, and `Location` says where the server stands.
        """
        fields = await _fields(request)
        organization = self._organization(required(fields, "organization", str))
        options = _TokenOptions(fields)
        by = tokens.enroller(organization, optional(fields, "by", str))
        wanted = {key: fields[key] for key in ("name", "uuid", "profile") if key in fields}
        server = validate(wanted, PortalServer, source="server").to_server(organization.name)
        if server.name in organization.servers or server.uuid in self._registry.ledgers:
            raise RegistryConflict([f"server {server.name!r} or its UUID is there already"])
        certificate = _certificate(fields)
        ledger = self._registry.add_server(
            organization.name, server, admin_id=by, certificate=_der(certificate)
        )
        log.info("server_made", server=server.name, organization=organization.name, by=by)
        headers = {"Location": f"{SERVERS}/{server.uuid}"}
        if certificate is None and options.format == "p7m":
            return web.json_response(self._told(server.uuid), status=201, headers=headers)
        return self._token(ledger, options, by, status=201, headers=headers)

    async def server(self, request: web.Request) -> web.Response:
        return web.json_response(self._told(_uuid(request)))

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH` {blocked, admin_id, certificate}: `blocked` is ACCESS_DENIED until it is false again."""
        _, _, ledger = self._registry.server(_uuid(request))
        fields = await _fields(request)
        blocked = optional(fields, "blocked", bool)
        admin_id = optional(fields, "admin_id", str)
        certificate = _der(_certificate(fields))
        ledger.blocked = ledger.blocked if blocked is None else blocked
        ledger.admin_id = admin_id or ledger.admin_id
        ledger.certificate = certificate or ledger.certificate
        self._registry.touch(ledger)
        log.info("server_changed", server=ledger.name, blocked=ledger.blocked)
        return web.json_response(self._told(ledger.uuid))

    async def remove(self, request: web.Request) -> web.Response:
        """Its devices stay with the organisation, assigned to nobody."""
        uuid = _uuid(request)
        _, server, _ = self._registry.server(uuid)
        self._registry.remove_server(uuid, self._clock.now())
        log.info("server_removed", server=server.name)
        return web.json_response({"removed": uuid})

    async def calls(self, request: web.Request) -> web.Response:
        """`GET /portal/servers/{uuid}/calls`: the last requests of this server, oldest first."""
        _, _, ledger = self._registry.server(_uuid(request))
        return web.json_response(
            {
                "calls": [
                    {
                        "at": time_text(call.at),
                        "step": call.step,
                        "outcome": call.outcome,
                        "status": call.status,
                        "devices": call.devices,
                    }
                    for call in ledger.calls
                ]
            }
        )

    async def issue(self, request: web.Request) -> web.Response:
        """`POST …/token` {certificate, by, new_consumer_key, cipher, lengths, format}: the token anew.

        The one before is over as soon as this is answered (rule 120). `format` json is for servers that take no file.
        """
        _, _, ledger = self._registry.server(_uuid(request))
        fields = await _fields(request)
        options, certificate = _TokenOptions(fields), _certificate(fields)
        if certificate is not None:
            ledger.certificate = _der(certificate)
        return self._token(ledger, options, optional(fields, "by", str))

    async def invalidate(self, request: web.Request) -> web.Response:
        """`DELETE …/token`: the portal takes the token back."""
        _, _, ledger = self._registry.server(_uuid(request))
        ended = ledger.end_token("invalidated")
        self._registry.touch(ledger)
        log.info("token_invalidated", server=ledger.name, was_there=ended)
        return web.json_response({"invalidated": ended})

    def _token(
        self,
        ledger: Ledger,
        options: "_TokenOptions",
        by: str | None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> web.Response:
        organization = self._organization(ledger.organization)
        if options.format == "p7m" and ledger.certificate is None:
            raise MalformedMessage("certificate", "the certificate of the server's key, PEM")
        recipient = None
        if options.format == "p7m" and ledger.certificate is not None:
            recipient = tokens.recipient(ledger.certificate)
            tokens.check_recipient(recipient)
        now = self._clock.now()
        token = tokens.issue(
            self._registry,
            ledger,
            organization,
            now,
            by=by,
            new_consumer_key=options.new_consumer_key,
        )
        if recipient is None:
            return web.Response(
                body=wire.encode(token),
                content_type="application/json",
                status=status,
                headers=headers,
            )
        data = tokens.seal(token, recipient, cipher=options.cipher, lengths=options.lengths)
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in ledger.name)
        file = f"{name}_Token_{now:%Y-%m-%dT%H-%M-%SZ}_smime.p7m"
        return web.Response(
            body=data,
            content_type=wire.CONTENT_TYPE,
            status=status,
            headers={
                **(headers or {}),
                "Content-Disposition": f'attachment; filename="{file}"',
            },
        )

    def _organization(self, name: str) -> Organization:
        organization = self._registry.organizations.get(name)
        if organization is None:
            raise UnknownOwner(f"no organization {name!r} in the portal")
        return organization

    def _told(self, uuid: str) -> Fields:
        organization, server, _ = self._registry.server(uuid)
        return self._shown(organization, server)

    def _shown(self, organization: Organization, server: Server) -> Fields:
        ledger = self._registry.ledgers[server.uuid]
        token = ledger.token
        return {
            "organization": organization.name,
            "name": server.name,
            "uuid": server.uuid,
            "admin_id": admin_of(ledger, organization),
            "blocked": ledger.blocked,
            "devices": len(ledger.roster),
            "profiles": list(ledger.profiles),
            "operations": {"from": ledger.operations.base, "to": ledger.operations.end},
            "discovery_url": ledger.discovery_url,
            "has_certificate": ledger.certificate is not None,
            "token": None
            if token is None
            else {
                "consumer_key": token.token.consumer_key,
                "issued_at": time_text(token.issued_at),
                "issued_by": token.issued_by,
                "expires": time_text(token.token.access_token_expiry),
                "expired": self._clock.now() >= token.token.access_token_expiry,
            },
        }


class _TokenOptions:
    """How a token file is to be made."""

    def __init__(self, fields: Fields) -> None:
        self.cipher = cast(TokenCipher, _word(fields, "cipher", "aes128", TokenCipher))
        self.lengths = cast(Lengths, _word(fields, "lengths", "indefinite", Lengths))
        self.format = cast(Format, _word(fields, "format", "p7m", Format))
        self.new_consumer_key = optional(fields, "new_consumer_key", bool) or False


def _word(fields: Fields, key: str, default: str, words: Any) -> str:
    word = optional(fields, key, str) or default
    if word not in get_args(words):
        raise MalformedMessage(key, " or ".join(_names(words)), word)
    return word


def _names(words: Any) -> Iterator[str]:
    return (str(word) for word in get_args(words))


def _certificate(fields: Fields) -> x509.Certificate | None:
    text = optional(fields, "certificate", str)
    if text is None:
        return None
    data = text.encode()
    if "-----BEGIN" not in text:
        data = json_object.bytes_of(text, "certificate")
    certificate = tokens.recipient(data)
    tokens.check_recipient(certificate)
    return certificate


def _der(certificate: x509.Certificate | None) -> bytes | None:
    return None if certificate is None else certificate.public_bytes(Encoding.DER)


def _uuid(request: web.Request) -> str:
    return request.match_info["uuid"].replace("-", "").upper()


def _count(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise MalformedMessage(name, "a whole number", text)
    return int(text)


async def _fields(request: web.Request) -> Fields:
    body = await request.read()
    return present(json_object.loads(body, "request")) if body.strip() else {}
