"""The SCEP server: GetCACaps, GetCACert and PKIOperation in front of a CertificateAuthority (RFC 8894).

In: HTTP in every form that clients are known to use (certificates.md 1.1). Out: signed CertReps. Whatever is wrong once
the signed attributes could be read is answered with a CertRep of status FAILURE; HTTP errors are for the rest.
Who may have a certificate is the ChallengeVerifier's decision.
"""

import base64
import binascii
import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, csr, names
from certs.algorithms import Cipher, UnsupportedAlgorithm
from certs.authorize import ChallengeVerifier
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import (
    CannotDecrypt,
    CertsError,
    ChallengeRefused,
    InvalidSignature,
    MalformedMessage,
    ScepFailure,
)
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.keys import spki_der
from certs.scep.message import (
    ADVERTISED,
    CA_CERTIFICATE,
    CA_RA_CERTIFICATES,
    PKI_MESSAGE,
    Capabilities,
    FailInfo,
    MessageType,
    PkiRequest,
    encode_failure,
    encode_success,
)
from certs.scep.transactions import Transactions, Turns

log = structlog.get_logger()

OPERATIONS: Final = {name.lower(): name for name in ("GetCACaps", "GetCACert", "PKIOperation")}
LEAF_KEY_USAGE: Final = names.key_usage(names.DIGITAL_SIGNATURE | names.KEY_ENCIPHERMENT)
UNREADABLE: Final = "the request cannot be decrypted, or is no request signed by its own key"
MINIMUM_SIGNER_BITS: Final = 1024
MAX_COUNTED: Final = 10_000  # transactions whose requests are numbered for the FaultPoint


