"""The management API's part for tokens, listed devices and profiles: reads JSON, asks `Assignment`, answers JSON.

A refusal is the sentence of an AssignmentError under its status (`admin.json_errors`).
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.fields import Fields, optional, required, required_list
from mdmserver.assignment import Assignment
from mdmserver.assignment_errors import Unknown
from mdmserver.assignment_json import (
    device_json,
    key_json,
    profile_json,
    results_json,
    sync_json,
    token_json,
)
from mdmserver.store.assignment_base import Listing, SyncKind, Token

PAGE: Final = 1000  # devices per answer, at most
SYNCS: Final = 50
SHOWN: Final = {"listed": Listing.LISTED, "removed": Listing.REMOVED}
KINDS: Final[dict[str | None, SyncKind | None]] = {None: None, "full": "full", "delta": "delta"}


class AssignmentDoor:
    """What an administrator sees and does about Apple's side."""

    def __init__(
        self, assignment: Assignment, problems: Callable[[], Awaitable[list[str]]]
    ) -> None:
        """`problems` are those of the whole server."""
        self._assignment = assignment
        self._problems = problems
        self._store = assignment.store

    def add_routes(self, app: web.Application) -> None:
        token = "/v1/tokens/{token}"
        profile = token + "/profiles/{profile}"
        app.add_routes(
            [
                web.get("/v1/readiness", self.readiness),
                web.post("/v1/token-keys", self.new_key),
                web.get("/v1/token-keys/{key}", self.key),
                web.get("/v1/token-keys/{key}/certificate.pem", self.certificate),
                web.delete("/v1/token-keys/{key}", self.close_key),
                web.post("/v1/token-keys/{key}/token", self.create),
                web.get("/v1/tokens", self.tokens),
                web.get(token, self.token),
                web.patch(token, self.describe),
                web.delete(token, self.delete),
                web.put(token + "/token", self.renew),
                web.post(token + "/sync", self.sync),
                web.get(token + "/syncs", self.syncs),
                web.get(token + "/devices", self.devices),
                web.get(token + "/devices/{serial}", self.device),
                web.delete(token + "/devices/{serial}", self.delete_device),
                web.get(token + "/profiles", self.profiles),
                web.post(token + "/profiles", self.define),
                web.get(profile, self.profile),
                web.delete(profile, self.forget_profile),
                web.put(token + "/default-profile", self.set_default),
                web.delete(token + "/default-profile", self.clear_default),
                web.post(token + "/assign", self.assign),
                web.post(token + "/unassign", self.unassign),
                web.post(token + "/disown", self.disown),
            ]
        )

    async def readiness(self, request: web.Request) -> web.Response:
        """What is missing before devices can come here by assignment (rule 10)."""
        return web.json_response({"problems": await self._problems()})

    # -- keys and tokens ------------------------------------------------------------------------------------------

    async def new_key(self, request: web.Request) -> web.Response:
        """`{"consent": true, "token_id"?}`: a key pair, with `token_id` for the renewal of that token."""
        fields = await _fields(request)
        key = await self._assignment.tokens.new_key(
            consent=optional(fields, "consent", bool) is True,
            token_id=optional(fields, "token_id", str),
        )
        return web.json_response(key_json(key), status=201)

    async def key(self, request: web.Request) -> web.Response:
        return web.json_response(
            key_json(await self._assignment.tokens.key(request.match_info["key"]))
        )

    async def certificate(self, request: web.Request) -> web.Response:
        """The .pem for the portal."""
        pem = await self._assignment.tokens.certificate_pem(request.match_info["key"])
        return web.Response(
            body=pem,
            content_type="application/x-pem-file",
            headers={"Content-Disposition": 'attachment; filename="mdm-server.pem"'},
        )

    async def close_key(self, request: web.Request) -> web.Response:
        await self._assignment.tokens.close_key(request.match_info["key"])
        return web.json_response({"closed": request.match_info["key"]})

    async def create(self, request: web.Request) -> web.Response:
        """The body is the .p7m; `?name=`, `?description=` and `?apple_id=` are kept beside it. The first sync starts."""
        query = request.query
        token = await self._assignment.tokens.create(
            request.match_info["key"],
            await request.read(),
            name=query.get("name", "Server token"),
            description=query.get("description", ""),
            apple_id=query.get("apple_id", ""),
        )
        await self._assignment.schedule.first(token)
        return await self._shown(token, status=201)

    async def tokens(self, request: web.Request) -> web.Response:
        shown = [
            token_json(await self._assignment.status(token)) for token in await self._store.tokens()
        ]
        return web.json_response({"tokens": shown})

    async def token(self, request: web.Request) -> web.Response:
        return await self._shown(await self._token(request))

    async def describe(self, request: web.Request) -> web.Response:
        """`{"name"?, "description"?, "apple_id"?}`."""
        fields = await _fields(request)
        token = await self._assignment.tokens.describe(
            request.match_info["token"],
            name=optional(fields, "name", str),
            description=optional(fields, "description", str),
            apple_id=optional(fields, "apple_id", str),
        )
        return await self._shown(token)

    async def delete(self, request: web.Request) -> web.Response:
        await self._assignment.delete_token(request.match_info["token"])
        return web.json_response({"deleted": request.match_info["token"]})

    async def renew(self, request: web.Request) -> web.Response:
        """The body is the newer .p7m; `?key=` names a key made for the renewal, `?force=1` see README.md."""
        token = await self._assignment.tokens.renew(
            request.match_info["token"],
            await request.read(),
            key_id=request.query.get("key"),
            apple_id=request.query.get("apple_id"),
            force=request.query.get("force") == "1",
        )
        await self._assignment.schedule.renewed(token)
        return await self._shown(token)

    # -- syncs and devices ----------------------------------------------------------------------------------------

    async def sync(self, request: web.Request) -> web.Response:
        """`{"kind"?: "full" or "delta"}`: start what is due, or that kind, now."""
        fields = await _fields(request)
        kind = optional(fields, "kind", str)
        if kind not in KINDS:
            raise MalformedMessage("kind", "full or delta", kind)
        token = await self._token(request)
        plan = await self._assignment.schedule.begin(token, "manual", KINDS[kind])
        started = {"kind": plan.kind, "resumed": plan.resumed, "warning": plan.warning}
        return web.json_response(started, status=202)

    async def syncs(self, request: web.Request) -> web.Response:
        """The latest first."""
        token = await self._token(request)
        syncs = await self._store.syncs(token.token_id, SYNCS)
        return web.json_response({"syncs": [sync_json(sync) for sync in syncs]})

    async def devices(self, request: web.Request) -> web.Response:
        """In the order of serial numbers; `?state=listed|removed`, `?after=SERIAL`, `?limit=` up to 1000."""
        state, limit = request.query.get("state"), request.query.get("limit", str(PAGE))
        if state is not None and state not in SHOWN:
            raise MalformedMessage("state", " or ".join(SHOWN), state)
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= PAGE):
            raise MalformedMessage("limit", f"a number from 1 to {PAGE}", limit)
        token = await self._token(request)
        devices = await self._store.listed_devices(
            token.token_id,
            listing=None if state is None else SHOWN[state],
            after=request.query.get("after", ""),
            limit=int(limit),
        )
        return web.json_response({"devices": [device_json(device) for device in devices]})

    async def device(self, request: web.Request) -> web.Response:
        token, serial = await self._token(request), request.match_info["serial"].upper()
        device = await self._store.listed_device(token.token_id, serial)
        if device is None:
            raise Unknown("device", serial)
        return web.json_response(device_json(device))

    async def delete_device(self, request: web.Request) -> web.Response:
        token, serial = await self._token(request), request.match_info["serial"].upper()
        await self._assignment.delete_device(token, serial)
        return web.json_response({"deleted": serial})

    # -- profiles -------------------------------------------------------------------------------------------------

    async def profiles(self, request: web.Request) -> web.Response:
        token = await self._token(request)
        by_profile = (await self._store.counts(token.token_id)).by_profile
        shown = [
            profile_json(
                profile,
                default=profile.uuid == token.default_profile,
                devices=by_profile.get(profile.uuid, 0),
            )
            for profile in await self._store.profiles(token.token_id)
        ]
        return web.json_response({"profiles": shown})

    async def define(self, request: web.Request) -> web.Response:
        """The keys of the assignment API; what is left out sends devices to this server. `"default": true` besides."""
        fields = await _fields(request)
        default = optional(fields, "default", bool) is True
        fields.pop("default", None)
        token = await self._token(request)
        profile, results = await self._assignment.profiles.define(token, fields)
        if default:
            more = await self._assignment.profiles.set_default(token, profile.uuid)
            self._assignment.schedule.try_again(token.token_id, more)
            results.add(more.devices, more.retry_after_s)
        answer = {"profile_uuid": profile.uuid, "default": default, **results_json(results)}
        return web.json_response(answer, status=201)

    async def profile(self, request: web.Request) -> web.Response:
        """As it was defined; `?at_apple=1` adds what Apple has."""
        token, uuid = await self._token(request), request.match_info["profile"]
        profile = await self._assignment.profiles.profile(token, uuid)
        counts = await self._store.counts(token.token_id)
        shown = profile_json(
            profile,
            default=profile.uuid == token.default_profile,
            devices=counts.by_profile.get(profile.uuid, 0),
        )
        if request.query.get("at_apple") == "1":
            shown["at_apple"] = await self._assignment.profiles.at_apple(token, uuid)
        return web.json_response(shown)

    async def forget_profile(self, request: web.Request) -> web.Response:
        token, uuid = await self._token(request), request.match_info["profile"]
        await self._assignment.profiles.forget(token, uuid)
        return web.json_response({"deleted": uuid})

    async def set_default(self, request: web.Request) -> web.Response:
        """`{"profile_uuid"}`: assigned at once to the devices without a profile, and to each that comes."""
        uuid = required(await _fields(request), "profile_uuid", str)
        token = await self._token(request)
        results = await self._assignment.profiles.set_default(token, uuid)
        self._assignment.schedule.try_again(token.token_id, results)
        return web.json_response({"profile_uuid": uuid, **results_json(results)})

    async def clear_default(self, request: web.Request) -> web.Response:
        await self._assignment.profiles.set_default(await self._token(request), None)
        return web.json_response({"profile_uuid": None})

    async def assign(self, request: web.Request) -> web.Response:
        """`{"profile_uuid", "serials": […]}`."""
        fields = await _fields(request)
        uuid = required(fields, "profile_uuid", str)
        serials = required_list(fields, "serials", str)
        token = await self._token(request)
        results = await self._assignment.profiles.assign(token, uuid, serials)
        return web.json_response(results_json(results))

    async def unassign(self, request: web.Request) -> web.Response:
        """`{"serials": […]}`."""
        serials = required_list(await _fields(request), "serials", str)
        token = await self._token(request)
        return web.json_response(
            results_json(await self._assignment.profiles.unassign(token, serials))
        )

    async def disown(self, request: web.Request) -> web.Response:
        """`{"serials": […], "for_good": true}`: nobody can take it back."""
        fields = await _fields(request)
        serials = required_list(fields, "serials", str)
        if optional(fields, "for_good", bool) is not True:
            raise MalformedMessage("for_good", "true: disowned devices leave the organisation")
        token = await self._token(request)
        return web.json_response(
            results_json(await self._assignment.profiles.disown(token, serials))
        )

    async def _token(self, request: web.Request) -> Token:
        return await self._assignment.tokens.token(request.match_info["token"])

    async def _shown(self, token: Token, status: int = 200) -> web.Response:
        latest = await self._assignment.tokens.token(token.token_id)
        shown: dict[str, Any] = token_json(await self._assignment.status(latest))
        return web.json_response(shown, status=status)


async def _fields(request: web.Request) -> Fields:
    body = await request.read()
    return json_object.loads(body, "request") if body else {}
