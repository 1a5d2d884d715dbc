"""Every fault by its name, at a real server or a real client: what it changes on the wire, and what it is answered with."""

import base64
from collections.abc import Callable
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import cms, csr, der, names
from certs.authorize import StaticChallenge
from certs.errors import MalformedMessage, ScepFailure, UnexpectedAnswer
from certs.faults import Action
from certs.keys import KeySpec, PrivateKey
from certs.scep.faults import DeviceFault, ServerFault
from certs.scep.message import MessageType, PkiRequest
from tests.certs.scep.support import CHALLENGE, CachedKeys, Door, door, request_for
from tests.certs.scep.test_enrollment import at
from tests.support import rsa_key

KEY = rsa_key(1)
LONG_KEY = rsa_key(90, 4096)
SHORT_KEY = rsa_key(91, 1024)
CHALLENGE_OID = csr.CHALLENGE_PASSWORD


class Keys(CachedKeys):
    """Keys of other sizes, too."""

    async def take(self, spec: KeySpec) -> PrivateKey:
        return SHORT_KEY if spec == "rsa1024" else await super().take(spec)


async def enroll(
    scep: Door, fault: DeviceFault, *, key: rsa.RSAPrivateKey = KEY, **arguments: object
) -> x509.Certificate:
    """One enrollment with this fault; the leaf."""
    action = Action(name=fault, arguments=arguments)
    client = scep.client(faults=at("pki_operation", action, side="device"), signer="same-key")
    client._keys = Keys()
    subject = names.from_subject([[["O", "Test"]], [["CN", "device 1"]]])
    wanted = request_for(1) if key is KEY else csr.build(key, subject, challenge=CHALLENGE)
    return (await client.enroll(key, wanted))[0]


def sent(scep: Door) -> PkiRequest:
    """The last pkiMessage that left."""
    method, url, _, body = scep.transport.sent[-1]
    if method == "GET":
        text = urlsplit(url).query.partition("message=")[2]
        body = base64.b64decode(unquote_to_bytes(text.replace("+", "%2B")))
    return PkiRequest.decode(body)


def inner(scep: Door) -> csr.CertificateRequest:
    return csr.decode(sent(scep).open(scep.ra))


def envelope(scep: Door) -> list[der.Node]:
    """EnvelopedData: version, recipientInfos, encryptedContentInfo."""
    content = der.read(sent(scep).signed.content or b"").children()[1]
    return content.children()[0].children()


def version(scep: Door) -> int:
    return der.read(inner(scep).der).children()[0].children()[0].as_int()


def attributes_of(scep: Door) -> list[bytes]:
    return [one.raw for one in der.read(inner(scep).der).children()[0].children()[3].children()]


def signed_attributes(scep: Door) -> dict[str, der.Node]:
    (signer,) = sent(scep).signed.signers
    return dict(signer.attributes or {})


def signer_of(scep: Door) -> x509.Certificate:
    return sent(scep).signed.certificates[0]


# What a server like ours accepts, and what is to be seen on the wire.
ACCEPTED: dict[DeviceFault, Callable[[Door], bool]] = {
    DeviceFault.CSR_VERSION_2: lambda scep: version(scep) == 2,
    DeviceFault.UNSORTED_ATTRIBUTES: lambda scep: (
        attributes_of(scep) != sorted(attributes_of(scep))
    ),
    DeviceFault.NON_ASCII_SUBJECT: lambda scep: "日本" in (inner(scep).common_name or ""),
    DeviceFault.TWO_RECIPIENTS: lambda scep: len(envelope(scep)[1].children()) == 2,
    DeviceFault.OAEP: lambda scep: (
        envelope(scep)[1].children()[0].children()[2].children()[0].as_oid()
        == "1.2.840.113549.1.1.7"
    ),
    DeviceFault.DES_ONLY: lambda scep: sent(scep).cipher == "des",
    DeviceFault.CONSTRUCTED_CONTENT: lambda scep: envelope(scep)[2].children()[2].tag == 0xA0,
    DeviceFault.ANOTHER_SIGNER: lambda scep: signer_of(scep).public_key() != inner(scep).public_key,
    DeviceFault.EXPIRED_SIGNER: lambda scep: signer_of(scep).not_valid_after_utc < scep.clock.now(),
    DeviceFault.SHORT_NONCE: lambda scep: len(sent(scep).sender_nonce or b"") == 8,
    DeviceFault.CHALLENGE_AS_ATTRIBUTE: lambda scep: (
        (node := signed_attributes(scep).get(CHALLENGE_OID)) is not None
        and node.as_text() == CHALLENGE
    ),
    DeviceFault.SHA1_ONLY: lambda scep: sent(scep).digest == "sha1",
    DeviceFault.INDEFINITE_LENGTHS: lambda scep: scep.transport.sent[-1][3][1] == 0x80,
    DeviceFault.BY_GET: lambda scep: scep.transport.sent[-1][0] == "GET",
    DeviceFault.BARE_PLUS: lambda scep: (
        scep.transport.sent[-1][0] == "GET" and "%" not in scep.transport.sent[-1][1]
    ),
    DeviceFault.DUPLICATE: lambda scep: (
        scep.transport.sent[-1] == scep.transport.sent[-2]
        and len(scep.transport.answers) == len(scep.transport.sent)
    ),
}
# What no server should accept, and the failInfo of RFC 8894, section 3.2.1.4.5.
REFUSED: dict[DeviceFault, tuple[str, str]] = {
    DeviceFault.WRONG_CHALLENGE: ("2", "challenge password is wrong"),
    DeviceFault.MISSING_CHALLENGE: ("2", "challenge password is wrong"),
    DeviceFault.SHORT_KEY: ("2", "2048"),
    DeviceFault.WRONG_RECIPIENT: ("1", "cannot be decrypted"),
    DeviceFault.UNKNOWN_POLL: ("4", "no request of this transactionID"),
}


