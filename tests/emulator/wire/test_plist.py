"""Property lists: what Apple's parser takes, what nobody should, and the form that devices write."""

import plistlib
import tracemalloc
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import plist, plist_xml
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import fields
from tests.support import GOLDENS, VECTORS, needs_vectors

MALFORMED = VECTORS / "malformed"


def naive(value: Any) -> Any:
    """The same value with the naive dates of plistlib."""
    match value:
        case dict():
            return {key: naive(item) for key, item in value.items()}
        case list():
            return [naive(item) for item in value]
        case datetime():
            return value.replace(tzinfo=None)
    return value


@settings(max_examples=60)
@given(fields)
def test_reading_undoes_writing(value: dict[str, Any]) -> None:
    assert plist.loads(plist.dumps(value)) == value


@settings(max_examples=60)
@given(fields)
def test_plistlib_reads_what_we_write_and_we_read_what_it_writes(value: dict[str, Any]) -> None:
    assert plistlib.loads(plist.dumps(value)) == naive(value)
    for form in (plistlib.FMT_XML, plistlib.FMT_BINARY):
        if form is plistlib.FMT_XML and "\\r" in repr(value):
            continue  # plistlib writes a carriage return as itself, which XML reads as a line feed
        assert plist.loads(plistlib.dumps(naive(value), fmt=form)) == value


@settings(max_examples=100)
@given(garbage)
def test_garbage_is_refused_with_one_kind_of_error(data: bytes) -> None:
    survives(plist.loads, data)


@settings(max_examples=60)
@given(st.sampled_from([plistlib.FMT_XML, plistlib.FMT_BINARY]), st.data())
def test_damage_is_refused_or_yields_what_can_be_written(form: Any, data: st.DataObject) -> None:
    good = plistlib.dumps(
        {"Token": b"abc", "n": [1, 2.5, True, datetime(2026, 1, 1)], "d": {"k": "v"}}, fmt=form
    )
    try:
        value = plist.loads(data.draw(damaged(good)))
    except MalformedMessage:
        return
    plist.dumps(value)


def test_keys_are_sorted_and_lines_indented_by_tabs() -> None:
    written = plist.dumps({"b": {"z": [], "y": {}, "x": b""}, "a": ["<&>\r", -1, 0.5, True, False]})
    assert written.decode().split('<plist version="1.0">\n')[1] == (
        "<dict>\n"
        "\t<key>a</key>\n"
        "\t<array>\n"
        "\t\t<string>&lt;&amp;&gt;&#13;</string>\n"
        "\t\t<integer>-1</integer>\n"
        "\t\t<real>0.5</real>\n"
        "\t\t<true/>\n"
        "\t\t<false/>\n"
        "\t</array>\n"
        "\t<key>b</key>\n"
        "\t<dict>\n"
        "\t\t<key>x</key>\n"
        "\t\t<data>\n"
        "\t\t</data>\n"
        "\t\t<key>y</key>\n"
        "\t\t<dict/>\n"
        "\t\t<key>z</key>\n"
        "\t\t<array/>\n"
        "\t</dict>\n"
        "</dict>\n"
        "</plist>\n"
    )


def test_dates_are_written_in_utc_whatever_their_zone() -> None:
    moment = datetime.fromisoformat("2026-01-01T01:30:00+02:00")
    assert b"<date>2025-12-31T23:30:00Z</date>" in plist.dumps({"d": moment})
    assert plist.loads(plist.dumps({"d": moment})) == {"d": moment}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        ({1, 2}, TypeError),
        ("bell \x07", ValueError),
        ("\ud800", ValueError),
        (1 << 64, OverflowError),
        (-(1 << 63) - 1, OverflowError),
    ],
)
def test_our_own_mistakes_are_not_blamed_on_a_peer(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        plist.dumps({"key": value})


WELL_FORMED = '<plist version="1.0"><dict><key>key</key><string>välue</string></dict></plist>'


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + WELL_FORMED.encode(),
        WELL_FORMED.encode("utf-16"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + WELL_FORMED).encode("latin-1"),
        plist.HEADER.removesuffix('<plist version="1.0">\n').encode() + WELL_FORMED.encode(),
        f"<!-- a -->\r\n<?xml version='1.0'?><!-- - -->{WELL_FORMED}<!-- b -->\n".encode(),
    ],
)
def test_every_unicode_encoding_and_prolog_is_read(data: bytes) -> None:
    assert plist.loads(data) == {"key": "välue"}


