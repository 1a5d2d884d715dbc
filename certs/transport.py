"""How every client in this project speaks HTTP: a Protocol, so that SCEP and ACME know no sockets.

The device's own implementation is `emulator.http`. A Transport sends one request and returns the answer, whatever its
status; only the absence of an answer is an exception (`TransportError`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from certs.errors import UnexpectedAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """One answer: status, headers with lower-case names, the whole body, and the URL that gave it after redirects."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = ""

    def header(self, name: str) -> str | None:
        """The value of a header, found without regard to case."""
        return self.headers.get(name.lower())

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty when none was named."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    def require(self, *statuses: int) -> "HttpResponse":
        """Return self when the status is one of `statuses`, else raise UnexpectedAnswer."""
        if self.status not in statuses:
            wanted = " or ".join(str(status) for status in statuses)
            raise UnexpectedAnswer(self.url, self.status, f"expected {wanted}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One request as a report counts it."""

    step: str  # the protocol step, such as "authenticate" or "pki_operation"
    latency_ms: float  # from before the connect to the last byte of the answer
    status: int | None  # None when no answer came
    error: str | None = None


TimingHook = Callable[[Timing], None]


class Transport(Protocol):
    """A door to the network that belongs to one client for as long as it needs it."""

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
        """Send and wait. Raises TransportError (no answer) or ForbiddenHost; never for an HTTP status."""
        ...
