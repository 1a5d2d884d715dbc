"""The DRM handshake: byte layouts, the checks in their order, round trips."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.handshake import (
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
    server_kp,
    session_id,
    tbs_handshake,
)
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text

UDID = "00008110-001A34D90E38801E"
INGEST = IngestBody(
    serial_number="F7K2Q9XW4M",
    udid=UDID,
    product_type="iPhone14,5",
    os_version="18.1",
    os_build="22B83",
    imei="353918051234561",
)
MESSAGE = bytes.fromhex("0165920080" + "00112233445566778899aabbccddeeff")
REQUEST = HandshakeRequest(
    udid=UDID,
    ingest_body=INGEST.encode(),
    sig_key=b"\x04" + bytes(64),
    signature=b"\x30\x06",
    handshake_request_message=MESSAGE,
)
REPLY = HandshakeReply(
    server_kp=server_kp(b"S" * 16, b"r" * 68),
    fdr_blob=b"F" * 32,
    su_info=bytes(366),
    handshake_response_message=handshake_response_message(b"0" * 70),
)


# ---- layouts ----


def test_the_request_message_is_21_bytes_of_version_time_and_nonce() -> None:
    now = datetime(2024, 1, 1, 0, 0, tzinfo=UTC)
    message = handshake_request_message(now, bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert message.hex() == "016592008000112233445566778899aabbccddeeff"
    assert handshake_time(message) == now


@pytest.mark.parametrize("message", [b"", MESSAGE[:-1], MESSAGE + b"\0", b"\x02" + MESSAGE[1:]])
def test_a_request_message_of_another_shape_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedMessage, match="21 bytes starting 01"):
        handshake_time(message)


def test_server_kp_is_85_bytes_around_the_session() -> None:
    kp = server_kp(bytes(range(16)), b"\xff" * 68)
    assert len(kp) == 85
    assert kp.hex() == "01000102030405060708090a0b0c0d0e0f" + "ff" * 68
    assert session_id(kp) == bytes(range(16))


@pytest.mark.parametrize("kp", [b"", b"\x01" * 16, b"\x02" * 85])
def test_a_server_kp_without_a_session_is_malformed(kp: bytes) -> None:
    with pytest.raises(MalformedMessage, match="serverKP"):
        session_id(kp)


def test_our_own_wrong_lengths_are_no_peers_fault() -> None:
    with pytest.raises(ValueError, match="16 random bytes"):
        handshake_request_message(datetime(2026, 1, 1, tzinfo=UTC), b"short")
    with pytest.raises(ValueError, match="68 random bytes"):
        server_kp(bytes(16), b"short")


def test_what_the_service_signs_joins_four_counted_fields() -> None:
    tbs = tbs_handshake(b"\xaa\xbb", fdr_blob=b"\xcc", kp=b"\xdd\xee\xff", su_info=b"")
    assert tbs.hex() == (
        "53494d2d48532d3100"  # "SIM-HS-1" 00
        "0002aabb"
        "0001cc"
        "0003ddeeff"
        "0000"
    )
    assert REPLY.tbs(MESSAGE) == tbs_handshake(
        MESSAGE, fdr_blob=REPLY.fdr_blob, kp=REPLY.server_kp, su_info=REPLY.su_info
    )


def test_the_response_message_is_508_bytes_with_the_signature_at_six() -> None:
    message = handshake_response_message(b"\x30\x45" + b"s" * 69)
    assert len(message) == 508
    assert message[:6].hex() == "53494d310047"
    assert message[6:77] == b"\x30\x45" + b"s" * 69
    assert message[77:] == bytes(431)
    assert handshake_signature(message) == b"\x30\x45" + b"s" * 69


def response(length: int, *, magic: bytes = b"SIM1", tail: bytes = b"") -> bytes:
    return (magic + length.to_bytes(2) + b"s" * length + tail).ljust(508, b"\0")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (response(70)[:-1], "508 bytes"),
        (b"", "508 bytes"),
        (response(70) + b"\0", "508 bytes"),
        (b"XXXX" + bytes(505), "508 bytes"),  # the length is looked at first
        (response(7, magic=b"SIM2", tail=b"x"), "SIM1"),  # then the mark
        (response(7, tail=b"x"), "a signature of 8 to 72 bytes"),  # then the signature's length
        (response(73), "a signature of 8 to 72 bytes"),
        (response(70, tail=b"x"), "only zero bytes"),
        (response(70)[:-1] + b"\x01", "only zero bytes"),
    ],
)
def test_the_response_message_is_checked_in_the_order_of_the_device(
    message: bytes, says: str
) -> None:
    with pytest.raises(MalformedMessage) as caught:
        handshake_signature(message)
    assert says in str(caught.value)


@pytest.mark.parametrize("length", [8, 70, 72])
def test_signatures_of_eight_to_seventy_two_bytes_pass(length: int) -> None:
    assert handshake_signature(response(length)) == b"s" * length


# ---- messages ----


ingest_bodies = st.builds(
    IngestBody,
    serial_number=text,
    udid=text,
    product_type=text,
    os_version=text,
    os_build=text,
    imei=st.none() | text,
    imei2=st.none() | text,
    meid=st.none() | text,
    pcrt=text,
)


@settings(max_examples=50)
@given(ingest_bodies, st.binary(max_size=70), st.binary(min_size=20, max_size=20))
def test_decoding_undoes_encoding_a_request(
    ingest: IngestBody, signature: bytes, rest: bytes
) -> None:
    request = HandshakeRequest(
        udid=ingest.udid,
        ingest_body=ingest.encode(),
        sig_key=b"\x04" + bytes(64),
        signature=signature,
        handshake_request_message=b"\x01" + rest,
    )
    decoded = decode_handshake_request(encode_handshake_request(request))
    assert decoded == request
    assert IngestBody.decode(decoded.ingest_body) == ingest


@settings(max_examples=50)
@given(st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9))
def test_decoding_undoes_encoding_a_reply(kp: bytes, fdr: bytes, su: bytes, message: bytes) -> None:
    reply = HandshakeReply(
        server_kp=kp, fdr_blob=fdr, su_info=su, handshake_response_message=message
    )
    assert decode_handshake_reply(encode_handshake_reply(reply)) == reply


def test_the_request_has_the_keys_and_types_of_the_captured_one() -> None:
    fields = plist.loads(encode_handshake_request(REQUEST))
    assert sorted(fields) == ["CollectionBlob", "HandshakeRequestMessage", "UniqueDeviceID"]
    collection = plist.loads(fields["CollectionBlob"])
    assert sorted(collection) == ["IngestBody", "X-Apple-Sig-Key", "X-Apple-Signature"]
    assert len(collection["X-Apple-Sig-Key"]) == 88
    assert INGEST.encode() == (
        b'{"serial-number":"F7K2Q9XW4M","udid":"00008110-001A34D90E38801E","imei":"353918051234561",'
        b'"productType":"iPhone14,5","os-version":"18.1","os-build":"22B83","pcrt":"","scrt-part1":"","scrt-part2":""}'
    )


def changed(change: dict[str, Any], **collection: Any) -> bytes:
    """The request with some keys changed, outside and inside the CollectionBlob; None leaves a key out."""
    fields = REQUEST.to_fields()
    inside = {**plist.loads(fields["CollectionBlob"]), **collection}
    fields["CollectionBlob"] = plist.dumps({k: v for k, v in inside.items() if v is not None})
    fields.update(change)
    return plist.dumps({key: value for key, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (changed({"UniqueDeviceID": None}), "UniqueDeviceID"),
        (changed({"UniqueDeviceID": "other"}), "IngestBody.udid"),
        (changed({"HandshakeRequestMessage": None}), "HandshakeRequestMessage"),
        (changed({"HandshakeRequestMessage": MESSAGE[1:]}), "HandshakeRequestMessage"),
        (changed({"CollectionBlob": None}), "CollectionBlob"),
        (changed({"CollectionBlob": b"no plist"}), "CollectionBlob"),
        (changed({}, IngestBody=None), "CollectionBlob.IngestBody"),
        (changed({}, IngestBody=b"no json"), "IngestBody"),
        (changed({}, IngestBody=b"{}"), "serial-number"),
        (changed({}, **{"X-Apple-Sig-Key": None}), "CollectionBlob.X-Apple-Sig-Key"),
        (changed({}, **{"X-Apple-Sig-Key": b"\x04"}), "CollectionBlob.X-Apple-Sig-Key"),
        (changed({}, **{"X-Apple-Signature": "*"}), "CollectionBlob.X-Apple-Signature"),
    ],
)
def test_a_broken_request_names_its_key(wire: bytes, field: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_handshake_request(wire)
    assert caught.value.field == field


@pytest.mark.parametrize("key", ["serverKP", "FDRBlob", "SUInfo", "HandshakeResponseMessage"])
def test_a_reply_needs_all_four_keys(key: str) -> None:
    fields = REPLY.to_fields()
    del fields[key]
    with pytest.raises(MalformedMessage, match=f"^{key}: expected data$"):
        decode_handshake_reply(plist.dumps(fields))


@settings(max_examples=50)
@given(
    garbage | damaged(encode_handshake_request(REQUEST)) | damaged(encode_handshake_reply(REPLY))
)
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode_handshake_request, noise)
    survives(decode_handshake_reply, noise)
    survives(handshake_signature, noise)
    survives(session_id, noise)
