"""What a CA has issued and revoked: one JSON line per event, appended, so that a kill leaves all but the last line whole.

In comes each new certificate and each revocation; out comes, after a restart, which serial numbers are revoked and since when.
"""

import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from certs.errors import MalformedMessage

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that the CA made."""

    serial_number: int
    sha256: bytes
    subject: str  # RFC 4514
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why and since when a certificate is no longer good."""

    serial_number: int
    revoked_at: datetime
    reason: x509.ReasonFlags


class IssuedIndex:
    """The events of one CA; in memory only when it has no file."""

    def __init__(self, path: Path | None = None) -> None:
        self.revoked: dict[int, Revocation] = {}
        self.count = 0  # certificates issued
        self._descriptor: int | None = None
        self._unwritten: list[Issued] = []  # without a file
        self._fingerprints: tuple[int, frozenset[bytes]] = 0, frozenset()  # of so many revocations
        self.path = path
        if path is not None:
            self._load(path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            weakref.finalize(self, os.close, self._descriptor)

    def issued(self, issued: Issued) -> None:
        """Record a certificate before anybody gets it."""
        self.count += 1
        if self._descriptor is None:
            self._unwritten.append(issued)
        else:
            # Only a subject needs escaping.
            self._append(
                b'{"issued":"%x","sha256":"%b","subject":%b,"not_after":"%b"}\n'
                % (
                    issued.serial_number,
                    issued.sha256.hex().encode(),
                    msgspec.json.encode(issued.subject),
                    issued.not_after.isoformat().encode(),
                )
            )

    def revoke(self, revocation: Revocation) -> None:
        """Record a revocation; a second one for the same certificate changes nothing."""
        if revocation.serial_number in self.revoked:
            return
        if self._descriptor is not None:
            event = {
                "revoked": f"{revocation.serial_number:x}",
                "at": revocation.revoked_at.isoformat(),
                "reason": revocation.reason.value,
            }
            self._append(msgspec.json.encode(event) + b"\n")
        self.revoked[revocation.serial_number] = revocation

    def history(self) -> Iterator[Issued]:
        """Every certificate issued, oldest first."""
        yield from tuple(self._unwritten)
        if self.path is not None:
            data = self.path.read_bytes()
            for event in _events(data[: data.rfind(b"\n") + 1]):
                if isinstance(event, Issued):
                    yield event

    def revoked_fingerprints(self) -> frozenset[bytes]:
        """SHA-256 of each revoked certificate. Reads the whole index, once after each revocation: off the event loop."""
        count = len(self.revoked)
        if self._fingerprints[0] != count:
            found = (item.sha256 for item in self.history() if item.serial_number in self.revoked)
            self._fingerprints = count, frozenset(found)
        return self._fingerprints[1]

    def _append(self, line: bytes) -> None:
        assert self._descriptor is not None
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written")

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            log.warning("issued_index_cut", path=str(path), dropped_bytes=len(data) - whole)
            os.truncate(path, whole)
        for event in _events(data[:whole]):
            match event:
                case Issued():
                    self.count += 1
                case Revocation():
                    self.revoked.setdefault(event.serial_number, event)


def _events(data: bytes) -> Iterator[Issued | Revocation]:
    """Raises MalformedMessage, naming the line, for what this class has not written."""
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            fields = json.loads(line)
            if "issued" in fields:
                yield Issued(
                    int(fields["issued"], 16),
                    bytes.fromhex(fields["sha256"]),
                    fields["subject"],
                    datetime.fromisoformat(fields["not_after"]),
                )
            else:
                yield Revocation(
                    int(fields["revoked"], 16),
                    datetime.fromisoformat(fields["at"]),
                    x509.ReasonFlags(fields["reason"]),
                )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedMessage(
                f"issued index, line {number}", "an issued or revoked certificate", str(error)
            ) from error
