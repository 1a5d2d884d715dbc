"""The SCEP client of a device: GetCACert, GetCACaps, then PKCSReq until there is a certificate (RFC 8894).

In: a Transport, the payload's URL and settings, a key and its PKCS#10 request. Out: the certificate, checked as
Apple's client checks it (certificates.md 1.11). What Apple's client does and the RFC does not ask for is the default.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal
from urllib.parse import quote

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import certificate_parts, cms, csr, names
from certs.certificate_profile import key_usage
from certs.certificate_writer import encode_extension, write_certificate
from certs.clock import Clock
from certs.cms import Cipher
from certs.errors import MalformedMessage, ScepFailure, TransportError, UnexpectedAnswer
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.keys import KeySource, spki_der
from certs.scep.ca_certificates import CaCertificates
from certs.scep.capabilities import LEGACY, Capabilities
from certs.scep.client_faults import Misbehaviour, RequestFrame
from certs.scep.message import PKI_MESSAGE, CertRep, MessageType, PkiStatus, issuer_and_subject
from certs.transport import HttpResponse, Transport

log = structlog.get_logger()

TIMEOUT_S: Final = 60.0  # what profiled allows
APPLE_EXTENSIONS: Final = (
    encode_extension(key_usage("digital_signature"), True),
    encode_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True),
)
REQUESTER_EXTENSIONS: Final = (
    encode_extension(key_usage("digital_signature", "key_encipherment"), True),
)


class AnswerLost(TransportError):
    """No answer to a PKIOperation, or one too late, from a server that had been there for GetCACert."""

    def __init__(self, error: TransportError) -> None:
        super().__init__(
            error.url.partition("?")[0],  # a GET has the whole message behind it
            error.reason,
            timeout_s=error.timeout_s,
            untrusted_server=error.untrusted_server,
        )


@dataclass(frozen=True, slots=True)
class _Enrollment:
    """What stays the same for all messages of one transaction."""

    ca: CaCertificates
    post: bool
    digest: str
    cipher: Cipher
    key: rsa.RSAPrivateKey
    challenge: str | None
    signer: Identity
    transaction_id: str
    misbehaviour: Misbehaviour


class ScepClient:
    """Enrolls one certificate at one URL. `signer` is whose key signs the messages (certificates.md 1.6)."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        *,
        clock: Clock,
        keys: KeySource,
        name: str | None = None,
        ca_fingerprint: bytes | None = None,
        signer: Literal["apple", "same-key"] = "apple",
        retries: int = 3,
        retry_delay_s: float = 10,
        capabilities: Capabilities | None = None,
        faults: FaultPoint = no_faults,
    ) -> None:
        self._transport = transport
        self._url = url
        self._clock = clock
        self._keys = keys
        self._name = name
        self._ca_fingerprint = ca_fingerprint
        self._signer: Literal["apple", "same-key"] = signer
        self._retries = retries
        self._retry_delay_s = retry_delay_s
        self._capabilities = capabilities
        self._faults = faults
        self._asked: Counter[str] = Counter()

    async def enroll(self, key: rsa.RSAPrivateKey, csr_der: bytes) -> tuple[x509.Certificate, ...]:
        """The issued certificate, then its issuers as far as they are known, without the root.

        Raises ScepFailure (the server said no, or never decided), InsufficientCapabilities, UntrustedCertificate,
        MalformedMessage, InvalidSignature, CannotDecrypt, UnexpectedAnswer or TransportError (AnswerLost, once GetCACert
        was answered).
        """
        return await self._enroll(key, csr_der, None)

    async def renew(
        self, current: Identity, key: rsa.RSAPrivateKey, csr_der: bytes
    ) -> tuple[x509.Certificate, ...]:
        """The successor of `current`, whose key signs for it (RFC 8894, section 3.3.1.2). Raises as `enroll`.

        A server without `Renewal` gets an UpdateReq if it has that, else a PKCSReq, whose CSR needs a challenge.
        """
        return await self._enroll(key, csr_der, current)

    async def _enroll(
        self, key: rsa.RSAPrivateKey, csr_der: bytes, current: Identity | None
    ) -> tuple[x509.Certificate, ...]:
        ca = await self.get_ca_cert()
        capabilities = self._capabilities or await self.get_ca_caps()
        # iOS refuses insufficient capabilities before it sends anything.
        digest, cipher = capabilities.digest(), capabilities.cipher()
        misbehaviour = self._misbehaviour(csr_der)
        key, csr_der = await misbehaviour.request(key, csr_der)
        request = csr.decode(csr_der)
        if digest == "sha1":
            csr_der = csr.signed_again(csr_der, key, digest)  # else the server cannot check it
        signer = current or await self._message_signer(key, request.subject)
        enrollment = _Enrollment(
            ca=ca,
            post=capabilities.post and not misbehaviour.by_get,
            digest=digest,
            cipher=cipher,
            key=key,
            challenge=request.challenge_password,
            signer=await misbehaviour.signer(signer),
            transaction_id=misbehaviour.transaction_id(transaction_id(key.public_key())),
            misbehaviour=misbehaviour,
        )
        poll = issuer_and_subject(ca.issuer_der, request.subject.public_bytes())
        first = misbehaviour.kind(MessageType.PKCS_REQ if current is None else capabilities.renewal)
        content = poll if first is MessageType.CERT_POLL else csr_der
        reply, issued = await self._ask(enrollment, first, content)
        for attempt in range(self._retries):
            if reply.status is not PkiStatus.PENDING:
                break
            if attempt:  # the first retry comes at once
                await self._clock.sleep(self._retry_delay_s)
            reply, issued = await self._ask(enrollment, MessageType.CERT_POLL, poll)
        if reply.status is PkiStatus.PENDING:
            raise ScepFailure("pending", f"not decided after {self._retries} polls")
        return issued

    async def get_ca_cert(self) -> CaCertificates:
        """GetCACert; where the payload names a fingerprint, only what hangs together with that certificate."""
        answer = await self._get("GetCACert", "get_ca_cert", quote(self._name or "", safe=""))
        ca = CaCertificates.decode(_body(answer))
        if self._ca_fingerprint is None:
            return ca
        pinned = ca.pinned(self._ca_fingerprint)
        if left_out := len(ca.certificates) - len(pinned.certificates):
            log.warning("scep_ca_certificates_not_below_fingerprint", left_out=left_out)
        return pinned

    async def get_next_ca_cert(self) -> CaCertificates:
        """GetNextCACert: what takes over, signed by the CA of today (RFC 8894, section 4.7).

        Raises UnexpectedAnswer where there is none, UntrustedCertificate, MalformedMessage or InvalidSignature.
        """
        ca = await self.get_ca_cert()
        name = quote(self._name or "", safe="")
        body = _body(await self._get("GetNextCACert", "get_next_ca_cert", name))
        signed = cms.decode_signed(body)
        ca.check_ca(cms.verify_signed(signed, candidates=ca.certificates))
        return CaCertificates.decode(signed.content or b"")

    async def get_ca_caps(self) -> Capabilities:
        """GetCACaps; an HTTP error or a web page means a server that does not know it."""
        answer = await self._get("GetCACaps", "get_ca_caps", quote(self._name or "", safe=""))
        if answer.status != 200 or answer.body.lstrip().startswith(b"<"):
            return LEGACY
        return Capabilities.parse(answer.body)

    async def _ask(
        self, enrollment: _Enrollment, message_type: MessageType, content: bytes
    ) -> tuple[CertRep, tuple[x509.Certificate, ...]]:
        """One PKIOperation: the checked answer, and the certificates if it is a SUCCESS."""
        nonce = secrets.token_bytes(16)
        frame = RequestFrame(
            message_type=message_type,
            transaction_id=enrollment.transaction_id,
            sender_nonce=nonce,
            signer=enrollment.signer,
            recipients=(enrollment.ca.recipient,),
            cipher=enrollment.cipher,
            digest=enrollment.digest,
            signing_time=self._clock.now(),
        )
        message = enrollment.misbehaviour.message(content, frame, enrollment.challenge)
        nonce = frame["sender_nonce"]  # as it was sent
        for _ in range(enrollment.misbehaviour.times):
            try:
                answer = await self._pki_operation(message, enrollment)
            except TransportError as error:
                raise AnswerLost(error) from error
        reply = CertRep.decode(_body(answer))
        enrollment.ca.check_signer(reply.verify(enrollment.ca.certificates))
        if reply.transaction_id != enrollment.transaction_id:
            raise MalformedMessage("transactionID", enrollment.transaction_id, reply.transaction_id)
        if reply.recipient_nonce is None:
            log.warning("scep_recipient_nonce_absent", transaction_id=reply.transaction_id)
        elif reply.recipient_nonce != nonce:
            raise MalformedMessage(
                "recipientNonce", f"our senderNonce {nonce.hex()}", reply.recipient_nonce.hex()
            )
        if reply.status is PkiStatus.FAILURE:
            raise ScepFailure(reply.fail_info or "", reply.fail_info_text)
        if reply.status is PkiStatus.PENDING:
            return reply, ()
        certificates = reply.open(enrollment.signer)
        leaf = _own(certificates, enrollment.key)
        return reply, (leaf, *enrollment.ca.path(leaf, certificates))

    async def _get(self, operation: str, step: str, message: str) -> HttpResponse:
        joint = "&" if "?" in self._url else "?"
        return await self._transport.request(
            "GET",
            f"{self._url}{joint}operation={operation}&message={message}",
            step=step,
            timeout_s=TIMEOUT_S,
        )

    async def _pki_operation(self, message: bytes, enrollment: _Enrollment) -> HttpResponse:
        if not enrollment.post:
            query = enrollment.misbehaviour.query(message)
            return await self._get("PKIOperation", "pki_operation", query)
        joint = "&" if "?" in self._url else "?"
        return await self._transport.request(
            "POST",
            f"{self._url}{joint}operation=PKIOperation",
            step="pki_operation",
            headers={"Content-Type": PKI_MESSAGE},
            body=message,
            timeout_s=TIMEOUT_S,
        )

    async def _message_signer(self, key: rsa.RSAPrivateKey, subject: x509.Name) -> Identity:
        """The self-signed identity that signs the messages and opens the answers."""
        if self._signer == "same-key":
            return _self_signed(key, subject, self._clock, days=7)
        throw_away = await self._keys.take("rsa2048")
        if not isinstance(throw_away, rsa.RSAPrivateKey):
            raise TypeError("a KeySource gave another kind of key than it was asked for")
        return _self_signed(throw_away, APPLE_SIGNER, self._clock, days=365)

    def _misbehaviour(self, csr_der: bytes) -> Misbehaviour:
        """What is wrong with this enrollment; the FaultPoint is asked once, with the honest request."""
        self._asked["pki_operation"] += 1
        n = self._asked["pki_operation"]
        action = self._faults("device", "pki_operation", csr_der, n)
        return Misbehaviour(action, self._keys, self._clock)


