"""DER as we write it and BER as we read it, with asn1crypto as the second opinion."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from asn1crypto import core
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import der
from certs.errors import MalformedMessage

LENGTHS = (0, 1, 127, 128, 255, 256, 65535, 65536)
moments = st.datetimes(datetime(1950, 1, 1), datetime(2049, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
oids = st.builds(
    lambda first, rest: f"2.{first}" + "".join(f".{arc}" for arc in rest),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 2**64), max_size=6),
)


def tree(definite: bool) -> st.SearchStrategy[bytes]:
    """Whole elements of random nesting."""
    leaves = st.builds(der.octet_string, st.binary(max_size=200)) | st.builds(
        der.integer, st.integers(-(2**70), 2**70)
    )
    join: Callable[..., bytes] = der.sequence
    if not definite:

        def join(*items: bytes) -> bytes:
            return der.indefinite(der.SEQUENCE, *items)

    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4).map(lambda x: join(*x)), max_leaves=12
    )


def walk(node: der.Node) -> list[object]:
    """Everything a reader may ask of an element; what is not possible is MalformedMessage."""
    seen: list[object] = []
    for ask in (node.as_int, node.as_oid, node.as_text, node.as_time, node.octets, node.bits):
        try:
            seen.append(ask())
        except MalformedMessage:
            continue
    try:
        children = node.children()
    except MalformedMessage:
        children = []
    for child in children:
        seen += walk(child)
    return seen


@given(st.integers(-(2**300), 2**300))
def test_an_integer_is_minimal_and_comes_back(value: int) -> None:
    assert der.integer(value) == core.Integer(value).dump()
    assert der.read(der.integer(value)).as_int() == value


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, -1, -128, -129, 2**63, 1 << 127])
def test_an_integer_at_each_boundary_is_what_asn1crypto_writes(value: int) -> None:
    assert der.integer(value) == core.Integer(value).dump()


@given(oids)
def test_an_object_identifier_comes_back(dotted: str) -> None:
    assert der.read(der.oid(dotted)).as_oid() == dotted
    assert core.ObjectIdentifier.load(der.oid(dotted)).dotted == dotted


@pytest.mark.parametrize("text", ["", "1", "1.40", "3.1", "1.-2", "a.b"])
def test_what_is_no_object_identifier_cannot_be_written(text: str) -> None:
    with pytest.raises(ValueError, match="object identifier|invalid literal"):
        der.oid(text)


@pytest.mark.parametrize("content", ["", "80", "8680", "ff" * 128 + "01"])
def test_what_is_no_object_identifier_cannot_be_read(content: str) -> None:
    with pytest.raises(MalformedMessage, match="an object identifier"):
        der.read(der.tlv(der.OID, bytes.fromhex(content))).as_oid()


@given(moments)
def test_a_time_comes_back(moment: datetime) -> None:
    assert der.read(der.utc_time(moment)).as_time() == moment
    assert der.read(der.generalized_time(moment)).as_time() == moment
    assert core.UTCTime.load(der.utc_time(moment)).native == moment


def test_a_time_is_utctime_until_2049() -> None:
    assert der.time(datetime(2049, 12, 31, tzinfo=UTC))[0] == der.UTC_TIME
    assert der.time(datetime(2050, 1, 1, tzinfo=UTC))[0] == der.GENERALIZED_TIME
    with_offset = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert der.time(with_offset)[2:] == b"251231230000Z"


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (0x17, "160531132013+0200", datetime(2016, 5, 31, 11, 20, 13, tzinfo=UTC)),
        (0x17, "500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (0x18, "20260101000000.123Z", datetime(2026, 1, 1, tzinfo=UTC)),
        (0x18, "20260101000000-0030", datetime(2026, 1, 1, 0, 30, tzinfo=UTC)),
    ],
)
def test_times_of_other_shapes_are_read(tag: int, text: str, expected: datetime) -> None:
    assert der.read(der.tlv(tag, text.encode())).as_time() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2601010000Z",
        "260101000000",
        "261301000000Z",
        "260101000000+2",
        "26x101000000Z",
        "\xff",
    ],
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage, match="a time"):
        der.read(der.tlv(der.UTC_TIME, text.encode("latin-1"))).as_time()
    with pytest.raises(MalformedMessage, match="a time"):
        der.read(der.tlv(der.GENERALIZED_TIME, b"00010101000000+2300")).as_time()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (der.utf8("Gerät"), "Gerät"),
        (der.printable("abc"), "abc"),
        (der.ia5("a@b"), "a@b"),
        (der.tlv(0x1E, "Ω".encode("utf-16-be")), "Ω"),
        (der.tlv(0x1C, "Ω".encode("utf-32-be")), "Ω"),
        (der.tlv(0x14, b"Ger\xe4t"), "Gerät"),
        (der.tlv(0x0C, b"Ger\xe4t"), "Gerät"),  # Latin-1 under the wrong tag
        (der.context(2, b"example.com", constructed=False), "example.com"),
    ],
)
def test_text_of_each_kind_is_read(data: bytes, expected: str) -> None:
    assert der.read(data).as_text() == expected


def test_a_bmp_string_of_odd_length_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="utf-16-be"):
        der.read(der.tlv(0x1E, b"abc")).as_text()


def test_a_set_is_sorted_as_der_demands() -> None:
    items = [
        der.octet_string(b"b"),
        der.octet_string(b"aa"),
        der.integer(9),
        der.octet_string(b"a"),
    ]
    assert der.set_of(*items) == der.tlv(der.SET, *[items[i] for i in (2, 3, 0, 1)])


@pytest.mark.parametrize("length", LENGTHS)
def test_each_length_boundary_is_written_minimally_and_read(length: int) -> None:
    value = b"x" * length
    assert der.octet_string(value) == core.OctetString(value).dump()
    node = der.read(der.octet_string(value))
    assert node.octets() == value
    for written in (
        der.tlv(0x24, der.octet_string(value)),
        der.indefinite(0x24, der.octet_string(value)),
        der.indefinite(
            0x24, der.indefinite(0x24, der.octet_string(value[:1])), der.octet_string(value[1:])
        ),
        der.tlv(0xA0, der.octet_string(value)),
        der.tlv(0x80, value),
    ):
        assert der.read(written + b"\r\n").octets() == value


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300])
def test_a_length_that_is_not_minimal_is_read(length: int) -> None:
    value = b"x" * length
    assert der.read(b"\x04\x84" + length.to_bytes(4, "big") + value).octets() == value


@given(tree(definite=True))
def test_a_tree_comes_back_byte_for_byte(data: bytes) -> None:
    node = der.read(data)
    assert node.raw == data
    if node.tag == der.SEQUENCE:
        assert b"".join(child.raw for child in node.children()) == node.content


@given(tree(definite=False), st.binary(max_size=5))
def test_indefinite_lengths_end_where_they_should(data: bytes, trailing: bytes) -> None:
    node = der.read(data + trailing)
    assert node.raw == data
    if node.tag == der.SEQUENCE:
        assert b"".join(child.raw for child in node.children()) == node.content


@given(st.one_of(tree(definite=True), tree(definite=False)))
@settings(max_examples=40)
def test_a_truncated_element_is_malformed(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(MalformedMessage):
            der.read(data[:end])


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_garbage_is_malformed_or_readable(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        walk(der.read(data))


@given(tree(definite=False), st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_is_malformed_or_readable(data: bytes, position: int, value: int) -> None:
    position %= len(data)
    with contextlib.suppress(MalformedMessage):
        walk(der.read(data[:position] + bytes((value,)) + data[position + 1 :]))


def test_nesting_is_bounded() -> None:
    definite = b""
    for _ in range(der.MAX_DEPTH + 2):
        definite = der.sequence(definite)
    with pytest.raises(MalformedMessage, match="levels"):
        walk_down(der.read(definite))
    for bomb in (b"\x30\x80" * 100_000, b"\x24\x80" * 1000 + b"\x00\x00" * 1000):
        with pytest.raises(MalformedMessage, match="levels"):
            der.read(bomb)


def walk_down(node: der.Node) -> None:
    while True:
        node = node.children()[0]


def test_the_number_of_elements_and_the_size_are_bounded() -> None:
    with pytest.raises(MalformedMessage, match="at most 65536 elements"):
        der.read(der.sequence(der.null() * 65537)).children()
    with pytest.raises(MalformedMessage, match="at most 33554432 bytes"):
        der.read(bytes(der.MAX_BYTES + 1))
    with pytest.raises(MalformedMessage, match="an INTEGER of 1 to 1024 bytes"):
        der.read(der.tlv(der.INTEGER, b"\x01" * 1025)).as_int()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "a whole tag and length"),
        (b"\x04", "a whole tag and length"),
        (b"\x04\x82\x01", "a whole tag and length"),
        (b"\x04\x89" + b"\x01" * 9, "a length of at most 8 bytes"),
        (b"\x04\x88" + b"\xff" * 8, "bytes of content"),
        (b"\x04\x80\x00\x00", "a definite length in a primitive element"),
        (b"\x30\x80\x02\x01\x01", "a whole tag and length"),
        (b"\x30\x80\x00\x01\x00", "an end-of-contents marker"),
        (b"\x3f\xff\xff\xff\xff\x01", "a tag number below"),
    ],
)
def test_each_broken_header_has_its_own_error(data: bytes, expected: str) -> None:
    with pytest.raises(MalformedMessage, match=expected):
        der.read(data)


def test_a_high_tag_number_is_read() -> None:
    node = der.read(b"\xbf\x84\x58\x03\x02\x01\x05")
    assert node.tag == 0xBF8458
    assert node.children()[0].as_int() == 5


def test_a_constructed_octet_string_holds_only_octet_strings() -> None:
    with pytest.raises(MalformedMessage, match="tag 0x04 or 0x24, got '0x02'"):
        der.read(der.tlv(0x24, der.integer(1))).octets()


def test_the_wrong_type_is_named_with_its_field() -> None:
    with pytest.raises(MalformedMessage, match="serial: expected tag 0x02"):
        der.read(der.null(), "serial").as_int()
    with pytest.raises(MalformedMessage, match="serial: expected at least 2 elements, got 1"):
        der.read(der.sequence(der.null())).items(der.SEQUENCE, 2, "serial")
    with pytest.raises(MalformedMessage, match="a BIT STRING of whole bytes"):
        der.read(der.bit_string(b"\x80", unused=7)).bits()
