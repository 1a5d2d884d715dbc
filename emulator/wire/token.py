"""The server token of the device assignment API: five credentials, and the .p7m file around them (apple-services.md 5).

Three layers, each with its two directions: the credentials as JSON, the MIME part that is encrypted, and the S/MIME message
around the CMS envelope. Encrypting and opening is the caller's (`certs.cms_enveloped`).
"""

import base64
import binascii
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.fields import Fields, required

MAX_FILE_BYTES: Final = 256 * 1024
CONTENT_TYPE: Final = "application/pkcs7-mime"
BEGIN: Final = b"-----BEGIN MESSAGE-----"
END: Final = b"-----END MESSAGE-----"
LINE: Final = 76  # characters of base64

# In this order: one client starts to skip headers only at Content-Type (5.2).
_OUTER: Final = (
    b'Content-Type: application/pkcs7-mime; name="smime.p7m"; smime-type=enveloped-data\n'
    b"Content-Transfer-Encoding: base64\n"
    b'Content-Disposition: attachment; filename="smime.p7m"\n'
    b"Content-Description: S/MIME Encrypted Message\n\n"
)
_INNER: Final = b"Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToken:
    """What an MDM server signs its requests for a session with."""

    consumer_key: str
    consumer_secret: str = field(repr=False)
    access_token: str
    access_secret: str = field(repr=False)
    access_token_expiry: datetime  # whole seconds, UTC

    def to_fields(self) -> Fields:
        return {
            "consumer_key": self.consumer_key,
            "consumer_secret": self.consumer_secret,
            "access_token": self.access_token,
            "access_secret": self.access_secret,
            "access_token_expiry": f"{self.access_token_expiry:%Y-%m-%dT%H:%M:%SZ}",
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            consumer_key=required(fields, "consumer_key", str),
            consumer_secret=required(fields, "consumer_secret", str),
            access_token=required(fields, "access_token", str),
            access_secret=required(fields, "access_secret", str),
            access_token_expiry=_moment(required(fields, "access_token_expiry", str)),
        )


def encode(token: ServerToken) -> bytes:
    """JSON on one line without spaces, as it stands in a token file."""
    return json_object.dumps(token.to_fields())


def decode(data: bytes) -> ServerToken:
    """Raises MalformedMessage."""
    return ServerToken.from_fields(json_object.loads(data, "server token"))


def encode_content(token: ServerToken) -> bytes:
    """The MIME part that goes into the envelope: header block, blank line, then each marker on a line of its own (5.3)."""
    return b"".join((_INNER, BEGIN, b"\n", encode(token), b"\n", END, b"\n"))


def decode_content(data: bytes) -> ServerToken:
    """The credentials in a decrypted MIME part. Raises MalformedMessage."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    try:
        header = lines.index(b"")
        begin = lines.index(BEGIN, header)
        end = lines.index(END, begin)
    except ValueError:
        raise MalformedMessage(
            "server token", "a header block, then BEGIN MESSAGE and END MESSAGE"
        ) from None
    return decode(b"".join(lines[begin + 1 : end]))


def encode_message(envelope: bytes) -> bytes:
    """The .p7m file around a CMS envelope: four header lines, blank line, base64, LF throughout (5.2)."""
    text = base64.b64encode(envelope)
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    return b"".join((_OUTER, b"\n".join(lines), b"\n"))


def decode_message(data: bytes) -> bytes:
    """The CMS envelope of a .p7m file, whoever wrote its headers; bare DER or BER is taken as it is.

    Raises MalformedMessage.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MalformedMessage("token file", f"at most {MAX_FILE_BYTES} bytes", len(data))
    if data[:1] == b"\x30":
        return data
    message = message_from_bytes(data)
    if message.get_content_type() not in (CONTENT_TYPE, "application/x-pkcs7-mime"):
        raise MalformedMessage("token file", f"a message of type {CONTENT_TYPE}")
    text = message.get_payload()
    if not isinstance(text, str):
        raise MalformedMessage("token file", "one part")
    try:
        envelope = base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedMessage("token file", "base64", str(error)) from error
    if not envelope:
        raise MalformedMessage("token file", "a CMS envelope", "nothing")
    return envelope


def _moment(text: str) -> datetime:
    """RFC 3339."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedMessage("access_token_expiry", "an RFC 3339 time", text) from None
    if moment.tzinfo is None:
        raise MalformedMessage("access_token_expiry", "a time with its zone", text)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise MalformedMessage("access_token_expiry", "a time of our era", text) from None
