"""What a service of Apple's side says: an answer, or a refusal that names the check that failed.

Services know no HTTP server: a `Received` comes in, an `Answer` goes out or a `Refusal` is raised. `door` does the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from cryptography import x509

from emulator.errors import EmulatorError

TEXT: Final = "text/plain"
M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as a service sees it."""

    body: bytes
    content_type: str = ""  # as sent, with its parameters
    user_agent: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # found whatever their case
    query: Mapping[str, str] = field(default_factory=dict)
    certificate: x509.Certificate | None = None  # that the client proved in the TLS handshake


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; the content type goes out exactly as written here, without parameters."""

    status: int = 200
    body: bytes = b""
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str  # what the log calls it
    delay_s: float = 0.0  # it comes so much later, by the injected clock


class Refusal(EmulatorError):
    """A check of the tables in apple-services.md 9 failed."""

    def __init__(
        self,
        check: str,
        status: int,
        word: str,
        reason: str,
        *,
        page: bytes | None = None,
        content_type: str = TEXT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.check = check  # the row of the table, such as "A5"
        self.status = status
        self.word = word
        self.reason = reason
        self.answer = Answer(
            status=status,
            body=word.encode() if page is None else page,
            content_type=content_type,
            headers=headers or {},
            outcome=word,
        )
        super().__init__(f"{check}: {word}: {reason}")


class Service(Protocol[M]):
    """One endpoint: how its request is read, whose it is, and what is answered."""

    step: str  # as in logs, timings and faults

    def decode(self, received: Received) -> M:
        """Read the request. Raises Refusal."""
        ...

    def serial_number(self, message: M) -> str:
        """The device that it claims to come from; empty when it does not say. Nothing is checked yet."""
        ...

    async def answer(self, message: M) -> Answer:
        """Check and act. Raises Refusal; then nothing has changed."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Headers of every answer, whatever its status."""
        ...
