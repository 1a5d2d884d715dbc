"""SCEP end to end: our client and our server over real sockets, and what must make them fail."""

import asyncio
import hashlib
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from certs import cms, csr, keys, names
from certs.authorize import StaticChallenge
from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import SimulatedClock, SystemClock
from certs.errors import (
    MalformedMessage,
    ScepFailure,
    UnexpectedAnswer,
    UntrustedCertificate,
)
from certs.faults import Action, FaultPoint, Side
from certs.scep.capabilities import Capabilities, InsufficientCapabilities
from certs.scep.message import PkiRequest
from certs.scep.server import ScepServer
from certs.tls import server_context
from tests.certs.scep.support import CHALLENGE, OneTimeChallenges, door, request_for
from tests.support import rsa_key

KEY = rsa_key(1)
AES_GET = Capabilities(("AES", "SHA-256"))
DES3_POST = Capabilities(("DES3", "SHA-1", "POSTPKIOperation"))
DES3_GET = Capabilities(("DES3", "SHA-512"))


def at(step: str, action: Action, *, side: Side = "server", first: int = 1) -> FaultPoint:
    """A FaultPoint that acts at one step, up to its `first` n."""

    wanted = (side, step)

    def point(side: Side, step: str, message: object, n: int) -> Action | None:
        return action if (side, step) == wanted and n <= first else None

    return point


@pytest.mark.parametrize("with_ra", [True, False], ids=["ra", "no-ra"])
@pytest.mark.parametrize("signer", ["apple", "same-key"])
@pytest.mark.parametrize(
    "capabilities", [None, AES_GET, DES3_POST, DES3_GET], ids=["default", "get", "3des", "3des-get"]
)
async def test_a_device_enrolls(
    with_ra: bool, signer: Any, capabilities: Capabilities | None
) -> None:
    async with door(with_ra=with_ra) as scep:
        client = scep.client(signer=signer, capabilities=capabilities)
        with capture_logs() as lines:
            leaf, *chain = await client.enroll(KEY, request_for(1))
        leaf.verify_directly_issued_by(scep.ca.certificate)
        assert chain == []  # the CA is the root
        assert leaf.public_key() == KEY.public_key()
        assert names.text(leaf.subject) == "O=Test,CN=device 1"
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.digital_signature
        assert usage.key_encipherment
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(purposes) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert alternative.get_values_for_type(x509.DNSName) == ["device1.example.com"]
        steps = [step for _, _, step, _ in scep.transport.sent]
        asked = [] if capabilities else ["get_ca_caps"]
        assert steps == ["get_ca_cert", *asked, "pki_operation"]
        assert scep.transport.sent[-1][0] == (
            "GET" if capabilities and not capabilities.post else "POST"
        )
        (line,) = [line for line in lines if line["event"] == "scep_transaction"]
        assert line["outcome"] == "success"
        assert line["cipher"] == (capabilities.cipher() if capabilities else "aes128")
        assert line["digest"] == (capabilities.digest() if capabilities else "sha256")
        assert line["subject"] == "O=Test,CN=device 1"
        assert line["signer"] == (
            "CN=MDM SCEP SIGNER,C=US" if signer == "apple" else line["subject"]
        )
        assert CHALLENGE not in str(lines)


async def test_a_device_enrolls_over_tls() -> None:
    clock = SystemClock()
    authority = CertificateAuthority.create("TLS", clock=clock)
    identity = issue_server_identity(authority, ["127.0.0.1"], keys.generate("p256"))
    trust = ssl.create_default_context(
        cadata=authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    )
    context = server_context(identity)
    async with door(clock=clock, context=context, client_context=trust) as scep:
        leaf, *_ = await scep.client().enroll(KEY, request_for(1))
        assert leaf.public_key() == KEY.public_key()
        assert scep.url.startswith("https://")


async def test_the_content_types_are_exact_and_without_parameters() -> None:
    for with_ra, expected in (
        (True, "application/x-x509-ca-ra-cert"),
        (False, "application/x-x509-ca-cert"),
    ):
        async with door(with_ra=with_ra) as scep:
            await scep.client().enroll(KEY, request_for(1))
            types = [answer.header("content-type") for answer in scep.transport.answers]
            assert types == [expected, "text/plain", "application/x-pki-message"]


