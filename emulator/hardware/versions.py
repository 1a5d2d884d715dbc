"""OS version numbers as text, compared as numbers."""

import re
from functools import lru_cache
from typing import Final

NUMBERS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})*")


@lru_cache(maxsize=2048)
def version_key(version: str) -> tuple[int, ...]:
    """What to compare versions by: 17.2 < 17.10, and 16.0 equals 16; empty for text that starts with no number."""
    found = NUMBERS.match(version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
