"""SCEP messages: round trips, captured ones, and the openssl command as witness."""

from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import cms, csr, der, names
from certs.algorithms import Cipher
from certs.errors import CannotDecrypt, CertsError, InvalidSignature, MalformedMessage
from certs.identity import Identity
from certs.scep import message as scep
from certs.scep.capabilities import ADVERTISED, LEGACY, Capabilities, InsufficientCapabilities
from certs.scep.client import transaction_id
from certs.scep.message import CertRep, PkiRequest, PkiStatus
from tests.certs.test_cms_signed import RSA, self_signed
from tests.support import VECTORS, needs_vectors, openssl, rsa_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RA = self_signed(rsa_key(2), "ra")
REQUEST = csr.build(rsa_key(1), names.from_subject([[["CN", "dev"]]]), challenge="s3cret")
CIPHERS: tuple[Cipher, ...] = get_args(Cipher)
DIGESTS = ("sha1", "sha256", "sha384", "sha512")


def pkcs_req(
    *,
    content: bytes = REQUEST,
    transaction: str = "A1",
    nonce: bytes = bytes(16),
    cipher: Cipher = "aes128",
    digest: str = "sha256",
) -> bytes:
    return scep.encode_request(
        content,
        message_type="19",
        transaction_id=transaction,
        sender_nonce=nonce,
        signer=RSA,
        recipients=[RA.certificate],
        cipher=cipher,
        digest=digest,
        signing_time=NOW,
    )


def success(cipher: Cipher = "aes128", digest: str = "sha256") -> bytes:
    return scep.encode_success(
        RSA.certificate,
        RSA.certificate,
        transaction_id="A1",
        sender_nonce=b"s" * 16,
        recipient_nonce=b"r" * 16,
        signer=RA,
        cipher=cipher,
        digest=digest,
        signing_time=NOW,
    )


@given(
    st.text(st.characters(max_codepoint=255), min_size=1, max_size=100),
    st.binary(min_size=1, max_size=64),
    st.sampled_from(CIPHERS),
    st.sampled_from(DIGESTS),
)
@settings(max_examples=20, deadline=None)
def test_a_request_comes_back(transaction: str, nonce: bytes, cipher: Cipher, digest: str) -> None:
    request = PkiRequest.decode(
        pkcs_req(transaction=transaction, nonce=nonce, cipher=cipher, digest=digest)
    )
    assert request.message_type == scep.MessageType.PKCS_REQ
    assert (request.transaction_id, request.sender_nonce) == (transaction, nonce)
    assert (request.cipher, request.digest, request.signing_time) == (cipher, digest, NOW)
    assert request.verify() == RSA.certificate
    assert request.open(RA) == REQUEST


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("digest", DIGESTS)
def test_a_success_comes_back(cipher: Cipher, digest: str) -> None:
    reply = CertRep.decode(success(cipher, digest))
    assert reply.status is PkiStatus.SUCCESS
    assert (reply.sender_nonce, reply.recipient_nonce) == (b"s" * 16, b"r" * 16)
    assert (reply.fail_info, reply.fail_info_text) == (None, "")
    assert reply.verify([]) == RA.certificate
    assert reply.open(RSA) == [RSA.certificate]


def test_a_failure_and_a_pending_come_back_with_empty_content() -> None:
    common = {"transaction_id": "A1", "sender_nonce": b"s", "recipient_nonce": b"r"}
    failure = CertRep.decode(scep.encode_failure("2", "nö", signer=RA, **common))  # type: ignore[arg-type]
    assert (failure.status, failure.fail_info, failure.fail_info_text) == ("2", "2", "nö")
    assert failure.signed.content == b""
    assert failure.verify([]) == RA.certificate
    pending = CertRep.decode(scep.encode_pending(signer=RA, **common))  # type: ignore[arg-type]
    assert (pending.status, pending.fail_info) == (PkiStatus.PENDING, None)
    assert pending.verify([]) == RA.certificate