async def test_the_message_signer_has_the_form_that_apple_sends() -> None:
    async with door() as scep:
        await scep.client().enroll(KEY, request_for(1))
        request = PkiRequest.decode(scep.transport.sent[-1][3])
    signer = request.verify()
    assert names.text(signer.subject) == "CN=MDM SCEP SIGNER,C=US"
    assert signer.issuer == signer.subject
    assert signer.serial_number == 1
    assert signer.public_key() != KEY.public_key()
    assert (signer.not_valid_after_utc - signer.not_valid_before_utc).days == 365
    by_class = {type(extension.value): extension for extension in signer.extensions}
    assert by_class[x509.KeyUsage].critical
    assert by_class[x509.KeyUsage].value == names.key_usage(1)
    assert by_class[x509.ExtendedKeyUsage].critical
    pkcs1 = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.PKCS1
    )
    assert request.transaction_id == hashlib.sha1(pkcs1).hexdigest().upper()
    assert len(request.sender_nonce) == 16


async def test_the_name_is_percent_encoded_and_joined_to_an_existing_query() -> None:
    async with door() as scep:
        await scep.client(name="Our CA/1", url=f"{scep.url}?tenant=7").enroll(KEY, request_for(1))
        urls = [url.partition("/scep")[2] for _, url, _, _ in scep.transport.sent]
    assert urls == [
        "?tenant=7&operation=GetCACert&message=Our%20CA%2F1",
        "?tenant=7&operation=GetCACaps&message=Our%20CA%2F1",
        "?tenant=7&operation=PKIOperation",
    ]


async def test_a_get_encodes_only_the_padding() -> None:
    async with door() as scep:
        client = scep.client(capabilities=AES_GET)
        await client.enroll(KEY, request_for(1))
        message = scep.transport.sent[-1][1].partition("message=")[2]
    assert set("%") & set(message) <= {"%"}
    assert message.count("%") == message.count("%3D")
    assert "/" in message
    assert "+" in message


@pytest.mark.parametrize("challenge", ["wrong", "", None])
async def test_a_wrong_challenge_is_bad_request_and_issues_nothing(challenge: str | None) -> None:
    async with door() as scep:
        with pytest.raises(ScepFailure, match="challenge password is wrong") as failure:
            await scep.client().enroll(KEY, request_for(1, challenge=challenge))
        assert failure.value.fail_info == "2"
        assert scep.challenges.issued_to == []


@pytest.mark.parametrize("fault", ["wrong-challenge", "missing-challenge"])
async def test_a_device_can_be_told_to_send_a_bad_challenge(fault: str) -> None:
    async with door() as scep:
        faults = at("pki_operation", Action(name=fault), side="device")
        client = scep.client(faults=faults)
        with pytest.raises(ScepFailure, match="challenge"):
            await client.enroll(KEY, request_for(1))
        leaf, *_ = await client.enroll(KEY, request_for(1))
        assert leaf.public_key() == KEY.public_key()


async def test_a_one_time_challenge_serves_one_device() -> None:
    async with door(OneTimeChallenges({"once"})) as scep:
        await scep.client().enroll(KEY, request_for(1, challenge="once"))
        with pytest.raises(ScepFailure) as failure:
            await scep.client().enroll(rsa_key(2), request_for(2, challenge="once"))
        assert failure.value.fail_info == "2"
        assert len(scep.challenges.issued_to) == 1


async def test_a_one_time_challenge_used_by_two_at_once_serves_one() -> None:
    async with door(OneTimeChallenges({"once"})) as scep:
        results = await asyncio.gather(
            *(
                scep.client().enroll(rsa_key(number), request_for(number, challenge="once"))
                for number in (1, 2, 3)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, tuple) for result in results) == 1
        assert len(scep.challenges.issued_to) == 1


async def test_a_request_sent_again_gets_the_same_certificate() -> None:
    async with door(OneTimeChallenges({"once"})) as scep:
        request = request_for(1, challenge="once")
        first, *_ = await scep.client().enroll(KEY, request)
        again = await asyncio.gather(*(scep.client().enroll(KEY, request) for _ in range(3)))
        assert {leaf.serial_number for leaf, *_ in again} == {first.serial_number}
        assert len(scep.challenges.issued_to) == 1


async def test_a_request_sent_thrice_at_once_issues_once() -> None:
    async with door(OneTimeChallenges({"once"})) as scep:
        request = request_for(1, challenge="once")
        results = await asyncio.gather(*(scep.client().enroll(KEY, request) for _ in range(3)))
        assert len({leaf.serial_number for leaf, *_ in results}) == 1
        assert len(scep.challenges.issued_to) == 1


