"""The door of an ACME server: what every request must be and every answer carry (RFC 8555, sections 6.1 to 6.7).

In comes an HTTP request; the handler behind the door gets it once content type, JWS, URL, key, signature and nonce are
right. Out goes the handler's answer, or the problem document of whatever was raised, with Replay-Nonce and a link to
the directory.
"""

import math
import random
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

import structlog
from aiohttp import web

from certs.acme import jws
from certs.acme.account import NOT_VALID, AccountStatus
from certs.acme.faults import HANDLERS, PROBLEMS, ServerFault
from certs.acme.jws import Json
from certs.acme.nonce_store import NonceStore
from certs.acme.order_book import OrderBook
from certs.acme.problem import PROBLEM_TYPE, Problem, problem
from certs.acme.records import AccountRecord
from certs.clock import Clock
from certs.errors import AcmeProblem, InvalidSignature, MalformedMessage
from certs.faults import Action, FaultPoint
from certs.keys import PublicKey

log = structlog.get_logger()

MAX_REQUEST_BYTES: Final = 256 * 1024  # an attestation makes about 3 KB
RATE_LIMIT_S: Final = 60.0  # what the fault names where nothing is said
NONCE: Final = "Replay-Nonce"

_delay_s: ContextVar[float] = ContextVar("delay_s")  # how long a fault holds this answer back
_ORIGIN: Final = re.compile(r"https?://[^/?#]+")

_chance = (
    random.SystemRandom()
)  # which nonce is refused belongs to no device, so no seed decides it


@dataclass(frozen=True, slots=True)
class Call:
    """One request that passed every general check."""

    request: web.Request
    signed: jws.SignedRequest
    key: PublicKey
    account: AccountRecord | None  # None where the request carries its key itself
    fault: Action | None = None  # one that the handler has to carry out

    def misbehaves(self, fault: ServerFault) -> bool:
        """Whether the handler has to carry out this fault."""
        return self.fault is not None and self.fault.name == fault

    @property
    def id(self) -> str:
        return self.request.match_info["id"]

    def only_reads(self) -> None:
        """Raises MalformedMessage unless the request is a POST-as-GET (RFC 8555, section 6.3)."""
        if not self.signed.is_post_as_get:
            raise MalformedMessage("payload", "an empty one, as this resource is only read")

    @property
    def owner(self) -> AccountRecord:
        """The account that signed; resources other than newAccount and revokeCert always have one."""
        assert self.account is not None
        return self.account


Handler = Callable[[web.Request], Awaitable[web.Response]]
SignedHandler = Callable[[Call], Awaitable[web.Response]]


