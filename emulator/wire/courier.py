"""The wake channel of a whole fleet process: JSON frames on one WebSocket (apple-services.md 6.7, our own substitute).

A WebSocket message is one frame or an array of frames. The fleet says which tokens its devices have and which of them
listen; the stand-in sends pushes, and the fleet acknowledges how many it has got so far, so that a push is never lost with
a connection that died.
"""

from typing import Final, TypeVar

import msgspec

from certs.errors import MalformedMessage
from emulator.wire.push import token_of

PATH: Final = "/courier"
EVENTS_PATH: Final = "/events"  # one token's pushes as server-sent events
MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_DEVICES: Final = 2000  # of one hello; a larger fleet says several


class Subscription(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One device's push address."""

    token: str  # hex
    topic: str
    device: str | None = None  # a new token of the same device and topic ends the old one
    online: bool = True  # False: the token exists, pushes are stored


class Hello(msgspec.Struct, tag_field="op", tag="hello"):
    """These devices are here; answered by `registered`. May come again for more or changed ones."""

    devices: list[Subscription]


class Online(msgspec.Struct, tag_field="op", tag="online"):
    """The device listens; a stored push comes at once."""

    token: str


class Offline(msgspec.Struct, tag_field="op", tag="offline"):
    """The device cannot be reached; pushes are stored."""

    token: str


class Forget(msgspec.Struct, tag_field="op", tag="forget"):
    """The token is no more: management ended, or the device was erased."""

    token: str


class Ack(msgspec.Struct, tag_field="op", tag="ack"):
    """So many pushes have come on this connection."""

    count: int


class Push(msgspec.Struct, tag_field="op", tag="push"):
    """A notification for one device."""

    token: str
    apns_id: str
    payload: msgspec.Raw  # JSON, as the server sent it
    stored: bool  # it waited while the device was offline
    age_ms: int  # since it was accepted


class Registered(msgspec.Struct, tag_field="op", tag="registered"):
    """So many hellos of this connection are done."""

    count: int


class Refused(msgspec.Struct, tag_field="op", tag="refused"):
    """The last thing said before the connection closes."""

    reason: str


F = TypeVar("F")
ClientFrame = Hello | Online | Offline | Forget | Ack
ServerFrame = Push | Registered | Refused

_encoder: Final = msgspec.json.Encoder()
_client: Final = msgspec.json.Decoder(ClientFrame | list[ClientFrame])
_server: Final = msgspec.json.Decoder(ServerFrame | list[ServerFrame])


def encode(*frames: ClientFrame | ServerFrame) -> bytes:
    """One WebSocket message."""
    return _encoder.encode(frames[0] if len(frames) == 1 else frames)


def decode_client(data: bytes | str) -> list[ClientFrame]:
    """What a fleet says. Raises MalformedMessage, for a token that is none, too."""
    frames = _frames(_client, data)
    for frame in frames:
        if isinstance(frame, Hello) and len(frame.devices) > MAX_DEVICES:
            raise MalformedMessage("hello.devices", f"at most {MAX_DEVICES}", len(frame.devices))
    return frames


def decode_server(data: bytes | str) -> list[ServerFrame]:
    """What the stand-in says. Raises MalformedMessage."""
    frames = _frames(_server, data)
    for frame in frames:
        if isinstance(frame, Push):
            token_of(frame.token)
    return frames


def _frames(decoder: "msgspec.json.Decoder[F | list[F]]", data: bytes | str) -> list[F]:
    try:
        decoded = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage("courier message", "frames in JSON", str(error)) from error
    return decoded if isinstance(decoded, list) else [decoded]
