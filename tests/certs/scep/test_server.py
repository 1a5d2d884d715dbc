"""The SCEP server's HTTP surface in every dialect, and its answer to each bad request."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from certs import algorithms, cms, csr, der, keys, names
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.errors import CannotDecrypt
from certs.identity import Identity
from certs.scep import message as scep
from certs.scep.approval import TimedApproval
from certs.scep.message import CertRep, PkiStatus
from certs.scep.opening import UNREADABLE
from certs.scep.server import decode_get_message, raw_query
from tests.certs.scep.support import (
    CHALLENGE,
    Door,
    OneTimeChallenges,
    door,
    request_for,
)
from tests.certs.test_cms_signed import EC, RSA, attribute, by_hand
from tests.support import rsa_key

NONCE = bytes(range(16))
RSA_SHA256 = bytes.fromhex("2a864886f70d01010b")
# A challenge that is damaged: what it says must not get into a log.
BMP_CHALLENGE = request_for(1, challenge="abc").replace(der.printable("abc"), der.tlv(0x1E, b"abc"))


def pkcs_req(door: Door, **changes: Any) -> bytes:
    """A good PKCSReq by RSA, but for `changes`."""
    options: dict[str, Any] = {
        "message_type": "19",
        "transaction_id": "T1",
        "sender_nonce": NONCE,
        "signer": RSA,
        "recipients": [door.ra.certificate],
        "signing_time": door.clock.now(),
    }
    content = changes.pop("content", request_for(1))
    return scep.encode_request(content, **{**options, **changes})


async def get(door: Door, query: str) -> tuple[int, str, bytes]:
    answer = await door.transport.request("GET", f"{door.url}{query}", step="test")
    return answer.status, answer.header("content-type") or "", answer.body


async def post(door: Door, body: bytes, query: str = "?operation=PKIOperation") -> CertRep:
    answer = await door.transport.request("POST", f"{door.url}{query}", step="test", body=body)
    assert answer.status == 200, answer.body
    assert answer.header("content-type") == scep.PKI_MESSAGE
    reply = CertRep.decode(answer.body)
    assert reply.verify([]) == door.ra.certificate
    return reply


async def refused(door: Door, body: bytes) -> tuple[str | None, str]:
    """failInfo and failInfoText, after checking that a refusal is complete, logged once and issues nothing."""
    with capture_logs() as lines:
        reply = await post(door, body)
    assert reply.status is PkiStatus.FAILURE
    assert reply.signed.content == b""
    assert reply.recipient_nonce == NONCE
    assert reply.sender_nonce not in (None, NONCE)
    (line,) = lines
    assert line["event"] == "scep_transaction"
    assert (line["outcome"], line["log_level"]) == ("failure", "warning")
    assert line["fail_info"] == reply.fail_info
    if reply.fail_info_text != UNREADABLE:  # else only our own log says which it was
        assert line["reason"] == reply.fail_info_text
    assert line["transaction_id"] == reply.transaction_id
    assert CHALLENGE not in str(lines)
    assert len(door.challenges.issued_to) == 0
    return reply.fail_info, reply.fail_info_text


@pytest.mark.parametrize("kind", [structlog.BoundLogger, structlog.stdlib.BoundLogger])
async def test_a_host_may_log_with_each_kind_of_logger(kind: type) -> None:
    before = structlog.get_config()
    structlog.configure(wrapper_class=kind, logger_factory=structlog.PrintLoggerFactory())
    try:
        async with door() as scep_door:
            assert (await refused(scep_door, pkcs_req(scep_door, content=b"")))[0] == "1"
            with capture_logs() as lines:
                reply = await post(scep_door, pkcs_req(scep_door))
    finally:
        structlog.configure(**before)
    assert reply.status is PkiStatus.SUCCESS
    (line,) = lines
    assert (line["outcome"], line["log_level"]) == ("success", "info")


DIALECTS: dict[str, Callable[[bytes], str]] = {
    "as Apple": lambda data: base64.b64encode(data).decode().replace("=", "%3D"),
    "all percent-encoded": lambda data: quote(base64.b64encode(data).decode(), safe=""),
    "bare": lambda data: base64.b64encode(data).decode(),
    "no padding": lambda data: base64.b64encode(data).decode().rstrip("="),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "URL-safe without padding": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "plus as space": lambda data: base64.b64encode(data).decode().replace("+", "%20"),
    "in lines": lambda data: quote(base64.encodebytes(data).decode(), safe=""),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_message_in_the_query_is_read_in_each_dialect(dialect: str, method: str) -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        if len(data) % 3 == 0:  # then there would be no padding
            data = pkcs_req(scep_door, sender_nonce=NONCE + b"x")
        assert {ord("+"), ord("/"), ord("=")} <= set(base64.b64encode(data))
        query = f"?operation=PKIOperation&message={DIALECTS[dialect](data)}"
        answer = await scep_door.transport.request(method, f"{scep_door.url}{query}", step="test")
        assert answer.status == 200
        assert CertRep.decode(answer.body).status is PkiStatus.SUCCESS


@pytest.mark.parametrize(
    "query",
    [
        "?operation=PKIOperation",
        "?operation=PKIOperation&",
        "?operation=PKIOperation&message=ignored&tenant=7&",
        "?tenant=7&operation=PKIOperation",
        "?OPERATION=pkioperation",
        "?operation=%50KIOperation",
    ],
)
async def test_a_posted_message_is_read_whatever_else_the_query_holds(query: str) -> None:
    async with door() as scep_door:
        reply = await post(scep_door, pkcs_req(scep_door), query)
        assert reply.status is PkiStatus.SUCCESS


async def test_bytes_after_the_message_are_ignored() -> None:
    async with door() as scep_door:
        reply = await post(scep_door, pkcs_req(scep_door) + b"\r\n")
        assert reply.status is PkiStatus.SUCCESS


@pytest.mark.parametrize("message", ["", "&message=", "&message=Our%20CA", "&message=0"])
async def test_capabilities_and_certificates_do_not_depend_on_the_name(message: str) -> None:
    async with door() as scep_door:
        status, content_type, body = await get(scep_door, f"?operation=GetCACaps{message}")
        assert (status, content_type) == (200, "text/plain")
        assert body.endswith(b"\n")
        assert set(body.decode().split("\n")) >= {"AES", "SHA-256", "SHA-384", "SCEPStandard"}
        assert b"Renewal" not in body  # what is refused is not advertised
        status, content_type, body = await get(scep_door, f"?operation=GetCACert{message}")
        assert (status, content_type) == (200, "application/x-x509-ca-ra-cert")
        assert set(cms.decode_certs_only(body)) == {
            scep_door.ra.certificate,
            scep_door.ca.certificate,
        }


async def test_a_ca_without_ra_gives_its_certificate_alone() -> None:
    async with door(with_ra=False) as scep_door:
        status, content_type, body = await get(scep_door, "?operation=GetCACert")
        assert (status, content_type) == (200, "application/x-x509-ca-cert")
        assert x509.load_der_x509_certificate(body) == scep_door.ca.certificate


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "unknown operation"),
        ("?operation=", "unknown operation"),
        ("?operation=PKIOperation", "a pkiMessage in base64, got 'nothing'"),
        ("?operation=PKIOperation&message=A", "base64"),
        ("?operation=PKIOperation&message=%21%21%21%21", "base64"),
        (
            "?operation=PKIOperation&message=PGh0bWw%2B",
            "SignedData: expected 104 bytes of content, got 4",
        ),
    ],
)
async def test_what_is_no_request_is_http_400_and_one_log_line(query: str, expected: str) -> None:
    async with door() as scep_door:
        with capture_logs() as lines:
            status, content_type, body = await get(scep_door, query)
        assert (status, content_type) == (400, "text/plain")
        assert expected in body.decode()
        assert len(lines) == 1


async def test_a_body_beyond_the_limit_is_refused_by_http() -> None:
    async with door() as scep_door:
        answer = await scep_door.transport.request(
            "POST", f"{scep_door.url}?operation=PKIOperation", step="test", body=bytes(2**21)
        )
        assert answer.status == 413


async def test_each_truncation_of_a_request_is_http_400() -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        for end in range(1, len(data), 97):
            answer = await scep_door.transport.request(
                "POST", f"{scep_door.url}?operation=PKIOperation", step="test", body=data[:end]
            )
            assert answer.status == 400


@pytest.mark.parametrize("cipher", ["des", "des3", "aes128", "aes192", "aes256"])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
async def test_the_answer_uses_the_algorithms_of_the_request(cipher: Any, digest: str) -> None:
    async with door() as scep_door:
        reply = await post(scep_door, pkcs_req(scep_door, cipher=cipher, digest=digest))
        assert cms.cipher_of(reply.signed.content or b"") == cipher
        assert reply.signed.signers[0].digest == digest
        assert reply.recipient_nonce == NONCE
        (leaf,) = reply.open(RSA)
        assert leaf.public_key() == rsa_key(1).public_key()


async def test_the_answer_is_for_the_signer_and_not_for_the_requested_key() -> None:
    async with door() as scep_door:
        reply = await post(scep_door, pkcs_req(scep_door, content=request_for(3)))
        (leaf,) = reply.open(RSA)
        assert leaf.public_key() == rsa_key(3).public_key()
        with pytest.raises(CannotDecrypt):
            reply.open(Identity(rsa_key(3), RSA.certificate))


async def test_a_strange_transaction_id_and_a_short_nonce_are_echoed_byte_for_byte() -> None:
    async with door() as scep_door:
        for transaction in ("ab/+=@*&_\xe4", "7" * 77, " "):
            body = pkcs_req(scep_door, transaction_id=transaction, sender_nonce=b"8 bytes!")
            reply = await post(scep_door, body)
            assert reply.transaction_id == transaction
            assert reply.recipient_nonce == b"8 bytes!"


async def test_several_recipients_and_another_signer_are_fine() -> None:
    async with door() as scep_door:
        recipients = [RSA.certificate, scep_door.ra.certificate]
        reply = await post(scep_door, pkcs_req(scep_door, recipients=recipients))
        assert reply.status is PkiStatus.SUCCESS


@pytest.mark.parametrize("message_type", ["3", "99", "x"])
async def test_another_message_type_is_bad_request(message_type: str) -> None:
    async with door() as scep_door:
        fail_info, text = await refused(scep_door, pkcs_req(scep_door, message_type=message_type))
        assert fail_info == scep.FailInfo.BAD_REQUEST
        assert text == f"messageType {message_type} is not supported"


async def test_a_signature_that_is_not_the_signers_is_bad_message_check() -> None:
    async with door() as scep_door:
        impostor = Identity(rsa_key(2), RSA.certificate)
        fail_info, text = await refused(scep_door, pkcs_req(scep_door, signer=impostor))
        assert (fail_info, text) == ("1", "SignedData: signature is not valid")


async def test_each_attribute_is_covered_by_the_signature() -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        for value in (
            der.printable("19"),
            der.printable("T1"),
            algorithms.digest("sha256", cms.decode_signed(data).content or b""),
        ):
            position = data.rindex(value) + len(value) - 1
            damaged = data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]
            fail_info, _ = await refused(scep_door, damaged)
            assert fail_info in ("1", "2")  # 2: it is another messageType now


@pytest.mark.parametrize("missing", ["1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"])
async def test_without_content_type_or_digest_it_is_bad_message_check(missing: str) -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        (signer,) = cms.decode_signed(data).signers
        assert signer.attributes is not None
        attributes = [
            attribute(dotted, value.raw)
            for dotted, value in signer.attributes.items()
            if dotted != missing
        ]
        body = by_hand(cms.decode_signed(data).content or b"", attributes)
        assert (await refused(scep_door, body))[0] == "1"
        good = [attribute(dotted, value.raw) for dotted, value in signer.attributes.items()]
        twice = by_hand(cms.decode_signed(data).content or b"", [*good, good[0]])
        url = f"{scep_door.url}?operation=PKIOperation"
        answer = await scep_door.transport.request("POST", url, step="test", body=twice)
        assert answer.status == 400
        reply = await post(scep_door, by_hand(cms.decode_signed(data).content or b"", good))
        assert reply.status is PkiStatus.SUCCESS


async def test_a_signer_that_is_not_in_the_message_is_bad_message_check() -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        (signer,) = cms.decode_signed(data).signers
        assert signer.attributes is not None
        attributes = [attribute(dotted, value.raw) for dotted, value in signer.attributes.items()]
        content = cms.decode_signed(data).content or b""
        body = by_hand(content, attributes, certificates=[EC.certificate])
        assert (await refused(scep_door, body))[0] == "1"


async def test_unknown_algorithms_are_bad_alg() -> None:
    async with door() as scep_door:
        data = pkcs_req(scep_door)
        (signer,) = cms.decode_signed(data).signers
        assert signer.attributes is not None
        content = cms.decode_signed(data).content or b""
        attributes = [attribute(dotted, value.raw) for dotted, value in signer.attributes.items()]
        md5 = der.sequence(der.oid("1.2.840.113549.2.5"), der.null())
        assert (await refused(scep_door, by_hand(content, attributes, digest_algorithm=md5)))[
            0
        ] == "0"
        odd = der.sequence(der.oid("1.2.3"))
        body = by_hand(content, attributes, signature_algorithm=odd)
        assert (await refused(scep_door, body))[0] == "0"
        envelope = cms.encrypt(request_for(1), [scep_door.ra.certificate])
        gcm = envelope.replace(
            der.oid(algorithms.CIPHERS["aes128"].oid), der.oid("2.16.840.1.101.3.4.1.6")
        )
        body = resigned(scep_door, gcm)
        fail_info, text = await refused(scep_door, body)
        assert fail_info == "0"
        assert "2.16.840.1.101.3.4.1.6" in text


def resigned(door: Door, envelope: bytes, signer: Identity = RSA) -> bytes:
    """A pkiMessage around any envelope."""
    return cms.sign(
        envelope,
        signer,
        signing_time=door.clock.now(),
        extra_attributes=[
            (scep.MESSAGE_TYPE, der.printable("19")),
            (scep.TRANSACTION_ID, der.printable("T1")),
            (scep.SENDER_NONCE, der.octet_string(NONCE)),
        ],
    )


async def test_an_ec_signer_cannot_be_answered() -> None:
    async with door() as scep_door:
        envelope = cms.encrypt(request_for(1), [scep_door.ra.certificate])
        fail_info, text = await refused(scep_door, resigned(scep_door, envelope, EC))
        assert (fail_info, text) == ("0", "the answer cannot be encrypted to the signer's key")


async def test_a_wrong_key_damage_and_nonsense_get_one_answer() -> None:
    async with door() as scep_door:
        ra = scep_door.ra.certificate
        good = cms.encrypt(request_for(1), [ra])
        impostor = Identity(rsa_key(9), names_only(scep_door.ra))
        answers = set()
        for envelope in (
            cms.encrypt(request_for(1), [RSA.certificate]),
            cms.encrypt(request_for(1), [impostor.certificate]),
            good[:-1] + bytes((good[-1] ^ 1,)),
            good[:-20],
            b"",
            b"nonsense",
            cms.encrypt(b"", [ra]),
            cms.encrypt(b"no request", [ra]),
            cms.encrypt(request_for(1)[:-10], [ra]),
            cms.encrypt(request_for(1)[:-1] + b"\0", [ra]),
            cms.encrypt(request_for(1).replace(RSA_SHA256, bytes.fromhex("2b6570")), [ra]),
            cms.encrypt(BMP_CHALLENGE, [ra]),
        ):
            answers.add(await refused(scep_door, resigned(scep_door, envelope)))
        assert answers == {("1", UNREADABLE)}


def names_only(ra: Identity) -> x509.Certificate:
    """A certificate with the RA's issuer and serial number over another key."""
    clock = SimulatedClock()
    builder = x509.CertificateBuilder(
        issuer_name=ra.certificate.issuer,
        subject_name=ra.certificate.subject,
        public_key=rsa_key(9).public_key(),
        serial_number=ra.certificate.serial_number,
        not_valid_before=clock.now(),
        not_valid_after=clock.now() + timedelta(days=1),
    )
    return builder.sign(rsa_key(9), algorithms.HASHES["sha256"])  # type: ignore[arg-type]


