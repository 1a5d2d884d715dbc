"""The provider API's rules: what is checked, in which order, and what is answered (apple-services.md 6.2, 6.3).

Knows no HTTP: a `ProviderRequest` comes in, a `ProviderAnswer` goes out. Faults (side "server", step "push") are asked for
once the token is known: `answer` {reason, status, timestamp_ms} instead of acting; `lose`, `delay` {seconds},
`duplicate` {times, seconds} after accepting; `hold` {seconds}, `drop`, `goaway` {reason, debug}, `refuse-stream` are the connection's.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.faults import Action, FaultPoint
from emulator.apple.door import UnknownFault
from emulator.apple.push_certificate import Provider
from emulator.apple.push_settings import PushSettings
from emulator.apple.push_stats import PushStats
from emulator.apple.push_tokens import Notification, PushTokens, TokenRecord, TooManyTokens
from emulator.wire import push
from emulator.wire.push import Reason, Refusal

log = structlog.get_logger()

STEP: Final = "push"
AFTER: Final = ("lose", "delay", "duplicate")  # carried out here, on the way to the device
ON_THE_CONNECTION: Final = ("hold", "drop", "goaway", "refuse-stream")
MAX_DELAYED: Final = 100_000  # pushes held back on purpose; more are lost
LONGEST_STORED: Final = timedelta(seconds=push.MAX_STORED_S)

_json_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """One request; header names in lower case, duplicates kept; `body` is cut off one byte after the maximum."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]  # without pseudo headers
    body: bytes
    repeated_pseudo_header: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAnswer:
    """Empty body: accepted."""

    status: int
    apns_id: str
    body: bytes = b""
    action: Action | None = None  # a fault that the connection carries out


class _Refused(Exception):
    """A check failed; the answer says why."""

    def __init__(self, reason: Reason, since: datetime | None = None) -> None:
        self.reason = reason
        self.since = since
        super().__init__(reason)


