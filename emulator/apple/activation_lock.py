"""Activation locks: activations that wait for credentials, the form that asks, and who may pass (apple-services.md 2.8, 9.1).

An activation that met a lock is kept for 15 minutes under the `sessionId` of its form, and goes on from there.
"""

import asyncio
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509

from certs.csr import CertificateRequest
from certs.errors import MalformedMessage
from emulator.apple.activation_session import Session
from emulator.apple.records import ActivationLock, DeviceRecord
from emulator.wire import buddyml, bypass_code
from emulator.wire.activation import ActivationInfo
from emulator.wire.buddyml import CredentialForm, Row

PENDING_LIFETIME: Final = timedelta(minutes=15)
MAX_TRIES: Final = 5
WRONG_CREDENTIALS: Final = "Your Apple Account or password is incorrect."


@dataclass(slots=True, kw_only=True)
class PendingActivation:
    """A request that passed every check but the lock."""

    device: DeviceRecord
    info: ActivationInfo
    request: CertificateRequest
    attestation_certificate: x509.Certificate | None
    session: Session | None  # None: lite
    lock_planned: bool = False  # by an administrator, whatever the registry says
    wrong_tries: int = 0


def form(session_id: bytes, lock: ActivationLock, *, alert: str | None = None) -> bytes:
    """The page that asks for the credentials of a lock."""
    return buddyml.encode_form(
        CredentialForm(
            title="Activation Lock",
            description=lock.message,
            rows=(
                Row(id="login", label="Apple Account", placeholder="example@icloud.com"),
                Row(id="password", label="Password", placeholder="Required", secure=True),
            ),
            server_info={"isAuthRequired": "true", "sessionId": session_id.hex()},
            alert=alert,
        )
    )


async def opens(lock: ActivationLock, login: str, password: str) -> bool:
    """Whether these credentials open the lock: the locking account's, or no login and the bypass code."""
    if login:
        account = lock.account
        return account is not None and _same(account, (login, password))
    if lock.escrow_hash is None:
        return False
    try:
        raw = bypass_code.decode(password)
    except MalformedMessage:
        return False
    found = await asyncio.to_thread(bypass_code.escrow_hash, raw)
    return hmac.compare_digest(found, lock.escrow_hash)


def _same(account: tuple[str, str], given: tuple[str, str]) -> bool:
    matches = [
        hmac.compare_digest(wanted.encode(), came.encode(errors="surrogatepass"))
        for wanted, came in zip(account, given, strict=True)
    ]
    return all(matches)
