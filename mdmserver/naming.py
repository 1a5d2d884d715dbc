"""Device names from a template (rule 70): `{{DEVICETYPE}}` and `{{SERIAL}}`, 63 characters, 63 bytes expanded."""

import re
from typing import Final

MAX_CHARACTERS: Final = 63  # as typed, variables included
MAX_BYTES: Final = 63  # of the expanded name in UTF-8
LONGEST_SERIAL: Final = 12

_VARIABLE: Final = re.compile(r"\{\{(.*?)\}\}")


class NameTooLong(ValueError):
    """A name that a template expands to is longer than a device takes."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(f"the name is {length} bytes long, at most {MAX_BYTES} are allowed")


def device_type(product: str) -> str:
    """What `{{DEVICETYPE}}` stands for."""
    return "iPad" if product.startswith("iPad") else "iPhone"


def check(template: str) -> str:
    """Return the template, or raise ValueError with every mistake in it."""
    mistakes = []
    if len(template) > MAX_CHARACTERS:
        mistakes.append(
            f"is {len(template)} characters long with its variables, at most {MAX_CHARACTERS} are allowed"
        )
    unknown = sorted({name for name in _VARIABLE.findall(template)} - {"DEVICETYPE", "SERIAL"})
    mistakes += [f"has the unknown variable {{{{{name}}}}}" for name in unknown]
    rest = _VARIABLE.sub("", template)
    if "{{" in rest or "}}" in rest:
        mistakes.append("has a variable that is not closed")
    if any(ord(character) < 32 for character in template):
        mistakes.append("has a control character")
    if template != template.strip():
        mistakes.append("starts or ends with a space")
    if not mistakes:
        longest = _expanded(template, "iPhone", "X" * LONGEST_SERIAL)
        if len(longest.encode()) > MAX_BYTES:
            mistakes.append(
                f"expands to {len(longest.encode())} bytes for a serial number of "
                f"{LONGEST_SERIAL} characters, at most {MAX_BYTES} are allowed"
            )
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return template


def expand(template: str, *, product: str, serial: str) -> str | None:
    """The name of one device; None for an empty template, which leaves names alone. Raises NameTooLong."""
    if not template:
        return None
    name = _expanded(template, device_type(product), serial)
    if len(name.encode()) > MAX_BYTES:
        raise NameTooLong(len(name.encode()))
    return name


def _expanded(template: str, kind: str, serial: str) -> str:
    # One pass, so that a serial which looks like a variable stays what it is.
    values = {"DEVICETYPE": kind, "SERIAL": serial}
    return _VARIABLE.sub(lambda match: values[match[1]], template)
