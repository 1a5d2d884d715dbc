"""What one PKIOperation came to: the facts of its log line, gathered on the way."""

import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from certs.algorithms import Cipher
from certs.errors import ScepFailure
from certs.scep.message import PkiRequest


@dataclass(slots=True)
class Outcome:
    """Filled in while the request is opened and decided."""

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
        """The fields of the log line; without certificate and failure the request waits."""
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
            "signer": self.signer,
            "subject": self.subject,
            **result,
            "ms": round((time.perf_counter() - self.started) * 1000, 2),
        }
