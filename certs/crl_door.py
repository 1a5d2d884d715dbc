"""`GET /crl/{name}.crl`: the revocation lists of some CAs over HTTP, where their certificates say that they are.

A list is made anew only after a revocation or when half its life is over; who has the newest gets 304.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import web

from certs.ca import CertificateAuthority
from certs.crl import CONTENT_TYPE

log = structlog.get_logger()

PATH: Final = "/crl"


class CrlDoor:
    """Serves the lists of the CAs that it was given, by name."""

    def __init__(self, authorities: Mapping[str, CertificateAuthority]) -> None:
        self._authorities = dict(authorities)

    def publish(self, base_url: str) -> None:
        """From now on these CAs write into certificates where their list is."""
        for name, authority in self._authorities.items():
            authority.crl_url = f"{base_url}{PATH}/{name}.crl"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get(f"{PATH}/{{name}}.crl", self.crl)

    async def crl(self, request: web.Request) -> web.Response:
        """The list as DER; 404 for a CA that is not here."""
        authority = self._authorities.get(request.match_info["name"])
        if authority is None:
            raise web.HTTPNotFound(text="no such CRL")
        der = await asyncio.to_thread(authority.crl)
        tag = hashlib.sha256(der).hexdigest()[:32]
        # A proxy may keep it, but asks each time: a revocation counts at once.
        headers = {"Cache-Control": "no-cache"}
        if any(known.value == tag for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            response = web.Response(body=der, content_type=CONTENT_TYPE, headers=headers)
        response.etag = tag
        return response
