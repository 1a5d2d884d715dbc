"""EnvelopedData: every cipher both ways with the openssl command, what peers bend, and one answer to all damage."""

import random
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher as Context
from cryptography.hazmat.primitives.ciphers import CipherAlgorithm
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
    pkcs7,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import algorithms, cms, der
from certs.algorithms import CIPHERS, Cipher, UnsupportedAlgorithm
from certs.errors import CannotDecrypt, MalformedMessage
from certs.identity import Identity
from tests.certs.test_cms_signed import EC, LENGTHS, RSA, SKI, self_signed
from tests.support import VECTORS, needs_vectors, openssl, rsa_key

OTHER = self_signed(rsa_key(2), "other")
NAMES: tuple[Cipher, ...] = get_args(Cipher)
ALL = pytest.mark.parametrize("cipher", NAMES)
OAEP = "1.2.840.113549.1.1.7"


def parts(data: bytes) -> list[der.Node]:
    """version, recipientInfos, encryptedContentInfo."""
    return der.read(data).children()[1].children()[0].children()


def by_hand(
    recipients: list[bytes], content_info: bytes, *, version: int = 0, before: bytes = b""
) -> bytes:
    return der.sequence(
        der.oid("1.2.840.113549.1.7.3"),
        der.context(
            0,
            der.sequence(der.integer(version), before, der.tlv(der.SET, *recipients), content_info),
        ),
    )


def with_content(data: bytes, content: bytes) -> bytes:
    """The same envelope with another encryptedContent element."""
    _, recipients, info = parts(data)
    fields = info.children()
    return by_hand(
        [node.raw for node in recipients.children()],
        der.sequence(fields[0].raw, fields[1].raw, content),
    )


def with_transport(
    data: bytes, algorithm: bytes, wrapped: bytes, *, rid: bytes | None = None
) -> bytes:
    info = parts(data)[2].raw
    rid = rid or cms.issuer_and_serial(RSA.certificate)
    recipient = der.sequence(der.integer(0), rid, algorithm, der.octet_string(wrapped))
    return by_hand([recipient], info)


def content_key(data: bytes) -> bytes:
    wrapped = parts(data)[1].children()[0].children()[3].content
    return rsa_key(1).decrypt(wrapped, padding.PKCS1v15())


@ALL
@given(content=st.binary(max_size=600))
@settings(max_examples=10, deadline=None)
def test_decrypting_undoes_encrypting(cipher: Cipher, content: bytes) -> None:
    data = cms.encrypt(content, [RSA.certificate], cipher)
    assert cms.decrypt(data + b"\n", RSA) == content
    assert cms.cipher_of(data) == cipher


@pytest.mark.parametrize("length", LENGTHS)
def test_each_length_boundary_is_read_by_us_and_by_cryptography(length: int) -> None:
    content = b"x" * length
    data = cms.encrypt(content, [RSA.certificate])
    assert cms.decrypt(data, RSA) == content
    assert pkcs7.pkcs7_decrypt_der(data, RSA.certificate, rsa_key(1), []) == content
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(content).add_recipient(RSA.certificate)
    theirs = builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    assert cms.decrypt(theirs, RSA) == content


LEGACY = ("-provider", "default", "-provider", "legacy")
OPENSSL_NAMES = {
    "aes128": "-aes128",
    "aes192": "-aes192",
    "aes256": "-aes256",
    "des3": "-des3",
    "des": "-des-cbc",
}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "identity.pem"
    path.write_bytes(RSA.to_pem())
    return path


@pytest.mark.peer
@ALL
def test_openssl_decrypts_what_we_encrypt(cipher: Cipher, pem: Path) -> None:
    for length in LENGTHS:
        content = b"x" * length
        data = cms.encrypt(content, [OTHER.certificate, RSA.certificate], cipher)
        arguments = ("-decrypt", "-inform", "DER", "-recip", str(pem), "-inkey", str(pem))
        assert openssl("cms", *LEGACY, *arguments, "-binary", stdin=data) == content


@pytest.mark.peer
@pytest.mark.parametrize(
    "form",
    [{"oaep": "sha1"}, {"oaep": "sha256"}, {"constructed": True}, {"ber": True}],
    ids=["oaep", "oaep-sha256", "constructed", "indefinite"],
)
def test_openssl_decrypts_each_form_of_ours(form: dict[str, Any], pem: Path) -> None:
    content = b"x" * 1000
    data = cms.encrypt(content, [OTHER.certificate, RSA.certificate], **form)
    arguments = ("-decrypt", "-inform", "DER", "-recip", str(pem), "-inkey", str(pem))
    assert openssl("cms", *LEGACY, *arguments, "-binary", stdin=data) == content
    assert cms.decrypt(data, RSA) == cms.decrypt(data, OTHER) == content


