"""The SCEP client against a peer that answers oddly: what it survives, and what it must refuse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from structlog.testing import capture_logs

from certs import cms, csr, der, names
from certs.ca import CertificateAuthority
from certs.certificate_profile import key_usage
from certs.clock import SimulatedClock
from certs.errors import (
    CannotDecrypt,
    InvalidSignature,
    MalformedMessage,
    ScepFailure,
    UntrustedCertificate,
)
from certs.identity import Identity
from certs.scep import message as scep
from certs.scep.ca_certificates import CaCertificates
from certs.scep.capabilities import ADVERTISED
from certs.scep.client import ScepClient
from certs.scep.message import PkiRequest
from certs.transport import HttpResponse
from tests.certs.scep.support import CHALLENGE, CachedKeys, certificate_authority, request_for
from tests.certs.test_cms_signed import EC, RSA, self_signed
from tests.certs.test_trust import with_sha1
from tests.support import rsa_key

KEY = rsa_key(1)
CLOCK = SimulatedClock()
CA, RA = certificate_authority(CLOCK, with_ra=True)
LEAF = CA.issue(KEY.public_key(), names.from_subject([[["CN", "dev"]]]))
FOREIGN = CA.issue(rsa_key(2).public_key(), names.from_subject([[["CN", "other"]]]))


@dataclass
class Peer:
    """A SCEP server in a few lines; `answer` makes each reply from the request and its signer."""

    answer: Callable[[PkiRequest, x509.Certificate], bytes]
    ca_certificates: bytes = cms.certs_only([RA.certificate, CA.certificate])
    capabilities: bytes = ADVERTISED.encode()
    requests: list[PkiRequest] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        step: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> HttpResponse:
        assert timeout_s == 60
        if step == "get_ca_cert":
            return HttpResponse(status=200, body=self.ca_certificates, url=url)
        if step == "get_ca_caps":
            return HttpResponse(status=200, body=self.capabilities, url=url)
        request = PkiRequest.decode(body)
        self.requests.append(request)
        return HttpResponse(status=200, body=self.answer(request, request.verify()), url=url)

    async def enroll(self, **settings: Any) -> tuple[x509.Certificate, ...]:
        clock = settings.pop("clock", CLOCK)
        client = ScepClient(self, "https://scep", clock=clock, keys=CachedKeys(), **settings)
        return await client.enroll(KEY, request_for(1))


def reply(
    request: PkiRequest,
    recipient: x509.Certificate,
    *,
    signer: Identity = RA,
    envelope: bytes | None = None,
    transaction_id: bytes | None = None,
    recipient_nonce: bytes | None = b"",
    sender_nonce: bytes | None = b"s" * 16,
    status: str = "0",
    certificates: list[x509.Certificate] | None = None,
    ber: bool = False,
    digest: str = "sha256",
) -> bytes:
    """A CertRep with any of its parts replaced."""
    attributes = [
        (scep.MESSAGE_TYPE, der.printable("3")),
        (scep.PKI_STATUS, der.printable(status)),
        (scep.TRANSACTION_ID, transaction_id or der.printable(request.transaction_id)),
    ]
    if recipient_nonce is not None:
        nonce = recipient_nonce or request.sender_nonce
        attributes.append((scep.RECIPIENT_NONCE, der.octet_string(nonce)))
    if sender_nonce is not None:
        attributes.append((scep.SENDER_NONCE, der.octet_string(sender_nonce)))
    if envelope is None:
        envelope = cms.encrypt(cms.certs_only([LEAF]), [recipient])
    return cms.sign(
        envelope,
        signer,
        extra_attributes=attributes,
        certificates=certificates,
        ber=ber,
        digest=digest,
    )


def answers(**changes: Any) -> Callable[[PkiRequest, x509.Certificate], bytes]:
    return lambda request, recipient: reply(request, recipient, **changes)


def go_style(request: PkiRequest, recipient: x509.Certificate) -> bytes:
    """DES, SHA-1, constructed content, leaf first among the certificates, the nonce echoed (certificates.md 1.12)."""
    sealed = der.read(cms.encrypt(cms.certs_only([LEAF]), [recipient], "des"))
    version, recipients, info = sealed.children()[1].children()[0].children()
    content_type, algorithm, content = info.children()
    envelope = der.sequence(
        sealed.children()[0].raw,
        der.context(
            0,
            der.sequence(
                version.raw,
                recipients.raw,
                der.sequence(
                    content_type.raw,
                    algorithm.raw,
                    der.context(0, der.octet_string(content.content)),
                ),
            ),
        ),
    )
    return reply(
        request,
        recipient,
        envelope=envelope,
        digest="sha1",
        sender_nonce=request.sender_nonce,
        certificates=[LEAF, RA.certificate],
    )


@pytest.mark.parametrize(
    "answer",
    [
        answers(),
        go_style,
        answers(certificates=[]),  # a Microsoft CA
        answers(certificates=[LEAF, EC.certificate, RA.certificate]),
        answers(ber=True),
        answers(digest="sha512"),
        answers(sender_nonce=None),
        lambda request, recipient: reply(request, recipient) + b"\r\n",
        lambda request, recipient: reply(
            request,
            recipient,
            envelope=cms.encrypt(
                cms.certs_only([CA.certificate, FOREIGN, LEAF]),
                [RSA.certificate, recipient],
                "des3",
            ),
        ),
    ],
    ids=["plain", "go", "no-certificates", "many", "ber", "sha512", "no-nonce", "tail", "chain"],
)
async def test_each_odd_but_honest_answer_is_taken(
    answer: Callable[[PkiRequest, x509.Certificate], bytes],
) -> None:
    assert await Peer(answer).enroll() == (LEAF,)


async def test_an_absent_recipient_nonce_is_only_noted() -> None:
    with capture_logs() as lines:
        assert await Peer(answers(recipient_nonce=None)).enroll() == (LEAF,)
    assert [line["event"] for line in lines] == ["scep_recipient_nonce_absent"]


STRANGER = self_signed(rsa_key(3), "stranger")


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        (
            {"recipient_nonce": b"n" * 16},
            MalformedMessage,
            "recipientNonce: expected our senderNonce",
        ),
        ({"transaction_id": der.printable("T")}, MalformedMessage, "transactionID"),
        ({"status": "1"}, MalformedMessage, "pkiStatus"),
        ({"signer": STRANGER}, UntrustedCertificate, "GetCACert does not know it"),
        ({"signer": Identity(rsa_key(3), RA.certificate)}, InvalidSignature, "SignedData"),
        ({"signer": STRANGER, "certificates": []}, MalformedMessage, "the signer's certificate"),
        ({"envelope": b""}, CannotDecrypt, "cannot decrypt"),
        (
            {"envelope": cms.encrypt(cms.certs_only([LEAF]), [STRANGER.certificate])},
            CannotDecrypt,
            "cannot decrypt",
        ),
    ],
)
async def test_each_wrong_answer_is_refused_for_its_own_reason(
    changes: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        await Peer(answers(**changes)).enroll()


@pytest.mark.parametrize(
    ("inside", "error", "expected"),
    [
        (cms.certs_only([FOREIGN]), MalformedMessage, "for our key, got '1 others'"),
        (cms.certs_only([]), MalformedMessage, "for our key, got '0 others'"),
        (b"nonsense", CannotDecrypt, "CertRep"),
        (LEAF.public_bytes(serialization.Encoding.DER), CannotDecrypt, "CertRep"),
    ],
)
async def test_a_success_must_hold_a_certificate_for_our_key(
    inside: bytes, error: type[Exception], expected: str
) -> None:
    def answer(request: PkiRequest, recipient: x509.Certificate) -> bytes:
        return reply(request, recipient, envelope=cms.encrypt(inside, [recipient]))

    with pytest.raises(error, match=expected):
        await Peer(answer).enroll()


async def test_a_replayed_answer_is_refused() -> None:
    first: list[bytes] = []

    def replay(request: PkiRequest, recipient: x509.Certificate) -> bytes:
        first.append(reply(request, recipient))
        return first[0]

    peer = Peer(replay)
    assert await peer.enroll() == (LEAF,)
    with pytest.raises(MalformedMessage, match="recipientNonce"):
        await peer.enroll()


async def test_who_was_not_announced_signs_no_answer_though_the_ca_issued_it() -> None:
    other_device = CA.issue_identity(rsa_key(6), names.from_subject([[["CN", "device 6"]]]))
    with pytest.raises(UntrustedCertificate, match="GetCACert does not know it"):
        await Peer(answers(signer=other_device)).enroll()


async def test_a_later_certificate_for_an_announced_key_is_believed() -> None:
    renewed = CA.issue_identity(RA.key, RA.certificate.subject, extended_key_usage=())
    assert renewed.certificate != RA.certificate
    assert await Peer(answers(signer=renewed)).enroll() == (LEAF,)


def pending(times: int) -> Callable[[PkiRequest, x509.Certificate], bytes]:
    """PENDING so many times, then SUCCESS."""
    left = [times]

    def answer(request: PkiRequest, recipient: x509.Certificate) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            return reply(request, recipient)
        return scep.encode_pending(
            transaction_id=request.transaction_id,
            sender_nonce=b"s",
            recipient_nonce=request.sender_nonce,
            signer=RA,
        )

    return answer


class CountingClock(SimulatedClock):
    """Sleeps at once and remembers how long it should have been."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_a_pending_request_is_polled_until_it_is_decided() -> None:
    clock, peer = CountingClock(), Peer(pending(3))
    assert await peer.enroll(clock=clock, retries=3, retry_delay_s=7) == (LEAF,)
    assert clock.slept == [7, 7]  # the first retry comes at once
    first, *polls = peer.requests
    assert [poll.message_type for poll in polls] == ["20"] * 3
    assert {poll.transaction_id for poll in polls} == {first.transaction_id}
    assert len({request.sender_nonce for request in peer.requests}) == 4
    issuer, subject = der.read(polls[0].open(RA)).children()
    assert issuer.raw == CA.certificate.subject.public_bytes()
    assert subject.raw == csr.decode(first.open(RA)).subject.public_bytes()
    assert polls[0].verify() == first.verify()


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_request_that_stays_pending_is_a_failure(retries: int) -> None:
    peer = Peer(pending(99))
    with pytest.raises(ScepFailure, match=f"not decided after {retries} polls"):
        await peer.enroll(clock=CountingClock(), retries=retries)
    assert len(peer.requests) == retries + 1


