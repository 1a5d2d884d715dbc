"""Files that a person writes: YAML, every scalar read as text, every mistake reported at once.

YAML's own typing would turn serial `0123456` into 42798 and OS `17.10` into 17.1; so the loader leaves text alone and
the pydantic model of the file does the typing. `null` is text too: leave a key out instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from emulator.errors import ConfigurationError

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class FileModel(BaseModel):
    """Base of every section: unknown keys are mistakes, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


def read(path: Path, model: type[M]) -> M:
    """Read `path` as `model`. Raises ConfigurationError naming the file and every mistake in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error}"]) from error
    return parse(text, model, source=str(path))


def parse(text: str, model: type[M], *, source: str) -> M:
    """Read YAML text as `model`; `source` is how errors name it."""
    return validate(load(text, source=source), model, source=source)


def load(text: str, *, source: str) -> object:
    """YAML as plain data of text, lists and dicts; nothing at all counts as no keys."""
    try:
        content = yaml.load(text, Loader=_LOADER)  # BaseLoader makes text, lists and dicts only
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(
            source, [f"is not YAML: {' '.join(str(error).split())}"]
        ) from error
    return {} if content in (None, "") else content


def validate(content: object, model: type[M], *, source: str) -> M:
    """Type plain data as `model`; every mistake is one line `path: what is wrong`."""
    if not isinstance(content, Mapping):
        raise ConfigurationError(source, ["top level: expected keys and values"])
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(source, _mistakes(error)) from error


def _mistakes(error: ValidationError) -> list[str]:
    """One line each. A list that is too short only because its items have mistakes is none of its own."""
    items = error.errors()
    places = [item["loc"] for item in items]
    return [
        _mistake(item)
        for item in items
        if item["type"] != "too_short"
        or not any(place[: len(item["loc"])] == item["loc"] != place for place in places)
    ]


def _mistake(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"]) or "top level"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path}: {message[:1].lower()}{message[1:]}"