@pytest.mark.peer
@ALL
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-stream", "-indef"),
        ("-keyid",),
        ("-keyopt", "rsa_padding_mode:oaep"),
        ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"),
    ],
    ids=["plain", "indefinite", "keyid", "oaep", "oaep-sha256"],
)
def test_we_decrypt_what_openssl_encrypts(
    cipher: Cipher, options: tuple[str, ...], pem: Path
) -> None:
    content = b"y" * 5000
    data = openssl(
        "cms", *LEGACY, "-encrypt", "-binary", OPENSSL_NAMES[cipher], "-outform", "DER",
        "-recip", str(pem), *options, stdin=content,
    )  # fmt: skip
    assert cms.decrypt(data, RSA) == content
    assert cms.cipher_of(data) == cipher


def test_each_of_several_recipients_finds_its_own_key() -> None:
    data = cms.encrypt(b"x", [OTHER.certificate, RSA.certificate])
    assert cms.decrypt(data, RSA) == b"x"
    assert cms.decrypt(data, OTHER) == b"x"
    stranger = self_signed(rsa_key(3), "stranger")
    with pytest.raises(CannotDecrypt):
        cms.decrypt(data, stranger)


def test_constructed_content_is_joined_as_go_sends_it() -> None:
    data = cms.encrypt(b"x" * 100, [RSA.certificate])
    encrypted = parts(data)[2].children()[2].content
    pieces = der.octet_string(encrypted[:48]), der.octet_string(encrypted[48:])
    for content in (
        der.context(0, der.octet_string(encrypted)),
        der.context(0, *pieces),
        der.indefinite(0xA0, *pieces),
        der.indefinite(0xA0, der.indefinite(0x24, *pieces)),
    ):
        assert cms.decrypt(with_content(data, content), RSA) == b"x" * 100


def test_oaep_with_empty_parameters_is_opened_as_windows_sends_it() -> None:
    data = cms.encrypt(b"x", [RSA.certificate])
    sha1 = hashes.SHA1()
    wrapped = (
        rsa_key(1)
        .public_key()
        .encrypt(content_key(data), padding.OAEP(padding.MGF1(sha1), sha1, None))
    )
    for parameters in (der.sequence(), b"", der.null()):
        algorithm = der.sequence(der.oid(OAEP), parameters)
        assert cms.decrypt(with_transport(data, algorithm, wrapped), RSA) == b"x"


def test_oaep_with_a_label_and_other_digests_is_opened() -> None:
    """RFC 4055, section 4.1: digest, mask and pSourceAlgorithm, each with its tag."""
    data = cms.encrypt(b"x", [RSA.certificate])
    sha256, label = hashes.SHA256(), b"a label"
    scheme = padding.OAEP(padding.MGF1(sha256), sha256, label)
    wrapped = rsa_key(1).public_key().encrypt(content_key(data), scheme)
    digest = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null())
    mask = der.sequence(der.oid("1.2.840.113549.1.1.8"), digest)
    for named, opens in (label, True), (b"another", False):
        source = der.sequence(der.oid("1.2.840.113549.1.1.9"), der.octet_string(named))
        parameters = der.sequence(
            der.context(0, digest), der.context(1, mask), der.context(2, source)
        )
        envelope = with_transport(data, der.sequence(der.oid(OAEP), parameters), wrapped)
        if opens:
            assert cms.decrypt(envelope, RSA) == b"x"
        else:
            with pytest.raises(CannotDecrypt):
                cms.decrypt(envelope, RSA)


def test_a_recipient_named_by_key_identifier_is_found() -> None:
    data = cms.encrypt(b"x", [RSA.certificate])
    original = parts(data)[1].children()[0].children()
    rid = der.context(0, SKI, constructed=False)
    named = with_transport(data, original[2].raw, original[3].content, rid=rid)
    assert cms.decrypt(named, RSA) == b"x"


