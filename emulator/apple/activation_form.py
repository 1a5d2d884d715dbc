"""The form of a deviceActivation request, however a device or a host tool sends it (apple-services.md 2.1)."""

from email import message_from_bytes
from email.message import Message
from typing import Final

from certs.errors import MalformedMessage
from emulator.wire import activation

MULTIPART: Final = "multipart/form-data"


def decode(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a multipart or urlencoded body. Raises MalformedMessage."""
    if content_type.partition(";")[0].strip().lower() != MULTIPART:
        return activation.decode_form(body)
    if any(ord(character) < 32 for character in content_type):
        raise MalformedMessage("Content-Type", "one line")
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    try:
        message = message_from_bytes(head + body)
    except RecursionError:  # parts within parts within parts
        raise MalformedMessage("form", "fields one after another") from None
    parts = message.get_payload()
    if not message.is_multipart() or not isinstance(parts, list):
        raise MalformedMessage("form", "multipart/form-data with its boundary")
    if len(parts) > activation.MAX_FORM_FIELDS:
        raise MalformedMessage("form", f"at most {activation.MAX_FORM_FIELDS} fields", len(parts))
    return dict(_field(part) for part in parts)


def _field(part: object) -> tuple[str, bytes]:
    if isinstance(part, Message) and not part.is_multipart():
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(value, bytes):
            return name, value
    raise MalformedMessage("form", "parts that are named fields")
