"""PENDING, CertPoll and approval; GetCert and GetCRL, which we answer with a no (certificates.md 1.9)."""

import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography import x509

from certs import der, names
from certs.authorize import StaticChallenge
from certs.clock import SimulatedClock
from certs.errors import ScepFailure
from certs.faults import Action
from certs.operator_door import OperatorDoor
from certs.scep import message as scep
from certs.scep.approval import ManualApproval, TimedApproval
from certs.scep.client import transaction_id
from certs.scep.message import CertRep, FailInfo, PkiStatus
from certs.scep.opening import UNREADABLE
from tests.certs.scep.support import CHALLENGE, Door, OneTimeChallenges, door, request_for
from tests.certs.scep.test_server import NONCE, pkcs_req, post
from tests.certs.test_cms_signed import RSA, self_signed
from tests.support import rsa_key

KEY = rsa_key(1)
T1 = transaction_id(KEY.public_key())
SUBJECT = der.read(request_for(1)).children()[0].children()[1].raw
OTHER = self_signed(rsa_key(3), "another signer")


def poll(door: Door, **changes: Any) -> bytes:
    content = scep.issuer_and_subject(
        changes.pop("issuer", door.ca.certificate.subject.public_bytes()),
        changes.pop("subject", SUBJECT),
    )
    return pkcs_req(door, message_type="20", **{"content": content, **changes})


async def test_a_request_waits_until_somebody_approves() -> None:
    approval = ManualApproval()
    async with door(approval=approval) as scep_door:
        with pytest.raises(ScepFailure, match="not decided after 2 polls"):
            await scep_door.client(retries=2, retry_delay_s=0, signer="same-key").enroll(
                KEY, request_for(1)
            )
        (waiting,) = approval.waiting
        assert (waiting.transaction_id, waiting.polls) == (T1, 2)
        assert waiting.request.common_name == "device 1"
        approval.approve(waiting.id)
        assert approval.waiting == ()
        leaf, *_ = await scep_door.client(signer="same-key").enroll(KEY, request_for(1))
        assert scep_door.challenges.issued_to == [leaf]


async def test_a_request_that_the_server_forgot_is_shown_to_nobody() -> None:
    clock, approval = SimulatedClock(), ManualApproval()
    operators = OperatorDoor(approval, "token", clock)
    decided = make_mocked_request("POST", "/", match_info={"id": "", "decision": "approve"})
    async with door(approval=approval, clock=clock) as scep_door:
        await post(scep_door, pkcs_req(scep_door))
        (old,) = approval.waiting
        await clock.advance(timedelta(days=1, seconds=1).total_seconds())
        assert (await post(scep_door, poll(scep_door))).fail_info == FailInfo.BAD_CERT_ID
        decided.match_info["id"] = old.id
        assert (await operators.decide(decided)).status == 404
        # Sent again it waits anew, and what is shown is what is polled.
        for message in (pkcs_req(scep_door), poll(scep_door)):
            assert (await post(scep_door, message)).status is PkiStatus.PENDING
        answer = await operators.waiting(make_mocked_request("GET", "/requests"))
        assert isinstance(answer.body, bytes)
        (shown,) = json.loads(answer.body)["requests"]
        assert (shown["id"], shown["waited_s"], shown["polls"]) == (old.id, 0, 1)


async def test_a_denied_request_stays_denied() -> None:
    approval = ManualApproval()
    async with door(approval=approval) as scep_door:
        assert (await post(scep_door, pkcs_req(scep_door))).status is PkiStatus.PENDING
        (waiting,) = approval.waiting
        approval.deny(waiting.id)
        for message in (poll(scep_door), poll(scep_door), pkcs_req(scep_door)):
            reply = await post(scep_door, message)
            assert reply.status is PkiStatus.FAILURE
            assert (reply.fail_info, reply.fail_info_text) == ("2", "the request was denied")
        assert scep_door.challenges.issued_to == []


async def test_a_wrong_challenge_does_not_wait() -> None:
    approval = ManualApproval()
    async with door(approval=approval) as scep_door:
        message = pkcs_req(scep_door, content=request_for(1, challenge="wrong"))
        assert (await post(scep_door, message)).fail_info == FailInfo.BAD_REQUEST
        assert approval.waiting == ()


def test_an_approval_names_one_request() -> None:
    with pytest.raises(LookupError, match="no request 'T1' waits"):
        ManualApproval().approve("T1")


