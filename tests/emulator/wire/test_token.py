"""Server token files: layouts byte for byte, openssl both ways, the genuine file, and whatever else may come (apple-services.md 5)."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import cms
from certs.errors import CannotDecrypt, MalformedMessage
from certs.identity import Identity
from certs.keys import PrivateKey
from emulator.apple.tokens import BUILT_IN, new_token, seal, unseal
from emulator.wire import token
from emulator.wire.token import ServerToken
from tests.emulator.apple.assignment_support import key_pair, pem
from tests.emulator.apple.support import pki
from tests.support import VECTORS, needs_vectors, openssl

EXPIRY = datetime(2027, 7, 1, 22, 18, 53, tzinfo=UTC)
TOKEN = ServerToken(
    consumer_key="CK_1",
    consumer_secret="CS_2",
    access_token="AT_3",
    access_secret="AS_4",
    access_token_expiry=EXPIRY,
)
LINE = (
    b'{"consumer_key":"CK_1","consumer_secret":"CS_2","access_token":"AT_3",'
    b'"access_secret":"AS_4","access_token_expiry":"2027-07-01T22:18:53Z"}'
)
tokens = st.builds(
    ServerToken,
    consumer_key=st.text(),
    consumer_secret=st.text(),
    access_token=st.text(),
    access_secret=st.text(),
    access_token_expiry=st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
)


@given(tokens)
@settings(max_examples=50)
def test_decoding_undoes_encoding(message: ServerToken) -> None:
    assert token.decode(token.encode(message)) == message
    assert token.decode_content(token.encode_content(message)) == message


@given(st.binary())
@settings(max_examples=100)
def test_whatever_the_bytes_only_a_malformed_message_comes_out(data: bytes) -> None:
    for decode in (token.decode, token.decode_content, token.decode_message):
        with contextlib.suppress(MalformedMessage):
            decode(data)


def test_the_encrypted_part_has_the_genuine_layout() -> None:
    assert token.encode_content(TOKEN) == (
        b"Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        b"-----BEGIN MESSAGE-----\n" + LINE + b"\n-----END MESSAGE-----\n"
    )


def test_the_file_has_the_genuine_header_lines_and_line_ends() -> None:
    data = token.encode_message(b"\x30" + bytes(200))
    assert data.startswith(
        b'Content-Type: application/pkcs7-mime; name="smime.p7m"; smime-type=enveloped-data\n'
        b"Content-Transfer-Encoding: base64\n"
        b'Content-Disposition: attachment; filename="smime.p7m"\n'
        b"Content-Description: S/MIME Encrypted Message\n\n"
    )
    lines = data.split(b"\n\n", 1)[1].split(b"\n")
    assert lines.pop() == b""
    assert {len(line) for line in lines[:-1]} == {76}
    assert b"\r" not in data
    assert token.decode_message(data) == b"\x30" + bytes(200)


def test_the_envelope_is_of_the_genuine_form() -> None:
    """BER with indefinite lengths, AES-128-CBC, one octet string, five ends."""
    envelope = token.decode_message(seal(TOKEN, key_pair().certificate))
    assert envelope.startswith(bytes.fromhex("3080 0609 2a864886f70d010703 a080 3080 020100 3182"))
    assert envelope.endswith(bytes(10))
    assert bytes.fromhex("0609 2a864886f70d010701 301d 0609 608648016503040102 0410") in envelope
    assert cms.cipher_of(envelope) == "aes128"


@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3"])
@pytest.mark.parametrize("lengths", ["indefinite", "definite"])
def test_every_form_opens_again(cipher: str, lengths: str) -> None:
    data = seal(TOKEN, key_pair().certificate, cipher=cipher, lengths=lengths)  # type: ignore[arg-type]
    assert unseal(data, key_pair()) == TOKEN


@pytest.mark.peer
@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3"])
@pytest.mark.parametrize("lengths", ["indefinite", "definite"])
@pytest.mark.parametrize("command", ["cms", "smime"])
def test_openssl_opens_ours(tmp_path: Path, cipher: str, lengths: str, command: str) -> None:
    (tmp_path / "pair.pem").write_bytes(key_pair().to_pem())
    data = seal(TOKEN, key_pair().certificate, cipher=cipher, lengths=lengths)  # type: ignore[arg-type]
    inner = openssl(command, "-decrypt", "-inkey", str(tmp_path / "pair.pem"), stdin=data)
    assert token.decode_content(inner) == TOKEN


@pytest.mark.peer
@pytest.mark.parametrize("command", ["cms", "smime"])
@pytest.mark.parametrize("cipher", ["-aes128", "-aes256", "-des3"])
@pytest.mark.parametrize("form", [[], ["-stream"], ["-outform", "DER"]])
def test_we_open_what_openssl_makes(
    tmp_path: Path, command: str, cipher: str, form: list[str]
) -> None:
    (tmp_path / "certificate.pem").write_text(pem(key_pair().certificate))
    data = openssl(
        command,
        "-encrypt",
        "-binary",
        cipher,
        *form,
        str(tmp_path / "certificate.pem"),
        stdin=token.encode_content(TOKEN),
    )
    assert unseal(data, key_pair()) == TOKEN


@needs_vectors
@pytest.mark.vectors
def test_a_genuine_token_file_opens() -> None:
    """Published by its owner, expired in January 2026; its tokens are never shown to anybody."""
    folder = VECTORS / "dep"
    key = serialization.load_pem_private_key((folder / "petarov-dep.pem").read_bytes(), None)
    assert isinstance(key, PrivateKey)
    certificate = x509.load_pem_x509_certificate((folder / "petarov-dep.crt").read_bytes())
    data = (folder / "petarov-dep-server-token.p7m").read_bytes()
    opened = unseal(data, Identity(key, certificate))
    assert opened.consumer_key.startswith("CK_75b2eb")
    assert opened.access_token_expiry == datetime(2026, 1, 17, 11, 2, 21, tzinfo=UTC)
    inner = cms.decrypt(token.decode_message(data), Identity(key, certificate))
    assert token.encode_content(opened) == inner  # ours has the same bytes
    assert token.encode_message(token.decode_message(data)) == data
    assert {len(data), len(seal(opened, certificate))} == {len(data)}


@needs_vectors
@pytest.mark.vectors
def test_published_credentials_are_read() -> None:
    content = json.loads((VECTORS / "dep" / "nanodep-tokens-L752.json").read_text())
    read = ServerToken.from_fields(content)
    assert f"{read.access_token_expiry:%FT%TZ}" == content["access_token_expiry"]


def test_another_key_opens_nothing() -> None:

    stranger = pki().device_ca.identity
    with pytest.raises(CannotDecrypt):
        unseal(seal(TOKEN, key_pair().certificate), stranger)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (LINE, "header block"),
        (b"-----BEGIN MESSAGE-----\n" + LINE + b"\n-----END MESSAGE-----\n", "header block"),
        (b"A: b\n\n" + LINE, "BEGIN MESSAGE"),
        (b"A: b\n\n-----BEGIN MESSAGE-----\n" + LINE, "END MESSAGE"),
        (b"A: b\n\n-----BEGIN MESSAGE-----\n{}\n-----END MESSAGE-----", "consumer_key"),
    ],
)
def test_a_part_without_its_layers_is_malformed(content: bytes, mistake: str) -> None:
    with pytest.raises(MalformedMessage, match=mistake):
        token.decode_content(content)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_json_over_several_lines_and_other_line_ends_are_read(line_end: bytes) -> None:
    lines = [b"A: b", b"", b"-----BEGIN MESSAGE-----", *LINE.replace(b",", b",\n").split(b"\n")]
    content = line_end.join([*lines, b"-----END MESSAGE-----", b""])
    assert token.decode_content(content) == TOKEN


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2027-07-01T22:18:53", "0001-01-01T00:00:00+14:00"]
)
def test_an_expiry_that_is_no_time_is_malformed(text: str) -> None:
    fields = {**TOKEN.to_fields(), "access_token_expiry": text}
    with pytest.raises(MalformedMessage, match="access_token_expiry"):
        ServerToken.from_fields(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Content-Type: text/plain\n\nMIAG",
        b"MIME-Version: 1.0\n\n",
        b"Content-Type: application/pkcs7-mime\n\n????",
        b"Content-Type: application/pkcs7-mime\n\n",
        b"0" * (token.MAX_FILE_BYTES + 1),
    ],
)
def test_a_file_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="token file"):
        token.decode_message(data)


def test_new_credentials_have_the_genuine_shapes() -> None:
    made = new_token(datetime(2028, 2, 29, 12, tzinfo=UTC))
    assert made.consumer_key.startswith("CK_")
    assert len(made.consumer_key) == 3 + 96
    assert len(made.consumer_secret) == len(made.access_secret) == 3 + 40
    parts = made.access_token.removeprefix("AT_O").split("O")
    assert [len(part) for part in parts] == [10, 40, 13]
    assert made.access_token_expiry == datetime(2029, 2, 28, 12, tzinfo=UTC)
    assert new_token(EXPIRY, "CK_kept").consumer_key == "CK_kept"


def test_no_secret_is_printed() -> None:
    for message in (TOKEN, BUILT_IN):
        assert message.consumer_secret not in repr(message)
        assert message.access_secret not in repr(message)
