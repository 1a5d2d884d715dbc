"""How the cloud configuration service says no, and the codes by which a device reports it (apple-services.md 3.4)."""

from typing import Final

from emulator.errors import PeerRefused

STEP: Final = "cloud_configuration"
DOMAIN: Final = "MCCloudConfigurationErrorDomain"

# What a device finds out by itself.
REFUSED_WHILE_ASSIGNED: Final = 33004  # a manual configuration, while the service has one
BAD_URL: Final = 33012
NO_CERTIFICATE: Final = 33013
ALREADY_ENROLLED: Final = 33018
BAD_REQUEST: Final = 33023  # any 400 of a provisional enrollment
GENERIC: Final = 34000
INVALID_CONFIGURATION: Final = 34003  # an answer that cannot be read
SERVICE_DOWN: Final = 34004
SERVICE_UNAVAILABLE: Final = 34006  # 503 after the last retry
SERVER_TRUST: Final = 34011  # the server's TLS certificate

# By error word.
ERROR_CODES: Final = {
    "INVALID_PROFILE": 33002,
    "DEVICE_NOT_ENROLLED": 33005,
    "NONCE_EXPIRED": 33014,
    "INVALID_SIGNATURE": 33016,
    "PROFILE_NOT_ACTIVE": 33017,
    "CANNOT_ENROLL": ALREADY_ENROLLED,
    "INVALID_DEVICE": BAD_REQUEST,
    "PROFILE_NOT_FOUND": 33024,
    "DEVICE_NOT_FOUND": 33025,
}
# With HTTP 200 these, and words nobody knows, mean success without a configuration.
EMPTY_WORDS: Final = frozenset(("PROFILE_NOT_FOUND", "DEVICE_NOT_FOUND", "PROFILE_NOT_ACTIVE"))
WORD_LIMIT: Final = 64  # characters; a longer text is no error word
MAPPED_STATUSES: Final = (400, 401)  # whose body is an error word


class CloudConfigurationError(PeerRefused):
    """No configuration, or no answer to another request: the word (empty when none came) and the device's code."""

    def __init__(
        self,
        word: str,
        code: int,
        *,
        status: int | None = None,
        step: str = STEP,
        reason: str = "",
    ) -> None:
        details = "".join(f", {text}" for text in (word, reason) if text)
        super().__init__(step, f"{DOMAIN} {code}{details}", status=status)
        self.word = word
        self.code = code


def error_word(body: bytes) -> str:
    """The error word: bare text, trimmed; empty for anything that does not look like one."""
    if len(body) > 4 * WORD_LIMIT:
        return ""
    text = body.decode("ascii", "replace").strip()
    return text if len(text) <= WORD_LIMIT and text.isprintable() else ""


def refused(
    status: int,
    body: bytes,
    *,
    mapped: tuple[int, ...] = MAPPED_STATUSES,
    step: str = STEP,
) -> CloudConfigurationError:
    """The error of a status that is no success; `mapped` are those whose body is an error word."""
    word = error_word(body)
    code = ERROR_CODES.get(word) if status in mapped else None
    if code is None:
        code = GENERIC if status in mapped and status != 400 else SERVICE_DOWN
    return CloudConfigurationError(word, code, status=status, step=step)
