"""The SCEP server: GetCACaps, GetCACert, GetNextCACert and PKIOperation in front of a CertificateAuthority (RFC 8894).

In: HTTP in every form that clients are known to use (certificates.md 1.1). Out: signed CertReps. Whatever is wrong once
the signed attributes could be read is answered with a CertRep of status FAILURE; HTTP errors are for the rest.
Who may have a certificate is the ChallengeVerifier's decision, who may renew one the RenewalVerifier's.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, names
from certs.authorize import Approval, ChallengeVerifier, RenewalVerifier
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.errors import MalformedMessage, ScepFailure
from certs.faults import Action, FaultPoint, no_faults
from certs.identity import Identity
from certs.scep.capabilities import ADVERTISED, Capabilities
from certs.scep.faults import ServerFault
from certs.scep.issuance import Issuance
from certs.scep.message import (
    CA_CERTIFICATE,
    CA_RA_CERTIFICATES,
    NEXT_CA_CERTIFICATE,
    PKI_MESSAGE,
    FailInfo,
    MessageType,
    PkiRequest,
)
from certs.scep.opening import Opening
from certs.scep.outcome import Outcome
from certs.scep.renewal import Renewals
from certs.scep.reply import Replies
from certs.scep.server_faults import Misbehaviour, spoilt, text

log = structlog.get_logger()

OPERATIONS: Final = {
    name.lower(): name for name in ("GetCACaps", "GetCACert", "GetNextCACert", "PKIOperation")
}


class ScepServer:
    """One CA's SCEP door. `ra` holds the RSA key that requests are encrypted to and answers are signed with."""

    def __init__(
        self,
        ca: CertificateAuthority,
        ra: Identity,
        challenges: ChallengeVerifier,
        *,
        clock: Clock,
        faults: FaultPoint = no_faults,
        capabilities: Capabilities | None = None,  # None: what this server has
        certificate_days: float = 365,
        minimum_key_bits: int = 2048,
        max_clock_skew_s: float | None = None,
        approval: Approval | None = None,
        renewals: RenewalVerifier | None = None,  # None: RenewalReq is refused
        renewal_grace: timedelta = timedelta(0),  # how long after its end a certificate may renew
        earlier: Sequence[CertificateAuthority] = (),  # whose certificates may renew, too
        next_ca: x509.Certificate | None = None,  # for GetNextCACert
    ) -> None:
        if not isinstance(ra.key, rsa.RSAPrivateKey):
            raise MalformedMessage("SCEP identity", "an RSA key")
        self._ca = ca
        self._ra = ra
        self._clock = clock
        self._capabilities = capabilities or _capabilities(renewals, next_ca)
        self._next_ca = next_ca
        self._misbehaviour = Misbehaviour(faults, clock)
        self._opening = Opening(
            ra=ra,
            clock=clock,
            minimum_key_bits=minimum_key_bits,
            max_clock_skew_s=max_clock_skew_s,
        )
        self._replies = Replies(ca, ra, clock)
        self._issuance = Issuance(
            ca,
            challenges,
            clock=clock,
            certificate_days=certificate_days,
            approval=approval,
            renewals=None
            if renewals is None
            else Renewals(
                authorities=(ca, *earlier), verifier=renewals, clock=clock, grace=renewal_grace
            ),
        )

    def add_routes(self, app: web.Application, path: str = "/scep") -> None:
        """Serve GET and POST at `path`. Long GET requests need an AppRunner with a raised `max_line_size`."""
        app.router.add_get(path, self.handle)
        app.router.add_post(path, self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """One HTTP request of any operation."""
        query = raw_query(request.raw_path)
        operation = OPERATIONS.get(query.get("operation", "").lower())
        match operation:
            case "GetCACaps":
                return await self._answer("get_ca_caps", "text/plain", self._capabilities.encode())
            case "GetCACert":
                return await self._answer("get_ca_cert", *self._ca_certificates())
            case "GetNextCACert" if self._next_ca is not None:
                # Signed by the CA itself: a client believes its successor on no lesser word.
                body = cms.sign(cms.certs_only([self._next_ca]), self._ca.identity)
                return await self._answer("get_next_ca_cert", NEXT_CA_CERTIFICATE, body)
            case "GetNextCACert":
                return text(404, "there is no next CA certificate")
            case "PKIOperation":
                # mdmb sends the message in the query of a POST.
                body = await request.read() if request.method == "POST" else b""
                try:
                    message = body or decode_get_message(query.get("message", ""))
                except MalformedMessage as error:
                    return _malformed(error, request.remote)
                return await self.pki_operation(message, request.remote)
        log.warning("scep_operation_unknown", operation=query.get("operation"))
        return text(400, "unknown operation")

    # -- the operations --------------------------------------------------------------------------------------------

    async def _answer(self, step: str, content_type: str, body: bytes) -> web.Response:
        fault = await self._misbehaviour.at(step, body)
        if isinstance(fault, web.Response):
            return fault
        if isinstance(fault, Action):
            if fault.name == ServerFault.CERTS_ONLY_OF_ONE:
                # Under the type for one certificate, as such servers announce it.
                content_type, body = CA_CERTIFICATE, cms.certs_only([self._ra.certificate])
            if fault.name == ServerFault.RA_WITHOUT_KEY_ENCIPHERMENT:
                content_type, body = CA_RA_CERTIFICATES, self._signing_only()
            body = spoilt(body, fault)
        return web.Response(body=body, content_type=content_type)

    def _ca_certificates(self) -> tuple[str, bytes]:
        """One certificate as it is, several as certs-only: first the RA, whom clients must encrypt to."""
        certificates = list(
            dict.fromkeys((self._ra.certificate, self._ca.certificate, *self._ca.identity.chain))
        )
        if len(certificates) == 1:
            return CA_CERTIFICATE, self._ra.der
        return CA_RA_CERTIFICATES, cms.certs_only(certificates)

    def _signing_only(self) -> bytes:
        """GetCACert with an RA that may sign and not decipher, beside its CA."""
        ra = self._ca.issue_identity(
            self._ra.key,
            self._ra.certificate.subject,
            key_usage=names.key_usage(names.DIGITAL_SIGNATURE),
            extended_key_usage=(),
        )
        return cms.certs_only([ra.certificate, self._ca.certificate])

    async def pki_operation(self, message: bytes, peer: str | None = None) -> web.Response:
        """The answer to one pkiMessage: a CertRep, or 400 where no signed attributes can be read; `peer` is for the log."""
        try:
            request = PkiRequest.decode(message)
        except MalformedMessage as error:
            return _malformed(error, peer)
        fault = await self._misbehaviour.at("pki_operation", request, request.transaction_id)
        if isinstance(fault, web.Response):
            return fault
        outcome = Outcome(request, request.cipher)
        action = fault if isinstance(fault, Action) else None
        with self._clock.busy():
            try:
                if isinstance(fault, ScepFailure):
                    raise fault
                reply = await self._enroll(request, outcome, action)
            except ScepFailure as failure:
                outcome.failure = failure
                reply = self._replies.failure(request, failure, action)
        outcome.log()
        return web.Response(body=spoilt(reply, action), content_type=PKI_MESSAGE)

    async def _enroll(self, request: PkiRequest, outcome: Outcome, fault: Action | None) -> bytes:
        """The CertRep of a SUCCESS or PENDING; ScepFailure for everything that is wrong with the request."""
        if request.message_type not in ANSWERED:
            raise ScepFailure(
                FailInfo.BAD_REQUEST, f"messageType {request.message_type} is not supported"
            )
        signer, signer_key = self._opening.signer(request, outcome)
        self._opening.check_time(request)
        transaction_id, opening, issuance = request.transaction_id, self._opening, self._issuance
        certificate: x509.Certificate | None
        match request.message_type:
            case MessageType.PKCS_REQ:
                wanted = opening.certificate_request(request, outcome)
                certificate = await issuance.enroll(
                    transaction_id, signer_key, wanted, outcome, held_for=_polls(fault)
                )
            case MessageType.CERT_POLL:
                names_ = opening.issuer_and_subject(request, outcome)
                certificate = await issuance.poll(transaction_id, signer_key, names_, outcome)
            case MessageType.RENEWAL_REQ | MessageType.UPDATE_REQ:
                wanted = opening.certificate_request(request, outcome)
                certificate = await issuance.renew(transaction_id, signer, wanted, outcome)
            case _:
                raise self._cannot_look_up(request, outcome)
        if certificate is None:
            return self._replies.pending(request, fault)
        cipher = outcome.cipher or "aes128"
        reply = self._replies.success(request, certificate, signer, cipher, fault)
        outcome.certificate = certificate
        return reply

    def _cannot_look_up(self, request: PkiRequest, outcome: Outcome) -> ScepFailure:
        """GetCert and GetCRL: certificates are not kept, and revocation lists are served over HTTP."""
        issuer, _ = self._opening.issuer_and_serial(request, outcome)
        if issuer != cms.subject_der(self._ca.certificate):
            return ScepFailure(FailInfo.BAD_CERT_ID, "the issuer is not this CA")
        if request.message_type == MessageType.GET_CRL:
            where = f" by SCEP, see {self._ca.crl_url}" if self._ca.crl_url else ""
            return ScepFailure(FailInfo.BAD_REQUEST, f"GetCRL is not supported{where}")
        return ScepFailure(FailInfo.BAD_REQUEST, "GetCert is not supported")


def _malformed(error: MalformedMessage, peer: str | None) -> web.Response:
    log.warning("scep_request_malformed", reason=str(error), peer=peer)
    return text(400, str(error))


ANSWERED: Final = frozenset(MessageType) - {MessageType.CERT_REP}


def _capabilities(
    renewals: RenewalVerifier | None, next_ca: x509.Certificate | None
) -> Capabilities:
    more = ("Renewal",) if renewals is not None else ()
    return ADVERTISED.with_keywords(*more, *(("GetNextCACert",) if next_ca is not None else ()))


def _polls(fault: Action | None) -> int:
    """How many answers of a transaction say PENDING on purpose."""
    if fault is None or fault.name != ServerFault.PENDING:
        return 0
    return int(fault.arguments.get("polls", 1))


def raw_query(raw_path: str) -> dict[str, str]:
    """The query's parameters, percent-decoded, `+` left alone: base64 has it. Names in lower case, the first counts."""
    parameters: dict[str, str] = {}
    for pair in raw_path.partition("?")[2].split("&"):
        name, _, value = pair.partition("=")
        if name:
            parameters.setdefault(unquote(name).lower(), unquote(value))
    return parameters


def decode_get_message(text: str) -> bytes:
    """base64 in any dialect: standard or URL-safe, padded or not, `+` turned into spaces by someone on the way."""
    if not text:
        raise MalformedMessage("message", "a pkiMessage in base64", "nothing")
    standard = text.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=\r\n")
    standard = standard.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedMessage("message", "base64", str(error)) from error
