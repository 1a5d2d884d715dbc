"""The devices' door to the network: `HttpDoor` once per process, an `HttpSession` per device and wake-up.

Comes in: requests of the protocol clients. Goes out: HTTP/1.1 over TLS to wherever the HostMap says, and a Timing for
each request. A session opens its own connections, keeps them alive for its own next requests, and closes them at its end.
"""

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from certs.clock import Clock
from certs.errors import ForbiddenHost, MalformedMessage, TransportError
from certs.faults import Action, FaultPoint, no_faults
from certs.hosts import Destination, HostMap
from certs.identity import Identity
from certs.transport import HttpResponse, Timing, TimingHook
from emulator.config import (
    CONNECT_TIMEOUT_S,
    MAX_REDIRECTS,
    REQUEST_TIMEOUT_S,
    SHUTDOWN_TIMEOUT_S,
)
from emulator.http.connection import Answer, Connection, ConnectionFailed
from emulator.http.content import decoded
from emulator.http.request import (
    REDIRECTS,
    Origin,
    OutgoingRequest,
    leads_to_http,
    merged_headers,
)
from emulator.http.tls import TlsContexts, TrustSet, date_problem, tls_reason

NO_HOSTS: Final = HostMap()


class HttpDoor:
    """What all sessions of a process share: the clock, the host map, fault hook and TLS contexts."""

    def __init__(
        self,
        *,
        clock: Clock,
        hosts: HostMap = NO_HOSTS,
        on_timing: TimingHook | None = None,
        faults: FaultPoint = no_faults,
    ) -> None:
        self.clock = clock
        self.hosts = hosts
        self.on_timing = on_timing
        self.faults = faults
        self.contexts = TlsContexts()

    def seen_by(self, clock: Clock) -> "HttpDoor":
        """The same door, TLS contexts included, for a device that judges dates by a clock of its own."""
        door = HttpDoor(clock=clock, hosts=self.hosts, on_timing=self.on_timing, faults=self.faults)
        door.contexts = self.contexts
        return door

    def session(
        self,
        *,
        trust: TrustSet,
        identity: Identity | None = None,
        user_agent: str = "MDM/1.0",
        device: str = "",
        on_timing: TimingHook | None = None,
    ) -> "HttpSession":
        """A Transport for one device and one wake-up; `async with` closes its connections.

        `identity` is the TLS client certificate, `device` names the device in faults; `on_timing` is called besides the door's.
        """
        return HttpSession(self, trust, identity, user_agent, device, on_timing)