def test_the_attributes_have_the_types_that_peers_expect() -> None:
    """certificates.md 1.4: strings are PrintableString, nonces OCTET STRING, each with one value."""
    failure = scep.encode_failure(
        "2", "no", transaction_id="A1", sender_nonce=b"s", recipient_nonce=b"r", signer=RA,
        signing_time=NOW,
    )  # fmt: skip
    for data, extra in (
        (pkcs_req(), {}),
        (failure, {scep.FAIL_INFO: 0x13, scep.FAIL_INFO_TEXT: 0x0C}),
    ):
        info = asn1_cms.ContentInfo.load(data, strict=True)["content"]["signer_infos"][0]
        tags = {}
        for attribute in info["signed_attrs"]:
            (value,) = attribute["values"]
            tags[attribute["type"].dotted] = value.dump()[0]
        expected = {
            scep.MESSAGE_TYPE: 0x13,
            scep.TRANSACTION_ID: 0x13,
            scep.SENDER_NONCE: 0x04,
            "1.2.840.113549.1.9.3": 0x06,
            "1.2.840.113549.1.9.4": 0x04,
            "1.2.840.113549.1.9.5": 0x17,
            **extra,
        }
        if extra:
            expected |= {scep.PKI_STATUS: 0x13, scep.RECIPIENT_NONCE: 0x04}
        assert tags == expected
        assert info["signature_algorithm"]["algorithm"].native == "rsassa_pkcs1v15"
        assert info["version"].native == "v1"


@pytest.mark.peer
@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3"])
def test_openssl_opens_a_request_layer_by_layer(cipher: Cipher, tmp_path: Path) -> None:
    ra = tmp_path / "ra.pem"
    ra.write_bytes(RA.to_pem())
    envelope = openssl(
        "cms", "-verify", "-inform", "DER", "-noverify", "-binary", stdin=pkcs_req(cipher=cipher)
    )
    decrypted = openssl(
        "cms", "-decrypt", "-inform", "DER", "-binary", "-recip", str(ra), "-inkey", str(ra),
        stdin=envelope,
    )  # fmt: skip
    assert decrypted == REQUEST
    openssl("req", "-inform", "DER", "-verify", "-noout", stdin=decrypted)


@pytest.mark.peer
@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3"])
def test_openssl_opens_an_answer_layer_by_layer(cipher: Cipher, tmp_path: Path) -> None:
    device, anchor = tmp_path / "device.pem", tmp_path / "anchor.pem"
    device.write_bytes(RSA.to_pem())
    anchor.write_bytes(RA.certificate.public_bytes(serialization.Encoding.PEM))
    envelope = openssl(
        "cms", "-verify", "-inform", "DER", "-binary", "-CAfile", str(anchor), "-purpose", "any",
        stdin=success(cipher),
    )  # fmt: skip
    certificates = openssl(
        "cms", "-decrypt", "-inform", "DER", "-binary", "-recip", str(device), "-inkey", str(device),
        stdin=envelope,
    )  # fmt: skip
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", stdin=certificates)
    assert b"subject=CN = rsa" in printed


def test_a_truncated_request_is_malformed_at_each_byte() -> None:
    data = pkcs_req()
    for end in range(len(data)):
        with pytest.raises(MalformedMessage):
            PkiRequest.decode(data[:end])


def test_a_truncated_answer_is_malformed_at_each_byte() -> None:
    data = success()
    for end in range(len(data)):
        with pytest.raises(MalformedMessage):
            CertRep.decode(data[:end])


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=2))
@settings(max_examples=200, deadline=None)
def test_a_damaged_answer_raises_only_documented_errors(position: int, new: bytes) -> None:
    data = success()
    position %= len(data)
    try:
        reply = CertRep.decode(data[:position] + new + data[position + len(new) :])
        reply.verify([])
        reply.open(RSA)
    except (MalformedMessage, InvalidSignature, CannotDecrypt):
        return


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([], "messageType"),
        ([(scep.MESSAGE_TYPE, der.printable("19"))], "transactionID"),
        ([(scep.MESSAGE_TYPE, der.integer(19))], "messageType: expected text"),
        (
            [(scep.MESSAGE_TYPE, der.printable("19")), (scep.TRANSACTION_ID, der.printable("A"))],
            "senderNonce",
        ),
        (
            [
                (scep.MESSAGE_TYPE, der.printable("19")),
                (scep.TRANSACTION_ID, der.printable("A" * 256)),
            ],
            "transactionID: expected text of at most 255",
        ),
        *(
            (
                [
                    (scep.MESSAGE_TYPE, der.printable("19")),
                    (scep.TRANSACTION_ID, der.printable("A")),
                    (scep.SENDER_NONCE, nonce),
                ],
                "senderNonce",
            )
            for nonce in (der.octet_string(b""), der.octet_string(bytes(65)), der.printable("x"))
        ),
    ],
)
def test_a_request_that_lacks_an_attribute_names_it(
    attributes: list[tuple[str, bytes]], expected: str
) -> None:
    with pytest.raises(MalformedMessage, match=expected):
        PkiRequest.decode(cms.sign(b"", RSA, extra_attributes=attributes))


