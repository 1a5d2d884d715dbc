"""OAuth 1.0a of `GET /session`: who asks, proven by the credentials of a server token (apple-services.md 4.2, RFC 5849).

oauthlib reads the header, builds the base string and compares; here stand the windows of nonces and time, by the injected
clock, and what each failure is answered with.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.request import parse_http_list

from oauthlib.oauth1 import SIGNATURE_HMAC_SHA1, OAuth1Error, RequestValidator
from oauthlib.oauth1.rfc5849.endpoints.base import BaseEndpoint

from emulator.apple.answer import Refusal
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.ledger import Ledger
from emulator.apple.memory import Memory
from emulator.apple.registry import Registry
from emulator.wire.assignment import SESSION_PATH

# As the live service says it (4.2).
BAD_REQUEST: Final = "oauth_problem_adviceBad Request"
UNAUTHORIZED: Final = "oauth_problem_adviceUnauthorized"
EXPIRED: Final = "token_expiredForbidden"

MAX_KEY: Final = 512  # characters of a key, a token or a nonce; no format is asked for
PARAMETERS: Final = frozenset(
    {
        "oauth_consumer_key",
        "oauth_token",
        "oauth_signature_method",
        "oauth_timestamp",
        "oauth_nonce",
        "oauth_version",
        "oauth_signature",
    }
)


class _Validator(RequestValidator):
    """What oauthlib asks about credentials."""

    enforce_ssl = False  # a proxy may stand before us; which URLs count is our own list
    timestamp_lifetime = 1 << 40  # checked by the injected clock instead

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry

    @property
    def allowed_signature_methods(self) -> tuple[str, ...]:
        return (SIGNATURE_HMAC_SHA1,)

    def check_client_key(self, client_key: str) -> bool:
        return 0 < len(client_key) <= MAX_KEY

    def check_nonce(self, nonce: str) -> bool:
        return 0 < len(nonce) <= MAX_KEY

    def get_client_secret(self, client_key: str, request: Any) -> str:
        ledger = self._registry.ledger_by_key(client_key)
        assert ledger is not None
        assert ledger.token is not None
        return ledger.token.token.consumer_secret

    def get_access_token_secret(self, client_key: str, token: str, request: Any) -> str:
        ledger = self._registry.ledger_by_key(client_key)
        assert ledger is not None
        assert ledger.token is not None
        return ledger.token.token.access_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What the header says, with oauthlib's own view of it."""

    uri: str
    consumer_key: str
    access_token: str
    nonce: str
    timestamp: int
    request: Any = field(repr=False)


class OAuth:
    """Finds the server whose token signed a request."""

    def __init__(
        self,
        registry: Registry,
        settings: AssignmentSettings,
        urls: Callable[[], Iterable[str]],
    ) -> None:
        """`urls` are the base URLs that clients may have signed for; asked at each request."""
        # Its three steps are used one by one, as each failure has an answer of its own; the stubs leave them out.
        self._endpoint: Any = BaseEndpoint(_Validator(registry))
        self._registry = registry
        self._settings = settings
        self._urls = urls
        self._nonces: Memory[bool] = Memory(timedelta(seconds=settings.nonce_window_s))

    def verify(self, authorization: str, host: str, now: datetime) -> Ledger:
        """The server that asks. Raises Refusal."""
        if self._settings.oauth == "open":
            return self._whoever(authorization)
        request = self._read(authorization, self._url(host))
        ledger = self._server(request)
        if self._settings.oauth == "strict":
            self._check_time(request, now)
            self._check_signature_for(request, authorization)
            self._check_nonce(request, now)
        assert ledger.token is not None
        if now >= ledger.token.token.access_token_expiry:
            raise Refusal("OAUTH", 403, EXPIRED, "the year of the token is over")
        return ledger

    def _whoever(self, authorization: str) -> Ledger:
        """In mode `open`: the server of the consumer key if there is one, else the first."""
        for ledger in self._registry.ledgers.values():
            if any(key in authorization for key in ledger.consumer_keys):
                return ledger
        for ledger in self._registry.ledgers.values():
            return ledger
        raise _unauthorized("the portal has no server")

    def _url(self, host: str) -> str:
        """The URL that the client most likely signed for: that of the list which has the host it asked for."""
        urls = list(self._urls())
        wanted = host.lower()
        return next((url for url in urls if url.partition("://")[2].lower() == wanted), urls[0])

    def _read(self, authorization: str, url: str) -> SignedRequest:
        if not authorization:
            raise _bad_request("no Authorization header")
        uri = url + SESSION_PATH
        names = [
            item.partition("=")[0].strip()
            for item in parse_http_list(authorization.partition(" ")[2])
        ]
        if len(set(names)) != len(names):  # oauthlib would see the last of them only
            raise _bad_request("a parameter stands twice")
        try:
            request = self._endpoint._create_request(
                uri, "GET", None, {"Authorization": authorization}
            )
            unknown = sorted(request.oauth_params.keys() - PARAMETERS)
            if unknown:
                raise _bad_request(f"unsupported parameter {unknown[0]:.64}")
            if not request.resource_owner_key:
                raise _bad_request("oauth_token is missing")
            self._endpoint._check_mandatory_parameters(request)
        except OAuth1Error as error:
            raise _bad_request(str(error.description or error)) from error
        except ValueError as error:
            raise _bad_request(str(error)) from error
        return SignedRequest(
            uri=uri,
            consumer_key=request.client_key,
            access_token=request.resource_owner_key,
            nonce=request.nonce,
            timestamp=int(request.timestamp),
            request=request,
        )

    def _server(self, request: SignedRequest) -> Ledger:
        ledger = self._registry.ledger_by_key(request.consumer_key)
        if ledger is None:
            raise _unauthorized("no server has this consumer key")
        why = ledger.ended.get(request.access_token)
        if why is not None:
            status, _, word = self._settings.replaced_token.partition(" ")
            raise Refusal("OAUTH", int(status), word, f"the token is over: {why}")
        token = None if ledger.token is None else ledger.token.token
        if token is None or (token.consumer_key, token.access_token) != (
            request.consumer_key,
            request.access_token,
        ):
            raise _unauthorized("the access token is not this server's")
        return ledger

    def _check_time(self, request: SignedRequest, now: datetime) -> None:
        off_s = abs(now.timestamp() - request.timestamp)
        if off_s > self._settings.timestamp_skew_s:
            raise _unauthorized(f"the timestamp is off by {off_s:.0f} s")

    def _check_signature_for(self, request: SignedRequest, authorization: str) -> None:
        """For the URL that was asked for, and then for each other that we go by."""
        if self._endpoint._check_signature(request.request):
            return
        for url in self._urls():
            if url + SESSION_PATH != request.uri and self._endpoint._check_signature(
                self._read(authorization, url).request
            ):
                return
        raise _unauthorized("the signature does not fit")

    def _check_nonce(self, request: SignedRequest, now: datetime) -> None:
        """Once within the window; noted only when the signature was good, so that nobody else uses nonces up."""
        text = f"{request.consumer_key} {request.access_token} {request.nonce}"
        key = hashlib.sha256(text.encode()).digest()
        if self._nonces.get(key, now):
            raise _unauthorized("the nonce was used before")
        self._nonces.put(key, True, now)


def _bad_request(reason: str) -> Refusal:
    return Refusal("OAUTH", 400, BAD_REQUEST, reason)


def _unauthorized(reason: str) -> Refusal:
    return Refusal("OAUTH", 401, UNAUTHORIZED, reason)
