"""One input changed at random: bits, bytes, slices, lengths, numbers, nesting, pieces of another input."""

import base64
import random
import re
from collections.abc import Callable, Sequence
from typing import Final

MAX_BYTES: Final = 256 * 1024  # an input does not grow beyond this
MAX_CHANGES: Final = 8
NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0x81, 0x84, 0x88, 0xA0, 0xFF, 0x30, 0x31)
BIG: Final = (b"-1", b"0", b"1e400", b"99999999999999999999999", b"NaN", b"null", b"9" * 5000)
NESTS: Final = (b"\x30\x80", b"[", b'{"a":', b"<dict>", b"<array>", b"\xa0\x80", b"\x81", b"(")
PIECES: Final = (
    b"",
    b"\x00",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x02\x01\x00",
    b"\x05\x00",
    b"\x06\x03\x55\x04\x03",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"&#x0;",
    b"<!ENTITY a 'b'>",
    b"<data>",
    b"\xc0",
)
_DIGITS: Final = re.compile(rb"\d+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")

Change = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(seed: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """`seed` with one to eight changes; `others` lend pieces."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, MAX_CHANGES))):
        chance.choice(CHANGES)(data, chance, others)
    return bytes(data[:MAX_BYTES])


def _at(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data) + 1)


def _flip(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((*NUMBERS, chance.randrange(256)))


def _early(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """The first bytes decide which way a reader goes."""
    if data:
        data[chance.randrange(min(len(data), 48))] = chance.choice(
            (*NUMBERS, chance.randrange(256))
        )


def _cut(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    start = _at(data, chance)
    del data[start : start + chance.choice((1, 2, 4, 16, 64, 1024))]


def _end(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    del data[_at(data, chance) :]


def _double(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    start = _at(data, chance)
    piece = data[start : start + chance.choice((1, 4, 16, 256, 4096))]
    data[start:start] = piece * chance.choice((1, 2, 8, 64))


def _move(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    start = _at(data, chance)
    piece = data[start : start + chance.choice((4, 16, 64))]
    target = _at(data, chance)
    data[target:target] = piece


def _piece(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    start = _at(data, chance)
    data[start : start + chance.choice((0, 1, 4))] = chance.choice(PIECES)


def _splice(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    start = chance.randrange(len(other) + 1)
    piece = other[start : start + chance.choice((4, 16, 64, 512))]
    place = _at(data, chance)
    data[place : place + chance.choice((0, len(piece)))] = piece


def _number(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A number in text."""
    found = list(_DIGITS.finditer(data))
    if found:
        match = chance.choice(found)
        data[match.start() : match.end()] = chance.choice(BIG)


def _nest(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    place = _at(data, chance)
    data[place:place] = chance.choice(NESTS) * chance.choice((1, 3, 50, 1000, 20_000))


def _inside(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """Change what a base64 text stands for."""
    found = [m for m in _BASE64.finditer(data[:MAX_BYTES]) if len(m[0].rstrip(b"=")) % 4 != 1]
    if not found:
        return
    match = chance.choice(found)
    text = bytes(match[0]).rstrip(b"=")
    url = b"-" in text or b"_" in text
    plain = text.translate(bytes.maketrans(b"-_", b"+/"))
    inner = bytearray(base64.b64decode(plain + b"=" * (-len(plain) % 4)))
    chance.choice((_flip, _set, _early, _cut, _end, _piece))(inner, chance, others)
    encoded = base64.b64encode(inner)
    if url or not match[0].endswith(b"="):
        encoded = encoded.rstrip(b"=")
    if url:
        encoded = encoded.translate(bytes.maketrans(b"+/", b"-_"))
    data[match.start() : match.end()] = encoded


CHANGES: Final[tuple[Change, ...]] = (
    *(_flip, _set, _early, _cut, _end, _double, _move),
    *(_piece, _splice, _number, _nest, _inside),
)
