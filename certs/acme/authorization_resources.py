"""The authorization's resources of an ACME server: the authorization and its challenge (RFC 8555, section 7.5).

A challenge is judged as soon as it is answered; a failure ends it, and the order, for good (section 7.1.6).
"""

from collections.abc import Sequence

from aiohttp import web
from cryptography import x509

from certs.acme import device_attest, http01, jws
from certs.acme.door import Call, Door, json_answer, problem_answer
from certs.acme.faults import ServerFault
from certs.acme.message import AuthorizationStatus, ChallengeStatus
from certs.acme.order_book import OrderBook
from certs.acme.order_resources import log_refusal, polls
from certs.acme.policy import AcmePolicy
from certs.acme.problem import Problem, problem
from certs.acme.records import AuthorizationRecord
from certs.attestation import Attestation
from certs.clock import Clock
from certs.errors import AcmeProblem, MalformedMessage


class AuthorizationResources:
    """Whether an account may have a certificate for an identifier."""

    def __init__(
        self,
        door: Door,
        book: OrderBook,
        policy: AcmePolicy,
        *,
        attestation_roots: Sequence[x509.Certificate],
        allow_unattested: bool,
        clock: Clock,
    ) -> None:
        self._door = door
        self._book = book
        self._policy = policy
        self._attestation_roots = tuple(attestation_roots)
        self._allow_unattested = allow_unattested
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        door = self._door
        door.account_route(app, "authz/{id}", "authorization", self._authorization)
        door.account_route(app, "challenge/{id}", "challenge", self._challenge)

    async def _authorization(self, call: Call) -> web.Response:
        """Reads it, or gives it up (RFC 8555, section 7.5.2)."""
        authorization = self._record(call)
        if call.signed.is_post_as_get:
            authorization.polled()
        else:
            status = call.signed.fields().get("status")
            if status != AuthorizationStatus.DEACTIVATED:
                raise MalformedMessage("status", AuthorizationStatus.DEACTIVATED, status)
            authorization.deactivated = True
        url = self._door.url(call.request, f"challenge/{authorization.id}")
        shown = authorization.to_authorization(authorization.to_challenge(url), self._clock.now())
        return json_answer(shown.to_fields(), headers=self._pause(authorization))

    async def _challenge(self, call: Call) -> web.Response:
        authorization = self._record(call)
        if call.signed.is_post_as_get:
            authorization.polled()
            return self._show(call, authorization)
        if authorization.challenge_status is not ChallengeStatus.PENDING:
            return self._show(call, authorization)
        now = self._clock.now()
        if not authorization.is_open(now):
            raise problem("malformed", f"the authorization is {authorization.status(now)}")
        payload = call.signed.fields()
        later = polls(call, self._policy.slow_validation)
        authorization.challenge_status = ChallengeStatus.PROCESSING  # answered once
        try:
            found = await self._judge(authorization, payload)
        except AcmeProblem as refusal:
            authorization.fail(Problem.of(refusal), later)
            log_refusal(_reference(authorization), refusal)
            shows = call.misbehaves(ServerFault.CHALLENGE_WITH_ERROR)
            if later or shows or authorization.grant is None:
                return self._show(call, authorization)
            return problem_answer(refusal)
        except BaseException:
            authorization.challenge_status = ChallengeStatus.PENDING  # our failure
            raise
        authorization.prove(found, self._clock.now(), later)
        self._book.remember_proof(authorization)
        return self._show(call, authorization)

    async def _judge(
        self, authorization: AuthorizationRecord, payload: jws.Json
    ) -> Attestation | None:
        """Raises AcmeProblem."""
        if authorization.grant is not None:
            return device_attest.judge(
                payload,
                token=authorization.token,
                identifier=authorization.identifier.value,
                grant=authorization.grant,
                roots=self._attestation_roots,
                at=self._clock.now(),
                allow_unattested=self._allow_unattested,
                user_enrollment=self._policy.user_enrollment,
                accept_padding=self._policy.accept_padding,
            )
        fetcher = self._policy.http01
        assert fetcher is not None  # else there would be no such order
        token = authorization.token
        expected = jws.key_authorization(token, authorization.account.key)
        await http01.prove(fetcher, authorization.identifier.value, token, expected)
        return None

    def _record(self, call: Call) -> AuthorizationRecord:
        """The authorization that the URL names, for its own account only."""
        authorization = self._book.authorization(call.id)
        if authorization is None:
            raise AcmeProblem("malformed", "no such resource", status=404)
        if authorization.account is not call.owner:
            raise problem("unauthorized", "this belongs to another account")
        if call.misbehaves(ServerFault.EXPIRE_ORDER):
            authorization.expires = self._clock.now()
        return authorization

    def _show(self, call: Call, authorization: AuthorizationRecord) -> web.Response:
        url = self._door.url(call.request, f"challenge/{authorization.id}")
        up = self._door.url(call.request, f"authz/{authorization.id}")
        headers = {"Location": url, "Link": f'<{up}>;rel="up"', **self._pause(authorization)}
        return json_answer(authorization.to_challenge(url).to_fields(), headers=headers)

    def _pause(self, authorization: AuthorizationRecord) -> dict[str, str]:
        if authorization.challenge_status is not ChallengeStatus.PROCESSING:
            return {}
        return {"Retry-After": str(self._policy.retry_after_s)}


def _reference(authorization: AuthorizationRecord) -> str:
    """As the log calls its order."""
    grant = authorization.grant
    return authorization.identifier.value if grant is None else grant.reference
