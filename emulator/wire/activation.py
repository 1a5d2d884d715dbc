"""Activation: the request and the form it travels in (apple-services.md 2.4 and 9.1).

The handshake before it and the answers after it have files of their own, whose names this one gives too. Layouts and codecs only:
who signs, with which key, and whom to trust is the device's and the stand-in's business.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qsl, urlencode

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.activation_info import ActivationInfo
from emulator.wire.activation_record import (
    AccountToken,
    Acknowledgement,
    ActivationRecord,
    ActivationRefused,
    CredentialForm,
    decode_answer,
    encode_answer,
)
from emulator.wire.fields import Fields, required
from emulator.wire.handshake import (
    HANDSHAKE_PATH,
    HandshakeReply,
    HandshakeRequest,
    IngestBody,
    decode_handshake_reply,
    decode_handshake_request,
    encode_handshake_reply,
    encode_handshake_request,
    handshake_request_message,
    handshake_response_message,
    handshake_signature,
    handshake_time,
    length16,
    server_kp,
    session_id,
    tbs_handshake,
)

__all__ = [
    "ACTIVATION_PATH",
    "FORM_CONTENT_TYPE",
    "HANDSHAKE_PATH",
    "AccountToken",
    "Acknowledgement",
    "ActivationInfo",
    "ActivationRecord",
    "ActivationRefused",
    "ActivationRequest",
    "CredentialForm",
    "HandshakeReply",
    "HandshakeRequest",
    "IngestBody",
    "SessionProof",
    "decode_activation_info",
    "decode_answer",
    "decode_form",
    "decode_handshake_reply",
    "decode_handshake_request",
    "encode_activation_info",
    "encode_answer",
    "encode_form",
    "encode_handshake_reply",
    "encode_handshake_request",
    "handshake_request_message",
    "handshake_response_message",
    "handshake_signature",
    "handshake_time",
    "server_kp",
    "session_id",
    "sign_act_request",
    "split_certificates",
    "tbs_handshake",
    "tbs_request",
]

ACTIVATION_PATH: Final = "/deviceservices/deviceActivation"
FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
FORM_FIELD: Final = "activation-info"
MAX_FORM_FIELDS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProof:
    """The four members that tie a request to its handshake and to the attestation key."""

    rk_certification: bytes  # DER of the attestation certificate
    rk_signature: bytes  # ECDSA over TBS_R
    server_kp: bytes  # echoed
    sign_act_request: bytes  # 16 bytes

    def to_fields(self) -> Fields:
        return {
            "RKCertification": self.rk_certification,
            "RKSignature": self.rk_signature,
            "serverKP": self.server_kp,
            "signActRequest": self.sign_act_request,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            rk_certification=required(fields, "RKCertification", bytes),
            rk_signature=required(fields, "RKSignature", bytes),
            server_kp=required(fields, "serverKP", bytes),
            sign_act_request=required(fields, "signActRequest", bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRequest:
    """The value of `activation-info`: the real seven keys, or the legacy four when there is no session (9.1, item 6)."""

    activation_info_xml: bytes  # an ActivationInfo; both signatures are over exactly these bytes
    fair_play_cert_chain: bytes  # DER certificates one after another, leaf first
    fair_play_signature: bytes
    session: SessionProof | None = None

    def to_fields(self) -> Fields:
        proof = (
            {"ActivationInfoComplete": True} if self.session is None else self.session.to_fields()
        )
        return {
            "ActivationInfoXML": self.activation_info_xml,
            "FairPlayCertChain": self.fair_play_cert_chain,
            "FairPlaySignature": self.fair_play_signature,
            **proof,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        is_session = "serverKP" in fields
        if not is_session and not required(fields, "ActivationInfoComplete", bool):
            raise MalformedMessage("ActivationInfoComplete", "true", False)
        return cls(
            activation_info_xml=required(fields, "ActivationInfoXML", bytes),
            fair_play_cert_chain=required(fields, "FairPlayCertChain", bytes),
            fair_play_signature=required(fields, "FairPlaySignature", bytes),
            session=SessionProof.from_fields(fields) if is_session else None,
        )


def encode_activation_info(request: ActivationRequest) -> bytes:
    """The form field's value, a complete plist document."""
    return plist.dumps(request.to_fields())


def decode_activation_info(value: bytes) -> ActivationRequest:
    """Read the form field's value; host tools send a bare `<dict>`, which is wrapped (2.1). Raises MalformedMessage."""
    text = value.strip()
    if text.startswith(b"<dict"):
        text = b'<plist version="1.0">' + text + b"</plist>"
    return ActivationRequest.from_fields(plist.loads(text, FORM_FIELD))


def encode_form(request: ActivationRequest, **others: str) -> bytes:
    """The urlencoded body with field `activation-info`; `others` are further fields, such as those of the lock form."""
    return urlencode({FORM_FIELD: encode_activation_info(request), **others}).encode("ascii")


def decode_form(body: bytes) -> dict[str, bytes]:
    """The fields of an urlencoded body; the last of equal names wins. Raises MalformedMessage."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            encoding="latin-1",  # bytes through text and back, unchanged
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError as error:
        # Without the parser's own words: they quote the field, which may be a password.
        raise MalformedMessage("form", "application/x-www-form-urlencoded") from error
    return {name: value.encode("latin-1") for name, value in pairs}


def sign_act_request(response_message: bytes) -> bytes:
    """The first 16 bytes of SHA-256 over the HandshakeResponseMessage."""
    return hashlib.sha256(response_message).digest()[:16]


def tbs_request(activation_info_xml: bytes, *, kp: bytes, act_request: bytes) -> bytes:
    """TBS_R = "SIM-RK-1" 00 || L32(ActivationInfoXML) || L16(serverKP) || L16(signActRequest).

    `||` joins bytes; L16 and L32 put a big-endian length of two or four bytes in front.
    """
    length = struct.pack(">I", len(activation_info_xml))
    return b"SIM-RK-1\x00" + length + activation_info_xml + length16(kp) + length16(act_request)


def split_certificates(chain: bytes) -> tuple[bytes, ...]:
    """Cut concatenated DER certificates at their outer lengths. Raises MalformedMessage."""
    found = []
    rest = chain
    while rest:
        end = _outer_length(rest)
        found.append(rest[:end])
        rest = rest[end:]
    return tuple(found)


def _outer_length(data: bytes) -> int:
    """Bytes of the first SEQUENCE, header included; certificates have definite lengths."""
    if len(data) >= 2 and data[0] == 0x30:
        if data[1] < 0x80:
            end = 2 + data[1]
        else:
            size = data[1] & 0x7F
            end = 2 + size + int.from_bytes(data[2 : 2 + size]) if 1 <= size <= 3 else 0
        if 2 < end <= len(data):
            return end
    raise MalformedMessage("FairPlayCertChain", "certificates in DER", f"{len(data)} bytes")