@pytest.mark.parametrize("fault", ACCEPTED)
async def test_what_peers_send_all_the_same_is_accepted(fault: DeviceFault) -> None:
    async with door() as scep:
        leaf = await enroll(scep, fault)
        assert leaf.public_key() == KEY.public_key()
        assert ACCEPTED[fault](scep)
        # An honest one shows nothing of it.
        client = scep.client(signer="same-key")
        await client.enroll(rsa_key(2), request_for(2))
        assert not ACCEPTED[fault](scep)


@pytest.mark.parametrize("fault", REFUSED)
async def test_what_is_wrong_gets_its_one_fail_info(fault: DeviceFault) -> None:
    fail_info, words = REFUSED[fault]
    async with door() as scep:
        with pytest.raises(ScepFailure, match=words) as failure:
            await enroll(scep, fault)
        assert failure.value.fail_info == fail_info
        if fault is DeviceFault.UNKNOWN_POLL:
            assert sent(scep).message_type == MessageType.CERT_POLL
        leaf, *_ = await scep.client().enroll(KEY, request_for(1))  # and honestly it works
        assert leaf.public_key() == KEY.public_key()


async def test_base64_that_was_cut_is_an_http_400_and_no_pki_message() -> None:
    async with door() as scep:
        with pytest.raises(UnexpectedAnswer, match="400"):
            await enroll(scep, DeviceFault.TRUNCATED_BASE64)


def test_each_fault_of_the_device_is_shown_here() -> None:
    assert {*ACCEPTED, *REFUSED, DeviceFault.TRUNCATED_BASE64} == set(DeviceFault)


async def test_a_challenge_of_choice_may_be_sent() -> None:
    async with door(StaticChallenge("the other")) as scep:
        leaf = await enroll(scep, DeviceFault.WRONG_CHALLENGE, challenge="the other")
        assert leaf.public_key() == KEY.public_key()


async def test_oaep_with_sha256_is_accepted() -> None:
    async with door() as scep:
        leaf = await enroll(scep, DeviceFault.OAEP, digest="sha256")
        assert leaf.public_key() == KEY.public_key()
        (_, parameters) = envelope(scep)[1].children()[0].children()[2].children()
        assert len(parameters.children()) == 2


async def test_a_key_of_4096_bits_fits_into_a_get() -> None:
    async with door() as scep:
        leaf = await enroll(scep, DeviceFault.BY_GET, key=LONG_KEY)
        assert leaf.public_key() == LONG_KEY.public_key()
        method, url, _, _ = scep.transport.sent[-1]
        assert method == "GET"
        assert len(url) > 5000


# --- the server


async def served(
    step: str, fault: ServerFault, *, signer: str = "same-key", **arguments: object
) -> tuple[x509.Certificate, Door]:
    """One honest enrollment at a server with this fault."""
    action = Action(name=fault, arguments=arguments)
    async with door(faults=at(step, action, first=9)) as scep:
        leaf, *_ = await scep.client(signer=signer).enroll(KEY, request_for(1))
        return leaf, scep


@pytest.mark.parametrize("step", ["get_ca_caps", "get_ca_cert", "pki_operation"])
async def test_a_newline_after_the_message_is_passed_over(step: str) -> None:
    leaf, scep = await served(step, ServerFault.TRAILING_NEWLINE)
    assert leaf.public_key() == KEY.public_key()
    assert any(answer.body.endswith(b"\n") for answer in scep.transport.answers)


async def test_certs_only_with_one_certificate_is_read_by_its_content() -> None:
    leaf, scep = await served("get_ca_cert", ServerFault.CERTS_ONLY_OF_ONE)
    assert leaf.public_key() == KEY.public_key()
    answer = scep.transport.answers[0]
    assert answer.content_type == "application/x-x509-ca-cert"
    assert len(cms.decode_certs_only(answer.body)) == 1


async def test_an_answer_in_des_and_sha1_is_opened() -> None:
    leaf, scep = await served("pki_operation", ServerFault.DES_ANSWER)
    assert leaf.public_key() == KEY.public_key()
    reply = cms.decode_signed(scep.transport.answers[-1].body)
    assert cms.cipher_of(reply.content or b"") == "des"
    assert reply.signers[0].digest == "sha1"


async def test_equal_nonces_are_accepted() -> None:
    leaf, scep = await served("pki_operation", ServerFault.ECHOED_NONCE)
    assert leaf.public_key() == KEY.public_key()
    (signer,) = cms.decode_signed(scep.transport.answers[-1].body).signers
    attributes = dict(signer.attributes or {})
    sender, recipient = "2.16.840.1.113733.1.9.5", "2.16.840.1.113733.1.9.6"
    assert attributes[sender].octets() == attributes[recipient].octets()


async def test_a_leaf_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="certificate"):
        await served("pki_operation", ServerFault.FOREIGN_KEY_LEAF)


async def test_an_ra_that_may_not_decipher_is_not_encrypted_to() -> None:
    """The CA stands in where it can; ours is RSA here."""
    action = Action(name=ServerFault.RA_WITHOUT_KEY_ENCIPHERMENT)
    async with door(faults=at("get_ca_cert", action, first=9)) as scep:
        with pytest.raises(ScepFailure) as failure:
            await scep.client().enroll(KEY, request_for(1))
        # Encrypted to the CA, whose key the door does not have: the one answer to what cannot be opened.
        assert failure.value.fail_info == "1"
