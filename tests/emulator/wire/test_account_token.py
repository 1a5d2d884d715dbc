"""The AccountToken: the golden, the old property-list syntax with all its spellings, damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import account_token
from emulator.wire.account_token import AccountToken, decode, encode, loads
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import plist_text
from tests.support import GOLDENS

GOLDEN = (GOLDENS / "wire" / "account-token.txt").read_bytes()
TOKEN = AccountToken(
    serial_number="F7K2Q9XW4M",
    udid="00008110-001A34D90E38801E",
    activation_randomness="8C1F0B4E-6A0D-4B47-9A0F-3A1F6E0D2C55",
    product_type="iPhone14,5",
    wildcard_ticket="MIICqgIBATALBgkq",
    imei="353918051234561",
    phone_number_notification_url="https://albert.example/deviceservices/phoneHome",
    activity_url="https://albert.example/deviceservices/activity",
)


def test_the_golden_is_written_byte_for_byte_and_read_back() -> None:
    assert encode(TOKEN) == GOLDEN
    assert decode(GOLDEN) == TOKEN


maybe = st.none() | plist_text


@settings(max_examples=60)
@given(
    st.builds(
        AccountToken,
        serial_number=plist_text,
        udid=plist_text,
        activation_randomness=plist_text,
        product_type=plist_text,
        wildcard_ticket=maybe,
        imei=maybe,
        meid=maybe,
        phone_number_notification_url=maybe,
        activity_url=maybe,
        postponement_info=st.dictionaries(plist_text, plist_text, max_size=2),
    )
)
def test_decoding_undoes_encoding(token: AccountToken) -> None:
    assert decode(encode(token)) == token


@settings(max_examples=60)
@given(garbage | damaged(GOLDEN))
def test_garbage_and_damage_are_malformed(noise: bytes) -> None:
    survives(decode, noise)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", {}),
        (" { } \n", {}),
        ("{a=b;}", {"a": "b"}),
        ('{"a b" = c-d.e/f:1;}', {"a b": "c-d.e/f:1"}),
        ('{a={b={};c="";};}', {"a": {"b": {}, "c": ""}}),
        (r'{a="q\"q\\n\n\t\101\U00e4";}', {"a": 'q"q\\n\n\tAä'}),
        (r'{a="\Ud800";}', {"a": "\N{REPLACEMENT CHARACTER}"}),
        ('{a="two\nlines";}', {"a": "two\nlines"}),
    ],
)
def test_every_spelling_of_the_syntax_is_read(text: str, fields: dict[str, object]) -> None:
    assert loads(text.encode()) == fields


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a brace, an equals sign"),
        ("a", "an opening brace"),
        ("{", "a brace, an equals sign"),
        ("{a}", "a key and an equals sign"),
        ("{a b;}", "a key and an equals sign"),
        ("{=b;}", "a key and an equals sign"),
        ("{a=;}", "a string or a dictionary"),
        ("{a=b}", "a semicolon"),
        ("{a=b;} c", "nothing after"),
        ('{a="b;}', "a brace, an equals sign"),
        ("{a=" * 20, "16 levels"),
        ("{a=<00>;}", "a brace, an equals sign"),
    ],
)
def test_broken_syntax_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        loads(text.encode())
    assert says in str(caught.value)


def test_bytes_that_are_no_text_or_too_many_are_refused() -> None:
    for data in (b"\xff", b" " * (account_token.MAX_BYTES + 1)):
        with pytest.raises(MalformedMessage):
            loads(data)


def test_a_long_unfinished_string_is_refused_in_linear_time() -> None:
    with pytest.raises(MalformedMessage):
        loads(b'{a="' + b"\\a" * 100_000)


@pytest.mark.parametrize("key", ["SerialNumber", "UniqueDeviceID", "ActivationRandomness"])
def test_what_a_device_compares_must_be_there(key: str) -> None:
    lines = [line for line in GOLDEN.splitlines(keepends=True) if key.encode() not in line]
    with pytest.raises(MalformedMessage, match=f"{key}: expected string"):
        decode(b"".join(lines))


def test_the_other_name_of_the_ticket_and_unknown_keys_are_read() -> None:
    other = GOLDEN.replace(b"WildcardTicket", b"ActivationTicket").replace(
        b"{\n", b'{\n\t"obfuscated" = {"a" = "b";};\n', 1
    )
    assert decode(other) == TOKEN
