"""The one middleware of the device port: errors become answers here, and nowhere else (style.md, "A server handler").

| error | answer |
|---|---|
| malformed, wrongly signed, untrusted, not the device's certificate | 400 and the sentence |
| no profile for this activation | 403 and the sentence |
| marked to unenroll by an admin | 403 `com.apple.unrecognized.device`, below iOS 17.0 401 |
| our own mistake | 500 |
"""

import asyncio
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from certs.clock import Clock
from certs.errors import CertsError
from mdmserver.enrollment import ADE_PATH, CHECK_IN_PATH, SERVER_PATH
from mdmserver.errors import MarkedToUnenroll, ServerError
from mdmserver.misbehave import Handling, Misbehaved

log = structlog.get_logger()

OWN_PATHS: Final = frozenset(
    (ADE_PATH, CHECK_IN_PATH, SERVER_PATH)
)  # SCEP and ACME have their own errors


def answering(clock: Clock) -> Middleware:
    """The middleware; a handler is in flight from here on, for simulated time."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OWN_PATHS:
            try:
                return await handler(request)
            except web.HTTPException as error:
                log_http_refusal(request, error)
                raise
        with Handling(clock) as handling:
            response: web.StreamResponse
            try:
                response = await handler(request)
            except Misbehaved as fault:
                handling.drop |= fault.response is None
                response = fault.response or web.Response()
            except asyncio.CancelledError:
                raise
            except web.HTTPException as error:
                log_http_refusal(request, error)
                raise
            except Exception as error:
                response = refusal(request, error)
            if handling.drop and request.transport is not None:
                request.transport.abort()
            return response

    return answer


def log_http_refusal(request: web.Request, error: web.HTTPException) -> None:
    """The one line of an answer that HTTP itself demands: no such path, method or room."""
    log.warning(
        "refused",
        method=request.method,
        path=request.path[:200],
        status=error.status,
        reason=error.reason,
        remote=request.remote,
    )


def refusal(request: web.Request, error: Exception) -> web.Response:
    """The answer to an error, and its one log line."""
    match error:
        case MarkedToUnenroll(typed=True):
            status, response = 403, _unrecognized_device()
        case MarkedToUnenroll():
            status, response = 401, web.Response(status=401, text=str(error))
        case ServerError():
            status, response = error.status, web.Response(status=error.status, text=str(error))
        case CertsError():
            status, response = 400, web.Response(status=400, text=str(error))
        case _:
            log.exception("internal_error", path=request.path)
            return web.Response(status=500, text="internal error")
    log.warning(
        "refused",
        path=request.path,
        status=status,
        error=type(error).__name__,
        reason=str(error),
        remote=request.remote,
    )
    return response


def _unrecognized_device() -> web.Response:
    return web.json_response(
        {
            "code": "com.apple.unrecognized.device",
            "description": "An administrator unenrolled this device.",
        },
        status=403,
    )
