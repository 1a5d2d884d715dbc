"""Signed conversation with one ACME server: directory, account, nonces, and the retry that badNonce asks for.

In come URLs and payloads, out come answers with an allowed status; a problem document becomes AcmeProblem (RFC 8555,
sections 6.2 to 6.7).
"""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import structlog

from certs.acme import jws
from certs.acme.jws import Json, encode_json, json_object
from certs.acme.message import PROBLEM_TYPE, Directory, NewAccount, decode_problem
from certs.clock import Clock
from certs.errors import AcmeProblem, MalformedMessage
from certs.faults import Action, FaultPoint
from certs.keys import KeySource, PrivateKey
from certs.transport import HttpResponse, Transport

log = structlog.get_logger()

BAD_NONCE_RETRIES: Final = 5
MAX_NONCES: Final = 8  # kept for later requests


class AcmeSession:
    """One account at one server; requests go one after another."""

    def __init__(
        self,
        transport: Transport,
        directory_url: str,
        *,
        clock: Clock,
        keys: KeySource,
        faults: FaultPoint,
    ) -> None:
        self._transport = transport
        self._directory_url = directory_url
        self._clock = clock
        self._keys = keys
        self._faults = faults
        self._nonces: list[str] = []
        self._last_nonce: str | None = None
        self._directory: Directory | None = None
        self._key: PrivateKey | None = None
        self._account_url: str | None = None
        self._steps: dict[str, int] = {}

    @property
    def directory(self) -> Directory:
        """Known once `open` has read it."""
        assert self._directory is not None
        return self._directory

    async def open(self, account: NewAccount) -> None:
        """Read the directory and have an account there, unless that is done already."""
        if self._directory is None:
            # A nonce that comes along is left: devices ask newNonce next (certificates.md 2.4).
            response = await self._transport.request("GET", self._directory_url, step="directory")
            self._check(response, (200,))
            self._directory = Directory.from_fields(fields_of(response))
        if self._account_url is not None:
            return
        # ES256, which servers written for Apple devices expect (certificates.md 2.4).
        self._key = self._key or await self._keys.take("p256")
        response = await self.post(
            self._directory.new_account,
            account.to_fields(),
            step="new_account",
            statuses=(200, 201),
        )
        url = response.header("location")
        if not url:
            raise MalformedMessage("Location", "the account's URL")
        self._account_url = url

    async def post(
        self,
        url: str,
        payload: Json | None,
        *,
        step: str,
        statuses: tuple[int, ...] = (200,),
        accept: str | None = None,
    ) -> HttpResponse:
        """Send a signed request (None: POST-as-GET); badNonce is tried again at once with a fresh nonce."""
        n = self._steps[step] = self._steps.get(step, 0) + 1
        fault = self._faults("device", step, payload, n)
        if fault is not None and fault.name == "send-payload":
            payload = fault.arguments["payload"]
        elif fault is not None and fault.name == "delay":
            await self._clock.sleep(float(fault.arguments.get("seconds", 1)))
        body = b"" if payload is None else encode_json(payload)
        headers = {"Content-Type": jws.CONTENT_TYPE} | ({"Accept": accept} if accept else {})
        for retries_left in range(BAD_NONCE_RETRIES, -1, -1):
            response = await self._send(url, body, step, headers, fault)
            try:
                return self._check(response, statuses)
            except AcmeProblem as refused:
                if refused.type != "badNonce" or not retries_left:
                    raise
            log.debug("acme_bad_nonce", step=step, retries_left=retries_left)
            fault = None
        raise AssertionError("the last try returns or raises")

    async def _send(
        self, url: str, body: bytes, step: str, headers: dict[str, str], fault: Action | None
    ) -> HttpResponse:
        assert self._key is not None
        nonce, signed_url = await self._nonce(), url
        match fault.name if fault else None:
            case "reused-nonce":
                nonce = self._last_nonce or nonce
            case "wrong-url":
                signed_url = f"{url}/elsewhere"
        self._last_nonce = nonce
        message = jws.sign(self._key, body, url=signed_url, nonce=nonce, kid=self._account_url)
        response = await self._transport.request(
            "POST", url, step=step, headers=headers, body=message
        )
        self._keep_nonce(response)
        return response

    async def _nonce(self) -> str:
        if not self._nonces:
            response = await self._transport.request(
                "HEAD", self.directory.new_nonce, step="new_nonce"
            )
            self._check(response, (200, 204))
            self._keep_nonce(response)
        if not self._nonces:
            raise MalformedMessage("Replay-Nonce", "a nonce in the answer of newNonce")
        return self._nonces.pop()

    def _keep_nonce(self, response: HttpResponse) -> None:
        """Keep it for the next request; a value that is no base64url is ignored (RFC 8555, section 6.5.1)."""
        nonce = response.header("replay-nonce")
        if not nonce:
            return
        try:
            jws.from_base64url(nonce, "Replay-Nonce")
        except MalformedMessage:
            return
        self._nonces.append(nonce)
        del self._nonces[:-MAX_NONCES]

    def _check(self, response: HttpResponse, statuses: tuple[int, ...]) -> HttpResponse:
        """Raises AcmeProblem for a problem document, UnexpectedAnswer for any other refusal."""
        if response.content_type == PROBLEM_TYPE:
            problem = decode_problem(response.body, response.status)
            raise problem.exception(retry_after_s(response, self._clock.now()))
        return response.require(*statuses)


def fields_of(response: HttpResponse) -> Json:
    """The JSON object of an answer. Raises MalformedMessage."""
    return json_object(response.body, "answer")


def retry_after_s(response: HttpResponse, now: datetime) -> float | None:
    """Retry-After as seconds from now, whichever form it has (RFC 9110, section 10.2.3); None if there is none."""
    value = (response.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:6])
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None
