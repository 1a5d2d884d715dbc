"""Report: lines about one file as they are found, and the problems among them; secrets only as length and hash."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from certs.identity import Identity

MAX_LINES: Final = 400
MAX_TEXT: Final = 300  # characters of one value
MAX_DEPTH: Final = 6  # files within files


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the reader of a file knows besides its bytes."""

    at: datetime
    roots: Sequence[x509.Certificate] = ()
    identities: Sequence[Identity] = ()  # that may open envelopes
    password: str | None = None


@dataclass(slots=True)
class Report:
    """Indented lines, and every sentence about what is wrong."""

    context: Context
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    depth: int = 0  # of files within files
    beside: list[x509.Certificate] = field(default_factory=list)  # in the same text: issuers, maybe
    in_profile: bool = False  # what a profile carries may be a root of its own
    message_type: str = ""  # of the SCEP message whose envelope is being read
    _indent: int = 0

    def say(self, name: str, value: object = None) -> None:
        """One line: a heading, or a name and its value."""
        if len(self.lines) == MAX_LINES:
            self.lines.append("…")
        if len(self.lines) > MAX_LINES:
            return
        text = name if value is None else f"{name}: {value}"
        self.lines.append("  " * self._indent + shortened(text))

    def wrong(self, sentence: str) -> None:
        """Something a peer would stumble over."""
        text = shortened(sentence)
        if text not in self.problems and len(self.problems) < MAX_LINES:
            self.problems.append(text)

    def __enter__(self) -> None:
        """What is said inside stands below the line before."""
        self._indent += 1

    def __exit__(self, *exc: object) -> None:
        self._indent -= 1


Inside = Callable[[Report, bytes, str], None]  # tells what a file within a file holds


def shortened(text: str) -> str:
    """Printable and of bounded length, whatever a file holds."""
    line = "".join(c if c.isprintable() else "�" for c in text[: MAX_TEXT + 1])
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def secret(value: str | bytes) -> str:
    """A secret for people: how long it is, and enough of its hash to compare two."""
    data = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    unit = "characters" if isinstance(value, str) else "bytes"
    return f"hidden, {len(value)} {unit}, SHA-256 {hashlib.sha256(data).hexdigest()[:8]}…"


def blob(data: bytes) -> str:
    """Opaque bytes: their size, and all of them only when they are few."""
    shown = data.hex() if len(data) <= 32 else f"{data[:8].hex()}…"
    return f"{len(data)} bytes {shown}".rstrip()


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"
