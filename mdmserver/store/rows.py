"""Records to SQLite rows and back: one pair of functions for every dataclass of `base`."""

import dataclasses
import sqlite3
import types
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

R = TypeVar("R")


def time_text(at: datetime) -> str:
    """Sortable: UTC, always with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def to_row(record: Any) -> dict[str, Any]:
    """Column values of a record."""
    return {name: to_column(getattr(record, name)) for name in _columns(type(record))}


def to_column(value: object) -> Any:
    """One value as SQLite holds it."""
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return int(value)
    return value


def from_row(kind: type[R], row: sqlite3.Row) -> R:
    """The record that a row holds."""
    return kind(**{name: read(row[name]) for name, read in _columns(kind).items()})


def insert(
    connection: sqlite3.Connection, table: str, record: Any, *, replace: bool = False
) -> None:
    """Write a record as a new row."""
    row = to_row(record)
    verb = "REPLACE" if replace else "INSERT"
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    # Table and column names are our own, never input.
    connection.execute(f"{verb} INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


_known: dict[Any, dict[str, Callable[[Any], Any]]] = {}


def _columns(kind: Any) -> dict[str, Callable[[Any], Any]]:
    """Column names of a record, each with how it is read."""
    if kind not in _known:
        hints = get_type_hints(kind)
        _known[kind] = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(kind)}
    return _known[kind]


def _reader(hint: Any) -> Callable[[Any], Any]:
    """How a column of this type is read; NULL is None everywhere."""
    members = [hint]
    if get_origin(hint) in (types.UnionType,) or str(get_origin(hint)) == "typing.Union":
        members = [member for member in get_args(hint) if member is not type(None)]
    convert: Callable[[Any], Any] = _same
    (member,) = members if len(members) == 1 else (str,)
    if member is datetime:
        convert = datetime.fromisoformat
    elif member is bool:
        convert = bool
    elif isinstance(member, type) and issubclass(member, Enum):
        convert = member
    elif get_origin(member) is Literal:
        convert = _same
    return lambda value: None if value is None else convert(value)


def _same(value: Any) -> Any:
    return value
