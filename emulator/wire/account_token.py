"""The AccountToken of an activation record: text in the old property-list syntax (apple-services.md 2.5).

One line `{`, one line TAB `"key" = "value";` per key, one line `}`. The reader takes every spelling of that syntax that stays on
strings and dictionaries, because tokens with further keys occur.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire.fields import Fields, optional, present, required

MAX_DEPTH: Final = 16
MAX_BYTES: Final = 256 * 1024

_TOKEN: Final = re.compile(
    r"\s*+(?:([{}=;])|\"((?:[^\"\\]|\\.)*+)\"|([A-Za-z0-9_.:/$+-]++))", re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(?:U([0-9A-Fa-f]{4})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountToken:
    """What the activation service vouches for; a device compares the first three with what it sent."""

    serial_number: str
    udid: str
    activation_randomness: str
    product_type: str
    wildcard_ticket: str | None = None  # base64
    imei: str | None = None
    meid: str | None = None
    phone_number_notification_url: str | None = None
    activity_url: str | None = None
    postponement_info: Fields = field(default_factory=dict)

    def to_fields(self) -> Fields:
        """In the order of the captured token."""
        return present(
            {
                "InternationalMobileEquipmentIdentity": self.imei,
                "MobileEquipmentIdentifier": self.meid,
                "PhoneNumberNotificationURL": self.phone_number_notification_url,
                "SerialNumber": self.serial_number,
                "ProductType": self.product_type,
                "UniqueDeviceID": self.udid,
                "WildcardTicket": self.wildcard_ticket,
                "PostponementInfo": self.postponement_info,
                "ActivationRandomness": self.activation_randomness,
                "ActivityURL": self.activity_url,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        ticket = "WildcardTicket" if "WildcardTicket" in fields else "ActivationTicket"
        return cls(
            serial_number=required(fields, "SerialNumber", str),
            udid=required(fields, "UniqueDeviceID", str),
            activation_randomness=required(fields, "ActivationRandomness", str),
            product_type=required(fields, "ProductType", str),
            wildcard_ticket=optional(fields, ticket, str),
            imei=optional(fields, "InternationalMobileEquipmentIdentity", str),
            meid=optional(fields, "MobileEquipmentIdentifier", str),
            phone_number_notification_url=optional(fields, "PhoneNumberNotificationURL", str),
            activity_url=optional(fields, "ActivityURL", str),
            postponement_info=optional(fields, "PostponementInfo", dict) or {},
        )


def encode(token: AccountToken) -> bytes:
    """The text that gets signed."""
    pairs = token.to_fields().items()
    lines = [f"\t{_quoted(key)} = {_written(value)};\n" for key, value in pairs]
    return ("{\n" + "".join(lines) + "}").encode()


def decode(data: bytes) -> AccountToken:
    """Read a token. Raises MalformedMessage."""
    return AccountToken.from_fields(loads(data))


def _written(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_quoted(key)} = {_written(item)};" for key, item in value.items())
        return "{" + "".join(pairs) + "}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def loads(data: bytes) -> Fields:
    """Read a dictionary in the old syntax. Raises MalformedMessage."""
    if len(data) > MAX_BYTES:
        raise MalformedMessage("AccountToken", f"at most {MAX_BYTES} bytes", f"{len(data)} bytes")
    try:
        text = data.decode()
    except ValueError as error:
        raise MalformedMessage("AccountToken", "UTF-8 text", str(error)) from error
    reader = _Reader(text)
    fields = reader.dictionary(0)
    if reader.rest.strip():
        raise MalformedMessage("AccountToken", "nothing after the closing brace")
    return fields


class _Reader:
    """Walks the tokens of the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def rest(self) -> str:
        return self._text[self._at :]

    def dictionary(self, depth: int, *, opened: bool = False) -> Fields:
        if depth > MAX_DEPTH:
            raise MalformedMessage("AccountToken", f"at most {MAX_DEPTH} levels", "more")
        if not opened and self._next() != ("{", None):
            raise MalformedMessage("AccountToken", "an opening brace")
        fields: Fields = {}
        while True:
            sign, key = self._next()
            if sign == "}":
                return fields
            if key is None or self._next()[0] != "=":
                raise MalformedMessage("AccountToken", "a key and an equals sign")
            sign, text = self._next()
            if sign == "{":
                fields[key] = self.dictionary(depth + 1, opened=True)
            elif text is None:
                raise MalformedMessage("AccountToken", "a string or a dictionary", sign)
            else:
                fields[key] = text
            if self._next()[0] != ";":
                raise MalformedMessage("AccountToken", "a semicolon after each value")

    def _next(self) -> tuple[str | None, str | None]:
        """The next sign, or the next text: one of the two is None."""
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise MalformedMessage("AccountToken", "a brace, an equals sign, a semicolon or text")
        self._at = match.end()
        sign, quoted, bare = match.groups()
        if sign is not None:
            return sign, None
        return None, bare if quoted is None else _ESCAPE.sub(_unescaped, quoted)


def _unescaped(match: re.Match[str]) -> str:
    unicode, octal, other = match.groups()
    if unicode is not None:
        code = int(unicode, 16)
        return "�" if 0xD800 <= code <= 0xDFFF else chr(code)
    if octal is not None:
        return chr(int(octal, 8))
    return _ESCAPED.get(other, other)
