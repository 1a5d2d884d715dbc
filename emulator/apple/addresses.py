"""Where running stand-ins are, as one JSON file in their state folder, for commands and fleets on the same machine."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from certs.whole_file import write_whole
from emulator.errors import ConfigurationError

FILE: Final = "serving.json"
FOLDER: Final = "apple"  # of a state folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """URLs, and files whose paths are absolute; nothing here is a secret."""

    url: str  # activation, cloud configuration, attestation, assignment
    push_url: str
    admin_url: str
    token_file: str  # holds the bearer token of `admin_url`
    tls_root: str  # PEM: issues the certificates of `url` and `push_url`
    trust_bundle: str  # PEM: the same, and the proxy's CA
    anchors: str  # folder with every anchor and its README.md
    proxy_url: str | None = None
    push_plain_url: str | None = None  # HTTP/1.1 without TLS, in compat mode

    def write(self, state: Path) -> Path:
        """For its owner only; `remove` takes it away at the end."""
        path = state / FOLDER / FILE
        write_whole(path, json.dumps(asdict(self), indent=2).encode() + b"\n")
        return path

    @classmethod
    def read(cls, state: Path) -> Self:
        """The addresses of the stand-ins that keep their state there. Raises ConfigurationError."""
        path = state / FOLDER / FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigurationError(
                str(state), ["no stand-ins run here: start `mdm-emulator apple serve --state`"]
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(str(path), [f"cannot be used: {error}"]) from error

    @staticmethod
    def remove(state: Path) -> None:
        (state / FOLDER / FILE).unlink(missing_ok=True)
