"""From an opened request to a certificate, now or later: enrollment, renewal and polls, each issued once.

Judging is for others: the ChallengeVerifier, the Approval, the RenewalVerifier.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, names
from certs.authorize import Approval, ChallengeVerifier, Decision, Grant, WaitingRequest
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import CertsError, ChallengeRefused, ScepFailure
from certs.scep.message import FailInfo
from certs.scep.outcome import Outcome
from certs.scep.renewal import Renewals
from certs.scep.transactions import TransactionKey, Transactions, Turns, key_of, request_key

LEAF_KEY_USAGE: Final = names.key_usage(names.DIGITAL_SIGNATURE | names.KEY_ENCIPHERMENT)

Issued = Callable[[Grant, x509.Certificate], Awaitable[None]]


class Issuance:
    """One CA's decisions. None in place of a certificate means that the client shall poll."""

    def __init__(
        self,
        ca: CertificateAuthority,
        challenges: ChallengeVerifier,
        *,
        clock: Clock,
        certificate_days: float,
        approval: Approval | None,
        renewals: Renewals | None,
    ) -> None:
        self._ca = ca
        self._challenges = challenges
        self._clock = clock
        self._certificate_days = certificate_days
        self._approval = approval
        self._renewals = renewals
        self.transactions = Transactions(clock)
        self._turns = Turns()

    async def enroll(
        self,
        transaction_id: str,
        signer: rsa.RSAPublicKey,
        wanted: CertificateRequest,
        outcome: Outcome,
        *,
        held_for: int = 0,
    ) -> x509.Certificate | None:
        """The certificate of an earlier, equal request, or a new one if the challenge allows it.

        The turns keep a request that is sent twice at once, and a one-time challenge used twice at once, from being
        judged before the first is done.
        """
        key = request_key(transaction_id, wanted)
        async with self._turns.take(key):
            known = self.transactions.find(key)
            if isinstance(known, WaitingRequest):
                self.transactions.wait(key, known, signer)  # it may have a new one
                return await self._decide(key, known)
            if known is not None:
                outcome.resent = True
                return known
            if self._approval is None and not held_for:
                return await self._approved(key, wanted)
            await self._granted(wanted)
            waiting = WaitingRequest(
                transaction_id=transaction_id,
                request=wanted,
                since=self._clock.now(),
                held_for=held_for,
            )
            self.transactions.wait(key, waiting, signer)
            return await self._decide(key, waiting)

    async def poll(
        self,
        transaction_id: str,
        signer: rsa.RSAPublicKey,
        issuer_and_subject: tuple[bytes, bytes],
        outcome: Outcome,
    ) -> x509.Certificate | None:
        """The state of a request that waited (RFC 8894, section 3.3.3)."""
        issuer, subject = issuer_and_subject
        if issuer != cms.subject_der(self._ca.certificate):
            raise ScepFailure(FailInfo.BAD_CERT_ID, "the issuer is not this CA")
        key = self.transactions.polled(transaction_id, signer)
        if key is None:
            raise _unknown()
        async with self._turns.take(key):
            known = self.transactions.find(key)
            if known is None:
                raise _unknown()
            if not isinstance(known, WaitingRequest):
                outcome.resent = True
                return known
            outcome.wanted = known.request
            if subject != known.request.subject_der:
                raise ScepFailure(FailInfo.BAD_CERT_ID, "the transaction is about another subject")
            known.polls += 1
            return await self._decide(key, known)

    async def renew(
        self,
        transaction_id: str,
        signer: x509.Certificate,
        wanted: CertificateRequest,
        outcome: Outcome,
    ) -> x509.Certificate:
        """The successor of `signer`, decided at once: who holds a good certificate needs no approval."""
        if self._renewals is None:
            raise ScepFailure(FailInfo.BAD_REQUEST, "renewal is not supported")
        verifier = self._renewals.verifier
        # With the signer: scepclient renews under the key, and so the transactionID, of its enrollment.
        fingerprint = signer.fingerprint(hashes.SHA256())
        _, public_key = key_of(transaction_id, wanted.public_key)
        key = transaction_id, public_key + fingerprint
        async with self._turns.take(key):
            self._renewals.check(signer, wanted)
            known = self.transactions.find(key)
            if isinstance(known, x509.Certificate):
                outcome.resent = True
                return known
            try:
                grant = await verifier.renew(signer, wanted)
            except ChallengeRefused as error:
                raise ScepFailure(FailInfo.BAD_REQUEST, str(error)) from error
            certificate = await self._issue(wanted, grant, verifier.issued)
            self.transactions.remember(key, certificate)
            return certificate

    # -- decisions -------------------------------------------------------------------------------------------------

    async def _decide(
        self, key: TransactionKey, waiting: WaitingRequest
    ) -> x509.Certificate | None:
        if waiting.polls < waiting.held_for:
            return None
        decision = Decision.APPROVE
        if self._approval is not None:
            decision = await self._approval.decide(waiting)
        try:
            match decision:
                case Decision.WAIT:
                    return None
                case Decision.DENY:
                    raise ScepFailure(FailInfo.BAD_REQUEST, "the request was denied")
                case Decision.APPROVE:
                    # The challenge is asked again: it may have ended while the request waited.
                    return await self._approved(key, waiting.request)
        except ScepFailure as failure:
            self.transactions.remember(key, failure)
            raise

    async def _approved(self, key: TransactionKey, wanted: CertificateRequest) -> x509.Certificate:
        async with self._turns.take(wanted.challenge_password or ""):
            grant = await self._granted(wanted)
            certificate = await self._issue(wanted, grant, self._challenges.issued)
        self.transactions.remember(key, certificate)
        return certificate

    async def _granted(self, wanted: CertificateRequest) -> Grant:
        try:
            return await self._challenges.verify(wanted.challenge_password, wanted)
        except ChallengeRefused as error:
            raise ScepFailure(FailInfo.BAD_REQUEST, str(error)) from error

    async def _issue(
        self, wanted: CertificateRequest, grant: Grant, issued: Issued
    ) -> x509.Certificate:
        try:
            certificate = self._ca.certify(
                wanted, days=self._certificate_days, key_usage=LEAF_KEY_USAGE
            )
        except (CertsError, ValueError, TypeError) as error:
            raise ScepFailure(FailInfo.BAD_REQUEST, f"cannot be issued: {error}") from error
        try:
            await issued(grant, certificate)
        except BaseException as error:
            self._ca.revoke(certificate)  # nobody may use what its grant was not spent for
            if isinstance(error, ChallengeRefused):
                raise ScepFailure(FailInfo.BAD_REQUEST, str(error)) from error
            raise
        return certificate


def _unknown() -> ScepFailure:
    return ScepFailure(FailInfo.BAD_CERT_ID, "no request of this transactionID and signer waits")