class HttpSession:
    """Implements `certs.transport.Transport` with connections of its own."""

    def __init__(
        self,
        door: HttpDoor,
        trust: TrustSet,
        identity: Identity | None,
        user_agent: str,
        device: str,
        on_timing: TimingHook | None,
    ) -> None:
        self._door = door
        self._trust = trust
        self._identity = identity
        self._device = device
        self._timing_hooks = [hook for hook in (door.on_timing, on_timing) if hook is not None]
        self._defaults = {
            "user-agent": user_agent,
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
        }
        # By origin, and whether our identity was shown: a connection never serves two identities.
        self._idle: dict[tuple[Origin, bool], Connection] = {}
        self._open: set[Connection] = set()
        self._asked: Counter[str] = Counter()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection and wait until it is gone."""
        self._closed = True
        self._idle.clear()
        leaving, self._open = self._open, set()
        for connection in leaving:
            connection.close()
        for connection in leaving:
            await connection.wait_closed()

    async def request(
        self,
        method: str,
        url: str,
        *,
        step: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> HttpResponse:
        """Send and wait, redirects followed; `timeout_s` bounds the whole of it, connecting included.

        Raises TransportError (no answer) or ForbiddenHost; never for an HTTP status.
        """
        if self._closed:
            raise RuntimeError("the session is closed")
        request = OutgoingRequest(
            method=method,
            url=url,
            headers=merged_headers(self._defaults, headers or {}),
            body=body,
            device=self._device,
        )
        action = await self._ask_for_fault(step, request)
        started = time.perf_counter()
        status: int | None = None
        problem: str | None = None
        try:
            with self._door.clock.busy():
                response = await self._bounded(
                    request, REQUEST_TIMEOUT_S if timeout_s is None else timeout_s, action
                )
            status = response.status
            return response
        except (TransportError, ForbiddenHost) as error:
            problem = error.reason if isinstance(error, TransportError) else str(error)
            raise
        finally:
            if status is not None or problem is not None:
                self._report(step, started, status, problem)

    def _report(self, step: str, started: float, status: int | None, problem: str | None) -> None:
        latency_ms = (time.perf_counter() - started) * 1000
        timing = Timing(step=step, latency_ms=latency_ms, status=status, error=problem)
        for hook in self._timing_hooks:
            hook(timing)

    async def _ask_for_fault(self, step: str, request: OutgoingRequest) -> Action | None:
        """Ask the FaultPoint once per request; a delay happens here, while simulated time may move."""
        self._asked[step] += 1
        action = self._door.faults("device", step, request, self._asked[step])
        if action is not None and action.name == "delay":
            await self._door.clock.sleep(float(action.arguments.get("seconds", 0)))
        return action

    async def _bounded(
        self, request: OutgoingRequest, timeout_s: float, action: Action | None
    ) -> HttpResponse:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(request, action)
        except TimeoutError:
            raise TransportError(
                request.url, f"no answer within {timeout_s:g} s", timeout_s=timeout_s
            ) from None

    async def _follow(self, request: OutgoingRequest, action: Action | None) -> HttpResponse:
        """Send, and go where redirects lead; every hop passes the HostMap."""
        first = request
        seen: set[tuple[str, str]] = set()
        while True:
            try:
                origin, destination = request.origin, self._door.hosts.resolve(request.url)
                wire = request.to_bytes()
            except MalformedMessage as error:
                raise TransportError(request.url, str(error)) from error
            # A client certificate is for the origin that the caller named, never for one that a redirect names.
            identity = self._identity if origin == first.origin else None
            answer = await self._send(request, wire, origin, destination, identity, action)
            response = HttpResponse(
                status=answer.status,
                body=decoded(answer, request.url),
                headers=answer.headers,
                url=request.url,
            )
            if (onward := _onward(request, response)) is None:
                return response
            seen.add((request.method, request.url))
            if (onward.method, onward.url) in seen:
                raise TransportError(first.url, f"redirect loop: back at {onward.url}")
            if len(seen) > MAX_REDIRECTS:
                raise TransportError(first.url, f"more than {MAX_REDIRECTS} redirects")
            request = onward

    async def _send(
        self,
        request: OutgoingRequest,
        wire: bytes,
        origin: Origin,
        destination: Destination,
        identity: Identity | None,
        action: Action | None,
    ) -> Answer:
        """One exchange; an idle connection that the server had closed already is replaced once."""
        if action is not None and action.name == "drop-request":
            raise TransportError(request.url, "fault drop-request: nothing was sent")
        key = (origin, identity is not None)
        connection = self._idle.pop(key, None)
        reused = connection is not None and connection.reusable
        try:
            if connection is None or not reused:
                connection = await self._connect(request.url, origin, destination, identity)
            try:
                answer = await connection.exchange(request.method, wire)
            except ConnectionFailed as error:
                if not reused or error.answer_begun:
                    raise
                connection = await self._connect(request.url, origin, destination, identity)
                answer = await connection.exchange(request.method, wire)
        except ConnectionFailed as error:
            reason = error.reason
            if error.hung_up and identity is not None:
                # In TLS 1.3 a refusal comes after the handshake; a reset may overtake the alert that explains it.
                reason += " (perhaps it refuses the client certificate)"
            raise TransportError(request.url, reason) from error
        if action is not None and action.name == "drop-response":
            connection.abort()
            raise TransportError(request.url, "fault drop-response: the answer was not read")
        if connection.reusable and key not in self._idle and not self._closed:
            self._idle[key] = connection
        else:
            connection.close()
        return answer

    async def _connect(
        self, url: str, origin: Origin, destination: Destination, identity: Identity | None
    ) -> Connection:
        """Open a connection, TLS verified: chain and name by OpenSSL, dates by our clock."""
        loop = asyncio.get_running_loop()
        context = None
        if destination.tls:
            shared = self._door.contexts.for_connection(self._trust, identity)
            context = shared.as_ssl_argument()
        where = f"{destination.host}:{destination.port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    Connection,
                    destination.host,
                    destination.port,
                    ssl=context,
                    server_hostname=origin.host if destination.tls else None,
                    ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S if destination.tls else None,
                )
        except TimeoutError:
            raise TransportError(
                url,
                f"no connection to {where} within {CONNECT_TIMEOUT_S:g} s",
                timeout_s=CONNECT_TIMEOUT_S,
            ) from None
        except ssl.SSLError as error:
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            raise TransportError(url, tls_reason(error), untrusted_server=untrusted) from error
        except socket.gaierror as error:
            raise TransportError(url, f"unknown host {destination.host}") from error
        except ConnectionRefusedError as error:
            raise TransportError(url, f"connection refused by {where}") from error
        except (OSError, UnicodeError) as error:
            raise TransportError(url, f"cannot connect to {where}: {error}") from error
        self._open = {known for known in self._open if not known.closed.done()} | {connection}
        tls = connection.tls
        if tls is not None and (problem := date_problem(tls, self._door.clock.now())):
            connection.abort()
            raise TransportError(url, problem, untrusted_server=True)
        return connection


def _onward(request: OutgoingRequest, response: HttpResponse) -> OutgoingRequest | None:
    """The request that a redirect asks for; None when the answer is final, or leads to what is not HTTP at all.

    Raises TransportError for a Location that cannot be read.
    """
    location = response.header("location")
    if response.status not in REDIRECTS or not location:
        return None
    try:
        if not leads_to_http(request.url, location):
            return None  # such as the private schemes that end a web view
        return request.redirected(response.status, location)
    except (MalformedMessage, ValueError) as error:
        raise TransportError(request.url, f"redirect that leads nowhere: {error}") from error
