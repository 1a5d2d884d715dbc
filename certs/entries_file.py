"""A YAML file that lists things for `mdm-certs`, one mapping each, every value a text; every mistake in it is told at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from certs.errors import CertsError

MAX_BYTES: Final = 16 * 1024 * 1024

Entry = dict[str, str]


class BadEntriesFile(CertsError):
    """Every mistake of a file at once."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


def read_entries(
    path: Path, *, what: str, keys: Sequence[str], mistake: Callable[[Entry], str | None]
) -> list[Entry]:
    """The entries of a file, `what` each; the first of `keys` is needed and stands once in a file.

    `mistake` says what else is wrong with an entry. Values are in no message but for the first key's. Raises BadEntriesFile.
    """
    source = str(path)
    content = _content(path, source)
    if not isinstance(content, list) or not content:
        raise BadEntriesFile(source, [f"must be a list of {what}s"])
    seen: set[str] = set()
    mistakes: list[str] = []
    for number, entry in enumerate(content, start=1):
        wrong = _form(entry, keys) or mistake(entry)
        if wrong is None and entry[keys[0]] in seen:
            wrong = f"{keys[0]} {entry[keys[0]]} is given twice"
        if wrong is not None:
            mistakes.append(f"{what} {number}: {wrong}")
        else:
            seen.add(entry[keys[0]])
    if mistakes:
        raise BadEntriesFile(source, mistakes)
    return content


def _content(path: Path, source: str) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadEntriesFile(source, [f"more than {MAX_BYTES} bytes"])
        # Every scalar as text: a serial number 0123456 stays one.
        return yaml.load(path.read_bytes(), Loader=yaml.CBaseLoader)
    except OSError as error:
        raise BadEntriesFile(source, [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadEntriesFile(source, [f"is not YAML: {' '.join(str(error).split())}"]) from error


def _form(entry: object, keys: Sequence[str]) -> str | None:
    if not isinstance(entry, dict):
        return f"must have the keys {', '.join(keys)}"
    unknown = [str(key) for key in entry if key not in keys]
    if unknown:
        return f"unknown key {', '.join(unknown)}"
    if not all(isinstance(value, str) and value for value in entry.values()):
        return "every value must be a text"
    return None if keys[0] in entry else f"{keys[0]} is missing"