@dataclass(slots=True)
class _Outcome:
    """What one PKIOperation came to: the facts of its log line, gathered on the way."""

    request: PkiRequest
    cipher: Cipher | None
    signer: str | None = None
    subject: str | None = None
    certificate: x509.Certificate | None = None
    resent: bool = False
    failure: ScepFailure | None = None
    reason: str | None = None  # where the log may know more than the client
    started: float = field(default_factory=time.perf_counter)

    def facts(self) -> dict[str, Any]:
        result: dict[str, Any] = {"outcome": "success" if self.certificate else "failure"}
        if self.failure is not None:
            result |= {
                "fail_info": self.failure.fail_info,
                "reason": self.reason or self.failure.text,
            }
        if self.certificate is not None:
            result |= {"serial": f"{self.certificate.serial_number:x}", "resent": self.resent}
        return {
            "transaction_id": self.request.transaction_id,
            "message_type": self.request.message_type,
            "cipher": self.cipher,
            "digest": self.request.digest,
            "signer": self.signer,
            "subject": self.subject,
            **result,
            "ms": round((time.perf_counter() - self.started) * 1000, 2),
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
        capabilities: Capabilities = ADVERTISED,
        certificate_days: float = 365,
        minimum_key_bits: int = 2048,
        max_clock_skew_s: float | None = None,  # None: signingTime is not looked at
    ) -> None:
        if not isinstance(ra.key, rsa.RSAPrivateKey):
            raise MalformedMessage("SCEP identity", "an RSA key")
        self._ca = ca
        self._ra = ra
        self._challenges = challenges
        self._clock = clock
        self._faults = faults
        self._capabilities = capabilities
        self._certificate_days = certificate_days
        self._minimum_key_bits = minimum_key_bits
        self._max_clock_skew_s = max_clock_skew_s
        self._transactions = Transactions(clock)
        self._turns = Turns()
        self._asked: OrderedDict[tuple[str, str], int] = OrderedDict()

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
            case "PKIOperation":
                # mdmb sends the message in the query of a POST.
                body = await request.read() if request.method == "POST" else b""
                try:
                    message = body or decode_get_message(query.get("message", ""))
                    pki_request = PkiRequest.decode(message)
                except MalformedMessage as error:
                    log.warning("scep_request_malformed", reason=str(error), peer=request.remote)
                    return _text(400, str(error))
                return await self._pki_operation(pki_request)
        log.warning("scep_operation_unknown", operation=query.get("operation"))
        return _text(400, "unknown operation")

    # -- the three operations --------------------------------------------------------------------------------------

    async def _answer(self, step: str, content_type: str, body: bytes) -> web.Response:
        fault = await self._misbehave(step, body, "")
        if isinstance(fault, web.Response):
            return fault
        return web.Response(body=body, content_type=content_type)

    def _ca_certificates(self) -> tuple[str, bytes]:
        """One certificate as it is, several as certs-only: first the RA, whom clients must encrypt to."""
        certificates = list(
            dict.fromkeys((self._ra.certificate, self._ca.certificate, *self._ca.identity.chain))
        )
        if len(certificates) == 1:
            return CA_CERTIFICATE, self._ra.der
        return CA_RA_CERTIFICATES, cms.certs_only(certificates)

    async def _pki_operation(self, request: PkiRequest) -> web.Response:
        fault = await self._misbehave("pki_operation", request, request.transaction_id)
        if isinstance(fault, web.Response):
            return fault
        outcome = _Outcome(request, request.cipher)
        with self._clock.busy():
            try:
                if fault is not None:
                    raise fault
                reply = await self._enroll(request, outcome)
            except ScepFailure as failure:
                outcome.failure = failure
                reply = self._failure(request, failure)
        facts = outcome.facts()
        (log.info if outcome.certificate else log.warning)("scep_transaction", **facts)
        return web.Response(body=reply, content_type=PKI_MESSAGE)

    async def _enroll(self, request: PkiRequest, outcome: _Outcome) -> bytes:
        """The CertRep of a SUCCESS; ScepFailure for everything that is wrong with the request."""
        if request.message_type != MessageType.PKCS_REQ:
            raise ScepFailure(
                FailInfo.BAD_REQUEST, f"messageType {request.message_type} is not supported"
            )
        signer = self._signer(request, outcome)
        self._check_time(request)
        wanted = self._open(request, outcome)
        certificate = await self._certificate_for(request.transaction_id, wanted, outcome)
        reply = encode_success(
            certificate,
            signer,
            transaction_id=request.transaction_id,
            sender_nonce=secrets.token_bytes(16),
            recipient_nonce=request.sender_nonce,
            signer=self._ra,
            cipher=outcome.cipher or "aes128",
            digest=request.digest,
            signing_time=self._clock.now(),
        )
        outcome.certificate = certificate
        return reply

    # -- the checks, in the order in which a request is opened -------------------------------------------------------

    def _signer(self, request: PkiRequest, outcome: _Outcome) -> x509.Certificate:
        """The message's signer, whatever its name, dates and key usage are (certificates.md 1.6)."""
        try:
            signer = request.verify()
        except UnsupportedAlgorithm as error:
            raise ScepFailure(FailInfo.BAD_ALG, str(error)) from error
        except (MalformedMessage, InvalidSignature) as error:
            raise ScepFailure(FailInfo.BAD_MESSAGE_CHECK, str(error)) from error
        outcome.signer = _name(signer)
        key = cms.rsa_public_key(signer)
        if key is None or key.key_size < MINIMUM_SIGNER_BITS:
            raise ScepFailure(
                FailInfo.BAD_ALG, "the answer cannot be encrypted to the signer's key"
            )
        return signer

    def _check_time(self, request: PkiRequest) -> None:
        if self._max_clock_skew_s is None:
            return
        signing_time = request.signing_time
        if signing_time is None:
            return
        skew = (signing_time - self._clock.now()).total_seconds()
        if abs(skew) > self._max_clock_skew_s:
            raise ScepFailure(FailInfo.BAD_TIME, f"signingTime is {skew:+.0f} s off")

    def _open(self, request: PkiRequest, outcome: _Outcome) -> CertificateRequest:
        """The PKCS#10 request; what comes of one that its own key did not sign, `_unreadable` says."""
        try:
            plaintext = request.open(self._ra)
        except UnsupportedAlgorithm as error:  # named in the clear
            raise ScepFailure(FailInfo.BAD_ALG, str(error)) from error
        except CannotDecrypt as error:
            raise self._unreadable(outcome, str(error)) from None
        try:
            wanted = csr.decode(plaintext)
        except MalformedMessage as error:  # without what came: it may be the challenge
            reason = f"{error.field}: expected {error.expected}"
            raise self._unreadable(outcome, reason) from None
        except InvalidSignature as error:
            raise self._unreadable(outcome, str(error)) from None
        outcome.subject = names.text(wanted.subject)
        key = wanted.public_key
        if not isinstance(key, rsa.RSAPublicKey):
            raise ScepFailure(FailInfo.BAD_ALG, "the requested key is not RSA")
        if key.key_size < self._minimum_key_bits:
            raise ScepFailure(
                FailInfo.BAD_REQUEST,
                f"the requested key has {key.key_size} bits, fewer than {self._minimum_key_bits}",
            )
        return wanted

    @staticmethod
    def _unreadable(outcome: _Outcome, reason: str) -> ScepFailure:
        """One answer to a wrong key, to damage and to nonsense inside; only our own log tells them apart.

        Whoever could tell good padding from bad could decrypt a captured request by asking (certificates.md 0.3).
        """
        outcome.reason = reason
        return ScepFailure(FailInfo.BAD_MESSAGE_CHECK, UNREADABLE)

    async def _certificate_for(
        self, transaction_id: str, wanted: CertificateRequest, outcome: _Outcome
    ) -> x509.Certificate:
        """The certificate of an earlier, equal request, or a new one if the challenge allows it.

        The two turns keep a request that is sent twice at once, and a one-time challenge used twice at once, from
        being judged before the first is done.
        """
        key = (transaction_id, hashlib.sha256(spki_der(wanted.public_key)).digest())
        challenge = hashlib.sha256((wanted.challenge_password or "").encode()).digest()
        async with self._turns.take(key):
            known = self._transactions.certificate(key)
            if known is not None:
                outcome.resent = True
                return known
            async with self._turns.take(challenge):
                certificate = await self._issue(wanted)
            self._transactions.remember(key, certificate)
            return certificate

    async def _issue(self, wanted: CertificateRequest) -> x509.Certificate:
        try:
            grant = await self._challenges.verify(wanted.challenge_password, wanted)
        except ChallengeRefused as error:
            raise ScepFailure(FailInfo.BAD_REQUEST, str(error)) from error
        try:
            certificate = self._ca.issue(
                wanted.public_key,
                wanted.subject,
                days=self._certificate_days,
                key_usage=LEAF_KEY_USAGE,
                alternative_names=wanted.alternative_names,
            )
        except (CertsError, ValueError, TypeError) as error:
            raise ScepFailure(FailInfo.BAD_REQUEST, f"cannot be issued: {error}") from error
        try:
            await self._challenges.issued(grant, certificate)
        except BaseException as error:
            self._ca.revoke(certificate)  # nobody may use what its grant was not spent for
            if isinstance(error, ChallengeRefused):
                raise ScepFailure(FailInfo.BAD_REQUEST, str(error)) from error
            raise
        return certificate

    def _failure(self, request: PkiRequest, failure: ScepFailure) -> bytes:
        known_digest = request.digest if request.digest.startswith("sha") else "sha256"
        return encode_failure(
            failure.fail_info,
            failure.text,
            transaction_id=request.transaction_id,
            sender_nonce=secrets.token_bytes(16),
            recipient_nonce=request.sender_nonce,
            signer=self._ra,
            digest=known_digest,
            signing_time=self._clock.now(),
        )

    # -- faults ------------------------------------------------------------------------------------------------------

    async def _misbehave(
        self, step: str, message: object, transaction_id: str
    ) -> web.Response | ScepFailure | None:
        """What a FaultPoint wants in place of the honest answer.

        Actions: `delay` {seconds}, then honest; `status` {status, body}; `body` {body, content_type} with HTTP 200;
        `fail` {fail_info, text}, for PKIOperation.
        """
        if self._faults is no_faults:
            return None
        counted = (step, transaction_id)
        n = self._asked.pop(counted, 0) + 1
        self._asked[counted] = n
        if len(self._asked) > MAX_COUNTED:
            self._asked.popitem(last=False)
        action = self._faults("server", step, message, n)
        if action is None:
            return None
        arguments = action.arguments
        match action.name:
            case "delay":
                await self._clock.sleep(float(arguments["seconds"]))
            case "status":
                status = int(arguments["status"])
                return _text(status, arguments.get("body", f"HTTP {status}"))
            case "body":
                content_type = arguments.get("content_type", "text/html")
                return web.Response(body=_bytes(arguments["body"]), content_type=content_type)
            case "fail" if step == "pki_operation":
                fail_info = str(arguments.get("fail_info", FailInfo.BAD_REQUEST))
                return ScepFailure(fail_info, str(arguments.get("text", "")))
        return None


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


def _name(certificate: x509.Certificate) -> str:
    try:
        return names.text(certificate.subject)
    except (ValueError, TypeError):
        return "(unreadable)"


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(status: int, text: object) -> web.Response:
    return web.Response(status=status, body=_bytes(text), content_type="text/plain")