async def test_the_log_knows_what_the_client_is_not_told() -> None:
    stolen = request_for(1).replace(
        keys.spki_der(rsa_key(1).public_key()), keys.spki_der(rsa_key(2).public_key())
    )
    async with door() as scep_door:
        for content, reason in (
            (stolen, "certificate request: signature is not valid"),
            (b"nonsense", "certificate request: expected 111 bytes of content"),
            (BMP_CHALLENGE, "challengePassword: expected text in utf-16-be"),
        ):
            with capture_logs() as lines:
                reply = await post(scep_door, pkcs_req(scep_door, content=content))
            assert (reply.fail_info, reply.fail_info_text) == ("1", UNREADABLE)
            assert lines[0]["reason"] == reason


async def test_a_requested_ec_key_is_bad_alg() -> None:
    async with door() as scep_door:
        key = ec.generate_private_key(ec.SECP256R1())
        request = csr.build(key, names.from_subject([]), challenge=CHALLENGE)
        fail_info, text = await refused(scep_door, pkcs_req(scep_door, content=request))
        assert (fail_info, text) == ("0", "the requested key is not RSA")


async def test_a_request_that_would_cost_memory_while_it_waits_is_bad_request() -> None:
    async with door(approval=TimedApproval(SimulatedClock(), polls=1)) as scep_door:
        long = [[["CN", f"{number:064}"]] for number in range(450)]
        request = csr.build(rsa_key(1), names.from_subject(long), challenge=CHALLENGE)
        fail_info, text = await refused(scep_door, pkcs_req(scep_door, content=request))
        assert (fail_info, text) == ("2", f"the request has {len(request)} bytes, more than 32768")
        damaged = request[:-1] + bytes((request[-1] ^ 1,))
        fail_info, text = await refused(scep_door, pkcs_req(scep_door, content=damaged))
        assert (fail_info, text) == ("1", UNREADABLE)  # as with a small one


