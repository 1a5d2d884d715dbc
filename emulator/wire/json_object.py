"""JSON objects from and to bytes, with base64 members and certificates, for the services that speak JSON."""

import base64
import binascii
import json
import math
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import MalformedMessage
from emulator.config import MAX_BODY_BYTES
from emulator.wire.fields import Fields, kind_of, required, required_list

_WHITESPACE: Final = str.maketrans("", "", " \t\r\n")


def loads(data: bytes, field: str) -> Fields:
    """Read a JSON object in UTF-8. Raises MalformedMessage, whatever the bytes."""
    if len(data) > MAX_BODY_BYTES:
        raise MalformedMessage(field, f"at most {MAX_BODY_BYTES} bytes", f"{len(data)} bytes")
    try:
        value = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(field, "a JSON object", str(error)) from error
    if not isinstance(value, dict):
        raise MalformedMessage(field, "a JSON object", kind_of(value))
    return value


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is beyond every number that a peer can hold")
    return value


def dumps(fields: Fields) -> bytes:
    """Compact JSON in UTF-8, keys in the order given."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def text_of(data: bytes) -> str:
    """Standard base64, padded, one line."""
    return base64.b64encode(data).decode("ascii")


def bytes_of(text: str, field: str) -> bytes:
    """Decode standard base64; line breaks are tolerated, anything else outside the alphabet is not. Raises MalformedMessage."""
    try:
        return base64.b64decode(text.translate(_WHITESPACE), validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedMessage(field, "base64", str(error)) from error


def required_bytes(fields: Fields, key: str, where: str = "") -> bytes:
    """The bytes of the base64 member `key`."""
    return bytes_of(required(fields, key, str, where), where + key)


def certificate_of(text: str, field: str) -> x509.Certificate:
    """A certificate from base64 DER. Raises MalformedMessage."""
    der = bytes_of(text, field)
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedMessage(field, "a certificate in DER", str(error)) from error


def required_certificate(fields: Fields, key: str, where: str = "") -> x509.Certificate:
    """The certificate in the base64 DER member `key`."""
    return certificate_of(required(fields, key, str, where), where + key)


def certificate_text(certificate: x509.Certificate) -> str:
    """Base64 DER."""
    return text_of(certificate.public_bytes(Encoding.DER))


def certificates(fields: Fields, key: str, where: str = "") -> tuple[x509.Certificate, ...]:
    """The certificates of the array `key`; none when it is absent."""
    if key not in fields:
        return ()
    return tuple(
        certificate_of(text, f"{where}{key}[{index}]")
        for index, text in enumerate(required_list(fields, key, str, where))
    )


def certificate_texts(items: Iterable[x509.Certificate]) -> list[str]:
    """Base64 DER of each."""
    return [certificate_text(item) for item in items]
