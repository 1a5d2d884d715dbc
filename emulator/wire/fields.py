"""Reading one key out of a decoded property list or JSON object, with an exact error when it is absent or mistyped."""

from datetime import datetime
from typing import Any, Final, TypeVar

from certs.errors import MalformedMessage

Fields = dict[str, Any]
T = TypeVar("T")

# What a property list calls the Python types that stand for its values.
KINDS: Final[dict[type, str]] = {
    str: "string",
    bytes: "data",
    bool: "boolean",
    int: "integer",
    float: "real",
    dict: "dictionary",
    list: "array",
    datetime: "date",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """The property-list name of a value's type; errors show this instead of values that may be secret."""
    return KINDS.get(type(value), type(value).__name__)


def required(fields: Fields, key: str, kind: type[T], where: str = "") -> T:
    """The value of `key`, which must be there; `where` is the path before the key, such as `PayloadContent[1].`.

    Raises MalformedMessage: with `got` None when the key is absent, else with the kind of value that came.
    """
    if key not in fields:
        raise MalformedMessage(where + key, KINDS[kind])
    value = fields[key]
    # A boolean is an int for Python, never for a property list; a whole number may stand for a real.
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if kind is float and type(value) is int:
        return kind(value)  # type: ignore[call-arg]
    raise MalformedMessage(where + key, KINDS[kind], kind_of(value))


def optional(fields: Fields, key: str, kind: type[T], where: str = "") -> T | None:
    """The value of `key`, or None when it is absent. Raises MalformedMessage when it is mistyped."""
    return required(fields, key, kind, where) if key in fields else None


def required_list(fields: Fields, key: str, kind: type[T], where: str = "") -> tuple[T, ...]:
    """The items of the array `key`, each of one kind. Raises MalformedMessage naming the item."""
    items = required(fields, key, list, where)
    return tuple(
        required({f"{key}[{index}]": item}, f"{key}[{index}]", kind, where)
        for index, item in enumerate(items)
    )


def optional_list(fields: Fields, key: str, kind: type[T], where: str = "") -> tuple[T, ...] | None:
    """The items of the array `key`, or None when it is absent."""
    return required_list(fields, key, kind, where) if key in fields else None


def present(fields: Fields) -> Fields:
    """The fields that have a value: what is None is left off the wire."""
    return {key: value for key, value in fields.items() if value is not None}
