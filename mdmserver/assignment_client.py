"""The assignment API as a server asks it: OAuth for a session token, then JSON under that token (apple-services.md 4).

Comes in: the credentials of one token. Goes out: the JSON of answers, which `assignment_answers` reads, or an AppleError whose word is
Apple's own. A session token that an answer brings replaces the old one; one that is expired or unknown is replaced once.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Final
from urllib.parse import quote

import structlog
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA1, Client

from certs.clock import Clock
from certs.errors import CertsError, MalformedMessage
from certs.transport import HttpResponse, Transport
from emulator.wire import json_object
from emulator.wire.fields import Fields
from mdmserver.assignment_errors import (
    AppleMalformed,
    AppleRefused,
    AppleUnreachable,
)
from mdmserver.store.assignment_base import Credentials

log = structlog.get_logger()

PROTOCOL_VERSION: Final = "10"  # 4.3: THROTTLED and how long, hardware addresses
CONTENT_TYPE: Final = "application/json;charset=UTF8"  # without a hyphen (4.1)
MAX_SESSION_TOKEN: Final = 1024
MAX_WAITS: Final = 5  # how often one request waits as Retry-After asks
DEFAULT_WAIT_S: Final = 30.0  # where no Retry-After came


class Session:
    """The session token of one access token, as long as the process lives; requests of one token share it."""

    def __init__(self) -> None:
        self.token: str | None = None


class AssignmentClient:
    """Asks on behalf of one token."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        credentials: Credentials,
        session: Session,
        *,
        clock: Clock,
        patient: bool = False,
    ) -> None:
        """`patient`: wait as long as Retry-After asks; else say so to the caller."""
        self._transport = transport
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._session = session
        self._clock = clock
        self._patient = patient

    async def account(self) -> Fields:
        """`GET /account`."""
        return await self._ask("assignment_account", "GET", "/account")

    async def fetch(self, cursor: str | None, limit: int) -> Fields:
        """`POST /server/devices`: one page of the whole list."""
        body: Fields = {"limit": limit}
        if cursor is not None:
            body["cursor"] = cursor
        return await self._ask("assignment_fetch", "POST", "/server/devices", body)

    async def sync(self, cursor: str, limit: int) -> Fields:
        """`POST /devices/sync`: one page of what changed."""
        return await self._ask(
            "assignment_sync", "POST", "/devices/sync", {"cursor": cursor, "limit": limit}
        )

    async def define(self, profile: Fields) -> Fields:
        """`POST /profile`."""
        return await self._ask("assignment_define", "POST", "/profile", profile)

    async def profile(self, uuid: str) -> Fields:
        """`GET /profile`."""
        return await self._ask("assignment_profile", "GET", f"/profile?profile_uuid={quote(uuid)}")

    async def assign(self, uuid: str, serials: Sequence[str]) -> Fields:
        """`POST /profile/devices`."""
        body = {"profile_uuid": uuid, "devices": list(serials)}
        return await self._ask("assignment_assign", "POST", "/profile/devices", body)

    async def unassign(self, serials: Sequence[str]) -> Fields:
        """`DELETE /profile/devices`, with a body."""
        body = {"devices": list(serials)}
        return await self._ask("assignment_unassign", "DELETE", "/profile/devices", body)

    async def disown(self, serials: Sequence[str]) -> Fields:
        """`POST /devices/disown`."""
        body = {"devices": list(serials)}
        return await self._ask("assignment_disown", "POST", "/devices/disown", body)

    async def _ask(self, step: str, method: str, path: str, fields: Fields | None = None) -> Fields:
        """One call; raises AppleError."""
        body = json_object.dumps(fields) if fields is not None else b""
        renewed = False
        while True:
            token = self._session.token or await self._begin_session()
            headers = {"X-ADM-Auth-Session": token}
            try:
                answer = await self._send(step, method, path, headers, body)
            except AppleRefused as error:
                if renewed or not _session_is_over(error):
                    raise
                renewed = True
                if self._session.token == token:  # else another request has replaced it already
                    self._session.token = None
                continue
            self._adopt(answer)
            return _object(step, answer)

    async def _begin_session(self) -> str:
        """`GET /session` with OAuth 1.0a (4.2)."""
        step = "assignment_session"
        credentials = self._credentials
        signer = Client(
            credentials.consumer_key,
            client_secret=credentials.consumer_secret,
            resource_owner_key=credentials.access_token,
            resource_owner_secret=credentials.access_secret,
            signature_method=SIGNATURE_HMAC_SHA1,
            realm="ADM",
            nonce=secrets.token_hex(16),
            timestamp=str(int(self._clock.now().timestamp())),
        )
        _, headers, _ = signer.sign(f"{self._url}/session")
        answer = await self._send(step, "GET", "/session", headers)
        token = _object(step, answer).get("auth_session_token")
        if not isinstance(token, str) or not _usable(token):
            raise AppleMalformed(step, "auth_session_token: expected a token of up to 1 KB")
        self._session.token = token
        log.debug("assignment_session", consumer_key=credentials.consumer_key[:12])
        return token

    def _adopt(self, answer: HttpResponse) -> None:
        """An answer may bring the next session token."""
        token = answer.header("X-ADM-Auth-Session")
        if token and _usable(token):
            self._session.token = token

    async def _send(
        self,
        step: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> HttpResponse:
        """Send until the answer is one; raises AppleError for every status but 200."""
        everything = {
            **headers,
            "X-Server-Protocol-Version": PROTOCOL_VERSION,
            "Content-Type": CONTENT_TYPE,
            "Accept": CONTENT_TYPE,
        }
        for waits in count():
            try:
                answer = await self._transport.request(
                    method, self._url + path, step=step, headers=everything, body=body
                )
            except CertsError as error:
                raise AppleUnreachable(step, str(error)) from error
            if answer.status == 200:
                return answer
            refused = AppleRefused(
                step,
                answer.status,
                _text(answer.body),
                retry_after_s=_retry_after_s(answer, self._clock.now()),
            )
            if not self._patient or answer.status not in (429, 503) or waits == MAX_WAITS:
                raise refused
            wait_s = refused.retry_after_s
            await self._clock.sleep(DEFAULT_WAIT_S if wait_s is None else wait_s)
        raise AssertionError("count() does not end")


def _session_is_over(error: AppleRefused) -> bool:
    """401 is an expired session, 403 FORBIDDEN an unknown one; other 403 are about the token (4.2)."""
    if error.step == "assignment_session":
        return False
    return error.http_status == 401 or (error.http_status == 403 and error.word == "FORBIDDEN")


def _object(step: str, answer: HttpResponse) -> Fields:
    try:
        return json_object.loads(answer.body, step)
    except MalformedMessage as error:
        raise AppleMalformed(step, str(error)) from error


def _usable(token: str) -> bool:
    return 0 < len(token) <= MAX_SESSION_TOKEN and token.isascii() and token.isprintable()


def _text(body: bytes) -> str:
    """An error body as text: one line, without the quotes that Apple's simulator puts around it (4.1)."""
    return " ".join(body[:500].decode(errors="replace").split()).strip('"')[:200]


def _retry_after_s(answer: HttpResponse, now: datetime) -> float | None:
    """Retry-After, in seconds or as a date; None where it is absent or unreadable."""
    text = (answer.header("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
