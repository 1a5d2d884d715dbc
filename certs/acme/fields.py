"""Typed reading and writing of JSON members: where `Any` ends for the objects of ACME.

What is missing or of another type raises MalformedMessage with the member's name.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from certs.acme.jws import Json
from certs.errors import MalformedMessage

T = TypeVar("T")
S = TypeVar("S", bound=StrEnum)


def present(**members: object) -> Json:
    return {name: value for name, value in members.items() if value is not None}


def required(fields: Json, name: str, kind: type[T]) -> T:
    value = optional(fields, name, kind)
    if value is None:
        raise MalformedMessage(name, f"a JSON {kind.__name__}")
    return value


def optional(fields: Json, name: str, kind: type[T]) -> T | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedMessage(name, f"a JSON {kind.__name__}", value)
    return value


def json_object_of(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise MalformedMessage(name, "JSON objects", value)
    return value


def texts(fields: Json, name: str) -> tuple[str, ...]:
    values = required(fields, name, list)
    if not all(isinstance(value, str) for value in values):
        raise MalformedMessage(name, "a list of texts", values)
    return tuple(values)


def status_of(fields: Json, kind: type[S]) -> S:
    try:
        return kind(required(fields, "status", str))
    except ValueError:
        raise MalformedMessage(
            "status", f"one of {', '.join(kind)}", fields.get("status")
        ) from None


def time_of(fields: Json, name: str) -> datetime | None:
    text = optional(fields, name, str)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedMessage(name, "a time as of RFC 3339", text) from None


def time_text(time: datetime | None) -> str | None:
    if time is None:
        return None
    at = time.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return f"{at.isoformat()}Z"
