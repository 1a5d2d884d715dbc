"""ASN.1 as bytes: a fast DER writer, and a reader that also takes the BER which real peers send (X.690).

The writer is plain concatenation: what a hot path needs. The reader yields raw slices and never re-encodes, because
signatures are over bytes as received. It takes indefinite lengths, constructed strings, long-form lengths and trailing
bytes, with size, depth and number of children bounded; all that it cannot read is `MalformedMessage`.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from certs.errors import MalformedMessage

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONSTRUCTED: Final = 0x20

MAX_BYTES: Final = 32 * 1024 * 1024  # one message
MAX_DEPTH: Final = 48
MAX_CHILDREN: Final = 65_536  # 32 MiB of constructed string in chunks of 512 bytes
MAX_INTEGER_BYTES: Final = 1024  # keeps every number below Python's limit for decimal text
MAX_OID_BYTES: Final = 128
MAX_HEADER: Final = 14  # bytes of tag and length that are read

PRINTABLE: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
)
ENCODINGS: Final = {
    0x14: "latin-1",  # TeletexString, as everyone uses it
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
TEXT_TAGS: Final = frozenset({0x0C, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1A, 0x1C, 0x1E})


# -- writing ---------------------------------------------------------------------------------------------------------


def tlv(tag: int, *content: bytes) -> bytes:
    """One element with a definite, minimal length."""
    body = b"".join(content)
    length = len(body)
    if length < 0x80:
        return b"%c%c%b" % (tag, length, body)
    if length < 0x100:
        return b"%c\x81%c%b" % (tag, length, body)
    if length < 0x10000:
        return b"%c\x82%c%c%b" % (tag, length >> 8, length & 0xFF, body)
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return b"%c%c%b%b" % (tag, 0x80 | len(size), size, body)


def indefinite(tag: int, *content: bytes) -> bytes:
    """One constructed element of indefinite length (BER), as Apple's encoders write it."""
    return b"".join((bytes((tag, 0x80)), *content, b"\x00\x00"))


def sequence(*items: bytes) -> bytes:
    body = b"".join(items)
    if len(body) < 0x80:
        return b"0%c%b" % (len(body), body)
    return tlv(SEQUENCE, body)


def set_of(*items: bytes) -> bytes:
    """A SET OF, its members sorted as DER demands (X.690, section 11.6)."""
    return tlv(SET, *sorted(items))


def boolean(value: bool) -> bytes:
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def integer(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((INTEGER, 1, value))
    magnitude = value if value >= 0 else ~value
    return tlv(INTEGER, value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True))


