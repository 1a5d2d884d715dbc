"""Signed conversation with one ACME server: directory, account, nonces, and the retries that badNonce and rateLimited ask for.

In come URLs and payloads, out come answers with an allowed status; a problem document becomes AcmeProblem (RFC 8555,
sections 6.2 to 6.7).
"""

from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import structlog

from certs.acme import device_faults, inner_jws, jws
from certs.acme.account import NewAccount
from certs.acme.faults import DeviceFault
from certs.acme.inner_jws import ExternalAccount
from certs.acme.jws import Json, encode_json, json_object
from certs.acme.message import Directory
from certs.acme.problem import PROBLEM_TYPE, decode_problem
from certs.clock import Clock
from certs.errors import AcmeProblem, MalformedMessage, UnexpectedAnswer
from certs.faults import Action, FaultPoint
from certs.keys import KeySource, KeySpec, PrivateKey
from certs.transport import HttpResponse, Transport

log = structlog.get_logger()

BAD_NONCE_RETRIES: Final = 5
RATE_LIMIT_RETRIES: Final = 3
MAX_RATE_LIMIT_S: Final = 300.0  # of one wait; a server that names a longer one is not waited for
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
        account_key: PrivateKey | None = None,
        account_spec: KeySpec = "p256",
        bad_nonce_retries: int = BAD_NONCE_RETRIES,
    ) -> None:
        self.account_url: str | None = None
        self._transport = transport
        self._directory_url = directory_url
        self._clock = clock
        self._keys = keys
        self._faults = faults
        self._nonces: list[str] = []
        self._last_nonce: str | None = None
        self._directory: Directory | None = None
        self._key = account_key
        self._spec = account_spec
        self._steps: dict[str, int] = {}
        self._bad_nonce_retries = bad_nonce_retries

    @property
    def directory(self) -> Directory:
        """Known once `open` has read it."""
        assert self._directory is not None
        return self._directory

    @property
    def key(self) -> PrivateKey:
        """The account's, known once it is open."""
        assert self._key is not None
        return self._key

    async def open(self, account: NewAccount, external: ExternalAccount | None = None) -> None:
        """Read the directory and have an account there, unless that is done already."""
        if self._directory is None:
            # A nonce that comes along is left: devices ask newNonce next (certificates.md 2.4).
            response = await self._unsigned("GET", self._directory_url, "directory", (200,))
            self._directory = Directory.from_fields(fields_of(response))
        if self.account_url is not None:
            return
        # ES256 unless told otherwise: servers written for Apple devices expect it (certificates.md 2.4).
        self._key = self._key or await self._keys.take(self._spec)
        url = self._directory.new_account
        if external is not None:
            binding = inner_jws.bind(self._key.public_key(), external, url=url)
            account = replace(account, external_account_binding=binding)
        response = await self.post(
            url, account.to_fields(), step="new_account", statuses=(200, 201)
        )
        self.account_url = location_of(response, "the account's URL")

    async def change_key(self, new: PrivateKey) -> None:
        """Sign with another key from now on (RFC 8555, section 7.3.5)."""
        url = self.url_of(self.directory.key_change, "keyChange")
        assert self.account_url is not None
        payload = inner_jws.change_key(
            self.key.public_key(), new, account=self.account_url, url=url
        )
        await self.post(url, payload, step="key_change")
        self._key = new

    def url_of(self, url: str | None, resource: str) -> str:
        """A resource that a directory may lack."""
        if url is None:
            raise UnexpectedAnswer(self._directory_url, 200, f"the directory has no {resource}")
        return url

    def fault(self, step: str, message: object) -> Action | None:
        """What the fault point wants at this step; asking counts."""
        n = self._steps[step] = self._steps.get(step, 0) + 1
        return self._faults("device", step, message, n)

    def misbehaves(self, step: str, message: object, name: DeviceFault) -> bool:
        """Whether the fault point wants this one fault, at a step that has no other."""
        fault = self.fault(step, message)
        return fault is not None and fault.name == name

    async def post(
        self,
        url: str,
        payload: Json | None,
        *,
        step: str,
        statuses: tuple[int, ...] = (200,),
        accept: str | None = None,
        key: PrivateKey | None = None,
    ) -> HttpResponse:
        """Send a signed request (None: POST-as-GET). With `key` that one signs, in place of the account."""
        fault = self.fault(step, payload)
        return await self.send(
            url, payload, fault, step=step, statuses=statuses, accept=accept, key=key
        )

    async def send(
        self,
        url: str,
        payload: Json | None,
        fault: Action | None,
        *,
        step: str,
        statuses: tuple[int, ...] = (200,),
        accept: str | None = None,
        key: PrivateKey | None = None,
    ) -> HttpResponse:
        """As `post`, with a fault known already.

        badNonce is tried again at once with a fresh nonce, rateLimited once Retry-After is over (RFC 8555, sections 6.5 and 6.6).
        """
        if fault is not None and fault.name == DeviceFault.DELAY:
            await self._clock.sleep(float(fault.arguments.get("seconds", 1)))
        payload = device_faults.payload(step, payload, fault)
        body = b"" if payload is None else encode_json(payload)
        headers = {"Content-Type": jws.CONTENT_TYPE} | ({"Accept": accept} if accept else {})
        left = {"badNonce": self._bad_nonce_retries, "rateLimited": RATE_LIMIT_RETRIES}
        while True:
            message = await self._signed(url, body, fault, key)
            response = await self._transport.request(
                "POST", url, step=step, headers=headers, body=message
            )
            self._keep_nonce(response)
            try:
                return self._check(response, statuses)
            except AcmeProblem as refused:
                if not left.get(refused.type):
                    raise
                left[refused.type] -= 1
                if refused.type == "rateLimited":
                    await self._wait_out(refused, step)
                else:
                    log.debug("acme_bad_nonce", step=step, retries_left=left[refused.type])
                    fault = None

    async def _unsigned(
        self, method: str, url: str, step: str, statuses: tuple[int, ...]
    ) -> HttpResponse:
        """A request that everybody may make; rateLimited is tried again as in `send`."""
        retries_left = RATE_LIMIT_RETRIES
        while True:
            response = await self._transport.request(method, url, step=step)
            try:
                return self._check(response, statuses)
            except AcmeProblem as refused:
                if refused.type != "rateLimited" or not retries_left:
                    raise
                retries_left -= 1
                await self._wait_out(refused, step)

    async def _wait_out(self, refused: AcmeProblem, step: str) -> None:
        """Until the server's limit is over. Raises what it said where that is not told, or too far off."""
        pause_s = refused.retry_after_s
        if pause_s is None or pause_s > MAX_RATE_LIMIT_S:
            raise refused
        log.info("acme_rate_limited", step=step, pause_s=pause_s)
        await self._clock.sleep(pause_s)

    async def _signed(
        self, url: str, body: bytes, fault: Action | None, key: PrivateKey | None
    ) -> bytes:
        nonce, signed_url, algorithm = await self._nonce(), url, None
        match fault.name if fault else None:
            case DeviceFault.REUSED_NONCE:
                nonce = self._last_nonce or nonce
            case DeviceFault.WRONG_URL:
                signed_url = f"{url}/elsewhere"
            case DeviceFault.RS256_ON_EC_KEY:
                algorithm = "RS256"
        self._last_nonce = nonce
        return jws.sign(
            key or self.key,
            body,
            url=signed_url,
            nonce=nonce,
            kid=None if key else self.account_url,
            algorithm=algorithm,
        )

    async def _nonce(self) -> str:
        if not self._nonces:
            response = await self._unsigned(
                "HEAD", self.directory.new_nonce, "new_nonce", (200, 204)
            )
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
            jws.check_base64url(nonce, "Replay-Nonce")
        except MalformedMessage:
            return
        self._nonces.append(nonce)
        del self._nonces[:-MAX_NONCES]

    def _check(self, response: HttpResponse, statuses: tuple[int, ...]) -> HttpResponse:
        """Raises AcmeProblem for a problem document or a bare 429, UnexpectedAnswer for any other refusal."""
        if response.content_type == PROBLEM_TYPE and response.body:  # none in an answer to HEAD
            problem = decode_problem(response.body, response.status)
            raise problem.exception(retry_after_s(response, self._clock.now()))
        if response.status == 429:
            raise AcmeProblem(
                "rateLimited",
                "the server says no more",
                status=429,
                retry_after_s=retry_after_s(response, self._clock.now()),
            )
        return response.require(*statuses)


def fields_of(response: HttpResponse) -> Json:
    """The JSON object of an answer. Raises MalformedMessage."""
    return json_object(response.body, "answer")


def location_of(response: HttpResponse, what: str) -> str:
    """Raises MalformedMessage where the header is missing."""
    url = response.header("location")
    if not url:
        raise MalformedMessage("Location", what)
    return url


def retry_after_s(response: HttpResponse, now: datetime) -> float | None:
    """Retry-After as seconds from now, whichever form it has (RFC 9110, section 10.2.3); None if there is none."""
    value = (response.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:6])
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
