"""Request bodies come as they are: no device compresses one, and inflating a stranger's could take all memory.

Servers here are started with `auto_decompress=False`, so that nothing is inflated before this says no.
"""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

log = structlog.get_logger()


@web.middleware
async def plain_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 415 to a body under a Content-Encoding, before anybody reads it (RFC 9110, section 8.4)."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return await handler(request)
    log.warning("encoded_body_refused", path=request.path[:200], coding=coding[:40])
    return web.Response(
        status=415,
        text="Content-Encoding: send the body as it is",
        headers={"Accept-Encoding": "identity"},
    )
