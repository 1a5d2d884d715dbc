"""An ACME server for devices: permanent-identifier orders proved by device-attest-01 (RFC 8555; certificates.md 2.2 to 2.7).

In come signed requests, out come certificates of one CA. The resources and the order's way through its states live here; `door`
checks each request, `device_attest` judges attestations, `issuance` judges CSRs, `order_book` remembers.
"""

from collections.abc import Callable, Sequence

import structlog
from aiohttp import web
from cryptography import x509

from certs.acme import device_attest, issuance
from certs.acme.door import Call, Door, json_answer, problem_answer
from certs.acme.jws import Json
from certs.acme.message import (
    CERTIFICATE_TYPE,
    ChallengeStatus,
    Directory,
    Identifier,
    NewAccount,
    Order,
    OrderStatus,
    Problem,
    problem,
)
from certs.acme.order_book import Account, OrderBook, OrderRecord
from certs.authorize import DeviceAuthorizer, Grant
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import AcmeProblem, ChallengeRefused, MalformedMessage
from certs.faults import FaultPoint, no_faults
from certs.keys import spki_der

log = structlog.get_logger()

SubjectFor = Callable[[Grant, CertificateRequest], x509.Name]


class AcmeServer:
    """Serves one CA to the devices that `devices` knows."""

    def __init__(
        self,
        ca: CertificateAuthority,
        devices: DeviceAuthorizer,
        *,
        attestation_roots: Sequence[x509.Certificate],
        clock: Clock,
        allow_unattested: bool = False,
        nonce_rejection: float = 0.0,
        faults: FaultPoint = no_faults,
        subject_for: SubjectFor | None = None,
        certificate_days: float = 365,
        base_url: str | None = None,
        book: OrderBook | None = None,
    ) -> None:
        """`nonce_rejection` is the share of good nonces to refuse, as pebble does.

        `subject_for` writes the subject of each certificate; without it the CSR's is taken, whose common name must
        be the identifier or name the device. `base_url` (scheme and host) is how clients call this server where a
        proxy stands before it.
        """
        self._ca = ca
        self._devices = devices
        self._attestation_roots = tuple(attestation_roots)
        self._clock = clock
        self._allow_unattested = allow_unattested
        self._subject_for = subject_for
        self._certificate_days = certificate_days
        self.book = book or OrderBook(clock)
        self.door = Door(
            self.book,
            clock=clock,
            nonce_rejection=nonce_rejection,
            faults=faults,
            base_url=base_url,
        )

    def add_routes(self, app: web.Application, path: str = "/acme") -> None:
        """Mount everything below `path`; the directory is `{path}/directory`."""
        door = self.door
        door.mount(path)
        door.open_route(app, "directory", "directory", self._directory)
        door.open_route(app, "new-nonce", "new_nonce", self._new_nonce)
        door.key_route(app, "new-account", "new_account", self._new_account)
        door.account_route(app, "account/{id}", "account", self._account)
        door.account_route(app, "new-order", "new_order", self._new_order)
        door.account_route(app, "authz/{id}", "authorization", self._authorization)
        door.account_route(app, "challenge/{id}", "challenge", self._challenge)
        door.account_route(app, "order/{id}", "order", self._order)
        door.account_route(app, "order/{id}/finalize", "finalize", self._finalize)
        door.account_route(app, "certificate/{id}", "certificate", self._certificate)

    async def _directory(self, request: web.Request) -> web.Response:
        directory = Directory(
            new_nonce=self.door.url(request, "new-nonce"),
            new_account=self.door.url(request, "new-account"),
            new_order=self.door.url(request, "new-order"),
        )
        return json_answer(directory.to_fields())

    async def _new_nonce(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.method == "HEAD" else 204)

    async def _new_account(self, call: Call) -> web.Response:
        """RFC 8555, section 7.3: the same key finds its account again."""
        wanted = NewAccount.from_fields(call.signed.fields())
        account, status = self.book.account_of_key(call.key), 200
        if account is None:
            if wanted.only_return_existing:
                raise problem("accountDoesNotExist", "no account has this key")
            account, status = self.book.add_account(call.key, wanted.contact), 201
        location = self.door.url(call.request, f"account/{account.id}")
        return json_answer(_account_fields(account), status=status, headers={"Location": location})

    async def _account(self, call: Call) -> web.Response:
        if call.id != call.owner.id:
            raise problem("unauthorized", "this is another account")
        if not call.signed.is_post_as_get:
            raise MalformedMessage("payload", "POST-as-GET: accounts cannot be changed here")
        return json_answer(_account_fields(call.owner))

    async def _new_order(self, call: Call) -> web.Response:
        identifier = _wanted_identifier(call.signed.fields())
        try:
            grant = await self._devices.authorize(identifier.value)
        except ChallengeRefused as error:
            raise problem("rejectedIdentifier", error.reason) from error
        record = self.book.add_order(call.owner, identifier, grant)
        return self._show_order(call, record, status=201)

    async def _order(self, call: Call) -> web.Response:
        return self._show_order(call, self._record(call))

    async def _authorization(self, call: Call) -> web.Response:
        record = self._record(call)
        challenge = record.challenge(self.door.url(call.request, f"challenge/{record.id}"))
        return json_answer(record.authorization(challenge, self._clock.now()).to_fields())

    async def _challenge(self, call: Call) -> web.Response:
        """Judge the answer at once; a failure ends challenge and order for good (RFC 8555, section 7.1.6)."""
        record = self._record(call)
        if call.signed.is_post_as_get or record.challenge_status is not ChallengeStatus.PENDING:
            return self._show_challenge(call, record)
        if record.has_ended:
            raise problem("malformed", "the authorization expired")
        try:
            found = device_attest.judge(
                call.signed.fields(),
                token=record.token,
                identifier=record.identifier.value,
                grant=record.grant,
                roots=self._attestation_roots,
                at=self._clock.now(),
                allow_unattested=self._allow_unattested,
            )
        except AcmeProblem as refusal:
            answer = self._fail(record, refusal)
            # "challenge-with-error": 200 and the error inside, as step-ca
            return answer if call.fault is None else self._show_challenge(call, record)
        record.prove(found, self._clock.now())
        return self._show_challenge(call, record)

    async def _finalize(self, call: Call) -> web.Response:
        record = self._record(call)
        if record.status is not OrderStatus.READY:
            raise problem("orderNotReady", f"the order is {record.status}")
        request = issuance.request_of(call.signed.fields())
        if record.attested_spki not in (None, spki_der(request.public_key)):
            return self._fail(
                record, problem("unauthorized", "the key of the CSR is not the attested key")
            )
        issuance.check(request, record, checks_name=self._subject_for is None)
        record.status = OrderStatus.PROCESSING  # a second finalize meanwhile is refused
        try:
            await self._issue(record, request)
        except ChallengeRefused as error:
            return self._fail(record, problem("unauthorized", error.reason))
        except BaseException:
            if not record.has_ended:
                record.status = OrderStatus.READY  # our failure, so the device may try again
            raise
        return self._show_order(call, record)

    async def _issue(self, record: OrderRecord, request: CertificateRequest) -> None:
        """The host is asked once more, as a one-time identifier may have been used meanwhile, and told at the end."""
        grant = await self._devices.authorize(record.identifier.value)
        subject = self._subject_for(grant, request) if self._subject_for else request.subject
        certificate = self._ca.issue(
            request.public_key,
            subject,
            days=self._certificate_days,
            key_usage=request.key_usage,
            alternative_names=request.alternative_names,
        )
        try:
            await self._devices.issued(grant, certificate)
        except BaseException:
            self._ca.revoke(certificate)
            raise
        record.certificate = certificate
        self.book.end(record, OrderStatus.VALID)
        log.info(
            "acme_order",
            outcome="valid",
            reference=grant.reference,
            attested=record.attested_spki is not None,
            certificate=f"{certificate.serial_number:x}",
        )

    async def _certificate(self, call: Call) -> web.Response:
        record = self._record(call)
        if record.certificate is None:
            raise AcmeProblem("malformed", "this order has no certificate", status=404)
        body = issuance.pem_chain((record.certificate, *self._ca.chain))
        return web.Response(body=body, content_type=CERTIFICATE_TYPE)

    def _record(self, call: Call) -> OrderRecord:
        """The order whose part the URL names, for its own account only."""
        record = self.book.order(call.id)
        if record is None:
            raise AcmeProblem("malformed", "no such resource", status=404)
        if record.account is not call.owner:
            raise problem("unauthorized", "this belongs to another account")
        return record

    def _fail(self, record: OrderRecord, refusal: AcmeProblem) -> web.Response:
        """End an order and its challenge for good: one log line, one problem document."""
        record.error = Problem.of(refusal)
        record.challenge_status = ChallengeStatus.INVALID
        self.book.end(record, OrderStatus.INVALID)
        log.info(
            "acme_order",
            outcome="invalid",
            reference=record.grant.reference,
            type=refusal.type,
            detail=refusal.detail,
        )
        return problem_answer(refusal)

    def _show_order(self, call: Call, record: OrderRecord, *, status: int = 200) -> web.Response:
        url = self.door.url(call.request, f"order/{record.id}")
        certificate = self.door.url(call.request, f"certificate/{record.id}")
        order = Order(
            status=record.status,
            identifiers=(record.identifier,),
            authorizations=(self.door.url(call.request, f"authz/{record.id}"),),
            finalize=f"{url}/finalize",
            expires=record.expires,
            certificate=certificate if record.certificate else None,
            error=record.error,
        )
        return json_answer(order.to_fields(), status=status, headers={"Location": url})

    def _show_challenge(self, call: Call, record: OrderRecord) -> web.Response:
        url = self.door.url(call.request, f"challenge/{record.id}")
        authorization = self.door.url(call.request, f"authz/{record.id}")
        headers = {"Location": url, "Link": f'<{authorization}>;rel="up"'}
        return json_answer(record.challenge(url).to_fields(), headers=headers)


def _wanted_identifier(payload: Json) -> Identifier:
    """The one device that an order is for (certificates.md 2.3 and 2.4)."""
    listed = payload.get("identifiers")
    if not isinstance(listed, list) or not listed:
        raise MalformedMessage("identifiers", "a list with one identifier", listed)
    if "notBefore" in payload or "notAfter" in payload:
        raise MalformedMessage("notBefore, notAfter", "neither: the CA chooses the dates")
    if not all(isinstance(item, dict) for item in listed):
        raise MalformedMessage("identifiers", "JSON objects", listed)
    identifiers = [Identifier.from_fields(item) for item in listed]
    for identifier in identifiers:
        if identifier.type != device_attest.PERMANENT_IDENTIFIER:
            raise problem(
                "unsupportedIdentifier", f"type {identifier.type!r:.40} cannot be proved here"
            )
    if len(identifiers) > 1:
        raise problem("rejectedIdentifier", "one certificate is for one device")
    device_attest.check_permanent_identifier(identifiers[0].value)
    return identifiers[0]


def _account_fields(account: Account) -> Json:
    fields: Json = {"status": "valid"}
    if account.contact:
        fields["contact"] = list(account.contact)
    return fields