def test_a_request_without_signed_attributes_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="signed attributes"):
        PkiRequest.decode(cms.sign(b"", RSA, signed_attributes=False))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([(scep.MESSAGE_TYPE, der.printable("19"))], r"3 \(CertRep\), got '19'"),
        ([(scep.MESSAGE_TYPE, der.printable("3"))], "pkiStatus: expected 0, 2 or 3"),
        (
            [(scep.MESSAGE_TYPE, der.printable("3")), (scep.PKI_STATUS, der.printable("1"))],
            "pkiStatus: expected 0, 2 or 3, got '1'",
        ),
        (
            [(scep.MESSAGE_TYPE, der.printable("3")), (scep.PKI_STATUS, der.printable("0"))],
            "transactionID",
        ),
    ],
)
def test_an_answer_that_lacks_an_attribute_names_it(
    attributes: list[tuple[str, bytes]], expected: str
) -> None:
    with pytest.raises(MalformedMessage, match=expected):
        CertRep.decode(cms.sign(b"", RA, extra_attributes=attributes))


@pytest.mark.parametrize(
    ("body", "keywords"),
    [
        (b"AES\nSHA-1\n", ("AES", "SHA-1")),
        (b"AES\r\nSHA-1", ("AES", "SHA-1")),
        (b"\n AES \r\n\r\nNew-Word\nAES\n", ("AES", "New-Word")),
        (b"", ()),
        (b"\xff\xfe", ("ÿþ",)),
    ],
)
def test_capabilities_are_read_in_every_layout(body: bytes, keywords: tuple[str, ...]) -> None:
    assert Capabilities.parse(body).keywords == keywords


def test_capabilities_are_compared_as_whole_words() -> None:
    assert not Capabilities.parse(b"XAES\nSHA-1024").supports("AES")
    with pytest.raises(InsufficientCapabilities):
        Capabilities.parse(b"SHA-1024").digest()


@pytest.mark.parametrize(
    ("keywords", "cipher", "digest", "post"),
    [
        (ADVERTISED.keywords, "aes128", "sha256", True),
        (LEGACY.keywords, "des3", "sha1", False),
        (("SCEPStandard",), "aes128", "sha256", True),
        (("DES3", "AES", "SHA-512", "SHA-1"), "aes128", "sha512", False),
        (("Renewal", "SHA-1", "SHA-256", "DES3", "POSTPKIOperation"), "des3", "sha256", True),
    ],
)
def test_the_best_advertised_is_chosen(
    keywords: tuple[str, ...], cipher: str, digest: str, post: bool
) -> None:
    capabilities = Capabilities.parse(Capabilities(keywords).encode())
    assert (capabilities.cipher(), capabilities.digest(), capabilities.post) == (
        cipher,
        digest,
        post,
    )


def vector(name: str) -> bytes:
    return (VECTORS / "scep" / name).read_bytes()