def test_other_kinds_of_recipient_and_an_originator_are_passed_over() -> None:
    data = cms.encrypt(b"x", [RSA.certificate])
    _, recipients, info = parts(data)
    others = [der.context(1, der.integer(3)), recipients.children()[0].raw]
    data = by_hand(others, info.raw, version=2, before=der.context(0, der.context(0)))
    assert cms.decrypt(data, RSA) == b"x"


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random key leaves a valid padding once in 256 times: here the randomness is the same in every run."""
    monkeypatch.setattr("certs.cms_enveloped.os.urandom", random.Random(1).randbytes)


@pytest.mark.usefixtures("repeatable")
def test_a_wrong_key_and_damage_end_alike() -> None:
    """Everything that depends on the private key ends in the same error with the same words."""
    data = cms.encrypt(b"x" * 40, [RSA.certificate])
    impostor = Identity(rsa_key(2), RSA.certificate)  # the right name, another key
    wrapped = parts(data)[1].children()[0].children()[3].content
    encrypted = parts(data)[2].children()[2].content
    algorithm = der.sequence(der.oid(algorithms.RSA_ENCRYPTION), der.null())
    short = rsa_key(1).public_key().encrypt(b"short", padding.PKCS1v15())
    wrong = rsa_key(1).public_key().encrypt(bytes(16), padding.PKCS1v15())
    errors = set()
    for envelope, identity in (
        (data, impostor),
        (with_transport(data, algorithm, wrapped[:-1]), RSA),
        (with_transport(data, algorithm, short), RSA),
        (with_transport(data, algorithm, wrong), RSA),
        (with_transport(data, algorithm, b""), RSA),
        (with_content(data, der.context(0, encrypted[:-1], constructed=False)), RSA),
        (with_content(data, der.context(0, encrypted[:16], constructed=False)), RSA),
        (with_content(data, der.context(0, b"", constructed=False)), RSA),
        (data, OTHER),
        (data, EC),
        (data, Identity(EC.key, RSA.certificate)),
        (data[:-1], RSA),
        (b"", RSA),
        (b"<html>", RSA),
    ):
        with pytest.raises(CannotDecrypt) as error:
            cms.decrypt(envelope, identity)
        errors.add((str(error.value), error.value.__cause__))
    assert errors == {("EnvelopedData: cannot decrypt", None)}


@pytest.mark.usefixtures("repeatable")
def test_a_key_that_does_not_come_out_is_replaced_and_decryption_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 3218: the steps are the same whether the key is good, of another length, or not there."""
    data = cms.encrypt(b"x", [RSA.certificate])
    algorithm = der.sequence(der.oid(algorithms.RSA_ENCRYPTION), der.null())
    lengths = []
    honest = algorithms.ContentCipher.new

    def watched(self: algorithms.ContentCipher, key: bytes) -> CipherAlgorithm:
        lengths.append(len(key))
        return honest(self, key)

    monkeypatch.setattr(algorithms.ContentCipher, "new", watched)
    for wrapped in (
        rsa_key(1).public_key().encrypt(b"short", padding.PKCS1v15()),
        rsa_key(1).public_key().encrypt(bytes(16), padding.PKCS1v15()),
        b"\0" * 256,
        b"not a ciphertext",
    ):
        with pytest.raises(CannotDecrypt):
            cms.decrypt(with_transport(data, algorithm, wrapped), RSA)
    assert lengths == [16] * 4


def test_a_bad_padding_is_not_a_plaintext() -> None:
    for tail in (b"\x00", b"\x11", b"\x02\x03\x02"):
        padded = b"x" * (16 - len(tail)) + tail
        data = cms.encrypt(b"", [RSA.certificate])
        iv = parts(data)[2].children()[1].children()[1].content
        context = Context(CIPHERS["aes128"].new(content_key(data)), CBC(iv)).encryptor()
        content = der.context(0, context.update(padded) + context.finalize(), constructed=False)
        with pytest.raises(CannotDecrypt):
            cms.decrypt(with_content(data, content), RSA)


def test_an_unknown_cipher_or_key_transport_is_told_apart() -> None:
    data = cms.encrypt(b"x", [RSA.certificate])
    gcm = data.replace(der.oid(CIPHERS["aes128"].oid), der.oid("2.16.840.1.101.3.4.1.6"))
    with pytest.raises(UnsupportedAlgorithm, match="DES, 3DES or AES"):
        cms.decrypt(gcm, RSA)
    assert cms.cipher_of(gcm) is None
    algorithm = der.sequence(der.oid("1.2.3.4"))
    with pytest.raises(UnsupportedAlgorithm, match="RSA key transport"):
        cms.decrypt(with_transport(data, algorithm, b""), RSA)


def test_encrypting_needs_an_rsa_key() -> None:
    with pytest.raises(MalformedMessage, match="an RSA key"):
        cms.encrypt(b"x", [EC.certificate])


def test_a_truncated_envelope_cannot_be_decrypted_at_each_byte() -> None:
    data = cms.encrypt(b"x" * 20, [RSA.certificate])
    for end in range(len(data)):
        with pytest.raises(CannotDecrypt):
            cms.decrypt(data[:end], RSA)
        assert cms.cipher_of(data[:end]) is None


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_damage_raises_only_documented_errors(position: int, new: bytes) -> None:
    data = cms.encrypt(b"x" * 20, [RSA.certificate])
    position %= len(data)
    damaged = data[:position] + new + data[position + len(new) :]
    try:
        cms.decrypt(damaged, RSA)
    except (CannotDecrypt, UnsupportedAlgorithm):
        return


@pytest.mark.vectors
@needs_vectors
@pytest.mark.parametrize(("name", "cipher"), [("3des", "des3"), ("rsapkcs1v15", "aes256")])
def test_the_envelopes_of_smallstep_match_their_facts(name: str, cipher: str) -> None:
    folder = VECTORS / "scep"
    key = load_pem_private_key((folder / f"pkcs7-enveloped-{name}.key.pem").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate(
        (folder / f"pkcs7-enveloped-{name}.cert.pem").read_bytes()
    )
    data = (folder / f"pkcs7-enveloped-{name}.der").read_bytes()
    assert cms.cipher_of(data) == cipher
    assert cms.decrypt(data, Identity(key, certificate)) == b"This is a test"  # type: ignore[arg-type]


@pytest.mark.vectors
@needs_vectors
def test_the_envelope_of_jscep_names_its_cipher() -> None:
    data = (VECTORS / "scep" / "jscep-req1.der").read_bytes()
    assert cms.cipher_of(data) == "aes128"
    with pytest.raises(CannotDecrypt):
        cms.decrypt(data, RSA)
