"""Opening a pkiMessage on the server's side: whose it is, whether its time is right, what is inside.

Everything that is wrong is a ScepFailure with its failInfo; the order of the checks is that of the layers.
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, csr, der
from certs.algorithms import UnsupportedAlgorithm
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import CannotDecrypt, InvalidSignature, MalformedMessage, ScepFailure
from certs.identity import Identity
from certs.scep.message import FailInfo, PkiRequest
from certs.scep.outcome import Outcome

UNREADABLE: Final = "the request cannot be decrypted, or is no request signed by its own key"
MINIMUM_SIGNER_BITS: Final = 1024
MAX_REQUEST_BYTES: Final = 32 * 1024  # one that waits is kept, and so is the certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a server opens what clients send."""

    ra: Identity
    clock: Clock
    minimum_key_bits: int
    max_clock_skew_s: float | None  # None: signingTime is not looked at

    def signer(
        self, request: PkiRequest, outcome: Outcome
    ) -> tuple[x509.Certificate, rsa.RSAPublicKey]:
        """The message's signer, whatever its name, dates and key usage are (certificates.md 1.6)."""
        try:
            signer = request.verify()
        except UnsupportedAlgorithm as error:
            raise ScepFailure(FailInfo.BAD_ALG, str(error)) from error
        except (MalformedMessage, InvalidSignature) as error:
            raise ScepFailure(FailInfo.BAD_MESSAGE_CHECK, str(error)) from error
        outcome.signer = signer
        key = cms.rsa_public_key(signer)
        if key is None or key.key_size < MINIMUM_SIGNER_BITS:
            raise ScepFailure(
                FailInfo.BAD_ALG, "the answer cannot be encrypted to the signer's key"
            )
        return signer, key

    def check_time(self, request: PkiRequest) -> None:
        if self.max_clock_skew_s is None:
            return
        signing_time = request.signing_time
        if signing_time is None:
            return
        skew = (signing_time - self.clock.now()).total_seconds()
        if abs(skew) > self.max_clock_skew_s:
            raise ScepFailure(FailInfo.BAD_TIME, f"signingTime is {skew:+.0f} s off")

    def certificate_request(self, request: PkiRequest, outcome: Outcome) -> CertificateRequest:
        """The PKCS#10 request; what comes of one that its own key did not sign, `_unreadable` says."""
        plaintext = self._plaintext(request, outcome)
        try:
            wanted = csr.decode(plaintext)
        except MalformedMessage as error:  # without what came: it may be the challenge
            reason = f"{error.field}: expected {error.expected}"
            raise _unreadable(outcome, reason) from None
        except InvalidSignature as error:
            raise _unreadable(outcome, str(error)) from None
        if len(wanted.der) > MAX_REQUEST_BYTES:  # no sooner: that would tell good padding from bad
            raise ScepFailure(
                FailInfo.BAD_REQUEST,
                f"the request has {len(wanted.der)} bytes, more than {MAX_REQUEST_BYTES}",
            )
        outcome.wanted = wanted
        key = wanted.public_key
        if not isinstance(key, rsa.RSAPublicKey):
            raise ScepFailure(FailInfo.BAD_ALG, "the requested key is not RSA")
        if key.key_size < self.minimum_key_bits:
            raise ScepFailure(
                FailInfo.BAD_REQUEST,
                f"the requested key has {key.key_size} bits, fewer than {self.minimum_key_bits}",
            )
        return wanted

    def issuer_and_subject(self, request: PkiRequest, outcome: Outcome) -> tuple[bytes, bytes]:
        """The two names of a CertPoll, as DER."""
        issuer, subject = self._pair(request, outcome)
        if subject.tag != der.SEQUENCE:
            raise _unreadable(outcome, "IssuerAndSubject: expected two names")
        return issuer.raw, subject.raw

    def issuer_and_serial(self, request: PkiRequest, outcome: Outcome) -> tuple[bytes, int]:
        """What a GetCert or GetCRL asks for: the issuer's name as DER, and the serial number."""
        issuer, serial = self._pair(request, outcome)
        try:
            return issuer.raw, serial.as_int()
        except MalformedMessage as error:
            raise _unreadable(outcome, str(error)) from None

    def _pair(self, request: PkiRequest, outcome: Outcome) -> tuple[der.Node, der.Node]:
        plaintext = self._plaintext(request, outcome)
        try:
            first, second = der.read(plaintext, "messageData").items(der.SEQUENCE, 2)[:2]
            return first.expect(der.SEQUENCE, field="issuer"), second
        except MalformedMessage as error:
            raise _unreadable(outcome, str(error)) from None

    def _plaintext(self, request: PkiRequest, outcome: Outcome) -> bytes:
        try:
            return request.open(self.ra)
        except UnsupportedAlgorithm as error:  # named in the clear
            raise ScepFailure(FailInfo.BAD_ALG, str(error)) from error
        except CannotDecrypt as error:
            raise _unreadable(outcome, str(error)) from None


def _unreadable(outcome: Outcome, reason: str) -> ScepFailure:
    """One answer to a wrong key, to damage and to nonsense inside; only our own log tells them apart.

    Whoever could tell good padding from bad could decrypt a captured request by asking (certificates.md 0.3).
    """
    outcome.reason = reason
    return ScepFailure(FailInfo.BAD_MESSAGE_CHECK, UNREADABLE)