async def test_a_poll_may_end_in_a_failure() -> None:
    def answer(request: PkiRequest, recipient: x509.Certificate) -> bytes:
        if request.message_type == "19":
            return pending(1)(request, recipient)
        return scep.encode_failure(
            "4",
            "unknown",
            transaction_id=request.transaction_id,
            sender_nonce=b"s",
            recipient_nonce=request.sender_nonce,
            signer=RA,
        )

    with pytest.raises(ScepFailure, match="SCEP failure 4: unknown"):
        await Peer(answer).enroll(clock=CountingClock())


async def test_a_failure_is_believed_only_when_it_is_signed_by_the_ca() -> None:
    def answer(request: PkiRequest, recipient: x509.Certificate) -> bytes:
        return scep.encode_failure(
            "2",
            transaction_id=request.transaction_id,
            sender_nonce=b"s",
            recipient_nonce=request.sender_nonce,
            signer=STRANGER,
        )

    with pytest.raises(UntrustedCertificate):
        await Peer(answer).enroll()


def certificate(
    number: int, usage: x509.KeyUsage | None, *, ca: bool = False, key: Any = None
) -> x509.Certificate:
    key = key or rsa_key(number)
    name = names.from_subject([[["CN", f"certificate {number}"]]])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=number,
        not_valid_before=CLOCK.now(),
        not_valid_after=CLOCK.now() + timedelta(days=1),
    ).add_extension(x509.BasicConstraints(ca, None), critical=True)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256())