def xml(inside: str) -> bytes:
    return f'<plist version="1.0">{inside}</plist>'.encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (xml("<array/>"), "a dictionary at the root, got 'array'"),
        (xml(""), "one value inside <plist>"),
        (xml("<plist/>"), "one <plist> around one value"),
        (b"<plists><dict/></plists>", "one <plist> around one value"),
        (xml("<dict/><dict/>"), "one value inside <plist>"),
        (xml("<dict><string>a</string></dict>"), "a key before each value"),
        (xml("<dict><key>a</key></dict>"), "a value after each key"),
        (xml("<dict><key>a</key><key>b</key><true/></dict>"), "a value after each key"),
        (xml("<array><key>a</key></array>"), "keys only inside a dictionary"),
        (xml("<dict><key>a</key><color/></dict>"), "an element of a property list"),
        (xml("<dict><key>a</key><string>x<b/></string></dict>"), "no element inside <string>"),
        (xml("<dict><key>a</key><true>yes</true></dict>"), "a valid <true>"),
        (xml("<dict><key>a</key><integer>1_0</integer></dict>"), "a valid <integer>"),
        (xml("<dict><key>a</key><integer>18446744073709551616</integer></dict>"), "a valid <integ"),
        (xml("<dict><key>a</key><real>1_0.0</real></dict>"), "a valid <real>"),
        (xml("<dict><key>a</key><date>2026-13-01T00:00:00Z</date></dict>"), "property list"),
        (xml("<dict><key>a</key><date>2026-01-01</date></dict>"), "a valid <date>"),
        (xml("<dict><key>a</key><data>a!b=</data></dict>"), "a valid <data>"),
        (xml("<dict><key>a</key><string>&nbsp;</string></dict>"), "property list"),
        (b"<dict><key>a</key><true/></dict>", "property list"),
        (b'<?xml version="1.0" encoding="EBCDIC"?>' + xml("<dict/>"), "encoding UTF-8"),
        (b"", "an XML or binary property list"),
    ],
)
def test_broken_xml_is_refused_with_its_reason(data: bytes, says: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        plist.loads(data)
    assert says in str(caught.value)


def test_a_refused_value_is_not_quoted_because_it_may_be_secret() -> None:
    with pytest.raises(MalformedMessage) as caught:
        plist.loads(xml("<dict><key>PIN</key><integer>12-34-secret</integer></dict>"))
    assert "secret" not in str(caught.value)


ENTITIES = '<!ENTITY a "x">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)
BILLION_LAUGHS = (
    f"<?xml version='1.0'?><!DOCTYPE plist [{ENTITIES}]>"
    + xml("<dict><key>k</key><string>&j;</string></dict>").decode()
).encode()


def binary(objects: list[bytes], *, count: int | None = None) -> bytes:
    """A binary plist of these encoded objects, the first one at the top; one byte per reference."""
    body, offsets = b"bplist00", []
    for item in objects:
        offsets.append(len(body))
        body += item
    table = b"".join(offset.to_bytes(2) for offset in offsets)
    trailer = bytes(6) + b"\x02\x01" + (len(objects) if count is None else count).to_bytes(8)
    return body + table + trailer + bytes(8) + len(body).to_bytes(8)


LOOP = binary([b"\xd1\x01\x00", b"\x51k"])
# Each array names the next one twelve times: 12 ** 20 values in 300 bytes.
SHARED = binary(
    [b"\xd1\x01\x02", b"\x51k"]
    + [b"\xac" + bytes([number]) * 12 for number in range(3, 23)]
    + [b"\x09"]
)
LONG_TEXT = binary(
    [b"\xd1\x01\x02", b"\x51k", b"\xaf\x10\xff" + b"\x03" * 255, b"\x5f\x11\xff\xff" + b"a" * 65535]
)


def nested_binary(levels: int) -> bytes:
    """A dictionary around arrays, each of which is an object of its own."""
    arrays = [b"\xa1" + bytes([number + 1]) for number in range(2, levels + 1)]
    return binary([b"\xd1\x01\x02", b"\x51k", *arrays, b"\xa0"])


HOSTILE = {
    "billion laughs": BILLION_LAUGHS,
    "external entity": b'<!DOCTYPE plist [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    + xml("<dict/>"),
    "deep xml": xml("<dict><key>a</key>" * 100_000),
    "deep closed xml": xml("<dict><key>k</key>" + "<array>" * 70 + "</array>" * 70 + "</dict>"),
    "deep binary": nested_binary(70),
    "empty internal subset": b"<!DOCTYPE plist []>" + xml("<dict/>"),
    "many values": xml("<array>" + "<true/>" * (plist_xml.MAX_VALUES + 1) + "</array>"),
    "endless comment": b"<!--" + b"-" * 1_000_000,
    "endless prolog": b"<!-- -->" * 100_000 + b"<",
    "binary loop": LOOP,
    "binary shared references": SHARED,
    "binary huge count": binary([b"\xd0"], count=1 << 62),
    "binary huge array": binary([b"\xd1\x01\x02", b"\x51k", b"\xaf\x13\x7f" + b"\xff" * 7]),
    "binary huge data": binary([b"\xd1\x01\x02", b"\x51k", b"\x4f\x13\x7f" + b"\xff" * 7]),
    "binary date out of range": binary([b"\xd1\x01\x02", b"\x51k", b"\x33" + b"\x7f" * 8]),
    "binary control character": binary([b"\xd1\x01\x02", b"\x51k", b"\x51\x07"]),
    "binary key that is no text": binary([b"\xd1\x01\x02", b"\x09", b"\x09"]),
    "binary wide integer": binary([b"\xd1\x01\x02", b"\x51k", b"\x14" + b"\x7f" * 16]),
    "binary null": binary([b"\xd1\x01\x02", b"\x51k", b"\x00"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bombs_are_refused_in_little_memory(name: str) -> None:
    data = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            plist.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_nesting_as_deep_as_any_message_needs_is_read() -> None:
    deep = xml("<dict><key>k</key>" + "<array>" * 60 + "</array>" * 60 + "</dict>")
    assert plist.loads(nested_binary(60)) == plist.loads(deep)


def test_shared_long_text_is_counted_each_time_it_is_referenced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(plist.loads(LONG_TEXT)["k"]) == 255
    monkeypatch.setattr(plist, "MAX_RESPONSE_BYTES", 1_000_000)
    with pytest.raises(MalformedMessage, match="at most 1000000 bytes"):
        plist.loads(LONG_TEXT)


def test_a_document_over_the_size_limit_is_not_even_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plist, "MAX_RESPONSE_BYTES", 100)
    with pytest.raises(MalformedMessage, match="at most 100 bytes"):
        plist.loads(xml("<dict>" + " " * 100 + "</dict>"))


# What Apple's own parser does with each file (INDEX.md there): the keys it finds, or None where it refuses.
OUTCOMES: dict[str, list[str] | None] = {
    "TokenUpdate-commandment-iOS-11.3.1.plist": None,
    "checkin-unknown-messagetype-nanomdm.plist": ["MessageType"],
    "plist-comment.plist": ["key", "key2"],
    "plist-crasher-0d16bb1b5a9d.bin": None,
    "plist-crasher-137f12b963e1.bin": None,
    "plist-crasher-30864f343b3b.bin": None,
    "plist-crasher-5feced23aa27.bin": None,
    "plist-crasher-76632470f8fd.bin": None,
    "plist-crasher-aac34b3c8cbc.bin": None,
    "plist-crasher-b6d3ae7d57c5.bin": None,
    "plist-crasher-d2e984d7ef5d.bin": None,
    "plist-crasher-e322917c1e9e.bin": None,
    "plist-empty-xml.plist": ["key"],
    "plist-invalid-data.failure.plist": None,
    "plist-invalid-end.plist": ["key"],
    "plist-invalid-middle.failure.plist": None,
    "plist-invalid-start.failure.plist": None,
    "plist-malformed-xml.plist": ["key"],
    "plist-no-both.plist": ["key"],
    "plist-no-dict-end.failure.plist": None,
    "plist-no-doctype.plist": ["key"],
    "plist-no-plist-version.plist": ["key"],
    "plist-ok-uid.binary.plist": ["$archiver", "$objects", "$top", "$version"],
    "plist-swapped.plist": ["key"],
    "plist-unescaped-plist.failure.plist": None,
    "plist-valid.plist": ["key"],
    "smallstep-badsig.csr": None,  # no property lists, so refused as such
    "smallstep-short-rsa.csr": None,
}


@needs_vectors
@pytest.mark.vectors
def test_the_table_names_every_malformed_vector() -> None:
    assert {path.name for path in MALFORMED.iterdir()} == {*OUTCOMES, "INDEX.md"}


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize("name", OUTCOMES)
def test_malformed_vectors_end_as_with_apples_parser(name: str) -> None:
    data = (MALFORMED / name).read_bytes()
    wanted = OUTCOMES[name]
    tracemalloc.start()
    try:
        if wanted is None:
            with pytest.raises(MalformedMessage):
                plist.loads(data)
        else:
            value = plist.loads(data)
            assert sorted(value) == wanted
            assert value.get("key", "val") == "val"
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@needs_vectors
@pytest.mark.vectors
def test_captured_plists_are_read_and_written_as_plistlib_does() -> None:
    seen = 0
    for path in sorted(VECTORS.rglob("*.plist")) + sorted(VECTORS.rglob("*.mobileconfig")):
        data = path.read_bytes()
        if path.parent.name == "malformed" or data.startswith(b"\x30"):
            continue
        reference = plistlib.loads(data)
        if isinstance(reference, dict):
            assert plist.dumps(plist.loads(data)) == plistlib.dumps(reference), path.name
            seen += 1
    assert seen > 60


def test_a_golden_with_two_lines_of_data_is_reproduced() -> None:
    golden = (GOLDENS / "wire" / "TokenUpdate.plist").read_bytes()
    assert plist.loads(golden)["UnlockToken"] == bytes(range(64))
    assert plist.dumps(plist.loads(golden)) == golden
