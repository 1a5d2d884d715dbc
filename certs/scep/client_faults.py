"""The device's side of the FaultPoint: what is wrong with one enrollment, at each of its layers (`faults.DeviceFault`).

The client builds everything as it should be; here the request, the signer, the message and its way are bent, and whatever has
no fault passes through unchanged.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypedDict
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from certs import cms, csr, der
from certs.algorithms import Cipher
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.faults import Action
from certs.identity import Identity
from certs.keys import KeySource, KeySpec
from certs.scep.faults import DeviceFault
from certs.scep.message import MessageType, encode_request

SHORT_NONCE_BYTES: Final = 8
NON_ASCII_NAME: Final = "Gerät Nº 5 日本"
BY_GET: Final = frozenset({DeviceFault.BY_GET, DeviceFault.BARE_PLUS, DeviceFault.TRUNCATED_BASE64})


class RequestFrame(TypedDict):
    """Everything of a pkiMessage but its content."""

    message_type: str
    transaction_id: str
    sender_nonce: bytes
    signer: Identity
    recipients: Sequence[x509.Certificate]
    cipher: Cipher
    digest: str
    signing_time: datetime


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One enrollment's fault; None is an honest one."""

    action: Action | None
    keys: KeySource
    clock: Clock

    def _is(self, *names: DeviceFault) -> bool:
        return self.action is not None and self.action.name in names

    def _argument(self, name: str, default: str) -> str:
        assert self.action is not None
        return str(self.action.arguments.get(name) or default)

    # --- the certificate request

    async def request(
        self, key: rsa.RSAPrivateKey, csr_der: bytes
    ) -> tuple[rsa.RSAPrivateKey, bytes]:
        """The key to certify and its request, made again with the fault."""
        if self.action is None:
            return key, csr_der
        wanted = csr.decode(csr_der)
        subject, challenge = wanted.subject, wanted.challenge_password
        if self._is(DeviceFault.SHORT_KEY):
            key = await self._take("rsa1024")
        elif self._is(DeviceFault.WRONG_CHALLENGE):
            challenge = self._argument("challenge", secrets.token_hex(8))
        elif self._is(DeviceFault.MISSING_CHALLENGE):
            challenge = None
        elif self._is(DeviceFault.NON_ASCII_SUBJECT):
            subject = _renamed(subject, self._argument("common_name", NON_ASCII_NAME))
        elif not self._is(DeviceFault.CSR_VERSION_2, DeviceFault.UNSORTED_ATTRIBUTES):
            return key, csr_der
        return key, self._built(key, subject, challenge, wanted)

    def _built(
        self,
        key: rsa.RSAPrivateKey,
        subject: x509.Name,
        challenge: str | None,
        wanted: CertificateRequest,
    ) -> bytes:
        return csr.build(
            key,
            subject,
            challenge=challenge,
            key_usage=wanted.key_usage,
            alternative_names=wanted.alternative_names,
            extended_key_usage=wanted.extended_key_usage,
            version=2 if self._is(DeviceFault.CSR_VERSION_2) else 0,
            in_order=not self._is(DeviceFault.UNSORTED_ATTRIBUTES),
        )

    # --- who signs the message

    async def signer(self, honest: Identity) -> Identity:
        """Another key's, or one whose certificate is over."""
        if self._is(DeviceFault.ANOTHER_SIGNER):
            return self._self_signed(await self._take("rsa2048"), honest.certificate.subject, 7)
        if self._is(DeviceFault.EXPIRED_SIGNER):
            assert isinstance(honest.key, rsa.RSAPrivateKey)
            return self._self_signed(honest.key, honest.certificate.subject, -1)
        return honest

    def _self_signed(self, key: rsa.RSAPrivateKey, name: x509.Name, days: int) -> Identity:
        """Good for so many days from now, or until so many days ago."""
        now = self.clock.now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
        )
        return Identity(key, builder.sign(key, hashes.SHA256()))

    # --- the message

    def kind(self, honest: MessageType) -> MessageType:
        """A poll for a transaction that never was."""
        return MessageType.CERT_POLL if self._is(DeviceFault.UNKNOWN_POLL) else honest

    def transaction_id(self, honest: str) -> str:
        return secrets.token_hex(20).upper() if self._is(DeviceFault.UNKNOWN_POLL) else honest

    def message(self, content: bytes, frame: RequestFrame, challenge: str | None) -> bytes:
        """The pkiMessage; `challenge` is the one of the certificate request."""
        if self.action is None:
            return encode_request(content, **frame)
        if self._is(DeviceFault.WRONG_RECIPIENT):
            frame["recipients"] = (frame["signer"].certificate,)
        if self._is(DeviceFault.TWO_RECIPIENTS):
            frame["recipients"] = (frame["signer"].certificate, *frame["recipients"])
        if self._is(DeviceFault.SHORT_NONCE):
            frame["sender_nonce"] = frame["sender_nonce"][:SHORT_NONCE_BYTES]
        if self._is(DeviceFault.DES_ONLY):
            frame["cipher"] = "des"
        if self._is(DeviceFault.SHA1_ONLY):
            frame["digest"] = "sha1"
        attributes: list[tuple[str, bytes]] = []
        if self._is(DeviceFault.CHALLENGE_AS_ATTRIBUTE):
            attributes.append((csr.CHALLENGE_PASSWORD, der.utf8(challenge or "")))
        ber = self._is(DeviceFault.INDEFINITE_LENGTHS)
        envelope = cms.encrypt(
            content,
            frame["recipients"],
            frame["cipher"],
            ber=ber,
            constructed=self._is(DeviceFault.CONSTRUCTED_CONTENT),
            oaep=self._oaep(),
        )
        return encode_request(
            content, **frame, envelope=envelope, more_attributes=attributes, ber=ber
        )

    def _oaep(self) -> cms.Oaep | None:
        if not self._is(DeviceFault.OAEP):
            return None
        return "sha256" if self._argument("digest", "sha1") == "sha256" else "sha1"

    # --- its way

    @property
    def by_get(self) -> bool:
        """Whatever the server offers."""
        return self._is(*BY_GET)

    @property
    def times(self) -> int:
        """How often the same message is sent; the last answer counts."""
        return 2 if self._is(DeviceFault.DUPLICATE) else 1

    def query(self, message: bytes) -> str:
        """`message=` of a GET. Apple percent-encodes `=` and sends `+` and `/` bare (certificates.md 1.11)."""
        text = base64.b64encode(message).decode()
        if self._is(DeviceFault.TRUNCATED_BASE64):
            return quote(text[: len(text) * 3 // 4], safe="")
        return text if self._is(DeviceFault.BARE_PLUS) else text.replace("=", "%3D")

    async def _take(self, spec: KeySpec) -> rsa.RSAPrivateKey:
        key = await self.keys.take(spec)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key


def _renamed(subject: x509.Name, common_name: str) -> x509.Name:
    others = [
        x509.RelativeDistinguishedName(
            [attribute for attribute in rdn if attribute.oid != NameOID.COMMON_NAME]
        )
        for rdn in subject.rdns
        if any(attribute.oid != NameOID.COMMON_NAME for attribute in rdn)
    ]
    own = x509.NameAttribute(NameOID.COMMON_NAME, common_name)
    return x509.Name([*others, x509.RelativeDistinguishedName([own])])