@pytest.mark.parametrize(
    "other",
    [
        {"content": request_for(2), "signer": OTHER},
        {"content": request_for(1, name="admin")},
        {"content": request_for(1, name="admin", challenge="another")},
        {"content": request_for(1, challenge="another")},
    ],
)
async def test_what_was_approved_gets_the_certificate_and_nothing_else_of_its_transaction(
    other: dict[str, Any],
) -> None:
    approval = ManualApproval()
    async with door(StaticChallenge(None), approval=approval) as scep_door:
        seen, unseen = pkcs_req(scep_door), pkcs_req(scep_door, **other)
        assert (await post(scep_door, seen)).status is PkiStatus.PENDING
        (waiting,) = approval.waiting
        assert (await post(scep_door, unseen)).status is PkiStatus.PENDING
        approval.approve(waiting.id)
        assert (await post(scep_door, unseen)).status is PkiStatus.PENDING
        reply = await post(scep_door, seen)
        assert reply.status is PkiStatus.SUCCESS
        (leaf,) = reply.open(RSA)
        assert names.common_name(leaf.subject) == "device 1"
        assert (await post(scep_door, unseen)).status is PkiStatus.PENDING


@pytest.mark.parametrize("polls", [1, 3])
async def test_approval_may_come_at_a_poll(polls: int) -> None:
    clock = SimulatedClock()
    approval = TimedApproval(clock, polls=polls)
    async with door(approval=approval, clock=clock) as scep_door:
        client = scep_door.client(retries=polls, retry_delay_s=0)
        leaf, *_ = await client.enroll(KEY, request_for(1))
        assert leaf.public_key() == KEY.public_key()
        operations = [sent for sent in scep_door.transport.sent if sent[2] == "pki_operation"]
        assert len(operations) == 1 + polls


async def test_approval_may_come_with_time() -> None:
    clock = SimulatedClock()
    async with door(approval=TimedApproval(clock, seconds=60), clock=clock) as scep_door:
        assert (await post(scep_door, pkcs_req(scep_door))).status is PkiStatus.PENDING
        await clock.advance(59)
        assert (await post(scep_door, poll(scep_door))).status is PkiStatus.PENDING
        await clock.advance(1)
        reply = await post(scep_door, poll(scep_door))
        assert reply.status is PkiStatus.SUCCESS
        (leaf,) = reply.open(RSA)
        assert leaf.public_key() == KEY.public_key()


def test_an_approval_that_never_comes_is_no_approval() -> None:
    with pytest.raises(ValueError, match="would never come"):
        TimedApproval(SimulatedClock())


async def test_a_poll_or_request_after_the_decision_gets_the_same_certificate() -> None:
    clock = SimulatedClock()
    async with door(approval=TimedApproval(clock, polls=1), clock=clock) as scep_door:
        await post(scep_door, pkcs_req(scep_door))
        replies = [
            await post(scep_door, message)
            for message in (poll(scep_door), poll(scep_door), pkcs_req(scep_door))
        ]
        assert len({tuple(reply.open(RSA)) for reply in replies}) == 1
        await clock.advance(timedelta(hours=2).total_seconds())
        assert (await post(scep_door, poll(scep_door))).fail_info == FailInfo.BAD_CERT_ID


UNKNOWN = "no request of this transactionID and signer waits"
NOT_OURS = RSA.certificate.subject.public_bytes()


@pytest.mark.parametrize(
    ("changes", "fail_info", "text"),
    [
        ({"transaction_id": "T2"}, "4", UNKNOWN),
        ({"signer": OTHER}, "4", UNKNOWN),
        ({"issuer": NOT_OURS}, "4", "the issuer is not this CA"),
        ({"subject": NOT_OURS}, "4", "the transaction is about another subject"),
        ({"content": b"nonsense"}, "1", UNREADABLE),
        ({"content": der.sequence(der.null())}, "1", UNREADABLE),
        ({"content": der.sequence(der.null(), der.null())}, "1", UNREADABLE),
        ({"content": der.sequence(SUBJECT, der.null())}, "1", UNREADABLE),
        ({"recipients": [RSA.certificate]}, "1", UNREADABLE),
    ],
)
async def test_each_wrong_poll_is_refused_for_its_own_reason(
    changes: dict[str, Any], fail_info: str, text: str
) -> None:
    clock = SimulatedClock()
    async with door(approval=TimedApproval(clock, polls=1), clock=clock) as scep_door:
        await post(scep_door, pkcs_req(scep_door))
        reply = await post(scep_door, poll(scep_door, **changes))
        assert (reply.fail_info, reply.fail_info_text) == (fail_info, text)
        assert reply.recipient_nonce == NONCE
        assert scep_door.challenges.issued_to == []
        assert (await post(scep_door, poll(scep_door))).status is PkiStatus.SUCCESS


