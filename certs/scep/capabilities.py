"""GetCACaps (RFC 8894, section 3.5): what a server says it can do, and what a client makes of it.

Keywords in, one a line; out come the method, the digest, the cipher and the kind of renewal that a client then uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from certs.algorithms import Cipher
from certs.errors import CertsError
from certs.scep.message import MessageType


class InsufficientCapabilities(CertsError):
    """The server advertises no digest or no cipher that the client may use; iOS refuses to go on."""

    def __init__(self, missing: str, keywords: Sequence[str]) -> None:
        self.missing = missing
        self.keywords = tuple(keywords)
        words = " ".join(self.keywords) or "nothing"
        super().__init__(f"GetCACaps: no usable {missing} among {words}")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The keywords of GetCACaps (section 3.5.2); unknown ones are kept and mean nothing."""

    keywords: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """One keyword a line, LF or CRLF, blank lines and stray spaces allowed."""
        lines = (line.strip() for line in data.decode("latin-1").splitlines())
        return cls(tuple(dict.fromkeys(line for line in lines if line)))

    def encode(self) -> bytes:
        return "".join(f"{keyword}\n" for keyword in self.keywords).encode()

    def supports(self, keyword: str) -> bool:
        """True when the keyword, or one that includes it, is advertised."""
        if keyword in self.keywords:
            return True
        return "SCEPStandard" in self.keywords and keyword in ("AES", "SHA-256", "POSTPKIOperation")

    @property
    def post(self) -> bool:
        return self.supports("POSTPKIOperation")

    @property
    def renewal(self) -> MessageType:
        """What a renewal is sent as: macOS sends a PKCSReq to a server that advertises none."""
        if self.supports("Renewal"):
            return MessageType.RENEWAL_REQ
        return MessageType.UPDATE_REQ if self.supports("Update") else MessageType.PKCS_REQ

    def with_keywords(self, *keywords: str) -> "Capabilities":
        return Capabilities((*self.keywords, *keywords))

    def cipher(self) -> Cipher:
        """AES-128 where offered, else 3DES. Raises InsufficientCapabilities."""
        if self.supports("AES"):
            return "aes128"
        if self.supports("DES3"):
            return "des3"
        raise InsufficientCapabilities("cipher", self.keywords)

    def digest(self) -> str:
        """SHA-256 where offered, else SHA-512, else SHA-1. Raises InsufficientCapabilities."""
        for keyword, name in (("SHA-256", "sha256"), ("SHA-512", "sha512"), ("SHA-1", "sha1")):
            if self.supports(keyword):
                return name
        raise InsufficientCapabilities("digest", self.keywords)


# What a client assumes of a server that does not know GetCACaps (certificates.md 1.2).
LEGACY: Final = Capabilities(("DES3", "SHA-1"))
# A server adds `Renewal` and `GetNextCACert` where it has them. Without SHA-384, strongSwan 5.9.8 takes AES and SHA-256 for unsupported.
ADVERTISED: Final = Capabilities(
    ("AES", "DES3", "SHA-1", "SHA-256", "SHA-384", "SHA-512", "POSTPKIOperation", "SCEPStandard")
)
