"""The administrator's side of pushing: push one device or all, and see how it went.

Routes of the management API, behind its guard; every error is `{"error": sentence}`.
"""

import json
from collections.abc import Callable

from aiohttp import web

from mdmserver.push import Pusher
from mdmserver.store.base import Store


class PushDoor:
    """The handlers; `pusher` says whether pushing is set up at the moment."""

    def __init__(self, store: Store, pusher: Callable[[], Pusher | None]) -> None:
        self._store = store
        self._pusher = pusher

    def add_routes(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/v1/push", self.counts)
        router.add_post("/v1/push", self.push_all)
        router.add_get("/v1/devices/{udid}/push", self.state)
        router.add_post("/v1/devices/{udid}/push", self.push)

    async def counts(self, request: web.Request) -> web.Response:
        """How many pushes were accepted, refused, failed, given up; how many tokens were turned off."""
        return web.json_response(self._required().as_json())

    async def push_all(self, request: web.Request) -> web.Response:
        """Push every device that can be pushed."""
        pusher = self._required()
        udids = await self._store.push_targets()
        pusher.wake_all(udids)
        return web.json_response({"devices": len(udids)}, status=202)

    async def push(self, request: web.Request) -> web.Response:
        """Push one device, though nothing was queued for it."""
        pusher = self._required()
        udid = request.match_info["udid"]
        target = await self._store.push_target(udid)
        if target is None:
            raise _error(web.HTTPNotFound, f"there is no enrolled device {udid}")
        if target.off_reason is not None:
            raise _error(web.HTTPConflict, f"its push token is dead ({target.off_reason})")
        pusher.wake(udid)
        return web.json_response({"udid": udid}, status=202)

    async def state(self, request: web.Request) -> web.Response:
        """Whether the device can be pushed; never its token or PushMagic."""
        udid = request.match_info["udid"]
        target = await self._store.push_target(udid)
        if target is None:
            raise _error(web.HTTPNotFound, f"there is no enrolled device {udid}")
        since = target.off_since
        return web.json_response(
            {
                "udid": udid,
                "topic": target.topic,
                "off": target.off_reason,
                "since": None if since is None else f"{since:%Y-%m-%dT%H:%M:%SZ}",
            }
        )

    def _required(self) -> Pusher:
        pusher = self._pusher()
        if pusher is None:
            raise _error(web.HTTPConflict, "pushing is not set up (push_certificate and push_url)")
        return pusher


def _error(kind: type[web.HTTPError], sentence: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": sentence}), content_type="application/json")
