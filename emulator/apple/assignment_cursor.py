"""Cursors of fetch and sync: where a client stands in one server's log, sealed so that no other server's is taken for it.

A fetch pages through the devices that were there when it began, by the position at which each came; so pages stay what they
are while devices come and go, nothing is kept for a client, and a cursor outlives a restart (apple-services.md 4.6, 4.7, 9.3).
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from emulator.apple.operations import moment_of, ms_of
from emulator.wire.assignment import MAX_CURSOR

LIFETIME: Final = timedelta(days=7)
_SEAL: Final = 8  # bytes


class Phase(StrEnum):
    """Which endpoint made the cursor."""

    FETCH = "0"
    SYNC = "100"


class InvalidCursor(Exception):
    """It is not one of ours, or another server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Positions are those of the server's log."""

    phase: Phase
    position: int  # the next one to look at
    until: int  # where the log ended when the fetch began
    since: datetime  # when that was
    done: bool = False  # a fetch has given everything
    made: datetime

    def expired(self, now: datetime) -> bool:
        return now - self.made > LIFETIME

    def encode(self, secret: bytes, server_uuid: str) -> str:
        flag = "true" if self.done else "false"
        text = (
            f"{self.phase}:{self.position}:{ms_of(self.since)}:{self.until}:{flag}:{ms_of(self.made)}"
        ).encode()
        sealed = text + b":" + _seal(secret, server_uuid, text)
        cursor = _text(sealed)
        assert len(cursor) <= MAX_CURSOR
        return cursor


def decode(text: str, secret: bytes, server_uuid: str) -> Cursor:
    """Raises InvalidCursor."""
    if len(text) > MAX_CURSOR or not text.isascii():
        raise InvalidCursor("not of a cursor's shape")
    try:
        sealed = base64.b64decode(
            (text + "=" * (-len(text) % 4)).encode(), altchars=b"-_", validate=True
        )
    except (ValueError, binascii.Error):
        raise InvalidCursor("not base64") from None
    content, seal = sealed[: -_SEAL - 1], sealed[-_SEAL:]
    if (
        _text(sealed) != text
        or sealed[-_SEAL - 1 : -_SEAL] != b":"
        or not hmac.compare_digest(seal, _seal(secret, server_uuid, content))
    ):
        raise InvalidCursor("made up, damaged, or another server's")
    phase, position, since, until, flag, made = content.decode().split(":")
    return Cursor(
        phase=Phase(phase),
        position=int(position),
        until=int(until),
        since=moment_of(int(since)),
        done=flag == "true",
        made=moment_of(int(made)),
    )


def _text(sealed: bytes) -> str:
    """Base64 without padding, as the real ones."""
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _seal(secret: bytes, server_uuid: str, text: bytes) -> bytes:
    message = b"cursor " + server_uuid.encode() + b" " + text
    return hmac.digest(secret, message, hashlib.sha256)[:_SEAL]