async def test_a_transaction_is_forgotten_after_an_hour() -> None:
    clock = SimulatedClock()
    async with door(clock=clock) as scep:
        first, *_ = await scep.client().enroll(KEY, request_for(1))
        await clock.advance(3601)
        second, *_ = await scep.client().enroll(KEY, request_for(1))
        assert first.serial_number != second.serial_number


async def test_the_fingerprint_of_the_payload_decides() -> None:
    async with door() as scep:
        data = scep.ca.certificate.public_bytes(serialization.Encoding.DER)
        for name in ("md5", "sha1", "sha256"):
            fingerprint = hashlib.new(name, data).digest()
            await scep.client(ca_fingerprint=fingerprint).enroll(KEY, request_for(1))
            wrong = bytes((fingerprint[0] ^ 1,)) + fingerprint[1:]
            with pytest.raises(UntrustedCertificate, match="CAFingerprint"):
                await scep.client(ca_fingerprint=wrong).enroll(KEY, request_for(1))
        with pytest.raises(MalformedMessage, match="16, 20 or 32 bytes, got 19"):
            await scep.client(ca_fingerprint=fingerprint[:19]).enroll(KEY, request_for(1))


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b"SHA-384\nAES\n", "digest"),
        (b"SHA-256\r\nPOSTPKIOperation", "cipher"),
        (b"", "digest"),
        (b"XSHA-1 AES", "digest"),
    ],
)
async def test_a_device_goes_no_further_without_a_usable_capability(
    body: bytes, missing: str
) -> None:
    fault = Action(name="body", arguments={"body": body, "content_type": "text/plain"})
    async with door(faults=at("get_ca_caps", fault)) as scep:
        with pytest.raises(InsufficientCapabilities, match=missing):
            await scep.client().enroll(KEY, request_for(1))
        assert [step for _, _, step, _ in scep.transport.sent] == ["get_ca_cert", "get_ca_caps"]


@pytest.mark.parametrize(
    "fault",
    [
        Action(name="status", arguments={"status": 404}),
        Action(name="status", arguments={"status": 500}),
        Action(name="body", arguments={"body": b"\n<html>no such page</html>"}),
    ],
)
async def test_a_server_without_capabilities_is_asked_in_the_oldest_way(fault: Action) -> None:
    async with door(faults=at("get_ca_caps", fault)) as scep:
        with capture_logs() as lines:
            await scep.client().enroll(KEY, request_for(1))
        assert scep.transport.sent[-1][0] == "GET"
        assert (lines[-1]["cipher"], lines[-1]["digest"]) == ("des3", "sha1")


@pytest.mark.parametrize("step", ["get_ca_cert", "pki_operation"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Action(name="status", arguments={"status": 500}), UnexpectedAnswer),
        (Action(name="body", arguments={"body": b""}), UnexpectedAnswer),
        (Action(name="body", arguments={"body": "<html>proxy</html>"}), MalformedMessage),
    ],
)
async def test_a_web_page_an_error_and_an_empty_answer_are_refused(
    step: str, fault: Action, error: type[Exception]
) -> None:
    async with door(faults=at(step, fault)) as scep:
        with pytest.raises(error):
            await scep.client().enroll(KEY, request_for(1))


async def test_the_error_of_a_get_does_not_hold_the_message() -> None:
    fault = Action(name="status", arguments={"status": 500})
    async with door(faults=at("pki_operation", fault)) as scep:
        with pytest.raises(UnexpectedAnswer) as error:
            await scep.client(capabilities=AES_GET).enroll(KEY, request_for(1))
        assert str(error.value) == f"{scep.url}: HTTP 500: expected 200"


@pytest.mark.parametrize("fail_info", ["0", "1", "2", "3", "4"])
async def test_each_fail_info_reaches_the_device(fail_info: str) -> None:
    fault = Action(name="fail", arguments={"fail_info": fail_info, "text": "on purpose"})
    async with door(faults=at("pki_operation", fault)) as scep:
        client = scep.client()
        with pytest.raises(ScepFailure, match="on purpose") as failure:
            await client.enroll(KEY, request_for(1))
        assert failure.value.fail_info == fail_info
        await client.enroll(KEY, request_for(1))  # n is 2 now


