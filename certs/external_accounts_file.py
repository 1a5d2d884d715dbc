"""Whose ACME accounts `mdm-certs serve` takes: a YAML file of the keys that an operator hands out (RFC 8555, section 7.3.4).

- {key_id: team-a, hmac_key: dGhpcnR5LXR3byBieXRlcyBvciBtb3JlIG9mIGNoYW5jZQ}

`hmac_key` is base64url without padding, as certbot and other programs take it.
"""

from pathlib import Path
from typing import Final

from certs.acme.jws import from_base64url
from certs.entries_file import Entry, read_entries
from certs.errors import MalformedMessage

KEYS: Final = ("key_id", "hmac_key")
MIN_KEY_BYTES: Final = 32  # RFC 7518, section 3.2: no shorter than the hash of HS256


def read(path: Path) -> dict[str, bytes]:
    """HMAC key by key id. Raises BadEntriesFile, which names no key."""
    entries = read_entries(path, what="external account", keys=KEYS, mistake=_mistake)
    return {entry["key_id"]: from_base64url(entry["hmac_key"], "hmac_key") for entry in entries}


def _mistake(entry: Entry) -> str | None:
    if "hmac_key" not in entry:
        return "hmac_key is missing"
    try:
        size = len(from_base64url(entry["hmac_key"], "hmac_key"))
    except MalformedMessage as error:
        return f"hmac_key must be {error.expected}"
    if size < MIN_KEY_BYTES:
        return f"hmac_key has {size} bytes; HS256 needs {MIN_KEY_BYTES}"
    return None
