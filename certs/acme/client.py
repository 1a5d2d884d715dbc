"""The ACME client of a device: one order, one attestation, one certificate (RFC 8555; certificates.md 2.2 and 2.4).

In come a CSR, an identifier and a way to have a key attested; out comes the certificate chain, leaf first, or the server's
problem as AcmeProblem. `session` signs the requests and minds nonces.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs import der
from certs.acme import device_attest
from certs.acme.device_attest import CHALLENGE_TYPE, PERMANENT_IDENTIFIER, Unattested
from certs.acme.jws import Json, base64url
from certs.acme.message import (
    CERTIFICATE_TYPE,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Identifier,
    NewAccount,
    Order,
    OrderStatus,
    Problem,
)
from certs.acme.session import AcmeSession, fields_of, retry_after_s
from certs.clock import Clock
from certs.errors import AcmeProblem, MalformedMessage, UnexpectedAnswer
from certs.faults import FaultPoint, no_faults
from certs.keys import KeySource
from certs.transport import HttpResponse, Transport

POLL_DELAY_S: Final = 1.0  # doubles from poll to poll where the server names no other
MAX_POLL_DELAY_S: Final = 60.0  # of one wait, whatever Retry-After says
MAX_POLLS: Final = 20
MAX_CERTIFICATES: Final = 10

Attest = Callable[[bytes], Awaitable[Sequence[bytes]]]


class AcmeClient:
    """Gets certificates from the server behind `directory_url`; its account lasts as long as the object."""

    def __init__(
        self,
        transport: Transport,
        directory_url: str,
        *,
        clock: Clock,
        keys: KeySource,
        faults: FaultPoint = no_faults,
    ) -> None:
        self._clock = clock
        self._session = AcmeSession(transport, directory_url, clock=clock, keys=keys, faults=faults)

    async def enroll(
        self,
        csr_der: bytes,
        *,
        identifier: str,
        attest: Attest | None,
        unattested: Unattested = "none",
    ) -> tuple[x509.Certificate, ...]:
        """Return the chain, leaf first; the leaf's key is the CSR's.

        `attest` gets the freshness code (SHA-256 of the token) and returns a DER chain, leaf first. With None the
        challenge is answered without attestation, in the form `unattested`. Raises AcmeProblem when the server
        refuses, MalformedMessage or UnexpectedAnswer when it breaks the protocol, and what the Transport raises.
        """
        await self._session.open(NewAccount(terms_of_service_agreed=True))
        order, url = await self._new_order(identifier)
        if order.status is OrderStatus.PENDING:
            await self._authorize(order, attest, unattested)
            order = await self._poll(url, while_=OrderStatus.PENDING, until=OrderStatus.READY)
        order = await self._finalize(order, url, csr_der)
        return await self._certificate(order, url, csr_der)

    async def _new_order(self, identifier: str) -> tuple[Order, str]:
        wanted = Identifier(PERMANENT_IDENTIFIER, identifier)
        response = await self._session.post(
            self._session.directory.new_order,
            {"identifiers": [wanted.to_fields()]},
            step="new_order",
            statuses=(201,),
        )
        order = _order(response)
        if wanted not in order.identifiers or not order.authorizations:
            raise MalformedMessage("order", "our identifier and its authorization")
        url = response.header("location")
        if not url:
            raise MalformedMessage("Location", "the order's URL")
        return order, url

    async def _authorize(self, order: Order, attest: Attest | None, form: Unattested) -> None:
        """Answer the device-attest-01 challenge of each authorization that is still open."""
        for url in order.authorizations:
            authorization = await self._authorization(url)
            if authorization.status is AuthorizationStatus.VALID:
                continue
            challenge = _device_attest(authorization)
            if attest is None:
                answer = device_attest.unattested_response(form)
            elif challenge.token:
                chain = await attest(device_attest.freshness(challenge.token))
                answer = device_attest.response(chain)
            else:
                raise MalformedMessage("challenge", "a token")
            response = await self._session.post(challenge.url, answer, step="challenge")
            judged = Challenge.from_fields(fields_of(response))
            if judged.status is ChallengeStatus.INVALID:
                # step-ca says no with status 200 and the error inside the object (certificates.md 0.16).
                raise _refusal(judged.error, "the challenge is invalid")

    async def _authorization(self, url: str) -> Authorization:
        response = await self._session.post(url, None, step="authorization")
        return Authorization.from_fields(fields_of(response))

    async def _finalize(self, order: Order, url: str, csr_der: bytes) -> Order:
        payload: Json = {"csr": base64url(csr_der)}
        response = await self._session.post(order.finalize, payload, step="finalize")
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
        response = await self._session.post(
            order.certificate, None, step="certificate", accept=CERTIFICATE_TYPE
        )
        try:
            chain = x509.load_pem_x509_certificates(response.body)
        except ValueError as error:
            raise MalformedMessage("certificate", "a chain in PEM", str(error)) from error
        if len(chain) > MAX_CERTIFICATES:
            raise MalformedMessage("certificate", f"at most {MAX_CERTIFICATES}", len(chain))
        leaf_key = (
            chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
        if leaf_key != _requested_key(csr_der):
            raise MalformedMessage("certificate", "first the one for the key of the CSR")
        return tuple(chain)


def _order(response: HttpResponse) -> Order:
    return Order.from_fields(fields_of(response))


def _device_attest(authorization: Authorization) -> Challenge:
    for challenge in authorization.challenges:
        if challenge.error is not None:
            raise challenge.error.exception()
        if challenge.type == CHALLENGE_TYPE:
            return challenge
    offered = ", ".join(challenge.type for challenge in authorization.challenges)
    raise MalformedMessage("challenges", CHALLENGE_TYPE, offered)


def _refusal(problem: Problem | None, otherwise: str) -> AcmeProblem:
    """What the server said, or that it said nothing more (RFC 7807, section 4.2)."""
    return (problem or Problem(type="about:blank", detail=otherwise)).exception()


def _requested_key(csr_der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of our own CSR (RFC 2986, section 4), without checking its signature again."""
    request = der.read(csr_der, "certificate request").items(der.SEQUENCE, 3)
    return request[0].items(der.SEQUENCE, 3)[2].raw