class Door:
    """Routes requests to handlers, and turns what these raise into problem documents."""

    def __init__(
        self,
        book: OrderBook,
        *,
        clock: Clock,
        nonce_rejection: float,
        faults: FaultPoint,
        base_url: str | None,
    ) -> None:
        self.nonces = NonceStore(clock)
        self._book = book
        self._clock = clock
        self._nonce_rejection = nonce_rejection
        self._faults = faults
        self._base_url = base_url.rstrip("/") if base_url else None
        self._path = ""
        self._unsigned_steps: dict[str, int] = {}

    def mount(self, path: str) -> None:
        """Every resource stands below `path`."""
        self._path = path.rstrip("/")

    def url(self, request: web.Request, name: str) -> str:
        """How clients call one of our resources."""
        base = self._base_url or f"{request.scheme}://{request.host}"
        return f"{base}{self._path}/{name}"

    def open_route(self, app: web.Application, name: str, step: str, handler: Handler) -> None:
        """A resource that anyone may GET, and whoever signs may read by POST-as-GET (RFC 8555, section 6.3)."""

        async def signed_get(call: Call) -> web.Response:
            call.only_reads()
            return await handler(call.request)

        async def unsigned(request: web.Request) -> web.Response:
            if request.method == "POST":
                return await self._pass(await self._somehow(request), step, signed_get)
            _only(request, "GET", "HEAD")
            n = self._unsigned_steps[step] = self._unsigned_steps.get(step, 0) + 1
            fault = self._faults("server", step, None, n)
            return await self._misbehave(fault, lambda: handler(request))

        self._route(app, name, step, unsigned)

    def key_route(self, app: web.Application, name: str, step: str, handler: SignedHandler) -> None:
        """A resource for requests signed by the key that they carry."""

        async def signed_by_key(request: web.Request) -> web.Response:
            signed = await self._read(request)
            if signed.jwk is None:
                raise MalformedMessage("protected", "jwk, not kid, for this resource")
            return await self._pass(self._by_key(request, signed), step, handler)

        self._route(app, name, step, signed_by_key)

    def account_route(
        self, app: web.Application, name: str, step: str, handler: SignedHandler
    ) -> None:
        """A resource for requests signed by an account, which they name by its URL."""

        async def signed_by_account(request: web.Request) -> web.Response:
            signed = await self._read(request)
            if signed.kid is None:
                raise MalformedMessage("protected", "kid, not jwk, for this resource")
            return await self._pass(self._by_account(request, signed), step, handler)

        self._route(app, name, step, signed_by_account)

    def read_route(
        self, app: web.Application, name: str, step: str, handler: SignedHandler
    ) -> None:
        """A resource that accounts only read: by POST-as-GET, and by nothing that says more."""

        async def read(call: Call) -> web.Response:
            call.only_reads()
            return await handler(call)

        self.account_route(app, name, step, read)

    def either_route(
        self, app: web.Application, name: str, step: str, handler: SignedHandler
    ) -> None:
        """A resource for requests signed in one way or the other."""

        async def signed_somehow(request: web.Request) -> web.Response:
            return await self._pass(await self._somehow(request), step, handler)

        self._route(app, name, step, signed_somehow)

    async def _somehow(self, request: web.Request) -> Call:
        signed = await self._read(request)
        call = self._by_key if signed.kid is None else self._by_account
        return call(request, signed)

    def _by_key(self, request: web.Request, signed: jws.SignedRequest) -> Call:
        return Call(request, signed, jws.from_jwk(signed.jwk), None)

    def _by_account(self, request: web.Request, signed: jws.SignedRequest) -> Call:
        origin, _, id_ = (signed.kid or "").partition(f"{self._path}/account/")
        # Any host: a server may be known by several names, and each gave out URLs of its own.
        account = self._book.account(id_) if _ORIGIN.fullmatch(origin) else None
        if account is None:
            raise problem("accountDoesNotExist", "no account has this URL")
        return Call(request, signed, account.key, account)

    def close_routes(self, app: web.Application) -> None:
        """Whatever else stands below our path is nothing, and says so as everything here does; to be called last."""

        async def nothing(request: web.Request) -> web.Response:
            raise AcmeProblem("malformed", "no such resource", status=404)

        self._route(app, "{rest:.*}", "unknown", nothing)

    def _route(self, app: web.Application, name: str, step: str, handler: Handler) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            _delay_s.set(0.0)
            with self._clock.busy():
                try:
                    response = await handler(request)
                except Exception as error:
                    response = _refusal(step, error)
            if delay_s := _delay_s.get():  # not while busy: simulated time has to move for it
                await self._clock.sleep(delay_s)
            if not response.headers.setdefault(NONCE, self.nonces.new()):
                del response.headers[NONCE]  # on purpose
            response.headers.add("Link", f'<{self.url(request, "directory")}>;rel="index"')
            response.headers["Cache-Control"] = "no-store"
            return response

        app.router.add_route("*", f"{self._path}/{name}", answer)

    async def _read(self, request: web.Request) -> jws.SignedRequest:
        """What needs no key: method, media type, size, form, URL."""
        _only(request, "POST")
        if request.headers.get("Content-Type") != jws.CONTENT_TYPE:
            raise AcmeProblem(
                "malformed", f"the content type must be {jws.CONTENT_TYPE}", status=415
            )
        body = await _body(request)
        signed = jws.decode(body)
        # Plain http behind a proxy that ends TLS: the client signed what it sees.
        schemes = {request.scheme, "https"}
        names = {f"{scheme}://{request.host}{request.path_qs}" for scheme in schemes}
        if self._base_url:
            names.add(self._base_url + request.path_qs)
        if signed.url not in names:
            raise MalformedMessage("url", "the URL of the request", signed.url)
        return signed

    async def _pass(self, call: Call, step: str, handler: SignedHandler) -> web.Response:
        """Signature, then nonce, so that a forged request uses up nobody's nonce; then the handler."""
        call.signed.verify(call.key)
        if not self.nonces.use(call.signed.nonce):
            raise problem("badNonce", "the nonce is unknown, used or too old")
        if self._nonce_rejection and _chance.random() < self._nonce_rejection:
            raise problem("badNonce", "refused on purpose")
        if call.account is not None and call.account.status is not AccountStatus.VALID:
            reason = f"the account is {call.account.status}"
            raise AcmeProblem("unauthorized", reason, status=NOT_VALID)
        fault = self._faults("server", step, call.signed, self._count(call, step))
        if fault is not None and step in HANDLERS.get(fault.name, ()):
            return await handler(replace(call, fault=fault))
        return await self._misbehave(fault, lambda: handler(call))

    def _count(self, call: Call, step: str) -> int:
        """How often this client did this step: an account is a device for all that the server knows."""
        steps = self._unsigned_steps if call.account is None else call.account.steps
        steps[step] = steps.get(step, 0) + 1
        return steps[step]

    async def _misbehave(
        self, fault: Action | None, honest: Callable[[], Awaitable[web.Response]]
    ) -> web.Response:
        """The honest answer, unless the fault point wants another one, or another moment."""
        if fault is None:
            return await honest()
        arguments = fault.arguments
        match fault.name:
            case ServerFault.DELAY:
                _delay_s.set(float(arguments.get("seconds", 1)))
                return await honest()
            case ServerFault.STATUS:
                return web.Response(status=int(arguments.get("status", 500)))
            case ServerFault.NO_REPLAY_NONCE:
                response = await honest()
                response.headers[NONCE] = ""
                return response
            case name if name == ServerFault.PROBLEM or name in PROBLEMS:
                raise _on_purpose(fault)
            case other:
                raise ValueError(f"an ACME server has no fault {other!r} at this step")


