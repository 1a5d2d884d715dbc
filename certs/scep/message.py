"""SCEP messages (RFC 8894, section 3): pkiMessages, bytes to values and back.

A pkiMessage is a SignedData around an EnvelopedData. Decoding stops at the signed attributes, so that a server can
answer whatever is wrong further in with a CertRep; `verify` and `open` go on from there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Self, TypedDict, TypeVar

from cryptography import x509

from certs import cms, der
from certs.algorithms import Cipher
from certs.cms import SignedData
from certs.errors import CannotDecrypt, MalformedMessage
from certs.identity import Identity

PKI_MESSAGE: Final = "application/x-pki-message"
CA_CERTIFICATE: Final = "application/x-x509-ca-cert"
CA_RA_CERTIFICATES: Final = "application/x-x509-ca-ra-cert"
NEXT_CA_CERTIFICATE: Final = "application/x-x509-next-ca-cert"

MESSAGE_TYPE: Final = "2.16.840.1.113733.1.9.2"
PKI_STATUS: Final = "2.16.840.1.113733.1.9.3"
FAIL_INFO: Final = "2.16.840.1.113733.1.9.4"
SENDER_NONCE: Final = "2.16.840.1.113733.1.9.5"
RECIPIENT_NONCE: Final = "2.16.840.1.113733.1.9.6"
TRANSACTION_ID: Final = "2.16.840.1.113733.1.9.7"
FAIL_INFO_TEXT: Final = "1.3.6.1.5.5.7.24.1"

T = TypeVar("T", str, bytes)

MAX_NONCE_BYTES: Final = 64  # the RFC says 16; Apple's macOS client sends 8
MAX_TRANSACTION_ID: Final = 255


class MessageType(StrEnum):
    """What a pkiMessage is for (RFC 8894, section 3.2.1.2)."""

    CERT_REP = "3"
    RENEWAL_REQ = "17"
    UPDATE_REQ = "18"  # of the drafts
    PKCS_REQ = "19"
    CERT_POLL = "20"
    GET_CERT = "21"
    GET_CRL = "22"


class PkiStatus(StrEnum):
    """How a request ended (section 3.2.1.3)."""

    SUCCESS = "0"
    FAILURE = "2"
    PENDING = "3"


class FailInfo(StrEnum):
    """Why it failed (section 3.2.1.4.1)."""

    BAD_ALG = "0"
    BAD_MESSAGE_CHECK = "1"
    BAD_REQUEST = "2"
    BAD_TIME = "3"
    BAD_CERT_ID = "4"


IS_CERT_REP: Final = der.printable(MessageType.CERT_REP)
IS_STATUS: Final = {status: der.printable(status) for status in PkiStatus}


class _Attributes:
    """The SCEP attributes of a message's only signer, each read with its own type and bounds."""

    def __init__(self, signed: SignedData) -> None:
        if len(signed.signers) != 1:
            raise MalformedMessage("signerInfos", "exactly one signer", len(signed.signers))
        attributes = signed.signers[0].attributes
        if attributes is None:
            raise MalformedMessage("pkiMessage", "signed attributes")
        self._attributes = attributes

    def text(self, dotted: str, name: str) -> str | None:
        """A PrintableString, byte for byte: Latin-1 loses nothing, whatever the peer wrote."""
        node = self._attributes.get(dotted)
        if node is None:
            return None
        if node.tag not in der.TEXT_TAGS or len(node.content) > MAX_TRANSACTION_ID:
            raise MalformedMessage(name, f"text of at most {MAX_TRANSACTION_ID} bytes", node)
        return node.content.decode("latin-1")

    def nonce(self, dotted: str, name: str) -> bytes | None:
        node = self._attributes.get(dotted)
        if node is None:
            return None
        value = node.expect(der.OCTET_STRING, field=name).content
        if not 1 <= len(value) <= MAX_NONCE_BYTES:
            raise MalformedMessage(name, f"1 to {MAX_NONCE_BYTES} bytes", len(value))
        return value

    def free_text(self, dotted: str) -> str:
        """failInfoText: for people only, so nothing about it can be wrong."""
        node = self._attributes.get(dotted)
        return "" if node is None else node.content[:1000].decode(errors="replace")


