"""Writing CertReps: SUCCESS, PENDING and FAILURE of one server, and each of them spoilt where a fault says so."""

import os
import secrets
from dataclasses import dataclass

from cryptography import x509

from certs.algorithms import Cipher
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.errors import ScepFailure
from certs.faults import Action
from certs.identity import Identity
from certs.scep.faults import ServerFault
from certs.scep.message import (
    PkiRequest,
    ReplyFrame,
    encode_failure,
    encode_pending,
    encode_success,
)


@dataclass(frozen=True, slots=True)
class Replies:
    """Signs what a server answers."""

    ca: CertificateAuthority
    ra: Identity
    clock: Clock

    def success(
        self,
        request: PkiRequest,
        certificate: x509.Certificate,
        recipient: x509.Certificate,
        cipher: Cipher,
        fault: Action | None = None,
    ) -> bytes:
        """The certificate, encrypted to the signer of the request with the cipher of the request."""
        if _is(fault, ServerFault.FOREIGN_KEY_LEAF):
            certificate = self.ca.issue(self.ra.certificate.public_key(), certificate.subject)  # type: ignore[arg-type]
        if _is(fault, ServerFault.DES_ANSWER):
            cipher = "des"
        return encode_success(certificate, recipient, cipher=cipher, **self._frame(request, fault))

    def pending(self, request: PkiRequest, fault: Action | None = None) -> bytes:
        return encode_pending(**self._frame(request, fault))

    def failure(
        self, request: PkiRequest, failure: ScepFailure, fault: Action | None = None
    ) -> bytes:
        return encode_failure(failure.fail_info, failure.text, **self._frame(request, fault))

    def _frame(self, request: PkiRequest, fault: Action | None) -> ReplyFrame:
        digest = request.digest if request.digest.startswith("sha") else "sha256"
        frame: ReplyFrame = {
            "transaction_id": request.transaction_id,
            "sender_nonce": os.urandom(16),
            "recipient_nonce": request.sender_nonce,
            "signer": self.ra,
            "digest": digest,
            "signing_time": self.clock.now(),
        }
        match fault.name if fault else None:
            case ServerFault.DES_ANSWER:
                frame["digest"] = "sha1"
            case ServerFault.ECHOED_NONCE:
                frame["sender_nonce"] = request.sender_nonce
            case ServerFault.WRONG_RECIPIENT_NONCE:
                frame["recipient_nonce"] = secrets.token_bytes(16)
            case ServerFault.WRONG_TRANSACTION_ID:
                frame["transaction_id"] = secrets.token_hex(20).upper()
        return frame


def _is(fault: Action | None, name: ServerFault) -> bool:
    return fault is not None and fault.name == name
