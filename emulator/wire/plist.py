"""Property lists: bytes from any peer in, a dictionary out, and XML as devices write it.

`loads` is the one place that catches broadly. Whatever the bytes, it returns a dictionary that `dumps` can carry or raises
MalformedMessage, in bounded time and memory: XML with an internal DTD subset, deep nesting, too many values, binary files with
huge counts, shared-reference bombs and reference loops are refused.
"""

import base64
import plistlib
from datetime import UTC, datetime
from typing import Any, Final
from xml.sax.saxutils import escape

from certs.errors import MalformedMessage
from emulator.config import MAX_RESPONSE_BYTES
from emulator.wire import plist_xml
from emulator.wire.fields import (
    Fields,
    kind_of,
    optional,
    optional_list,
    present,
    required,
    required_list,
)
from emulator.wire.plist_xml import MAX_DEPTH, MAX_VALUES, is_text

__all__ = [
    "Fields",
    "dumps",
    "loads",
    "optional",
    "optional_list",
    "present",
    "required",
    "required_list",
]

HEADER: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
    '<plist version="1.0">\n'
)
LINE_COLUMNS: Final = 76  # of base64 text, a tab counting eight


def loads(data: bytes, field: str = "property list") -> Fields:
    """Read an XML or binary property list whose root is a dictionary; dates come as aware UTC. Raises MalformedMessage."""
    if len(data) > MAX_RESPONSE_BYTES:
        raise MalformedMessage(field, f"at most {MAX_RESPONSE_BYTES} bytes", f"{len(data)} bytes")
    try:
        if data.startswith(b"bplist"):
            root = _Expansion(field, len(data)).of(plistlib.loads(data, fmt=plistlib.FMT_BINARY))
        else:
            root = plist_xml.parse(data, field)
    except MalformedMessage:
        raise
    except (
        Exception
    ) as error:  # plistlib and expat let half a dozen kinds escape from damaged input
        raise MalformedMessage(field, "an XML or binary property list", str(error)) from error
    if not isinstance(root, dict):
        raise MalformedMessage(field, "a dictionary at the root", kind_of(root))
    return root


class _Expansion:
    """A binary plist written out as a tree: bounded, without loops, and only of values that XML can carry."""

    def __init__(self, field: str, size: int) -> None:
        self._field = field
        # Each reference costs a byte; only shared containers can make more values than bytes.
        self._values_left = min(MAX_VALUES, 16 * size)
        self._bytes_left = MAX_RESPONSE_BYTES  # of text and data, counted at each reference to it

    def of(self, value: Any, depth: int = 0) -> Any:
        self._values_left -= 1
        if isinstance(value, str | bytes):
            self._bytes_left -= len(value)
            if self._bytes_left < 0:
                raise MalformedMessage(self._field, f"at most {MAX_RESPONSE_BYTES} bytes", "more")
        if self._values_left < 0 or depth > MAX_DEPTH:
            raise MalformedMessage(
                self._field, f"at most {MAX_VALUES} values and {MAX_DEPTH} levels", "more"
            )
        match value:
            case dict():
                return {
                    self._key(self.of(key, depth + 1)): self.of(item, depth + 1)
                    for key, item in value.items()
                }
            case list():
                return [self.of(item, depth + 1) for item in value]
            case plistlib.UID():
                return {"CF$UID": value.data}  # how plutil writes a UID in XML
            case str() if not is_text(value):
                raise MalformedMessage(self._field, "text without control characters")
            case datetime():
                return value.replace(tzinfo=UTC)
            case bool() | int() if not plist_xml.in_range(value):
                raise MalformedMessage(self._field, "an integer of 64 bits")
            case str() | bytes() | bool() | int() | float():
                return value
        raise MalformedMessage(self._field, "values of a property list", kind_of(value))

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise MalformedMessage(self._field, "dictionary keys that are text", kind_of(key))
        return key


def dumps(fields: Fields) -> bytes:
    """XML with sorted keys and tabs, as devices send it.

    Raises TypeError, ValueError or OverflowError for a value that no property list carries: that is our own mistake.
    """
    lines: list[str] = []
    _write(fields, "", lines)
    return f"{HEADER}{''.join(lines)}</plist>\n".encode()


def _write(value: Any, indent: str, lines: list[str]) -> None:
    match value:
        case str():
            lines.append(f"{indent}<string>{_text(value)}</string>\n")
        case bool():
            lines.append(f"{indent}<true/>\n" if value else f"{indent}<false/>\n")
        case int():
            if not plist_xml.in_range(value):
                raise OverflowError("a property list carries integers of 64 bits")
            lines.append(f"{indent}<integer>{value:d}</integer>\n")
        case dict():
            _write_dictionary(value, indent, lines)
        case list() | tuple():
            if not value:
                lines.append(f"{indent}<array/>\n")
                return
            lines.append(f"{indent}<array>\n")
            for item in value:
                _write(item, indent + "\t", lines)
            lines.append(f"{indent}</array>\n")
        case bytes() | bytearray():
            _write_data(bytes(value), indent, lines)
        case float():
            lines.append(f"{indent}<real>{value!r}</real>\n")
        case datetime():
            moment = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None)
            lines.append(f"{indent}<date>{moment.isoformat(timespec='seconds')}Z</date>\n")
        case _:
            raise TypeError(f"a property list cannot carry {type(value).__name__}")


def _write_dictionary(value: dict[str, Any], indent: str, lines: list[str]) -> None:
    if not value:
        lines.append(f"{indent}<dict/>\n")
        return
    lines.append(f"{indent}<dict>\n")
    inner = indent + "\t"
    for key in sorted(value):
        lines.append(f"{inner}<key>{_text(key)}</key>\n")
        _write(value[key], inner, lines)
    lines.append(f"{indent}</dict>\n")


def _write_data(value: bytes, indent: str, lines: list[str]) -> None:
    """Base64 between tags of their own lines, as Apple's writer breaks it."""
    lines.append(f"{indent}<data>\n")
    columns = max(16, LINE_COLUMNS - 8 * len(indent))
    text = base64.b64encode(value).decode("ascii")
    step = columns // 4 * 4
    lines.extend(f"{indent}{text[at : at + step]}\n" for at in range(0, len(text), step))
    lines.append(f"{indent}</data>\n")


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("a property list cannot carry control characters or lone surrogates")
    # A carriage return written as itself would be read back as a line feed (XML 1.0, section 2.11).
    return escape(value, {"\r": "&#13;"})