def _required(value: T | None, name: str) -> T:
    if value is None:
        raise MalformedMessage("signed attributes", name, "none")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiRequest:
    """A pkiMessage from a client: PKCSReq, RenewalReq, CertPoll and so on."""

    message_type: str  # a MessageType where it is a known one
    transaction_id: str
    sender_nonce: bytes
    signed: SignedData

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """As far as the signed attributes; raises only MalformedMessage."""
        signed = cms.decode_signed(data)
        attributes = _Attributes(signed)
        return cls(
            message_type=_required(attributes.text(MESSAGE_TYPE, "messageType"), "messageType"),
            transaction_id=_required(
                attributes.text(TRANSACTION_ID, "transactionID"), "transactionID"
            ),
            sender_nonce=_required(attributes.nonce(SENDER_NONCE, "senderNonce"), "senderNonce"),
            signed=signed,
        )

    @property
    def digest(self) -> str:
        return self.signed.signers[0].digest

    @property
    def cipher(self) -> Cipher | None:
        """The cipher of the envelope; None when there is none that we know."""
        return cms.cipher_of(self.signed.content or b"")

    @property
    def signing_time(self) -> datetime | None:
        """The moment the client claims; None without a readable one, as clients may leave it out."""
        try:
            return self.signed.signers[0].signing_time
        except MalformedMessage:
            return None

    def verify(self) -> x509.Certificate:
        """The certificate in the message that signed it. Raises MalformedMessage or InvalidSignature."""
        return cms.verify_signed(self.signed)

    def open(self, recipient: Identity) -> bytes:
        """What is in the envelope: a PKCS#10 request for the three Req types. Raises CannotDecrypt."""
        return cms.decrypt(self.signed.content or b"", recipient)


def encode_request(
    content: bytes,
    *,
    message_type: str,
    transaction_id: str,
    sender_nonce: bytes,
    signer: Identity,
    recipients: Sequence[x509.Certificate],
    cipher: Cipher = "aes128",
    digest: str = "sha256",
    signing_time: datetime | None = None,
    envelope: bytes | None = None,
    more_attributes: Sequence[tuple[str, bytes]] = (),
    ber: bool = False,
) -> bytes:
    """A signed and enveloped pkiMessage; the answer will be encrypted to the signer's certificate.

    `envelope` is one made otherwise, `more_attributes` are signed too, `ber` writes indefinite lengths.
    """
    return cms.sign(
        cms.encrypt(content, recipients, cipher) if envelope is None else envelope,
        signer,
        digest=digest,
        signing_time=signing_time,
        extra_attributes=(
            (MESSAGE_TYPE, der.printable(message_type)),
            (TRANSACTION_ID, _transaction_id(transaction_id)),
            (SENDER_NONCE, der.octet_string(sender_nonce)),
            *more_attributes,
        ),
        certificates=(signer.certificate,),
        ber=ber,
    )


def issuer_and_subject(issuer_der: bytes, subject_der: bytes) -> bytes:
    """What a CertPoll carries (section 3.3.3)."""
    return der.sequence(issuer_der, subject_der)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertRep:
    """The answer to any request (section 3.3.2)."""

    status: PkiStatus
    transaction_id: str
    sender_nonce: bytes | None
    recipient_nonce: bytes | None
    fail_info: str | None  # a FailInfo where it is a known one
    fail_info_text: str
    signed: SignedData

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """As far as the signed attributes; raises only MalformedMessage."""
        signed = cms.decode_signed(data)
        attributes = _Attributes(signed)
        message_type = attributes.text(MESSAGE_TYPE, "messageType")
        if message_type != MessageType.CERT_REP:
            raise MalformedMessage("messageType", "3 (CertRep)", message_type)
        status = attributes.text(PKI_STATUS, "pkiStatus")
        try:
            known = PkiStatus(status or "")
        except ValueError:
            raise MalformedMessage("pkiStatus", "0, 2 or 3", status) from None
        return cls(
            status=known,
            transaction_id=_required(
                attributes.text(TRANSACTION_ID, "transactionID"), "transactionID"
            ),
            sender_nonce=attributes.nonce(SENDER_NONCE, "senderNonce"),
            recipient_nonce=attributes.nonce(RECIPIENT_NONCE, "recipientNonce"),
            fail_info=attributes.text(FAIL_INFO, "failInfo"),
            fail_info_text=attributes.free_text(FAIL_INFO_TEXT),
            signed=signed,
        )

    def verify(self, candidates: Iterable[x509.Certificate]) -> x509.Certificate:
        """The signer, from `candidates` or from the message. Raises MalformedMessage or InvalidSignature."""
        return cms.verify_signed(self.signed, candidates=candidates)

    def open(self, recipient: Identity) -> list[x509.Certificate]:
        """The certificates of a SUCCESS. Raises CannotDecrypt, for nonsense inside too (certificates.md 0.3)."""
        plaintext = cms.decrypt(self.signed.content or b"", recipient)
        try:
            return cms.decode_certs_only(plaintext)
        except MalformedMessage:
            raise CannotDecrypt("CertRep") from None


