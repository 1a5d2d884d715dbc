"""The order's resources of an ACME server: newOrder, the order, finalize (RFC 8555, section 7.4)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.acme import device_attest, http01, issuance
from certs.acme.door import Call, Door, json_answer, problem_answer
from certs.acme.faults import ServerFault
from certs.acme.message import Identifier, Order, OrderStatus
from certs.acme.order_book import OrderBook
from certs.acme.policy import AcmePolicy
from certs.acme.problem import Problem, problem
from certs.acme.records import AccountRecord, AuthorizationRecord, OrderRecord
from certs.acme.wanted import wanted_identifiers
from certs.authorize import DeviceAuthorizer, Grant
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import AcmeProblem, ChallengeRefused
from certs.keys import spki_der

log = structlog.get_logger()

SubjectFor = Callable[[Grant, CertificateRequest], x509.Name]

RATE_WINDOW: Final = timedelta(hours=1)
DNS_USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class OrderResources:
    """From an identifier to a certificate."""

    def __init__(
        self,
        door: Door,
        book: OrderBook,
        policy: AcmePolicy,
        *,
        ca: CertificateAuthority,
        devices: DeviceAuthorizer,
        clock: Clock,
        subject_for: SubjectFor | None,
        certificate_days: float,
    ) -> None:
        self._door = door
        self._book = book
        self._policy = policy
        self._ca = ca
        self._devices = devices
        self._clock = clock
        self._subject_for = subject_for
        self._certificate_days = certificate_days

    def add_routes(self, app: web.Application) -> None:
        door = self._door
        door.account_route(app, "new-order", "new_order", self._new_order)
        door.read_route(app, "order/{id}", "order", self._order)
        door.account_route(app, "order/{id}/finalize", "finalize", self._finalize)

    async def _new_order(self, call: Call) -> web.Response:
        wanted = wanted_identifiers(call.signed.fields(), with_dns=self._policy.http01 is not None)
        self._book.make_room()
        self._limit_rate(call.owner)
        authorizations = [await self._authorize(call.owner, identifier) for identifier in wanted]
        return self.show(call, self._book.add_order(call.owner, authorizations), status=201)

    async def _authorize(
        self, account: AccountRecord, identifier: Identifier
    ) -> AuthorizationRecord:
        """A new authorization, or one of this account's that is valid still, where that is allowed."""
        grant, challenge_type = None, http01.CHALLENGE_TYPE
        if identifier.type == device_attest.PERMANENT_IDENTIFIER:
            challenge_type = device_attest.CHALLENGE_TYPE
            try:
                grant = await self._devices.authorize(identifier.value)
            except ChallengeRefused as error:
                raise problem("rejectedIdentifier", error.reason) from error
        if self._policy.authz_reuse:
            proved = self._book.proved(account, identifier)
            if proved is not None and proved.is_for(grant):
                return proved
        return self._book.new_authorization(account, identifier, challenge_type, grant)

    def _limit_rate(self, account: AccountRecord) -> None:
        limit = self._policy.orders_per_hour
        if limit is None:
            return
        now = self._clock.now()
        recent = [time for time in account.ordered_at if now - time < RATE_WINDOW]
        if len(recent) >= limit:
            wait = recent[0] + RATE_WINDOW - now if recent else RATE_WINDOW
            raise AcmeProblem(
                "rateLimited",
                f"more than {limit} orders of one account in an hour",
                status=429,
                retry_after_s=wait.total_seconds(),
            )
        account.ordered_at = [*recent, now]

    async def _order(self, call: Call) -> web.Response:
        order = self.record(call)
        for authorization in order.authorizations:
            authorization.polled()
        if order.status is OrderStatus.PROCESSING and order.certificate is not None:
            order.polls_left -= 1
            if order.polls_left <= 0:
                self._book.end(order, OrderStatus.VALID)
        return self.show(call, self.record(call))

    async def _finalize(self, call: Call) -> web.Response:
        order = self.record(call)
        if order.status is not OrderStatus.READY:
            raise problem("orderNotReady", f"the order is {order.status}")
        request = issuance.request_of(call.signed.fields())
        device = order.device
        if device is not None and device.attested_spki not in (None, spki_der(request.public_key)):
            return self.fail(
                order, problem("unauthorized", "the key of the CSR is not the attested key")
            )
        issuance.check(request, order, checks_name=self._subject_for is None)
        order.status = OrderStatus.PROCESSING  # a second finalize meanwhile is refused
        try:
            order.certificate = await self._issue(order, request)
        except ChallengeRefused as error:
            return self.fail(order, problem("unauthorized", error.reason))
        except BaseException:
            if not order.has_ended:
                order.status = OrderStatus.READY  # our failure, so the device may try again
            raise
        order.polls_left = polls(call, self._policy.slow_finalize)
        if not order.polls_left:
            self._book.end(order, OrderStatus.VALID)
        return self.show(call, order)

    async def _issue(self, order: OrderRecord, request: CertificateRequest) -> x509.Certificate:
        device = order.device
        if device is None:
            certificate = self._ca.issue(
                request.public_key,
                issuance.dns_subject(request),
                days=self._certificate_days,
                key_usage=request.key_usage,
                extended_key_usage=DNS_USAGES,
                alternative_names=issuance.dns_names(order),
            )
        else:
            certificate = await self._issue_to_device(device, request)
        log.info(
            "acme_order",
            outcome="valid",
            reference=order.reference,
            attested=device is not None and device.attested_spki is not None,
            certificate=f"{certificate.serial_number:x}",
        )
        return certificate

    async def _issue_to_device(
        self, device: AuthorizationRecord, request: CertificateRequest
    ) -> x509.Certificate:
        """The host is asked once more, as a one-time identifier may have been used meanwhile, and told at the end."""
        grant = await self._devices.authorize(device.identifier.value)
        if not device.is_for(grant):
            raise ChallengeRefused("the identifier stands for another device by now")
        days, usage = self._certificate_days, request.key_usage
        if self._subject_for is None:
            certificate = self._ca.certify(request, days=days, key_usage=usage)
        else:
            certificate = self._ca.issue(
                request.public_key,
                self._subject_for(grant, request),
                days=days,
                key_usage=usage,
                alternative_names=request.alternative_names,
            )
        try:
            await self._devices.issued(grant, certificate)
        except BaseException:
            self._ca.revoke(certificate)
            raise
        return certificate

    def record(self, call: Call) -> OrderRecord:
        """The order that the URL names, for its own account only."""
        order = self._book.order(call.id)
        if order is None:
            raise AcmeProblem("malformed", "no such resource", status=404)
        if order.account is not call.owner:
            raise problem("unauthorized", "this belongs to another account")
        if call.misbehaves(ServerFault.EXPIRE_ORDER) and not order.has_ended:
            self._book.expire(order)
        return order

    def fail(self, order: OrderRecord, refusal: AcmeProblem) -> web.Response:
        """End an order and what proved its device for good: one log line, one problem document."""
        order.error = Problem.of(refusal)
        for authorization in order.authorizations:
            authorization.fail(order.error)
        self._book.end(order, OrderStatus.INVALID)
        log_refusal(order.reference, refusal)
        return problem_answer(refusal)

    def show(self, call: Call, order: OrderRecord, *, status: int = 200) -> web.Response:
        door, request = self._door, call.request
        url = door.url(request, f"order/{order.id}")
        is_valid = order.status is OrderStatus.VALID
        shown = Order(
            status=order.status,
            identifiers=order.identifiers,
            authorizations=tuple(
                door.url(request, f"authz/{authorization.id}")
                for authorization in order.authorizations
            ),
            finalize=f"{url}/finalize",
            expires=order.expires,
            certificate=door.url(request, f"certificate/{order.id}") if is_valid else None,
            error=order.error,
        )
        headers = {"Location": url}
        if order.status is OrderStatus.PROCESSING or any(
            authorization.polls_left for authorization in order.authorizations
        ):
            headers["Retry-After"] = str(self._policy.retry_after_s)
        return json_answer(shown.to_fields(), status=status, headers=headers)


def polls(call: Call, usual: int) -> int:
    """How often a client has to look until the outcome of this request shows."""
    if call.fault is not None and call.misbehaves(ServerFault.PROCESSING):
        return int(call.fault.arguments.get("polls", 1))
    return usual


def log_refusal(reference: str, refusal: AcmeProblem) -> None:
    """The one log line of an order that failed."""
    log.info(
        "acme_order",
        outcome="invalid",
        reference=reference,
        type=refusal.type,
        detail=refusal.detail,
    )