APPLE_SIGNER: Final = names.from_subject([[["CN", "MDM SCEP SIGNER"]], [["C", "US"]]])


def transaction_id(public_key: rsa.RSAPublicKey) -> str:
    """Upper-case hex SHA-1 over the DER RSAPublicKey, as captured from macOS (certificates.md 1.7)."""
    data = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().upper()


def _self_signed(
    key: rsa.RSAPrivateKey, subject: x509.Name, clock: Clock, *, days: int
) -> Identity:
    """Apple's form (digitalSignature only, clientAuth, serial 1) or the RFC's (section 2.3)."""
    start = clock.now() - timedelta(minutes=10)
    name = subject.public_bytes()
    written = write_certificate(
        issuer=name,
        subject=name,
        spki=spki_der(key.public_key()),
        serial_number=1,
        start=start,
        end=start + timedelta(days=days),
        extensions=APPLE_EXTENSIONS if subject is APPLE_SIGNER else REQUESTER_EXTENSIONS,
        key=key,
        digest="sha256",
    )
    return Identity(key, certificate_parts.load(written))


def _body(answer: HttpResponse) -> bytes:
    """The body of a 200. Raises UnexpectedAnswer, without the query: a GET has the whole message there."""
    url = answer.url.partition("?")[0]
    if answer.status != 200:
        raise UnexpectedAnswer(url, answer.status, "expected 200")
    if not answer.body:
        raise UnexpectedAnswer(url, answer.status, "expected a message, got nothing")
    return answer.body


def _own(certificates: Sequence[x509.Certificate], key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The certificate for our key, wherever it stands. Raises MalformedMessage."""
    own = spki_der(key.public_key())
    for leaf in certificates:
        public = cms.rsa_public_key(leaf)
        if public is not None and spki_der(public) == own:
            return leaf
    raise MalformedMessage("CertRep", "a certificate for our key", f"{len(certificates)} others")
