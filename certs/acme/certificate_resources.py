"""The certificate's resources of an ACME server: download and revokeCert (RFC 8555, sections 7.4.2 and 7.6)."""

from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certs.acme import http01, issuance, jws
from certs.acme.door import Call, Door
from certs.acme.faults import ServerFault
from certs.acme.fields import optional
from certs.acme.message import CERTIFICATE_TYPE, Identifier, OrderStatus
from certs.acme.order_book import OrderBook
from certs.acme.order_resources import OrderResources
from certs.acme.policy import AcmePolicy
from certs.acme.problem import problem
from certs.ca import CertificateAuthority
from certs.errors import AcmeProblem, MalformedMessage
from certs.trust import UNREADABLE

log = structlog.get_logger()

# RFC 5280, section 5.3.1: the reasons that a holder may give.
REASONS: Final = {
    0: x509.ReasonFlags.unspecified,
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
}


class CertificateResources:
    """What has been issued."""

    def __init__(
        self,
        door: Door,
        book: OrderBook,
        policy: AcmePolicy,
        *,
        ca: CertificateAuthority,
        earlier: Sequence[CertificateAuthority],
        orders: OrderResources,
    ) -> None:
        self._door = door
        self._book = book
        self._policy = policy
        self._ca = ca
        self._generations = (ca, *earlier)
        self._orders = orders

    def add_routes(self, app: web.Application) -> None:
        door = self._door
        door.read_route(app, "certificate/{id}", "certificate", self._certificate)
        door.read_route(app, "certificate/{id}/{chain}", "certificate", self._certificate)
        door.either_route(app, "revoke-cert", "revoke_cert", self._revoke)

    async def _certificate(self, call: Call) -> web.Response:
        """The leaf and one of its chains; links name the others."""
        order = self._orders.record(call)
        if order.certificate is None or order.status is not OrderStatus.VALID:
            raise AcmeProblem("malformed", "this order has no certificate", status=404)
        chains = (self._ca.chain, *self._policy.alternate_chains)
        chosen = call.request.match_info.get("chain", "0")
        if chosen not in (str(number) for number in range(len(chains))):
            raise AcmeProblem("malformed", "no such resource", status=404)
        certificates = [order.certificate, *chains[int(chosen)]]
        if call.misbehaves(ServerFault.CHAIN_IN_WRONG_ORDER):
            certificates.reverse()
        response = web.Response(
            body=issuance.pem_chain(certificates), content_type=CERTIFICATE_TYPE
        )
        for number in range(len(chains)):
            if str(number) != chosen:
                url = self._door.url(call.request, f"certificate/{order.id}/{number}")
                response.headers.add("Link", f'<{url}>;rel="alternate"')
        return response

    async def _revoke(self, call: Call) -> web.Response:
        payload = call.signed.fields()
        certificate = _certificate_of(payload)
        code = optional(payload, "reason", int) or 0
        issuer = next((ca for ca in self._generations if _issued_by(ca, certificate)), None)
        if issuer is None:
            raise AcmeProblem("malformed", "this CA did not issue it", status=404)
        if not self._may_revoke(call, certificate):
            raise problem("unauthorized", "neither the certificate's account nor its key signed")
        if code not in REASONS:
            allowed = ", ".join(str(known) for known in REASONS)
            raise problem("badRevocationReason", f"reason {code} is none of {allowed}")
        if issuer.is_revoked(certificate):
            raise problem("alreadyRevoked", "the certificate is revoked already")
        issuer.revoke(certificate, REASONS[code])
        return web.Response()

    def _may_revoke(self, call: Call, certificate: x509.Certificate) -> bool:
        """Its own key, the account that ordered it, or one that may have certificates for all that it names."""
        if call.account is None:
            return call.key == certificate.public_key()
        order = self._book.order_of_certificate(certificate.serial_number)
        if order is not None and order.account is call.account:
            return True
        identifiers = (
            order.identifiers
            if order is not None
            else tuple(Identifier(http01.DNS, name) for name in issuance.named_in(certificate))
        )
        return bool(identifiers) and all(
            self._book.proved(call.account, identifier) for identifier in identifiers
        )


def _issued_by(ca: CertificateAuthority, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _certificate_of(payload: jws.Json) -> x509.Certificate:
    der = jws.from_base64url(payload.get("certificate"), "certificate")
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise MalformedMessage("certificate", "a certificate in DER", str(error)) from error
