"""Reading keys: the exact error for what is absent or mistyped, and never the value itself."""

from datetime import UTC, datetime

import pytest

from certs.errors import MalformedMessage
from emulator.wire.fields import optional, optional_list, present, required, required_list

FIELDS = {
    "s": "text",
    "d": b"data",
    "t": True,
    "n": 7,
    "r": 0.5,
    "m": {"k": "v"},
    "a": ["x", "y"],
    "w": datetime(2026, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("key", "kind"),
    [("s", str), ("d", bytes), ("t", bool), ("n", int), ("r", float), ("m", dict), ("a", list)],
)
def test_a_value_of_the_right_kind_is_returned(key: str, kind: type) -> None:
    assert required(FIELDS, key, kind) == FIELDS[key]
    assert optional(FIELDS, key, kind) == FIELDS[key]


def test_a_date_is_a_date() -> None:
    assert required(FIELDS, "w", datetime).year == 2026


def test_a_whole_number_may_stand_for_a_real_but_a_boolean_for_no_number() -> None:
    assert required({"r": 3}, "r", float) == 3.0
    for kind in (int, float):
        with pytest.raises(MalformedMessage, match="'boolean'"):
            required({"n": True}, "n", kind)
    with pytest.raises(MalformedMessage, match="boolean, got 'integer'"):
        required({"t": 1}, "t", bool)


def test_an_absent_key_is_told_apart_from_a_mistyped_one() -> None:
    with pytest.raises(MalformedMessage) as absent:
        required({}, "Topic", str, "PayloadContent[1].")
    assert (absent.value.field, absent.value.expected, absent.value.got) == (
        "PayloadContent[1].Topic",
        "string",
        None,
    )
    with pytest.raises(MalformedMessage) as mistyped:
        required({"Topic": b"secret"}, "Topic", str)
    assert mistyped.value.got == "data"
    assert "secret" not in str(mistyped.value)


def test_an_optional_key_may_be_absent_but_not_mistyped() -> None:
    assert optional({}, "n", int) is None
    assert optional_list({}, "a", str) is None
    with pytest.raises(MalformedMessage):
        optional({"n": "7"}, "n", int)


def test_a_list_names_the_item_of_the_wrong_kind() -> None:
    assert required_list(FIELDS, "a", str) == ("x", "y")
    with pytest.raises(MalformedMessage) as caught:
        required_list({"a": ["x", 2]}, "a", str, "Command.")
    assert caught.value.field == "Command.a[1]"


def test_what_is_none_is_left_off() -> None:
    assert present({"a": None, "b": False, "c": ""}) == {"b": False, "c": ""}
