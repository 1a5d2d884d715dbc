"""One order from newOrder to the certificate, whatever proves its identifiers (RFC 8555, section 7.4).

In come a session, identifiers and a way to answer challenges; out comes the chain, leaf first. Polls wait as the server
says, else ever longer.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography import x509

from certs.acme import chain_download, device_faults
from certs.acme.faults import DeviceFault
from certs.acme.jws import Json, base64url
from certs.acme.message import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Identifier,
    Order,
    OrderStatus,
)
from certs.acme.problem import Problem
from certs.acme.session import AcmeSession, fields_of, location_of, retry_after_s
from certs.clock import Clock
from certs.errors import AcmeProblem, MalformedMessage, UnexpectedAnswer
from certs.keys import KeySource, PrivateKey
from certs.transport import HttpResponse

POLL_DELAY_S: Final = 1.0  # doubles from poll to poll where the server names no other
MAX_POLL_DELAY_S: Final = 60.0  # of one wait, whatever Retry-After says
MAX_POLLS: Final = 20

Answer = Callable[[Challenge], Awaitable[Json]]


class OrderRoad:
    """Walks it once or often, with one account."""

    def __init__(
        self,
        session: AcmeSession,
        *,
        clock: Clock,
        keys: KeySource,
        preferred_issuer: str | None = None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._keys = keys
        self._preferred_issuer = preferred_issuer

    async def walk(
        self,
        identifiers: Sequence[Identifier],
        csr_der: bytes,
        *,
        challenge_type: str,
        answer: Answer,
        key: PrivateKey | None = None,
    ) -> tuple[x509.Certificate, ...]:
        """`answer` gives the payload that meets a challenge of this type; `key` is the CSR's, which only faults need."""
        order, url = await self.prove(identifiers, challenge_type=challenge_type, answer=answer)
        order = await self._finalize(order, url, csr_der, key)
        return await self._certificate(order, url, csr_der)

    async def prove(
        self, identifiers: Sequence[Identifier], *, challenge_type: str, answer: Answer
    ) -> tuple[Order, str]:
        """As far as an order that is ready to be finalized, and its URL: nothing has been issued."""
        order, url = await self._new_order(identifiers)
        if order.status is OrderStatus.PENDING:
            await self._authorize(order, challenge_type, answer)
            if self._session.misbehaves("await_order", order, DeviceFault.FINALIZE_EARLY):
                return order, url
            order = await self._poll(url, while_=OrderStatus.PENDING, until=OrderStatus.READY)
        return order, url

    async def _new_order(self, wanted: Sequence[Identifier]) -> tuple[Order, str]:
        payload: Json = {"identifiers": [identifier.to_fields() for identifier in wanted]}
        fault = self._session.fault("new_order", payload)
        response = await self._session.send(
            self._session.directory.new_order, payload, fault, step="new_order", statuses=(201,)
        )
        order = _order(response)
        as_wanted = fault is not None or set(wanted) <= set(order.identifiers)
        if not as_wanted or not order.authorizations:
            raise MalformedMessage("order", "our identifiers and their authorizations")
        return order, location_of(response, "the order's URL")

    async def _authorize(self, order: Order, challenge_type: str, answer: Answer) -> None:
        """Answer the challenge of each authorization that is still open."""
        for url in order.authorizations:
            authorization = await self._authorization(url)
            if authorization.status is AuthorizationStatus.VALID:
                continue
            challenge = _challenge(authorization, challenge_type)
            response = await self._session.post(
                challenge.url, await answer(challenge), step="challenge"
            )
            judged = Challenge.from_fields(fields_of(response))
            if judged.status is ChallengeStatus.INVALID:
                # step-ca says no with status 200 and the error inside the object (certificates.md 0.16).
                raise _refusal(judged.error, "the challenge is invalid")

    async def _authorization(self, url: str) -> Authorization:
        response = await self._session.post(url, None, step="authorization")
        return Authorization.from_fields(fields_of(response))

    async def _finalize(
        self, order: Order, url: str, csr_der: bytes, key: PrivateKey | None
    ) -> Order:
        fault = self._session.fault("finalize", csr_der)
        sent = await device_faults.certificate_request(csr_der, fault, key, self._keys)
        payload: Json = {"csr": base64url(sent)}
        response = await self._session.send(order.finalize, payload, fault, step="finalize")
        order = _order(response)
        if order.status is OrderStatus.PROCESSING:
            await self._pause(response, POLL_DELAY_S)
            return await self._poll(url, while_=OrderStatus.PROCESSING, until=OrderStatus.VALID)
        return await self._expect(order, url, OrderStatus.VALID)

    async def _poll(self, url: str, *, while_: OrderStatus, until: OrderStatus) -> Order:
        """Read the order until it leaves a state; pauses are the server's, else they double (RFC 8555, section 7.4)."""
        delay_s = POLL_DELAY_S
        for _ in range(MAX_POLLS):
            response = await self._session.post(url, None, step="order")
            order = _order(response)
            if order.status is not while_:
                return await self._expect(order, url, until)
            await self._pause(response, delay_s)
            delay_s *= 2
        raise UnexpectedAnswer(url, 200, f"the order is {while_} after {MAX_POLLS} polls")

    async def _pause(self, response: HttpResponse, delay_s: float) -> None:
        named = retry_after_s(response, self._clock.now())
        await self._clock.sleep(min(named or delay_s, MAX_POLL_DELAY_S))

    async def _expect(self, order: Order, url: str, status: OrderStatus) -> Order:
        if order.status is OrderStatus.INVALID:
            raise await self._why_invalid(order)
        if order.status is not status:
            raise UnexpectedAnswer(url, 200, f"the order is {order.status}, not {status}")
        return order

    async def _why_invalid(self, order: Order) -> AcmeProblem:
        """The order's own error, else that of a challenge."""
        if order.error is None:
            for url in order.authorizations:
                for challenge in (await self._authorization(url)).challenges:
                    if challenge.error is not None:
                        return challenge.error.exception()
        return _refusal(order.error, "the order is invalid")

    async def _certificate(
        self, order: Order, order_url: str, csr_der: bytes
    ) -> tuple[x509.Certificate, ...]:
        if not order.certificate:
            raise UnexpectedAnswer(order_url, 200, "the order is valid but names no certificate")
        return await chain_download.download(
            self._session, order.certificate, csr_der, self._preferred_issuer
        )


def _order(response: HttpResponse) -> Order:
    return Order.from_fields(fields_of(response))


def _challenge(authorization: Authorization, type_: str) -> Challenge:
    for challenge in authorization.challenges:
        if challenge.error is not None:
            raise challenge.error.exception()
        if challenge.type == type_:
            return challenge
    offered = ", ".join(challenge.type for challenge in authorization.challenges)
    raise MalformedMessage("challenges", type_, offered)


def _refusal(problem: Problem | None, otherwise: str) -> AcmeProblem:
    """What the server said, or that it said nothing more (RFC 7807, section 4.2)."""
    return (problem or Problem(type="about:blank", detail=otherwise)).exception()