def own_rsa(data: bytes) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(data, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@pytest.fixture
def etcd_ca() -> Identity:
    """The CA of the captured Apple request; its key has an empty password, which only openssl takes."""
    key = openssl("rsa", "-passin", "pass:", stdin=vector("micromdm-testca-ca.key"))
    return Identity(own_rsa(key), x509.load_pem_x509_certificate(vector("micromdm-testca-ca.crt")))


@pytest.mark.vectors
@needs_vectors
def test_the_captured_request_of_an_apple_client_matches_its_facts(etcd_ca: Identity) -> None:
    request = PkiRequest.decode(vector("micromdm-PKCSReq.der"))
    assert request.message_type == "19"
    assert request.transaction_id == "A13090761A30F66664F85D37433D2065E1112BA1"
    assert request.sender_nonce == bytes.fromhex("ae7fe8816cc6bedd")
    assert (request.digest, request.cipher) == ("sha1", "des3")
    signer = request.verify()
    assert names.text(signer.subject) == "CN=MDM SCEP SIGNER,C=US"
    assert signer.serial_number == 1
    plaintext = request.open(etcd_ca)
    assert len(plaintext) == 428
    wanted = csr.decode(plaintext)
    assert wanted.common_name == "com.apple.security.scep.063D7953-1338-4BF0-8F99-913382996224"
    assert wanted.challenge_password is None
    assert wanted.key_usage == names.key_usage(1)
    assert isinstance(wanted.public_key, rsa.RSAPublicKey)
    assert wanted.public_key.key_size == 1024
    assert transaction_id(wanted.public_key) == request.transaction_id


@pytest.mark.vectors
@needs_vectors
@pytest.mark.filterwarnings("ignore:Attribute's length must be")  # its country is USA
def test_the_captured_answer_matches_its_facts(etcd_ca: Identity) -> None:
    reply = CertRep.decode(vector("smallstep-CertRep.der"))
    assert reply.status is PkiStatus.SUCCESS
    assert reply.transaction_id == "A13090761A30F66664F85D37433D2065E1112BA1"
    assert reply.recipient_nonce == bytes.fromhex("ae7fe8816cc6bedd")
    assert reply.sender_nonce is None
    assert reply.verify([etcd_ca.certificate]) == etcd_ca.certificate
    assert reply.verify([]) == etcd_ca.certificate
    assert cms.cipher_of(reply.signed.content or b"") == "des"
    issued, authority = reply.signed.certificates
    assert names.common_name(issued.subject) == (
        "com.apple.security.scep.063D7953-1338-4BF0-8F99-913382996224"
    )
    assert authority == etcd_ca.certificate
    client = own_rsa(vector("smallstep-testclient-client.key"))
    assert issued.public_key() == client.public_key()
    with pytest.raises(CannotDecrypt):  # it is for the signer's key, which nobody published
        reply.open(Identity(client, issued))


@pytest.mark.vectors
@needs_vectors
def test_the_request_of_jscep_matches_its_facts() -> None:
    request = PkiRequest.decode(vector("jscep-req2.der"))
    assert request.message_type == "19"
    assert request.transaction_id == "7XXEY-ERLPU-2JDR9"
    assert request.sender_nonce == bytes.fromhex("e8c57d516909026f3463f8e907fc9856")
    assert (request.digest, request.cipher) == ("sha256", "aes128")
    assert request.verify().serial_number == 0x5CB8398F4C872739
    assert request.signed.content == vector("jscep-req1.der")
    with pytest.raises(CertsError):
        request.open(RA)


@pytest.mark.vectors
@needs_vectors
def test_the_authority_of_smallstep_can_be_a_recipient() -> None:
    key = serialization.load_pem_private_key(
        vector("smallstep-authority-intermediate.key"), b"pass"
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    certificate = x509.load_pem_x509_certificate(vector("smallstep-authority-intermediate.crt"))
    root = x509.load_pem_x509_certificate(vector("smallstep-authority-root.crt"))
    certificate.verify_directly_issued_by(root)
    data = cms.encrypt(b"x", [certificate], "des")
    assert cms.decrypt(data, Identity(key, certificate)) == b"x"
    client = x509.load_pem_x509_certificate(vector("smallstep-testclient-client.pem"))
    assert (
        cms.rsa_public_key(client)
        == own_rsa(vector("smallstep-testclient-client.key")).public_key()
    )