SIGNS, ENCIPHERS = key_usage("digital_signature"), key_usage("key_encipherment")
CERTIFIES = key_usage("key_cert_sign")
EVERYTHING = key_usage("key_cert_sign", "key_encipherment")


@pytest.mark.parametrize(
    ("others", "recipient"),
    [
        ([certificate(4, EVERYTHING, ca=True)], certificate(5, ENCIPHERS)),
        ([certificate(4, CERTIFIES, ca=True)], certificate(5, ENCIPHERS)),
        ([certificate(4, CERTIFIES, ca=True), certificate(6, SIGNS)], certificate(5, ENCIPHERS)),
        ([certificate(6, SIGNS)], certificate(4, EVERYTHING, ca=True)),
        ([certificate(4, CERTIFIES, ca=True)], certificate(5, None)),
        ([EC.certificate], certificate(4, CERTIFIES, ca=True)),  # micromdm's test CA
    ],
)
def test_the_recipient_is_chosen_by_key_usage_in_any_order(
    others: list[x509.Certificate], recipient: x509.Certificate
) -> None:
    for certificates in ((*others, recipient), (recipient, *reversed(others))):
        assert CaCertificates(certificates).recipient == recipient


def sha256(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())


STRANGE_CA, STRANGE_RA = (  # as anybody may put them into an answer over plain HTTP
    certificate(7, EVERYTHING, ca=True),
    STRANGER.certificate,
)