class ReplyFrame(TypedDict):
    """What every CertRep has: the keyword arguments that the three encoders share."""

    transaction_id: str
    sender_nonce: bytes
    recipient_nonce: bytes
    signer: Identity
    digest: str
    signing_time: datetime | None


def encode_success(
    certificate: x509.Certificate,
    recipient: x509.Certificate,
    *,
    transaction_id: str,
    sender_nonce: bytes,
    recipient_nonce: bytes,
    signer: Identity,
    cipher: Cipher = "aes128",
    digest: str = "sha256",
    signing_time: datetime | None = None,
) -> bytes:
    """A CertRep with the issued certificate alone, as Go clients take the first; encrypted to `recipient`, the signer of the request."""
    return _encode_reply(
        cms.encrypt(cms.certs_only((certificate,)), (recipient,), cipher),
        _reply_attributes(PkiStatus.SUCCESS, transaction_id, sender_nonce, recipient_nonce),
        signer,
        digest,
        signing_time,
    )


def encode_failure(
    fail_info: str,
    text: str = "",
    *,
    transaction_id: str,
    sender_nonce: bytes,
    recipient_nonce: bytes,
    signer: Identity,
    digest: str = "sha256",
    signing_time: datetime | None = None,
) -> bytes:
    """A CertRep that says no; its content is an empty OCTET STRING, as most servers write it."""
    attributes = [
        *_reply_attributes(PkiStatus.FAILURE, transaction_id, sender_nonce, recipient_nonce),
        (FAIL_INFO, der.printable(fail_info)),
    ]
    if text:
        attributes.append((FAIL_INFO_TEXT, der.utf8(text)))
    return _encode_reply(b"", attributes, signer, digest, signing_time)


def encode_pending(
    *,
    transaction_id: str,
    sender_nonce: bytes,
    recipient_nonce: bytes,
    signer: Identity,
    digest: str = "sha256",
    signing_time: datetime | None = None,
) -> bytes:
    """A CertRep that asks the client to poll."""
    attributes = _reply_attributes(PkiStatus.PENDING, transaction_id, sender_nonce, recipient_nonce)
    return _encode_reply(b"", attributes, signer, digest, signing_time)


def _encode_reply(
    content: bytes,
    attributes: Sequence[tuple[str, bytes]],
    signer: Identity,
    digest: str,
    signing_time: datetime | None,
) -> bytes:
    return cms.sign(
        content,
        signer,
        digest=digest,
        signing_time=signing_time,
        extra_attributes=attributes,
        certificates=(signer.certificate,),
    )


def _reply_attributes(
    status: PkiStatus, transaction_id: str, sender_nonce: bytes, recipient_nonce: bytes
) -> list[tuple[str, bytes]]:
    return [
        (MESSAGE_TYPE, IS_CERT_REP),
        (PKI_STATUS, IS_STATUS[status]),
        (TRANSACTION_ID, _transaction_id(transaction_id)),
        (SENDER_NONCE, der.octet_string(sender_nonce)),
        (RECIPIENT_NONCE, der.octet_string(recipient_nonce)),
    ]


def _transaction_id(text: str) -> bytes:
    """Echoed byte for byte, also where a peer used characters that PrintableString does not have."""
    return der.tlv(der.PRINTABLE_STRING, text.encode("latin-1"))