async def test_a_delayed_answer_waits_for_the_clock_of_the_server() -> None:
    asked = asyncio.Event()

    class Watched(SimulatedClock):
        async def sleep(self, seconds: float) -> None:
            assert seconds == 1200
            asked.set()
            await super().sleep(seconds)

    clock = Watched()
    fault = Action(name="delay", arguments={"seconds": 1200})
    async with door(clock=clock, faults=at("pki_operation", fault)) as scep:
        enrolling = asyncio.ensure_future(scep.client().enroll(KEY, request_for(1)))
        await asked.wait()
        assert not enrolling.done()
        await clock.advance(1200)
        leaf, *_ = await enrolling
        assert leaf.public_key() == KEY.public_key()


async def test_a_request_for_another_recipient_cannot_be_opened() -> None:
    async with door(with_ra=False) as other:
        ca_certificate = other.ra.certificate.public_bytes(serialization.Encoding.DER)
        fault = Action(name="body", arguments={"body": ca_certificate})
        async with door(faults=at("get_ca_cert", fault)) as scep:
            with capture_logs() as lines, pytest.raises(UntrustedCertificate):
                await scep.client().enroll(KEY, request_for(1))
            assert lines[-1]["fail_info"] == "1"
            assert lines[-1]["reason"] == "EnvelopedData: cannot decrypt"
            assert scep.challenges.issued_to == []


async def test_a_short_key_is_refused_unless_the_server_is_told_to_take_it() -> None:
    weak = rsa_key(1, 1024)
    subject = names.from_subject([[["CN", "weak"]]])
    request = csr.build(weak, subject, challenge=CHALLENGE)
    async with door() as scep:
        with pytest.raises(ScepFailure, match="1024 bits") as failure:
            await scep.client().enroll(weak, request)
        assert failure.value.fail_info == "2"
    async with door(minimum_key_bits=1024) as scep:
        leaf, *_ = await scep.client().enroll(weak, request)
        assert leaf.public_key() == weak.public_key()


async def test_a_clock_that_is_off_is_bad_time_only_where_the_server_looks() -> None:
    clock, late = SimulatedClock(), SimulatedClock()
    await late.advance(601)
    async with door(clock=clock, max_clock_skew_s=600) as scep:
        await scep.client().enroll(KEY, request_for(1))
        client = scep.client()
        client._clock = late
        with pytest.raises(ScepFailure, match=r"\+601 s") as failure:
            await client.enroll(rsa_key(2), request_for(2))
        assert failure.value.fail_info == "3"


async def test_a_4096_bit_key_enrolls_by_get() -> None:
    big = rsa_key(1, 4096)
    request = csr.build(big, names.from_subject([[["CN", "big"]]]), challenge=CHALLENGE)
    async with door() as scep:
        client = scep.client(capabilities=AES_GET, signer="same-key")
        leaf, *_ = await client.enroll(big, request)
        assert leaf.public_key() == big.public_key()
        assert len(scep.transport.sent[-1][1]) > 4000


async def test_an_empty_and_a_non_ascii_subject_enroll() -> None:
    async with door() as scep:
        for subject in ([], [[["CN", "Gerät 東京"], ["O", "Œuvre"]]]):
            name = names.from_subject(subject)
            request = csr.build(KEY, name, challenge=CHALLENGE)
            transaction = scep.client(signer="same-key")
            scep.server._issuance.transactions._answered.clear()
            leaf, *_ = await transaction.enroll(KEY, request)
            assert leaf.subject == name


def test_a_ca_without_an_rsa_key_needs_an_ra() -> None:
    clock = SimulatedClock()
    ca = CertificateAuthority.create("EC", clock=clock)
    with pytest.raises(MalformedMessage, match="RSA"):
        ScepServer(ca, ca.identity, StaticChallenge(None), clock=clock)


async def test_what_the_challenge_cannot_spend_is_revoked() -> None:
    class Vanishing(OneTimeChallenges):
        async def issued(self, grant: Any, certificate: x509.Certificate) -> None:
            self.issued_to.append(certificate)
            raise RuntimeError("the store is gone")

    async with door(Vanishing({"once"})) as scep:
        with pytest.raises(UnexpectedAnswer, match="500"):
            await scep.client().enroll(KEY, request_for(1, challenge="once"))
        (certificate,) = scep.challenges.issued_to
        assert scep.ca.is_revoked(certificate)
        assert cms.rsa_public_key(certificate) is not None