@pytest.mark.parametrize("pin", [CA.certificate, RA.certificate])
async def test_nobody_beside_the_fingerprint_gets_the_challenge(pin: x509.Certificate) -> None:
    mixed = cms.certs_only([STRANGE_CA, STRANGE_RA, CA.certificate, RA.certificate])
    peer = Peer(answers(), ca_certificates=mixed)
    with capture_logs() as lines:
        assert await peer.enroll(ca_fingerprint=sha256(pin)) == (LEAF,)
    assert csr.decode(peer.requests[0].open(RA)).challenge_password == CHALLENGE
    assert [line.get("left_out") for line in lines] == [2]
    alone = cms.certs_only([STRANGE_CA, STRANGE_RA, CA.certificate])
    with pytest.raises(MalformedMessage, match="a certificate with an RSA key"):
        await Peer(answers(), ca_certificates=alone).enroll(ca_fingerprint=sha256(CA.certificate))


async def test_nobody_beside_the_fingerprint_signs_an_answer() -> None:
    mixed = cms.certs_only([STRANGE_CA, STRANGE_RA, CA.certificate, RA.certificate])
    peer = Peer(answers(signer=STRANGER), ca_certificates=mixed)
    with pytest.raises(UntrustedCertificate, match="GetCACert does not know it"):
        await peer.enroll(ca_fingerprint=sha256(CA.certificate))


def test_a_fingerprint_of_the_root_takes_the_whole_chain_in() -> None:
    root = CertificateAuthority.create("Root", clock=CLOCK)
    middle = CertificateAuthority.create("Middle", clock=CLOCK, parent=root)
    ra = middle.issue_identity(rsa_key(6), names.from_subject([[["CN", "RA"]]]))
    second = middle.issue_identity(rsa_key(5), names.from_subject([[["CN", "RA 2"]]]))
    chain = (ra.certificate, second.certificate, middle.certificate, root.certificate)
    for pin in chain:
        assert CaCertificates((*chain, STRANGE_CA)).pinned(sha256(pin)).certificates == chain


def test_authorities_of_old_that_signed_with_sha1_are_known() -> None:
    ca = CertificateAuthority.create("Old", key=rsa_key(8), clock=CLOCK)
    issued = ca.issue(rsa_key(6).public_key(), names.from_subject([[["CN", "RA"]]]))
    ra = with_sha1(issued, rsa_key(8))
    pinned = CaCertificates((ra, ca.certificate)).pinned(sha256(ca.certificate))
    assert pinned.recipient == ra
    forged = with_sha1(issued, rsa_key(7))
    mixed = CaCertificates((forged, ca.certificate))
    assert mixed.pinned(sha256(ca.certificate)).certificates == (ca.certificate,)


