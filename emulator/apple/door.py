"""The HTTP side of every service: reads requests, carries out faults, turns errors into answers, logs one line each.

Faults (side "server") are asked for once the request is read and its device known:
`delay` {seconds} holds the honest answer back, `drop` acts and then closes the connection without an answer, `cut` closes it
within the body and `truncate` ends the body early ({bytes}, or half of it), `content_type` {content_type} sends the honest answer as another
type; `status` {status} and `body` {body, content_type, status, headers} are answered instead of acting, and `reset` closes the
connection instead. Whatever comes, comes {seconds} later.
"""

from collections import Counter
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeVar

import structlog
from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.typedefs import Handler

from certs.clock import Clock
from certs.faults import Action, FaultPoint, no_faults
from certs.tls import peer_certificate
from emulator.apple.answer import TEXT, Answer, Received, Refusal, Service
from emulator.apple.planned_faults import PlannedFaults
from emulator.errors import EmulatorError

log = structlog.get_logger()

M = TypeVar("M")
ACTIONS: Final = ("delay", "drop", "reset", "cut", "truncate", "content_type", "status", "body")
EVENT: Final = "apple_request"  # the log's event for a path that no service owns


class UnknownFault(EmulatorError):
    """A scenario asked for an action that these services do not have."""


class FaultPlan(Protocol):
    """Faults that an administrator plans while the services run."""

    def take(self, step: str, subject: str, actions: Collection[str], /) -> Action | None:
        """The action for this request, if one of these is planned."""
        ...


class Door:
    """Mounts services on an aiohttp application; `middleware` belongs into the same application."""

    def __init__(
        self,
        clock: Clock,
        faults: FaultPoint = no_faults,
        planned: FaultPlan | None = None,
        *,
        subject: str = "serial",
    ) -> None:
        """`subject` is how the log calls those whom a service names as asking."""
        self._subject = subject
        self._clock = clock
        self._faults = faults
        self._planned = planned or PlannedFaults()
        self._asked: Counter[tuple[str, str]] = Counter()  # by step and device

    def handler(self, service: Service[M]) -> Handler:
        """An aiohttp handler for one service."""

        async def handle(request: web.Request) -> web.Response:
            exchange = _exchange.get()
            exchange.step, exchange.subject = service.step, self._subject
            exchange.headers = dict(service.headers())
            message = service.decode(
                Received(
                    body=await _body(request),
                    content_type=request.headers.get(hdrs.CONTENT_TYPE, ""),
                    user_agent=request.headers.get(hdrs.USER_AGENT, ""),
                    headers=request.headers,
                    query=request.query,
                    certificate=peer_certificate(request),
                )
            )
            exchange.serial_number = service.serial_number(message)
            action = exchange.action = self._fault(service.step, exchange.serial_number, message)
            if action is not None and action.name in ("status", "body", "reset"):
                return exchange.response(_instead(action))
            answer = await service.answer(message)
            exchange.delay_s = answer.delay_s
            return exchange.response(answer)

        return handle

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors become answers, every outcome one log line; simulated time stands still meanwhile."""
        exchange = _Exchange()
        _exchange.set(exchange)
        with self._clock.busy():
            response = await self._answered(request, handler, exchange)
        action = exchange.action
        seconds = 0.0 if action is None else float(action.arguments.get("seconds", 0))
        if exchange.delay_s or seconds:
            await self._clock.sleep(exchange.delay_s + seconds)
        if action is not None and isinstance(response, web.Response):
            return await _disturbed(request, response, action)
        return response

    async def _answered(
        self, request: web.Request, handler: Handler, exchange: "_Exchange"
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return exchange.refused(refusal)
        except web.HTTPException as error:
            word = error.reason.upper().replace(" ", "_")
            exchange.headers.update(_allow(error))
            return exchange.refused(
                Refusal("HTTP", error.status, word, f"{request.method} {request.path}")
            )
        except Exception as error:
            log.exception("apple_service_failed", path=request.path, error=str(error))
            return exchange.refused(
                Refusal("HTTP", 500, "INTERNAL_SERVER_ERROR", type(error).__name__)
            )

    def _fault(self, step: str, serial_number: str, message: object) -> Action | None:
        action = self._planned.take(step, serial_number, ACTIONS)
        if action is not None or self._faults is no_faults:
            return action
        self._asked[step, serial_number] += 1
        action = self._faults("server", step, message, self._asked[step, serial_number])
        if action is not None and action.name not in ACTIONS:
            raise UnknownFault(f"{step}: no such fault on this side: {action.name}")
        return action


class _Exchange:
    """What is known of one request while it is answered."""

    def __init__(self) -> None:
        self.step = EVENT
        self.subject = ""
        self.serial_number = ""
        self.delay_s = 0.0
        self.headers: dict[str, str] = {}
        self.action: Action | None = None

    def response(self, answer: Answer) -> web.Response:
        log.info(self.step, outcome=answer.outcome, status=answer.status, **self._facts())
        return self._response(answer)

    def refused(self, refusal: Refusal) -> web.Response:
        log.warning(
            self.step,
            outcome=refusal.word,
            status=refusal.status,
            check=refusal.check,
            reason=refusal.reason,
            **self._facts(),
        )
        return self._response(refusal.answer)

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if self.serial_number:
            facts[self.subject] = self.serial_number[:64]
        if self.action is not None:
            facts["fault"] = self.action.name
        return facts

    def _response(self, answer: Answer) -> web.Response:
        # No `text=` and no `content_type=`: either would add a parameter, which clients do not expect.
        headers = {hdrs.CONTENT_TYPE: answer.content_type, **self.headers, **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)


_exchange: ContextVar[_Exchange] = ContextVar("exchange")  # of the request that this task answers


async def _body(request: web.Request) -> bytes:
    """The whole body. Raises Refusal when it does not arrive whole, HTTPException when it is too large."""
    try:
        return await request.read()
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise Refusal("HTTP", 400, "INCOMPLETE_BODY", str(error)) from error


async def _disturbed(
    request: web.Request, response: web.Response, action: Action
) -> web.StreamResponse:
    """The honest answer, spoilt on its way."""
    body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
    wanted = action.arguments.get("bytes")
    part = body[: len(body) // 2 if wanted is None else int(wanted)]
    match action.name:
        case "drop" | "reset":
            if request.transport is not None:
                request.transport.abort()
        case "truncate":
            response.body = part
        case "content_type":
            response.headers[hdrs.CONTENT_TYPE] = str(action.arguments["content_type"])
        case "cut":
            broken = web.StreamResponse(status=response.status, headers=response.headers)
            broken.content_length = len(body)
            await broken.prepare(request)
            await broken.write(part)
            if request.transport is not None:
                request.transport.close()  # sends what is there; the rest never comes
            return broken
    return response


def _instead(action: Action) -> Answer:
    arguments = action.arguments
    body = arguments.get("body", b"")
    return Answer(
        status=int(arguments.get("status", 200)),
        body=body.encode() if isinstance(body, str) else bytes(body),
        content_type=str(arguments.get("content_type", TEXT)),
        headers=arguments.get("headers", {}),
        outcome="fault",
    )


def _allow(error: web.HTTPException) -> dict[str, str]:
    allow = error.headers.get(hdrs.ALLOW)
    return {hdrs.ALLOW: allow} if allow else {}