async def test_a_challenge_that_ended_while_its_request_waited_is_refused() -> None:
    clock, challenges = SimulatedClock(), OneTimeChallenges({CHALLENGE})
    async with door(challenges, approval=TimedApproval(clock, polls=1)) as scep_door:
        await post(scep_door, pkcs_req(scep_door))
        await post(scep_door, pkcs_req(scep_door, content=request_for(2), signer=OTHER))
        first = await post(scep_door, poll(scep_door))
        subject = der.read(request_for(2)).children()[0].children()[1].raw
        second = await post(scep_door, poll(scep_door, subject=subject, signer=OTHER))
        assert (first.status, second.status) == (PkiStatus.SUCCESS, PkiStatus.FAILURE)
        assert second.fail_info_text == "the challenge password is wrong or was used"
        assert len(challenges.issued_to) == 1


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.scep.transactions.MAX_WAITING", 2)
    monkeypatch.setattr("certs.scep.transactions.MAX_REMEMBERED", 2)
    monkeypatch.setattr("certs.scep.approval.MAX_WAITING", 2)
    approval = ManualApproval()
    async with door(StaticChallenge(None), approval=approval) as scep_door:
        for number in range(4):
            await post(scep_door, pkcs_req(scep_door, transaction_id=f"T{number}"))
        transactions = scep_door.server._issuance.transactions
        assert len(transactions) == len(transactions._signers) == len(approval.waiting) == 2
        assert [one.transaction_id for one in approval.waiting] == ["T2", "T3"]
        for waiting in approval.waiting:
            approval.approve(waiting.id)
        reply = await post(scep_door, poll(scep_door, transaction_id="T0"))
        assert reply.fail_info == FailInfo.BAD_CERT_ID


@pytest.mark.parametrize("polls", [1, 3])
async def test_a_server_can_be_told_to_leave_requests_pending(polls: int) -> None:
    def fault(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "pki_operation" and n == 1:
            return Action(name="pending", arguments={"polls": polls})
        return None

    async with door(faults=fault) as scep_door:
        client = scep_door.client(retries=polls, retry_delay_s=0)
        leaf, *_ = await client.enroll(KEY, request_for(1))
        statuses = [
            CertRep.decode(answer.body).status
            for answer, sent in zip(
                scep_door.transport.answers, scep_door.transport.sent, strict=True
            )
            if sent[2] == "pki_operation"
        ]
        assert statuses == [PkiStatus.PENDING] * polls + [PkiStatus.SUCCESS]
        assert scep_door.challenges.issued_to == [leaf]


@pytest.mark.parametrize(
    ("message_type", "text"),
    [
        ("21", "GetCert is not supported"),
        ("22", "GetCRL is not supported by SCEP, see http://x/crl"),
    ],
)
async def test_certificates_and_lists_are_not_looked_up(message_type: str, text: str) -> None:
    async with door() as scep_door:
        scep_door.ca.crl_url = "http://x/crl"
        ours = scep_door.ca.certificate.subject.public_bytes()
        for issuer, serial, expected in (
            (ours, der.integer(7), ("2", text)),
            (NOT_OURS, der.integer(7), ("4", "the issuer is not this CA")),
            (ours, der.null(), ("1", UNREADABLE)),
        ):
            content = der.sequence(issuer, serial)
            message = pkcs_req(scep_door, message_type=message_type, content=content)
            reply = await post(scep_door, message)
            assert (reply.fail_info, reply.fail_info_text) == expected


async def test_the_subject_of_a_waiting_certificate_is_that_of_its_request() -> None:
    clock = SimulatedClock()
    async with door(approval=TimedApproval(clock, polls=1), clock=clock) as scep_door:
        leaf, *_ = await scep_door.client().enroll(KEY, request_for(1))
        assert isinstance(leaf, x509.Certificate)
        assert leaf.subject.public_bytes() == SUBJECT
