"""The XML form of a property list, read with expat and as forgivingly as Apple's own parser.

plistlib accepts stray text between elements, which Apple refuses, and refuses damaged XML declarations and bytes after the end,
which Apple accepts; it also has no bound on depth or number of values. Nothing here expands an entity but XML's own five: the
prolog is cut off before expat sees it, and a DOCTYPE with an internal subset is refused.
"""

import binascii
import re
from datetime import UTC, datetime
from typing import Any, Final
from xml.parsers import expat

from certs.errors import MalformedMessage

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 200_000
MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 64) - 1

# What may stand before the root element. Possessive, so that it takes linear time whatever comes.
_PROLOG: Final = re.compile(
    rb"(?:\s++|<\?xml[^>]*+>|<!--(?:[^-]|-(?!->))*+-->|<!DOCTYPE\s[^\[>]*+>)*+"
)
_ENCODING: Final = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_NOT_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}\Z")
_INTEGER: Final = re.compile(r"[+-]?(?:[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16})\Z")
_REAL: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+|nan|inf|infinity)\Z", re.IGNORECASE
)
_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z\Z")
_CONTAINERS: Final = frozenset(("plist", "dict", "array"))
_SCALARS: Final = frozenset(("key", "string", "integer", "real", "true", "false", "date", "data"))


def is_text(value: str) -> bool:
    """True when XML 1.0 can carry every character."""
    return _NOT_TEXT.search(value) is None


def in_range(value: int) -> bool:
    """True for the integers that a property list carries."""
    return MIN_INTEGER <= value <= MAX_INTEGER


def parse(data: bytes, field: str) -> Any:
    """Read one XML property list. Raises MalformedMessage and, for XML that is not well formed, ExpatError."""
    body = _without_prolog(_utf8(data, field), field)
    reader = _Reader(field)
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        if not reader.done:  # bytes after </plist> are ignored, as Apple's parser does
            raise
    if not reader.values:
        raise MalformedMessage(field, "one value inside <plist>", "none")
    return reader.values[0]


def _utf8(data: bytes, field: str) -> bytes:
    """The text in UTF-8, whatever Unicode encoding it came in."""
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16").encode()
    declared = _ENCODING.search(data[:200])
    if declared and declared[1].lower() not in (b"utf-8", b"us-ascii", b"ascii"):
        if declared[1].lower() not in (b"iso-8859-1", b"windows-1252"):
            raise MalformedMessage(field, "encoding UTF-8", declared[1].decode())
        return data.decode("latin-1").encode()
    return data


def _without_prolog(data: bytes, field: str) -> bytes:
    match = _PROLOG.match(data)
    start = match.end() if match else 0
    if data.startswith(b"<plist", start):
        return data[start:]
    if data.startswith(b"<!", start):
        raise MalformedMessage(field, "no declarations inside the DOCTYPE")
    raise MalformedMessage(field, "an XML or binary property list", data[start : start + 16])


class _Reader:
    """Expat's handlers: a stack of open containers and the text of the open scalar."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._open: list[str] = []
        self._containers: list[Any] = []
        self._keys: list[str | None] = []  # the key that waits for its value, one per container
        self._scalar: str | None = None
        self._text: list[str] = []
        self._left = MAX_VALUES
        self.values: list[Any] = []
        self.done = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._scalar is not None:
            raise MalformedMessage(self._field, f"no element inside <{self._scalar}>", name)
        if (name == "plist") is not (not self._open):
            raise MalformedMessage(self._field, "one <plist> around one value", name)
        self._left -= 1
        if self._left < 0 or len(self._open) > MAX_DEPTH:
            raise MalformedMessage(
                self._field, f"at most {MAX_VALUES} values and {MAX_DEPTH} levels", "more"
            )
        if name in _SCALARS:
            self._scalar = name
            self._text.clear()
            return
        if name not in _CONTAINERS:
            raise MalformedMessage(self._field, "an element of a property list", name)
        if name != "plist":
            container: Any = {} if name == "dict" else []
            self._add(container)
            self._containers.append(container)
            self._keys.append(None)
        self._open.append(name)

    def end(self, name: str) -> None:
        if self._scalar is None:
            self._open.pop()
            if name == "plist":
                self.done = True
                return
            self._containers.pop()
            if self._keys.pop() is not None:
                raise MalformedMessage(self._field, "a value after each key", "</dict>")
            return
        text = "".join(self._text)
        self._scalar = None
        if name != "key":
            self._add(_value(name, text, self._field))
        elif not self._containers or type(self._containers[-1]) is not dict:
            raise MalformedMessage(self._field, "keys only inside a dictionary", "<key>")
        elif self._keys[-1] is not None:
            raise MalformedMessage(self._field, "a value after each key", "<key>")
        else:
            self._keys[-1] = text

    def text(self, data: str) -> None:
        if self._scalar is not None:
            self._text.append(data)
        elif not self.done and not data.isspace():
            raise MalformedMessage(self._field, "no text between elements")

    def _add(self, value: Any) -> None:
        if not self._containers:
            if self.values:
                raise MalformedMessage(self._field, "one value inside <plist>", "more")
            self.values.append(value)
        elif type(self._containers[-1]) is list:
            self._containers[-1].append(value)
        elif (key := self._keys[-1]) is None:
            raise MalformedMessage(self._field, "a key before each value of a dictionary")
        else:
            self._containers[-1][key] = value
            self._keys[-1] = None


def _value(name: str, text: str, field: str) -> Any:
    """A scalar from its text; surrounding space counts only in strings."""
    if name == "string":
        return text
    text = text.strip()
    if name == "data":
        packed = "".join(text.split())
        if _BASE64.match(packed):
            return binascii.a2b_base64(packed)
    elif name == "integer":
        if _INTEGER.match(text):
            number = int(text, 16 if "x" in text.lower() else 10)
            if in_range(number):
                return number
    elif name == "real":
        if _REAL.match(text):
            return float(text)
    elif name == "date":
        if match := _DATE.match(text):
            return datetime(*map(int, match.groups()), tzinfo=UTC)  # type: ignore[misc,arg-type]
    elif not text:
        return name == "true"
    raise MalformedMessage(field, f"a valid <{name}>", f"{len(text)} characters")
