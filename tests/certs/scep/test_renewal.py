"""RenewalReq and UpdateReq: who may renew what, and the exact answer to everybody else (certificates.md 1.10)."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from certs import csr, names
from certs.authorize import AnyHolder, Grant
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.csr import CertificateRequest
from certs.errors import (
    ChallengeRefused,
    InvalidSignature,
    ScepFailure,
    UnexpectedAnswer,
    UntrustedCertificate,
)
from certs.identity import Identity
from certs.scep.capabilities import ADVERTISED
from certs.scep.message import FailInfo, PkiRequest
from tests.certs.scep.support import CHALLENGE, Door, door, request_for
from tests.support import rsa_key

OLD, NEW = 1, 2
OLD_KEY, NEW_KEY = rsa_key(OLD), rsa_key(NEW)


def renewal(**changes: Any) -> bytes:
    """A request for the new key under the name of the old certificate, without a challenge."""
    options: dict[str, Any] = {
        "subject": names.from_subject([[["O", "Test"]], [["CN", f"device {OLD}"]]]),
        "alternative_names": names.alternative_names({"dNSName": f"device{OLD}.example.com"}),
        **changes,
    }
    return csr.build(NEW_KEY, options.pop("subject"), **options)


async def enrolled(scep: Door) -> Identity:
    leaf, *chain = await scep.client().enroll(OLD_KEY, request_for(OLD))
    return Identity(OLD_KEY, leaf, tuple(chain))


async def refusal(scep: Door, current: Identity, request: bytes) -> tuple[str, str]:
    issued = scep.ca.index.count
    with pytest.raises(ScepFailure) as failure:
        await scep.client().renew(current, NEW_KEY, request)
    assert scep.ca.index.count == issued
    return failure.value.fail_info, failure.value.text


@pytest.mark.parametrize(
    ("more", "message_type"), [((), "17"), (("Update",), "18"), (("Renewal", "Update"), "17")]
)
async def test_a_certificate_signs_for_its_successor(
    more: tuple[str, ...], message_type: str
) -> None:
    async with door(renewals=AnyHolder()) as scep:
        current = await enrolled(scep)
        capabilities = ADVERTISED.with_keywords(*more) if more else None
        client = scep.client(capabilities=capabilities)
        leaf, *_ = await client.renew(current, NEW_KEY, renewal())
        sent = PkiRequest.decode(scep.transport.sent[-1][3])
        assert sent.message_type == message_type
        assert sent.verify() == current.certificate
        assert leaf.public_key() == NEW_KEY.public_key()
        assert leaf.subject == current.certificate.subject
        leaf.verify_directly_issued_by(scep.ca.certificate)


async def test_a_renewal_sent_again_gets_the_same_certificate() -> None:
    renewals = AnyHolder()
    async with door(renewals=renewals) as scep:
        current = await enrolled(scep)
        first = await scep.client().renew(current, NEW_KEY, renewal())
        assert await scep.client().renew(current, NEW_KEY, renewal()) == first
        assert renewals.issued_to == [first[0]]


async def test_a_renewal_under_the_same_key_issues_anew() -> None:
    async with door(renewals=AnyHolder()) as scep:
        current = await enrolled(scep)
        leaf, *_ = await scep.client().renew(current, OLD_KEY, request_for(OLD, challenge=None))
        assert leaf != current.certificate
        assert leaf.public_key() == current.certificate.public_key()


async def test_a_server_without_renewal_is_asked_anew_with_a_challenge() -> None:
    async with door() as scep:
        current = await enrolled(scep)
        leaf, *_ = await scep.client().renew(current, NEW_KEY, renewal(challenge=CHALLENGE))
        sent = PkiRequest.decode(scep.transport.sent[-1][3])
        assert (sent.message_type, sent.verify()) == ("19", current.certificate)
        assert leaf.public_key() == NEW_KEY.public_key()
        insist = scep.client(capabilities=ADVERTISED.with_keywords("Renewal"))
        with pytest.raises(ScepFailure, match="renewal is not supported") as failure:
            await insist.renew(current, NEW_KEY, renewal())
        assert failure.value.fail_info == FailInfo.BAD_REQUEST


@pytest.mark.parametrize("renewals", [None, AnyHolder()])
async def test_renewal_is_advertised_where_it_is_done(renewals: AnyHolder | None) -> None:
    async with door(renewals=renewals) as scep:
        assert (await scep.client().get_ca_caps()).supports("Renewal") is (renewals is not None)


async def test_a_certificate_of_another_ca_renews_nothing() -> None:
    async with door(renewals=AnyHolder()) as scep, door() as other:
        stranger = await enrolled(other)
        assert scep.ca.certificate.subject == other.ca.certificate.subject
        expected = FailInfo.BAD_CERT_ID, "the signer is no certificate of this CA"
        assert await refusal(scep, stranger, renewal()) == expected
        # Nor does somebody who has a good certificate without its key.
        thief = Identity(NEW_KEY, (await enrolled(scep)).certificate)
        expected = FailInfo.BAD_MESSAGE_CHECK, "SignedData: signature is not valid"
        assert await refusal(scep, thief, renewal()) == expected


async def test_a_certificate_of_an_earlier_generation_renews() -> None:
    clock = SimulatedClock()
    earlier = CertificateAuthority.create("SCEP CA of old", clock=clock)
    async with door(renewals=AnyHolder(), earlier=(earlier,), clock=clock) as scep:
        subject = csr.decode(request_for(OLD)).subject
        current = earlier.issue_identity(OLD_KEY, subject)
        request = renewal(alternative_names=())
        leaf, *_ = await scep.client().renew(current, NEW_KEY, request)
        leaf.verify_directly_issued_by(scep.ca.certificate)
        earlier.revoke(current.certificate)
        expected = FailInfo.BAD_REQUEST, "the signer's certificate is revoked"
        assert await refusal(scep, current, request) == expected


async def test_a_revoked_certificate_is_not_renewed_nor_its_answer_repeated() -> None:
    async with door(renewals=AnyHolder()) as scep:
        current = await enrolled(scep)
        await scep.client().renew(current, NEW_KEY, renewal())
        scep.ca.revoke(current.certificate)
        expected = FailInfo.BAD_REQUEST, "the signer's certificate is revoked"
        assert await refusal(scep, current, renewal()) == expected


async def test_an_ended_certificate_is_renewed_within_the_grace_time_only() -> None:
    clock = SimulatedClock()
    async with door(
        renewals=AnyHolder(),
        clock=clock,
        certificate_days=1,
        renewal_grace=timedelta(days=2),
    ) as scep:
        current = await enrolled(scep)
        await clock.advance(timedelta(days=2.9).total_seconds())
        await scep.client().renew(current, NEW_KEY, renewal())
        await clock.advance(timedelta(days=0.2).total_seconds())
        ended = f"{current.certificate.not_valid_after_utc:%FT%TZ}"
        expected = FailInfo.BAD_REQUEST, f"the signer's certificate ended at {ended}"
        assert await refusal(scep, current, renewal()) == expected


async def test_a_certificate_of_the_future_is_not_renewed() -> None:
    async with door(renewals=AnyHolder()) as scep:
        subject = csr.decode(request_for(OLD)).subject
        start = scep.clock.now() + timedelta(hours=1)
        current = scep.ca.issue_identity(OLD_KEY, subject, not_before=start)
        expected = FailInfo.BAD_REQUEST, "the signer's certificate is not valid yet"
        assert await refusal(scep, current, renewal(alternative_names=())) == expected


async def test_a_renewal_is_for_the_same_names() -> None:
    async with door(renewals=AnyHolder()) as scep:
        current = await enrolled(scep)
        other = names.from_subject([[["CN", "somebody else"]]])
        expected = FailInfo.BAD_REQUEST, "the subject is not that of the signer"
        assert await refusal(scep, current, renewal(subject=other)) == expected
        alternative = names.alternative_names({"dNSName": "somebody.example.com"})
        expected = FailInfo.BAD_REQUEST, "an alternative name is not among those of the signer"
        assert await refusal(scep, current, renewal(alternative_names=alternative)) == expected


class Suspicious(AnyHolder):
    async def renew(self, certificate: x509.Certificate, request: CertificateRequest) -> Grant:
        raise ChallengeRefused("the device was erased")


class TooLate(AnyHolder):
    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        raise ChallengeRefused("somebody was faster")


async def test_the_host_has_the_last_word() -> None:
    async with door(renewals=Suspicious()) as scep:
        current = await enrolled(scep)
        expected = FailInfo.BAD_REQUEST, "the device was erased"
        assert await refusal(scep, current, renewal()) == expected
    async with door(renewals=TooLate()) as scep:
        current = await enrolled(scep)
        with pytest.raises(ScepFailure, match="somebody was faster"):
            await scep.client().renew(current, NEW_KEY, renewal())
        assert len(scep.ca.index.revoked) == 1


async def test_the_next_ca_is_signed_by_the_present_one() -> None:
    clock = SimulatedClock()
    following = CertificateAuthority.create("SCEP CA of tomorrow", clock=clock)
    async with door(next_ca=following.certificate, clock=clock) as scep:
        client = scep.client(name="Our CA")
        assert (await client.get_ca_caps()).supports("GetNextCACert")
        assert (await client.get_next_ca_cert()).certificates == (following.certificate,)
        assert scep.transport.sent[-1][1].endswith("?operation=GetNextCACert&message=Our%20CA")
        answer = scep.transport.answers[-1]
        assert answer.header("content-type") == "application/x-x509-next-ca-cert"


async def test_a_next_ca_is_believed_only_from_the_ca() -> None:
    clock = SimulatedClock()
    following = CertificateAuthority.create("SCEP CA of tomorrow", clock=clock)
    async with door(next_ca=following.certificate, clock=clock) as scep:
        scep.server._ca.identity = scep.ra
        with pytest.raises(UntrustedCertificate, match="is no CA of GetCACert"):
            await scep.client().get_next_ca_cert()
        scep.server._ca.identity = Identity(following.identity.key, scep.ca.certificate)
        with pytest.raises(InvalidSignature):
            await scep.client().get_next_ca_cert()


async def test_without_a_next_ca_there_is_none_to_get() -> None:
    async with door() as scep:
        assert not (await scep.client().get_ca_caps()).supports("GetNextCACert")
        with pytest.raises(UnexpectedAnswer, match="HTTP 404"):
            await scep.client().get_next_ca_cert()
