"""Session tokens of the device assignment API: what `GET /session` gives, and every other request shows (4.1, 4.2).

A token says whose it is and when it was made, and is sealed; so none is kept here, however many servers ask. The seal holds
the server's access token too: with a server token that is over, its sessions are over.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from emulator.apple.answer import Refusal
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.ledger import Ledger
from emulator.apple.operations import moment_of, ms_of

MAX_TOKEN: Final = 1024
_SEAL: Final = 20  # bytes
_PARTS: Final = 4


class Sessions:
    """Makes and checks them."""

    def __init__(self, secret: bytes, settings: AssignmentSettings) -> None:
        self._secret = secret
        self._lifetime = timedelta(seconds=settings.session_s)
        self._rotate_after = (
            timedelta(seconds=settings.rotate_session_after_s) if settings.rotate_sessions else None
        )

    def open(self, ledger: Ledger, now: datetime) -> str:
        """A new token, of the real ones' shape: times and upper-case hex groups joined by the letter O."""
        text = f"{ms_of(now)}O{ledger.uuid}O{secrets.token_hex(8).upper()}"
        return f"{text}O{self._seal(ledger, text)}"

    def claimed(self, token: str, ledgers: Mapping[str, Ledger]) -> Ledger | None:
        """Whose it says it is, before anything is checked."""
        parts = token.split("O", _PARTS) if len(token) <= MAX_TOKEN else []
        return ledgers.get(parts[1]) if len(parts) == _PARTS else None

    def check(self, token: str, ledgers: Mapping[str, Ledger], now: datetime) -> Ledger:
        """Raises Refusal: 401 for none and for one that is over, 403 for one that is none of ours."""
        if not token:
            raise Refusal("SESSION", 401, "UNAUTHORIZED", "no session token")
        ledger = self.claimed(token, ledgers)
        text, _, seal = token.rpartition("O")
        if ledger is None or not hmac.compare_digest(
            seal.encode(errors="replace"), self._seal(ledger, text).encode()
        ):
            raise Refusal("SESSION", 403, "FORBIDDEN", "the session token is none of ours")
        if now - _made(token) >= self._lifetime:
            raise Refusal("SESSION", 401, "UNAUTHORIZED", f"the session began at {_made(token)}")
        return ledger

    def next(self, token: str, ledger: Ledger, now: datetime) -> str | None:
        """What the answer brings in place of a token that was checked; None: nothing yet."""
        if self._rotate_after is None or now - _made(token) < self._rotate_after:
            return None
        return self.open(ledger, now)

    def _seal(self, ledger: Ledger, text: str) -> str:
        access_token = "" if ledger.token is None else ledger.token.token.access_token
        message = f"session {text} {access_token}".encode(errors="replace")
        return hmac.digest(self._secret, message, hashlib.sha256)[:_SEAL].hex().upper()


def _made(token: str) -> datetime:
    return moment_of(int(token.partition("O")[0]))
