"""Content-Encoding (RFC 9110, section 8.4): undoes what a server did to a body, within the size bound."""

import zlib
from typing import Final

from certs.errors import TransportError
from emulator.config import MAX_RESPONSE_BYTES
from emulator.http.connection import Answer

WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def decoded(answer: Answer, url: str) -> bytes:
    """The body as the resource has it. Raises TransportError for an encoding nobody asked for, damage, or a bomb."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity") or not answer.body:
        return answer.body
    if encoding not in WINDOW_BITS:
        raise TransportError(url, f"the answer is encoded as {encoding}")
    unpack = zlib.decompressobj(wbits=WINDOW_BITS[encoding])
    try:
        body = unpack.decompress(answer.body, MAX_RESPONSE_BYTES + 1)
    except zlib.error as error:
        raise TransportError(url, f"the answer is not {encoding}: {error}") from error
    if len(body) > MAX_RESPONSE_BYTES:
        raise TransportError(url, f"the answer has more than {MAX_RESPONSE_BYTES} bytes")
    if not unpack.eof:
        raise TransportError(url, f"the {encoding} answer ends early")
    return body
