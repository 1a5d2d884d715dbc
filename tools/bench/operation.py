"""What a floor is made of: one kind of operation on one kind of key, and how many of each."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Verb = Literal["generate", "private", "first use", "public", "handshake"]


@dataclass(frozen=True, slots=True, order=True)
class Operation:
    """One kind of operation, such as `rsa2048 private` or `handshake p256`."""

    key: str  # rsa2048, p256, p384, …; for a handshake the client's identity, or "anonymous"
    verb: Verb

    def __str__(self) -> str:
        return f"{self.verb} {self.key}" if self.verb == "handshake" else f"{self.key} {self.verb}"


Operations = Counter[Operation]