def _on_purpose(fault: Action) -> AcmeProblem:
    """The problem that a fault stands for."""
    arguments = fault.arguments
    type_ = PROBLEMS.get(fault.name) or str(arguments.get("type", "serverInternal"))
    default_s = RATE_LIMIT_S if fault.name == ServerFault.RATE_LIMITED else None
    return AcmeProblem(
        type_,
        str(arguments.get("detail", "refused on purpose")),
        status=int(arguments.get("status", problem(type_, "").status)),
        retry_after_s=arguments.get("retry_after_s", default_s),
    )


def json_answer(
    fields: Json, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """An object as application/json."""
    return web.Response(
        body=jws.encode_json(fields),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def problem_answer(refused: AcmeProblem) -> web.Response:
    """An error as application/problem+json."""
    response = json_answer(Problem.of(refused).to_fields(), status=refused.status)
    response.content_type = PROBLEM_TYPE
    if refused.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(refused.retry_after_s))
    return response


def _refusal(step: str, error: Exception) -> web.Response:
    """The problem document for an error, and its one log line."""
    refused = _as_problem(error)
    if refused is None:
        refused = problem("serverInternal", "the server failed; its log says why")
        log.error("acme_failed", step=step, exc_info=error)
    else:
        log.info(
            "acme_refused",
            step=step,
            type=refused.type,
            status=refused.status,
            detail=refused.detail,
        )
    return problem_answer(refused)


def _as_problem(error: Exception) -> AcmeProblem | None:
    match error:
        case AcmeProblem():
            return error
        case MalformedMessage() | InvalidSignature():
            return problem("malformed", str(error))
        case web.HTTPException():
            return AcmeProblem("malformed", error.reason, status=error.status)
        case _:
            return None


async def _body(request: web.Request) -> bytes:
    too_large = AcmeProblem("malformed", f"more than {MAX_REQUEST_BYTES} bytes", status=413)
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise too_large
    body = await request.read()
    if len(body) > MAX_REQUEST_BYTES:
        raise too_large
    return body


def _only(request: web.Request, *methods: str) -> None:
    if request.method not in methods:
        raise AcmeProblem("malformed", f"{request.method} is not for this resource", status=405)
