"""What an administrator is told when something about tokens, profiles or syncs is refused: status and sentence."""

from datetime import datetime
from typing import ClassVar

from certs.errors import shorten


class AssignmentError(Exception):
    """Root of these refusals; nothing has changed here when one is raised."""

    status: ClassVar[int] = 409

    @property
    def headers(self) -> dict[str, str]:
        """What goes out beside the sentence."""
        return {}


class Unknown(AssignmentError):
    """Nothing here goes by this name."""

    status = 404

    def __init__(self, what: str, name: str) -> None:
        self.what = what
        self.name = name
        super().__init__(f"there is no {what} {name:.80}")


class NotPossible(AssignmentError):
    """What was asked for contradicts how things stand."""


class Invalid(AssignmentError):
    """What was asked for can never be granted as it is."""

    status = 400


class LimitReached(AssignmentError):
    """One more would be more than the service takes."""

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        super().__init__(f"no more than {limit} {what}")


class SyncRunning(AssignmentError):
    """One sync at a time."""

    def __init__(self, started_at: datetime) -> None:
        self.started_at = started_at
        super().__init__(f"a sync runs since {started_at:%FT%TZ}")


class SyncTooSoon(AssignmentError):
    """A sync that may not run yet."""

    status = 429

    def __init__(self, reason: str, *, until: datetime, seconds: float) -> None:
        self.reason = reason
        self.until = until
        self.seconds = seconds
        super().__init__(f"{reason}; possible again at {until:%FT%TZ}")

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(max(1, round(self.seconds)))}


class AppleError(AssignmentError):
    """The assignment service did not do what it was asked for; `word` is how a token's status calls that."""

    status = 502

    def __init__(
        self, step: str, word: str, detail: str, *, http_status: int | None = None
    ) -> None:
        self.step = step
        self.word = word
        self.detail = detail
        self.http_status = http_status
        answer = f"HTTP {http_status} " if http_status else ""
        super().__init__(f"{step}: {answer}{word}" + (f" ({detail})" if detail != word else ""))

    @property
    def about_token(self) -> bool:
        """True when it is this token that Apple does not want, so that no other request would fare better."""
        return self.http_status in (401, 403)


class TokenExpired(AppleError):
    """The year of the token file is over: found here, so that Apple is not asked (5.4)."""

    status = 409

    def __init__(self, expired_at: datetime) -> None:
        self.expired_at = expired_at
        super().__init__(
            "token", "TOKEN_EXPIRED", f"expired at {expired_at:%FT%TZ}: renew it in the portal"
        )

    @property
    def about_token(self) -> bool:
        return True


class WrongServer(AppleError):
    """The token file is of another server of the portal than the one that this token's devices are of."""

    status = 409

    def __init__(self, word: str, stored: str | None, came: str | None) -> None:
        super().__init__(
            "assignment_account", word, f"the account says {came}, this token is of {stored}"
        )

    @property
    def about_token(self) -> bool:
        return True


class StuckCursor(AppleError):
    """More is said to follow, but the cursor does not lead there: asking on would never end."""

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(step, "CURSOR_NOT_MOVING", detail)


class AppleRefused(AppleError):
    """An answer other than 200."""

    def __init__(
        self, step: str, http_status: int, text: str, *, retry_after_s: float | None
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(step, word_of(text, http_status), text, http_status=http_status)


class AppleUnreachable(AppleError):
    """No answer."""

    status = 504

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, "UNREACHABLE", reason)


class AppleMalformed(AppleError):
    """An answer that the protocol does not allow."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, "MALFORMED_ANSWER", reason)


# The words that error bodies hold, some of them among others (apple-services.md 4.2, 4.6-4.10); longer ones first
# where one is part of another.
WORDS = (
    "T_C_NOT_SIGNED",
    "ACCESS_DENIED",
    "token_expired",
    "token_rejected",
    "signature_invalid",
    "oauth_problem_advice",
    "CURSOR_REQUIRED",
    "INVALID_CURSOR",
    "EXHAUSTED_CURSOR",
    "EXPIRED_CURSOR",
    "USER_AGENT_MISSING",
    "USER_AGENT_INVALID",
    "MALFORMED_REQUEST_BODY",
    "CONFIG_NAME_REQUIRED",
    "CONFIG_NAME_INVALID",
    "CONFIG_URL_REQUIRED",
    "CONFIG_URL_INVALID",
    "DEPARTMENT_INVALID",
    "DESCRIPTION_INVALID",
    "SUPPORT_PHONE_INVALID",
    "SUPPORT_EMAIL_INVALID",
    "MAGIC_INVALID",
    "LOCALE_INVALID",
    "FLAGS_INVALID",
    "PROFILE_UUID_REQUIRED",
    "PROFILE_NOT_FOUND",
    "DEVICE_ID_REQUIRED",
    "DEVICE_NOT_FOUND",
    "ORG_NOT_SUPPORTED",
    "TOO_MANY_REQUESTS",
    "UNAUTHORIZED",
    "FORBIDDEN",
    "NOT_FOUND",
)


def word_of(text: str, http_status: int) -> str:
    """The known word in an error body, whatever stands around it; else the body, else the status."""
    for word in WORDS:
        if word in text:
            return word
    return shorten(text, 64)[1:-1] if text else f"HTTP {http_status}"