def test_a_name_that_cannot_be_read_is_refused_like_any_other() -> None:
    utf8, unknown = b"\x0c\x07SCEP CA", b"\x08\x07SCEP CA"
    data = CA.certificate.public_bytes(serialization.Encoding.DER).replace(utf8, unknown)
    odd = x509.load_der_x509_certificate(data)
    for refusing in (
        lambda: CaCertificates((odd,)).pinned(bytes(32)),
        lambda: CaCertificates((RA.certificate,)).check_signer(odd),
        lambda: CaCertificates((CA.certificate,)).check_ca(odd),
    ):
        with pytest.raises(UntrustedCertificate, match="unreadable subject"):
            refusing()


def test_there_is_no_recipient_without_an_rsa_key() -> None:
    with pytest.raises(MalformedMessage, match="a certificate with an RSA key"):
        assert CaCertificates((EC.certificate,)).recipient


def test_get_ca_cert_is_decided_by_content() -> None:
    alone = CA.certificate.public_bytes(serialization.Encoding.DER)
    assert CaCertificates.decode(alone + b"\n").certificates == (CA.certificate,)
    several = cms.certs_only([CA.certificate])
    assert CaCertificates.decode(several).certificates == (CA.certificate,)
    for body in (
        cms.certs_only([]),
        cms.certs_only([certificate(number, None) for number in range(1, 34)]),
        b"",
        b"<html>",
        CA.certificate.public_bytes(serialization.Encoding.PEM),
        alone[:-1],
    ):
        with pytest.raises(MalformedMessage):
            CaCertificates.decode(body)


def test_the_issuer_of_a_poll_is_the_ca() -> None:
    assert CaCertificates((RA.certificate, CA.certificate)).issuer_der == (
        CA.certificate.subject.public_bytes()
    )
    assert CaCertificates((RA.certificate,)).issuer_der == CA.certificate.subject.public_bytes()


def test_the_path_stops_at_the_root_and_at_an_impostor() -> None:
    root = CertificateAuthority.create("Root", clock=CLOCK)
    middle = CertificateAuthority.create("Middle", clock=CLOCK, parent=root)
    low = CertificateAuthority.create("Low", clock=CLOCK, parent=middle)
    leaf = low.issue(KEY.public_key(), names.from_subject([]))
    known = CaCertificates((root.certificate, low.certificate))
    assert known.path(leaf, [leaf, middle.certificate]) == (low.certificate, middle.certificate)
    assert known.path(leaf) == (low.certificate,)
    impostor = CertificateAuthority.create("Low", clock=CLOCK, parent=middle)
    assert CaCertificates((impostor.certificate,)).path(leaf) == ()


async def test_the_signing_time_is_that_of_the_device_clock() -> None:
    peer = Peer(answers())
    await peer.enroll()
    assert peer.requests[0].signing_time == CLOCK.now()


@pytest.mark.parametrize(
    ("capabilities", "algorithm"),
    [
        (b"SHA-1\nDES3\nPOSTPKIOperation", "1.2.840.113549.1.1.5"),  # sha1WithRSAEncryption
        (b"SHA-1\nSHA-256\nAES\nPOSTPKIOperation", "1.2.840.113549.1.1.11"),
        (b"SHA-512\nAES\nPOSTPKIOperation", "1.2.840.113549.1.1.11"),
    ],
)
async def test_a_server_that_knows_sha1_alone_can_check_the_request_too(
    capabilities: bytes, algorithm: str
) -> None:
    peer = Peer(answers(), capabilities=capabilities)
    await peer.enroll()
    inside = peer.requests[0].open(RA)
    information, identifier, _ = der.read(inside).children()
    assert identifier.children()[0].as_oid() == algorithm
    assert information.raw == der.read(request_for(1)).children()[0].raw
    assert csr.decode(inside).challenge_password == CHALLENGE


async def test_same_key_signs_in_the_form_of_the_rfc() -> None:
    peer = Peer(answers())
    await peer.enroll(signer="same-key")
    signer = peer.requests[0].verify()
    assert signer.public_key() == KEY.public_key()
    assert signer.subject == csr.decode(request_for(1)).subject
    assert signer.extensions.get_extension_for_class(x509.KeyUsage).value == names.key_usage(5)
    assert (signer.not_valid_after_utc - signer.not_valid_before_utc).days == 7