@lru_cache(maxsize=1024)
def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER; ValueError when the text is not one."""
    arcs = [int(arc) for arc in dotted.split(".")]
    if len(arcs) < 2 or min(arcs) < 0 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39):
        raise ValueError(f"{dotted!r} is not an object identifier")
    body = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return tlv(OID, bytes(body))


def octet_string(value: bytes) -> bytes:
    return tlv(OCTET_STRING, value)


def bit_string(value: bytes, unused: int = 0) -> bytes:
    return tlv(BIT_STRING, bytes((unused,)), value)


def null() -> bytes:
    return b"\x05\x00"


def utf8(text: str) -> bytes:
    return tlv(UTF8_STRING, text.encode())


def printable(text: str) -> bytes:
    """A PrintableString; characters outside its set are written all the same, as peers do."""
    return tlv(PRINTABLE_STRING, text.encode())


def is_printable(text: str) -> bool:
    """True when PrintableString may hold `text`."""
    return PRINTABLE.issuperset(text)


def ia5(text: str) -> bytes:
    return tlv(IA5_STRING, text.encode("ascii"))


def utc_time(moment: datetime) -> bytes:
    return b"\x17\x0d" + _digits(moment)[2:]


def generalized_time(moment: datetime) -> bytes:
    return b"\x18\x0f" + _digits(moment)


def _digits(moment: datetime) -> bytes:
    """YYYYMMDDhhmmssZ; strftime takes four times as long."""
    at = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return b"%04d%02d%02d%02d%02d%02dZ" % (at.year, at.month, at.day, at.hour, at.minute, at.second)


def time(moment: datetime) -> bytes:
    """UTCTime for 1950 to 2049, else GeneralizedTime (RFC 5652, section 11.3)."""
    digits = _digits(moment)
    return b"\x17\x0d" + digits[2:] if b"1950" <= digits < b"2050" else b"\x18\x0f" + digits


def context(number: int, *content: bytes, constructed: bool = True) -> bytes:
    """A context-specific element, [number]; the caller decides between IMPLICIT and EXPLICIT by what it puts in."""
    return tlv((0xA0 if constructed else 0x80) | number, *content)


# -- reading ---------------------------------------------------------------------------------------------------------


class Node(msgspec.Struct, eq=False, gc=False):
    """One element as received. It points into the message, of which nothing is copied before somebody asks for it.

    A Struct, as a message has a hundred elements and a Struct is made several times as fast as another object.
    """

    tag: int  # its first byte, or all bytes of a high tag
    data: bytes  # the whole message
    start: int  # where the element starts in it, where its content does, where that ends, where the element ends
    begin: int
    end: int
    stop: int
    field: str  # what an error names
    depth: int

    def __repr__(self) -> str:
        return f"Node({self.field}, tag=0x{self.tag:02x}, {self.end - self.begin} bytes)"

    @property
    def content(self) -> bytes:
        """The content without end marker."""
        return self.data[self.begin : self.end]

    @property
    def raw(self) -> bytes:
        """All bytes of the element."""
        return self.data[self.start : self.stop]

    @property
    def is_constructed(self) -> bool:
        return bool(self.data[self.start] & CONSTRUCTED)

    def children(self) -> list["Node"]:
        """The elements inside, in their order."""
        data = self.data
        if not data[self.start] & CONSTRUCTED:
            raise MalformedMessage(self.field, "a constructed element", f"tag 0x{self.tag:02x}")
        nodes: list[Node] = []
        start, end, field, depth = self.begin, self.end, self.field, self.depth + 1
        # What is usual is read here: a low tag, and a length of one byte or of two behind 0x82. `_read` knows the rest.
        usual = end - 4 if depth <= MAX_DEPTH else -1
        many = start + MAX_CHILDREN
        while start < end:
            if start > many and len(nodes) == MAX_CHILDREN:  # none is empty
                raise MalformedMessage(field, f"at most {MAX_CHILDREN} elements", "more")
            if start <= usual and (tag := data[start]) & 0x1F != 0x1F:
                begin, length = start + 2, data[start + 1]
                if length == 0x82:
                    begin, length = start + 4, data[start + 2] << 8 | data[start + 3]
                elif length >= 0x80:
                    length = end
                stop = begin + length
                if stop <= end:
                    nodes.append(Node(tag, data, start, begin, stop, stop, field, depth))
                    start = stop
                    continue
            node = _read(data, start, end, field, depth)
            nodes.append(node)
            start = node.stop
        return nodes

    def expect(self, *tags: int, field: str | None = None) -> "Node":
        """Return self when the tag is one of `tags`, under a better name if one is given."""
        if field is not None:
            self.field = field
        if self.tag not in tags:
            wanted = " or ".join(f"0x{tag:02x}" for tag in tags)
            raise MalformedMessage(self.field, f"tag {wanted}", f"0x{self.tag:02x}")
        return self

    def items(self, tag: int, at_least: int, field: str | None = None) -> list["Node"]:
        """The children of a constructed element of this tag, at least so many."""
        if field is not None:
            self.field = field
        if self.tag != tag:
            self.expect(tag)
        nodes = self.children()
        if len(nodes) < at_least:
            raise MalformedMessage(self.field, f"at least {at_least} elements", len(nodes))
        return nodes

    def octets(self) -> bytes:
        """The value of an OCTET STRING (or an implicitly tagged one), its pieces joined if it is constructed."""
        if not self.data[self.start] & CONSTRUCTED:
            return self.data[self.begin : self.end]
        return b"".join(
            piece.expect(OCTET_STRING, OCTET_STRING | CONSTRUCTED).octets()
            for piece in self.children()
        )

    def bits(self) -> bytes:
        """The bytes of a BIT STRING that has no unused bits, as signatures and keys have."""
        self.expect(BIT_STRING)
        if self.content[:1] != b"\x00":
            raise MalformedMessage(self.field, "a BIT STRING of whole bytes", self.content[:1])
        return self.content[1:]

    def as_oid(self) -> str:
        self.expect(OID)
        try:
            return _dotted(self.content[: MAX_OID_BYTES + 1])
        except ValueError:
            raise MalformedMessage(
                self.field, "an object identifier", self.content[:MAX_OID_BYTES]
            ) from None

    def as_int(self) -> int:
        self.expect(INTEGER)
        if not 1 <= len(self.content) <= MAX_INTEGER_BYTES:
            raise MalformedMessage(
                self.field, f"an INTEGER of 1 to {MAX_INTEGER_BYTES} bytes", len(self.content)
            )
        return int.from_bytes(self.content, "big", signed=True)

    def as_text(self) -> str:
        """Any of the character strings, or an implicitly tagged one; Latin-1 where it is not the UTF-8 it should be."""
        if self.tag not in TEXT_TAGS and self.tag & 0xE0 != 0x80:
            raise MalformedMessage(self.field, "a character string", f"tag 0x{self.tag:02x}")
        encoding = ENCODINGS.get(self.tag, "utf-8")
        try:
            return self.content.decode(encoding)
        except UnicodeDecodeError:
            if encoding != "utf-8":
                raise MalformedMessage(self.field, f"text in {encoding}", self.content) from None
            return self.content.decode("latin-1")

    def as_time(self) -> datetime:
        """UTCTime or GeneralizedTime, also with a numeric offset, which an old SCEP server writes."""
        self.expect(UTC_TIME, GENERALIZED_TIME)
        try:
            return _moment(self.content.decode("ascii"), self.tag == GENERALIZED_TIME)
        except (ValueError, OverflowError):
            raise MalformedMessage(self.field, "a time", self.content) from None


def read(data: bytes, field: str = "message") -> Node:
    """The first element of `data`; what follows it is ignored, as CGI front ends append newlines."""
    if len(data) > MAX_BYTES:
        raise MalformedMessage(field, f"at most {MAX_BYTES} bytes", len(data))
    return _read(data, 0, len(data), field, 0)


def _read(data: bytes, start: int, end: int, field: str, depth: int) -> Node:
    """The element at `start`, which must not reach beyond `end`."""
    if depth > MAX_DEPTH:
        raise MalformedMessage(field, f"at most {MAX_DEPTH} levels", "more")
    tag, begin, length = _header(data, start, end, field)
    if length >= 0:
        stop = begin + length
        if stop > end:
            raise MalformedMessage(field, f"{length} bytes of content", end - begin)
        return Node(tag, data, start, begin, stop, stop, field, depth)
    stop = _end_of_indefinite(data, begin, end, field)
    return Node(tag, data, start, begin, stop - 2, stop, field, depth)


def _header(data: bytes, start: int, end: int, field: str) -> tuple[int, int, int]:
    """(tag, where the content starts, its length or -1 when indefinite)."""
    header, position = data[start : min(end, start + MAX_HEADER)], 1
    try:
        first = tag = header[0]
        if tag & 0x1F == 0x1F:  # a high tag number: up to four more bytes
            for _ in range(4):
                following = header[position]
                position += 1
                tag = tag << 8 | following
                if not following & 0x80:
                    break
            else:
                raise MalformedMessage(field, "a tag number below 2^28", f"0x{tag:x}")
        length = header[position]
        position += 1
        if length < 0x80:
            return tag, start + position, length
        if length == 0x80:
            if not first & CONSTRUCTED:
                raise MalformedMessage(field, "a definite length in a primitive element", "0x80")
            return tag, start + position, -1
        size = length & 0x7F
        if size > 8:
            raise MalformedMessage(field, "a length of at most 8 bytes", size)
        if position + size > len(header):
            raise IndexError
        return (
            tag,
            start + position + size,
            int.from_bytes(header[position : position + size], "big"),
        )
    except IndexError:
        raise MalformedMessage(field, "a whole tag and length", "end of data") from None


def _end_of_indefinite(data: bytes, position: int, end: int, field: str) -> int:
    """Where the element whose content starts at `position` ends, end marker included."""
    open_elements = 1
    while open_elements:
        tag, begin, length = _header(data, position, end, field)
        if tag == 0:
            if length != 0:
                raise MalformedMessage(field, "an end-of-contents marker", f"length {length}")
            open_elements -= 1
            position = begin
        elif length < 0:
            open_elements += 1
            if open_elements > MAX_DEPTH:
                raise MalformedMessage(field, f"at most {MAX_DEPTH} levels", "more")
            position = begin
        else:
            position = begin + length
    return position


@lru_cache(maxsize=1024)
def _dotted(content: bytes) -> str:
    if not content or len(content) > MAX_OID_BYTES or content[-1] & 0x80:
        raise ValueError("not an object identifier")
    arcs: list[int] = []
    arc = 0
    for byte in content:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def _moment(text: str, four_digit_year: bool) -> datetime:
    digits = 14 if four_digit_year else 12
    body, zone = text[:digits], text[digits:]
    if len(body) != digits or not body.isdecimal():
        raise ValueError(text)
    year = int(body[:-10])
    if not four_digit_year:
        year += 1900 if year >= 50 else 2000  # RFC 5280, section 4.1.2.5.1
    month, day, hour, minute, second = (
        int(body[at : at + 2]) for at in range(digits - 10, digits, 2)
    )
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _offset(zone)


def _offset(zone: str) -> timedelta:
    """What stands behind the seconds: fractions, then `Z` or `+hhmm`."""
    if zone.startswith("."):
        zone = zone[1:].lstrip("0123456789")
    if zone == "Z":
        return timedelta()
    if len(zone) != 5 or zone[0] not in "+-" or not zone[1:].isdecimal():
        raise ValueError(zone)
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    return -offset if zone[0] == "-" else offset