class ProviderDoor:
    """Answers requests of any provider."""

    def __init__(
        self,
        tokens: PushTokens,
        settings: PushSettings,
        stats: PushStats,
        clock: Clock,
        faults: FaultPoint | None = None,  # false: nothing may go wrong
    ) -> None:
        self._tokens = tokens
        self._settings = settings
        self._stats = stats
        self._clock = clock
        self._faults = faults
        self._delayed: set[asyncio.Task[None]] = set()
        self.shutting_down = False

    async def close(self) -> None:
        """Drop what is still being delayed."""
        for task in self._delayed:
            task.cancel()
        await asyncio.gather(*self._delayed, return_exceptions=True)

    def answer(self, request: ProviderRequest, provider: Provider) -> ProviderAnswer:
        """Check and act. Never raises."""
        headers: dict[str, str] = dict(request.headers)
        apns_id = headers.get(push.APNS_ID, "")
        action: Action | None = None
        try:
            token, topic, expires_at = self._checked(request, headers, provider)
            apns_id = apns_id or str(uuid.uuid4()).upper()
            record = self._record(token, topic)
            if self._faults:
                action = self._fault(record, request)
            if action is not None and action.name == "answer":
                return self._instead(action, apns_id)
            self._limit_rate(record)
        except _Refused as refused:
            return self._refuse(refused.reason, refused.since, apns_id, request)
        except Exception as error:
            log.exception("push_failed", error=str(error))
            return self._refuse(Reason.INTERNAL_SERVER_ERROR, None, apns_id, request)
        if action is None or action.name not in ("drop", "refuse-stream"):
            self._stats.pushes += 1
            notification = Notification(
                token=token,
                apns_id=apns_id,
                payload=request.body,
                accepted_at=self._clock.now(),
                expires_at=expires_at,
            )
            self._send(notification, action)
        return ProviderAnswer(status=200, apns_id=apns_id, action=action)

    # --- checks, in the order of 6.3

    def _checked(
        self, request: ProviderRequest, headers: dict[str, str], provider: Provider
    ) -> tuple[bytes, str | None, datetime | None]:
        text = self._token_text(request)
        if request.method != "POST":
            raise _Refused(Reason.METHOD_NOT_ALLOWED)
        if request.repeated_pseudo_header or _repeated(request.headers, headers):
            raise _Refused(Reason.DUPLICATE_HEADERS)
        now = self._clock.now()
        if (problem := provider.problem(now)) is not None:
            raise _Refused(problem)
        if self.shutting_down:
            raise _Refused(Reason.SHUTDOWN)
        _check_apns_id(headers.get(push.APNS_ID))
        if headers.get(push.APNS_PUSH_TYPE, push.PUSH_TYPE) != push.PUSH_TYPE:
            raise _Refused(Reason.INVALID_PUSH_TYPE)
        if headers.get(push.APNS_PRIORITY, "10") not in push.PRIORITIES:
            raise _Refused(Reason.BAD_PRIORITY)
        expires_at = self._expires_at(headers.get(push.APNS_EXPIRATION), now)
        if len(headers.get(push.APNS_COLLAPSE_ID, "").encode()) > push.MAX_COLLAPSE_ID_BYTES:
            raise _Refused(Reason.BAD_COLLAPSE_ID)
        topic = _topic(headers.get(push.APNS_TOPIC), provider)
        token = self._token(text)
        _check_payload(request.body)
        return token, topic, expires_at

    def _token_text(self, request: ProviderRequest) -> str:
        path = request.path.partition("?")[0]
        if path == push.PATH.rstrip("/"):
            path = push.PATH
        if not path.startswith(push.PATH) or "/" in path[len(push.PATH) :]:
            raise _Refused(Reason.BAD_PATH)
        return path[len(push.PATH) :]

    def _expires_at(self, text: str | None, now: datetime) -> datetime | None:
        """Until when the push may be stored; None: one attempt."""
        if text is None:
            absent_s = self._settings.absent_expiration_s
            return None if absent_s is None else now + timedelta(seconds=absent_s)
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise _Refused(Reason.BAD_EXPIRATION_DATE)
        seconds = int(text)
        longest = now + LONGEST_STORED
        if seconds == 0:
            return None
        if seconds >= longest.timestamp():
            return longest
        return datetime.fromtimestamp(seconds, UTC)

    def _token(self, text: str) -> bytes:
        if not text:
            raise _Refused(Reason.MISSING_DEVICE_TOKEN)
        try:
            token = push.token_of(text)
        except MalformedMessage:
            raise _Refused(Reason.BAD_DEVICE_TOKEN) from None
        wanted = self._settings.token_bytes
        if wanted is not None and len(token) != wanted and token not in self._tokens:
            raise _Refused(Reason.BAD_DEVICE_TOKEN)
        return token

    def _record(self, token: bytes, topic: str | None) -> TokenRecord:
        record = self._tokens.get(token)
        if record is None:
            if (gone := self._tokens.gone(token)) is not None:
                raise _Refused(gone.reason, gone.since)
            if self._settings.strict:
                raise _Refused(Reason.BAD_DEVICE_TOKEN)
            try:
                # A device that was never heard of: what comes before its first connection waits for it.
                return self._tokens.register(token, topic)
            except TooManyTokens:
                raise _Refused(Reason.SERVICE_UNAVAILABLE) from None
        if topic is not None and record.topic is not None and record.topic != topic:
            raise _Refused(Reason.DEVICE_TOKEN_NOT_FOR_TOPIC)
        return record

    def _limit_rate(self, record: TokenRecord) -> None:
        limit = self._settings.per_token_per_minute
        if limit is None:
            return
        minute = int(self._clock.now().timestamp()) // 60
        if record.minute != minute:
            record.minute, record.in_minute = minute, 0
        record.in_minute += 1
        if record.in_minute > limit:
            raise _Refused(Reason.TOO_MANY_REQUESTS)

    # --- what follows

    def _refuse(
        self, reason: Reason, since: datetime | None, apns_id: str, request: ProviderRequest
    ) -> ProviderAnswer:
        self._stats.refused[reason] += 1
        log.warning("push_refused", reason=reason.value, path=request.path[:80])
        if reason is Reason.BAD_MESSAGE_ID or not apns_id:
            apns_id = str(uuid.uuid4()).upper()
        body = push.encode(Refusal(reason=reason, timestamp=since))
        return ProviderAnswer(status=reason.status, apns_id=apns_id, body=body)

    def _fault(self, record: TokenRecord, request: ProviderRequest) -> Action | None:
        assert self._faults is not None
        record.asked += 1
        action = self._faults("server", STEP, request, record.asked)
        if action is not None and action.name not in ("answer", *AFTER, *ON_THE_CONNECTION):
            raise UnknownFault(f"{STEP}: no such fault on this side: {action.name}")
        return action

    def _instead(self, action: Action, apns_id: str) -> ProviderAnswer:
        reason = Reason(action.arguments["reason"])
        self._stats.refused[reason] += 1
        log.warning("push_refused", reason=reason.value, fault=action.name)
        timestamp_ms = action.arguments.get("timestamp_ms")
        since = self._clock.now() if reason.status == 410 else None
        if timestamp_ms is not None:
            since = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
        return ProviderAnswer(
            status=int(action.arguments.get("status", reason.status)),
            apns_id=apns_id,
            body=push.encode(Refusal(reason=reason, timestamp=since)),
        )

    def _send(self, notification: Notification, action: Action | None) -> None:
        if action is None or action.name not in AFTER:
            self._tokens.accept(notification)
        elif action.name == "duplicate":
            self._tokens.accept(notification)
            self._stats.duplicated += 1
            # Each copy comes alone: two that wait together would be one.
            for number in range(1, 1 + int(action.arguments.get("times", 1))):
                again = replace(notification, stored=False)
                self._after(again, number * float(action.arguments.get("seconds", 1)))
        elif action.name == "lose":
            self._stats.lost += 1
        else:
            self._stats.delayed += 1
            self._after(notification, float(action.arguments["seconds"]))

    def _after(self, notification: Notification, seconds: float) -> None:
        if len(self._delayed) >= MAX_DELAYED:
            self._stats.lost += 1
            return
        task = asyncio.create_task(self._later(notification, seconds))
        self._delayed.add(task)
        task.add_done_callback(self._delayed.discard)

    async def _later(self, notification: Notification, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._tokens.accept(notification)


def _repeated(items: Sequence[tuple[str, str]], headers: dict[str, str]) -> bool:
    """An `apns-*` header came twice; other headers may."""
    if len(items) == len(headers):
        return False
    names = Counter(name for name, _ in items)
    return any(count > 1 for name, count in names.items() if name.startswith("apns-"))


def _check_apns_id(text: str | None) -> None:
    if text is None:
        return
    try:
        if len(text) == 36 and str(uuid.UUID(text)) == text.lower():
            return
    except ValueError:
        pass
    raise _Refused(Reason.BAD_MESSAGE_ID)


def _topic(text: str | None, provider: Provider) -> str | None:
    """The topic meant; None where neither header nor certificate says (compat)."""
    if text is None:
        if len(provider.topics) > 1:
            raise _Refused(Reason.MISSING_TOPIC)
        return provider.topics[0] if provider.topics else None
    if not text or len(text) > 255 or not text.isascii() or not text.isprintable() or " " in text:
        raise _Refused(Reason.BAD_TOPIC)
    if provider.topics and text not in provider.topics:
        raise _Refused(Reason.TOPIC_DISALLOWED)
    return text


def _check_payload(body: bytes) -> None:
    """A JSON object of a size that is allowed. 6.3 has no word for a payload that is none: it counts as empty."""
    if not body:
        raise _Refused(Reason.PAYLOAD_EMPTY)
    if len(body) > push.MAX_PAYLOAD_BYTES:
        raise _Refused(Reason.PAYLOAD_TOO_LARGE)
    try:
        _json_object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refused(Reason.PAYLOAD_EMPTY) from None
