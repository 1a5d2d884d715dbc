"""The DRM handshake that opens an activation session (apple-services.md 2.3 and 9.1).

Layouts and codecs only: who signs, with which key, is the device's and the stand-in's business. `||` in a docstring joins bytes;
L16 puts a big-endian length of two bytes in front.
"""

import base64
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object, plist
from emulator.wire.fields import Fields, optional, present, required

HANDSHAKE_PATH: Final = "/deviceservices/drmHandshake"
HANDSHAKE_REQUEST_BYTES: Final = 21
HANDSHAKE_RESPONSE_BYTES: Final = 508
_RESPONSE_MAGIC: Final = b"SIM1"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestBody:
    """What a device says of itself in the signed JSON of a handshake (2.3)."""

    serial_number: str
    udid: str
    product_type: str
    os_version: str
    os_build: str
    imei: str | None = None
    imei2: str | None = None
    meid: str | None = None
    pcrt: str = ""  # opaque on real devices, as are the two after it
    scrt_part1: str = ""
    scrt_part2: str = ""

    def to_fields(self) -> Fields:
        return present(
            {
                "serial-number": self.serial_number,
                "udid": self.udid,
                "imei": self.imei,
                "ime2": self.imei2,
                "meid": self.meid,
                "productType": self.product_type,
                "os-version": self.os_version,
                "os-build": self.os_build,
                "pcrt": self.pcrt,
                "scrt-part1": self.scrt_part1,
                "scrt-part2": self.scrt_part2,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            serial_number=required(fields, "serial-number", str),
            udid=required(fields, "udid", str),
            product_type=required(fields, "productType", str),
            os_version=required(fields, "os-version", str),
            os_build=required(fields, "os-build", str),
            imei=optional(fields, "imei", str),
            imei2=optional(fields, "ime2", str),
            meid=optional(fields, "meid", str),
            pcrt=optional(fields, "pcrt", str) or "",
            scrt_part1=optional(fields, "scrt-part1", str) or "",
            scrt_part2=optional(fields, "scrt-part2", str) or "",
        )

    def encode(self) -> bytes:
        """The JSON bytes to sign."""
        return json_object.dumps(self.to_fields())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the JSON. Raises MalformedMessage."""
        return cls.from_fields(json_object.loads(data, "IngestBody"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRequest:
    """Opens a session. The signature is over the bytes of `ingest_body` exactly as they travel."""

    udid: str
    ingest_body: bytes  # JSON of an IngestBody
    sig_key: bytes  # 04 || X || Y of the attestation key
    signature: bytes  # ECDSA over ingest_body, DER
    handshake_request_message: bytes  # 21 bytes, fresh per session

    def to_fields(self) -> Fields:
        collection = {
            "IngestBody": self.ingest_body,
            "X-Apple-Sig-Key": base64.b64encode(self.sig_key).decode("ascii"),
            "X-Apple-Signature": base64.b64encode(self.signature).decode("ascii"),
        }
        return {
            "CollectionBlob": plist.dumps(collection),
            "HandshakeRequestMessage": self.handshake_request_message,
            "UniqueDeviceID": self.udid,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        message = required(fields, "HandshakeRequestMessage", bytes)
        handshake_time(message)
        blob = required(fields, "CollectionBlob", bytes)
        collection = plist.loads(blob, "CollectionBlob")
        where = "CollectionBlob."
        request = cls(
            udid=required(fields, "UniqueDeviceID", str),
            ingest_body=required(collection, "IngestBody", bytes, where),
            sig_key=json_object.required_bytes(collection, "X-Apple-Sig-Key", where),
            signature=json_object.required_bytes(collection, "X-Apple-Signature", where),
            handshake_request_message=message,
        )
        if IngestBody.decode(request.ingest_body).udid != request.udid:
            raise MalformedMessage("IngestBody.udid", "the UniqueDeviceID of the request")
        return request


def encode_handshake_request(request: HandshakeRequest) -> bytes:
    """The body; a device sends it as application/xml."""
    return plist.dumps(request.to_fields())


def decode_handshake_request(data: bytes) -> HandshakeRequest:
    """Read the body: rules H1 (without the age of its time) and H2 of 9.1. Raises MalformedMessage."""
    return HandshakeRequest.from_fields(plist.loads(data, "drmHandshake"))


def handshake_request_message(now: datetime, nonce: bytes) -> bytes:
    """01 || u32(Unix seconds) || 16 random bytes."""
    if len(nonce) != 16:
        raise ValueError("16 random bytes are needed")
    return b"\x01" + struct.pack(">I", int(now.timestamp())) + nonce


def handshake_time(message: bytes) -> datetime:
    """When a HandshakeRequestMessage was made. Raises MalformedMessage."""
    if len(message) != HANDSHAKE_REQUEST_BYTES or message[0] != 1:
        raise MalformedMessage(
            "HandshakeRequestMessage", "21 bytes starting 01", f"{len(message)} bytes"
        )
    return datetime.fromtimestamp(struct.unpack(">I", message[1:5])[0], UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeReply:
    """The server's half. Of the lengths only the signed message's is fixed (2.3)."""

    server_kp: bytes
    fdr_blob: bytes
    su_info: bytes
    handshake_response_message: bytes

    def to_fields(self) -> Fields:
        return {
            "serverKP": self.server_kp,
            "FDRBlob": self.fdr_blob,
            "SUInfo": self.su_info,
            "HandshakeResponseMessage": self.handshake_response_message,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            server_kp=required(fields, "serverKP", bytes),
            fdr_blob=required(fields, "FDRBlob", bytes),
            su_info=required(fields, "SUInfo", bytes),
            handshake_response_message=required(fields, "HandshakeResponseMessage", bytes),
        )

    def tbs(self, request_message: bytes) -> bytes:
        """What the activation service key signs (9.1, TBS_H)."""
        return tbs_handshake(
            request_message, fdr_blob=self.fdr_blob, kp=self.server_kp, su_info=self.su_info
        )


def encode_handshake_reply(reply: HandshakeReply) -> bytes:
    """The body; served as application/xml without parameters."""
    return plist.dumps(reply.to_fields())


def decode_handshake_reply(data: bytes) -> HandshakeReply:
    """Read the body; `handshake_signature` checks the signed message. Raises MalformedMessage."""
    return HandshakeReply.from_fields(plist.loads(data, "drmHandshake reply"))


def server_kp(session: bytes, filler: bytes) -> bytes:
    """01 || session id || 68 random bytes."""
    if len(session) != 16 or len(filler) != 68:
        raise ValueError("a session id of 16 bytes and 68 random bytes are needed")
    return b"\x01" + session + filler


def session_id(kp: bytes) -> bytes:
    """The session that a `serverKP` names. Raises MalformedMessage."""
    if len(kp) < 17 or kp[0] != 1:
        raise MalformedMessage("serverKP", "01 and a session id", f"{len(kp)} bytes")
    return kp[1:17]


def tbs_handshake(request_message: bytes, *, fdr_blob: bytes, kp: bytes, su_info: bytes) -> bytes:
    """TBS_H = "SIM-HS-1" 00 || L16(request message) || L16(FDRBlob) || L16(serverKP) || L16(SUInfo)."""
    return (
        b"SIM-HS-1\x00"
        + length16(request_message)
        + length16(fdr_blob)
        + length16(kp)
        + length16(su_info)
    )


def handshake_response_message(signature: bytes) -> bytes:
    """ "SIM1" || L16(signature over TBS_H) || zero bytes up to 508."""
    return (_RESPONSE_MAGIC + length16(signature)).ljust(HANDSHAKE_RESPONSE_BYTES, b"\x00")


def handshake_signature(message: bytes) -> bytes:
    """The signature in a HandshakeResponseMessage, after the checks of 9.1 in their order. Raises MalformedMessage."""
    name = "HandshakeResponseMessage"
    if len(message) != HANDSHAKE_RESPONSE_BYTES:
        raise MalformedMessage(name, f"{HANDSHAKE_RESPONSE_BYTES} bytes", f"{len(message)} bytes")
    if not message.startswith(_RESPONSE_MAGIC):
        raise MalformedMessage(name, "SIM1 at its start", message[:4])
    (length,) = struct.unpack(">H", message[4:6])
    if not 8 <= length <= 72:
        raise MalformedMessage(name, "a signature of 8 to 72 bytes", length)
    if any(message[6 + length :]):
        raise MalformedMessage(name, "only zero bytes after the signature")
    return message[6 : 6 + length]


def length16(data: bytes) -> bytes:
    """L16: u16(length) || data."""
    return struct.pack(">H", len(data)) + data