async def test_a_transaction_id_with_another_key_never_gets_the_first_certificate() -> None:
    async with door() as scep_door:
        first = (await post(scep_door, pkcs_req(scep_door))).open(RSA)[0]
        wrong = request_for(2, challenge="wrong")
        reply = await post(scep_door, pkcs_req(scep_door, content=wrong))
        assert reply.fail_info == scep.FailInfo.BAD_REQUEST
        reply = await post(scep_door, pkcs_req(scep_door, content=request_for(2)))
        second = reply.open(RSA)[0]
        assert second.public_key() == rsa_key(2).public_key()
        assert second.serial_number != first.serial_number


async def test_a_request_sent_again_is_answered_to_its_new_signer() -> None:
    async with door(OneTimeChallenges({"once"})) as scep_door:
        content = request_for(1, challenge="once")
        first = (await post(scep_door, pkcs_req(scep_door, content=content))).open(RSA)
        with capture_logs() as lines:
            reply = await post(scep_door, pkcs_req(scep_door, content=content))
        assert reply.open(RSA) == first
        assert lines[0]["resent"] is True
        reply = await post(scep_door, pkcs_req(scep_door, content=content, transaction_id="T2"))
        assert reply.fail_info == scep.FailInfo.BAD_REQUEST


@pytest.mark.parametrize("challenge", ["wrong", None])
async def test_a_request_sent_again_without_its_challenge_gets_nothing(
    challenge: str | None,
) -> None:
    """The same transaction and key: whether it was served before is for the challenge to say."""
    async with door(OneTimeChallenges({"once"})) as scep_door:
        await post(scep_door, pkcs_req(scep_door, content=request_for(1, challenge="once")))
        again = request_for(1, challenge=challenge)
        reply = await post(scep_door, pkcs_req(scep_door, content=again))
        assert reply.fail_info == scep.FailInfo.BAD_REQUEST
        assert len(scep_door.challenges.issued_to) == 1


