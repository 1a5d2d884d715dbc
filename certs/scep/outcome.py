"""What one PKIOperation came to: the facts of its log line, gathered on the way."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import structlog
from cryptography import x509

from certs import cms, names
from certs.algorithms import Cipher
from certs.csr import CertificateRequest
from certs.errors import ScepFailure
from certs.scep.message import PkiRequest

log = structlog.get_logger()


@dataclass(slots=True)
class Outcome:
    """Filled in while the request is opened and decided."""

    request: PkiRequest
    cipher: Cipher | None
    signer: x509.Certificate | None = None
    wanted: CertificateRequest | None = None
    certificate: x509.Certificate | None = None
    resent: bool = False
    failure: ScepFailure | None = None
    reason: str | None = None  # where the log may know more than the client
    started: float = field(default_factory=time.perf_counter)

    def log(self) -> None:
        """One line, at level warning for a refusal; nothing is put into words where nobody wants to read it."""
        bound = log.bind()
        if _listens(bound, logging.WARNING if self.failure else logging.INFO):
            (bound.warning if self.failure else bound.info)("scep_transaction", **self._facts())

    def _facts(self) -> dict[str, Any]:
        """The fields of the line; without certificate and failure the request waits."""
        subject = None if self.wanted is None else names.text(self.wanted.subject)
        result: dict[str, Any] = {"outcome": "pending"}
        if self.failure is not None:
            result = {
                "outcome": "failure",
                "fail_info": self.failure.fail_info,
                "reason": self.reason or self.failure.text,
            }
        if self.certificate is not None:
            result = {
                "outcome": "success",
                "serial": f"{self.certificate.serial_number:x}",
                "resent": self.resent,
            }
        return {
            "transaction_id": self.request.transaction_id,
            "message_type": self.request.message_type,
            "cipher": self.cipher,
            "digest": self.request.digest,
            "signer": self._signer(subject),
            "subject": subject,
            **result,
            "ms": round((time.perf_counter() - self.started) * 1000, 2),
        }

    def _signer(self, subject: str | None) -> str | None:
        """Its name; most clients sign under the name that they ask for."""
        if self.signer is None:
            return None
        if self.wanted is not None and cms.subject_der(self.signer) == self.wanted.subject_der:
            return subject
        try:
            return names.text(self.signer.subject)
        except (ValueError, TypeError):
            return "(unreadable)"


def _listens(bound: Any, level: int) -> bool:
    """True also for a host's logger that cannot say; of structlog's own kinds only the filtering one always can."""
    try:
        # Of the class: structlog's generic logger would take the question for something to log.
        return bool(type(bound).is_enabled_for(bound, level))
    except AttributeError:
        return True
