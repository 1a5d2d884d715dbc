"""Activation-lock bypass codes: 16 random bytes, their printed form, and the hash by which they are escrowed.

apple-services.md 2.8; the printed form is 26 characters of 5 bits each, the last of only 3.
"""

import hashlib
from typing import Final

from certs.errors import MalformedMessage

ALPHABET: Final = "0123456789ACDEFGHJKLMNPQRTUVWXYZ"
CODE_BYTES: Final = 16
CHARACTERS: Final = 26
DASHES_AFTER: Final = (5, 10, 14, 18, 22)
SALT: Final = bytes(4)
ROUNDS: Final = 50_000


def encode(raw: bytes) -> str:
    """The form that people read out: `XXXXX-XXXXX-XXXX-XXXX-XXXX-XXXX`."""
    if len(raw) != CODE_BYTES:
        raise MalformedMessage("bypass code", f"{CODE_BYTES} bytes", f"{len(raw)} bytes")
    bits = int.from_bytes(raw, "big")
    groups = [bits >> shift & 31 for shift in range(123, 2, -5)]
    text = "".join(ALPHABET[group] for group in groups) + ALPHABET[bits & 7]
    starts = (0, *DASHES_AFTER)
    ends = (*DASHES_AFTER, CHARACTERS)
    return "-".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def decode(text: str) -> bytes:
    """The 16 bytes behind a code as somebody typed it: any case, dashes or not. Raises MalformedMessage."""
    characters = text.strip().upper().replace("-", "")
    values = [ALPHABET.find(character) for character in characters]
    # The code is a secret: errors say nothing about what came.
    if len(values) != CHARACTERS or min(values) < 0 or values[-1] > 7:
        raise MalformedMessage("bypass code", f"{CHARACTERS} characters of its alphabet")
    bits = 0
    for value in values[:-1]:
        bits = bits << 5 | value
    return (bits << 3 | values[-1]).to_bytes(CODE_BYTES, "big")


def escrow_hash(raw: bytes) -> bytes:
    """What the assignment API gets instead of the code; 50,000 rounds, so never on the event loop."""
    return hashlib.pbkdf2_hmac("sha256", raw, SALT, ROUNDS, 32)
