"""One HTTP/1.1 connection (RFC 9112): bytes of a request out, one bounded answer in."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final, cast

import httptools

from emulator.config import CLOSE_TIMEOUT_S, MAX_HEADER_BYTES, MAX_RESPONSE_BYTES
from emulator.http.tls import tls_reason

SWITCHING_PROTOCOLS: Final = 101
HUNG_UP: Final = "the server closed the connection without an answer"
WITHOUT_BODY: Final = frozenset({204, 304})


class ConnectionFailed(Exception):
    """No whole answer came on this connection.

    `answer_begun` says whether any byte of one did; `hung_up` that the server just went, without a byte or an alert.
    """

    def __init__(self, reason: str, *, answer_begun: bool = False, hung_up: bool = False) -> None:
        self.reason = reason
        self.answer_begun = answer_begun
        self.hung_up = hung_up
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (lower-case names, repeated ones joined) and whole body of one answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """Carries one request at a time; `reusable` says whether another may follow."""

    _headers: dict[str, str]
    _body: list[bytes]
    _answered: bool  # the answer is whole
    _surplus: bool  # and more came, which nobody asked for
    _until_eof: bool  # the answer ends with the connection

    def __init__(self) -> None:
        self.reusable = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer | ConnectionFailed] | None = None
        self._head_only = False
        self._begin_answer()

    # --- what the session calls

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS layer, None on a plain connection."""
        assert self._transport is not None
        found: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return found

    async def exchange(self, method: str, request: bytes) -> Answer:
        """Send a request and wait for its answer. Raises ConnectionFailed; closes the connection when cancelled."""
        assert self._transport is not None
        assert self._waiter is None
        if self.closed.done():
            raise ConnectionFailed(HUNG_UP, hung_up=True)
        self.reusable = False
        self._head_only = method == "HEAD"
        self._begin_answer()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            outcome = await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None
        if isinstance(outcome, ConnectionFailed):
            raise outcome
        return outcome

    def close(self) -> None:
        """Say goodbye to the peer; `closed` is done when it is over."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport is gone; a peer that never says goodbye is dropped."""
        if not self.closed.done():
            await asyncio.wait([self.closed], timeout=CLOSE_TIMEOUT_S)
        if not self.closed.done():
            self.abort()
            await asyncio.wait([self.closed], timeout=CLOSE_TIMEOUT_S)

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by type

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.abort()  # nobody asked: an early 408, or bytes after the answer's end
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the server switched to another protocol")
        except httptools.HttpParserCallbackError as error:
            self._fail(str(error.__context__ or error))
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {error}")
        else:
            self._after_feeding()

    def eof_received(self) -> None:
        self.reusable = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._until_eof:
            self._finish()
        elif self._received == 0:
            self._fail(HUNG_UP, hung_up=True)
        else:
            self._fail(f"the answer ends early, after {self._body_bytes} bytes of body")

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if not self.closed.done():
            self.closed.set_result(None)
        if self._waiter is None or self._waiter.done():
            return
        if isinstance(exc, ssl.SSLError):
            self._fail(tls_reason(exc))
        elif exc is not None and self._received == 0:
            self._fail(HUNG_UP, hung_up=True)
        elif exc is not None:
            self._fail(f"the connection broke off: {exc}")
        else:
            self.eof_received()

    # --- what the parser calls

    def on_message_begin(self) -> None:
        if self._answered:
            self._surplus = True  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            joint = "\n" if key == "set-cookie" else ", "  # RFC 9110, section 5.3
            text = f"{self._headers[key]}{joint}{text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        if self._answered:
            return
        self._status = self._parser.get_status_code()
        if self._status == SWITCHING_PROTOCOLS:
            raise ValueError("the server switched to another protocol")
        if self._status < 200:
            return
        length = self._headers.get("content-length", "")
        bodiless = self._head_only or self._status in WITHOUT_BODY
        if not bodiless and length.isdigit() and int(length) > MAX_RESPONSE_BYTES:
            raise ValueError(f"the answer has {length} bytes, more than {MAX_RESPONSE_BYTES}")
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        self._until_eof = not bodiless and not length and not chunked
        wishes = self._headers.get("connection", "").lower()
        self._keep_alive = not self._until_eof and (
            "keep-alive" in wishes
            if self._parser.get_http_version() == "1.0"
            else "close" not in wishes
        )
        if bodiless:
            self._finish()  # the parser would wait for the body that the length is about

    def on_body(self, data: bytes) -> None:
        if self._answered:
            self._surplus = True
            return
        self._body_bytes += len(data)
        if self._body_bytes > MAX_RESPONSE_BYTES:
            raise ValueError(f"the answer has more than {MAX_RESPONSE_BYTES} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._answered:
            return
        if self._status < 200:  # 100 Continue and its like (RFC 9110, section 15.2)
            self._headers = {}
        else:
            self._finish()

    # --- inside

    def _begin_answer(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers = {}
        self._body = []
        self._received = self._body_bytes = 0
        self._until_eof = self._keep_alive = self._answered = self._surplus = False

    def _after_feeding(self) -> None:
        """Judge what the parser cannot: is the rest of the connection still ours to use, is the head endless."""
        assert self._transport is not None
        if self._answered:
            # A request still being written, or bytes nobody asked for, spoil the connection for the next one.
            sent = self._transport.get_write_buffer_size() == 0
            self.reusable = self._keep_alive and sent and not self._surplus
        elif self._received - self._body_bytes > MAX_HEADER_BYTES + 8 * self._body_bytes:
            # Counts all that is not body: head, interim answers, chunk sizes, trailers.
            self._fail(f"the answer's head is larger than {MAX_HEADER_BYTES} bytes")

    def _finish(self) -> None:
        self._answered = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Answer(self._status, self._headers, b"".join(self._body)))

    def _fail(self, reason: str, *, hung_up: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(
                ConnectionFailed(reason, answer_begun=self._received > 0, hung_up=hung_up)
            )
        self.abort()