async def test_memory_of_transactions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.scep.transactions.MAX_REMEMBERED", 2)
    async with door() as scep_door:
        for transaction in ("A", "B", "C", "D"):
            await post(scep_door, pkcs_req(scep_door, transaction_id=transaction))
        assert len(scep_door.server._issuance.transactions) == 2
        assert scep_door.server._issuance._turns._turns == {}


async def test_the_served_chain_of_an_intermediate_leads_the_device_to_the_root() -> None:
    clock = SimulatedClock()
    root = CertificateAuthority.create("Root", clock=clock)
    async with door(clock=clock, parent=root) as scep_door:
        leaf, *chain = await scep_door.client().enroll(rsa_key(1), request_for(1))
        assert chain == [scep_door.ca.certificate]
        leaf.verify_directly_issued_by(chain[0])
        chain[0].verify_directly_issued_by(root.certificate)


def test_the_query_keeps_the_plus_and_the_first_of_each_name() -> None:
    assert raw_query("/scep?Operation=A&&message=a+b%2B%3D&message=c&x") == {
        "operation": "A",
        "message": "a+b+=",
        "x": "",
    }
    assert raw_query("/scep") == {}


def test_base64_in_the_query_is_read_leniently() -> None:
    data = bytes(range(250, 256)) + b"x"
    standard = base64.b64encode(data).decode()
    assert {"+", "/", "="} & set(standard)
    for text in (standard, standard.rstrip("="), standard.replace("+", " ") + "\r\n"):
        assert decode_get_message(text) == data
    assert decode_get_message(base64.urlsafe_b64encode(data).decode()) == data
