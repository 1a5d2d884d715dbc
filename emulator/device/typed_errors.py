"""Errors that a server types for devices: HTTP 403 with a `code`, as JSON or property list (mdm.md 1f)."""

import json
from dataclasses import dataclass
from typing import Any

from certs.errors import MalformedMessage
from certs.transport import HttpResponse
from emulator.errors import PeerRefused
from emulator.wire import plist

SOFTWARE_UPDATE_REQUIRED = "com.apple.softwareupdate.required"
UNRECOGNIZED_DEVICE = "com.apple.unrecognized.device"
JSON_TYPES = ("application/json", "text/json")
PLIST_TYPES = ("application/xml", "text/xml", "application/x-plist")
WORDS_SHOWN = 200  # characters of an untyped error body that an error repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedError:
    """The body of a typed refusal."""

    code: str
    description: str | None = None  # for logs
    message: str | None = None  # may be shown to the user
    details: dict[str, Any] | None = None


def typed_error(response: HttpResponse) -> TypedError | None:
    """The typed error of a 403; None when the answer is none, names no Content-Type, or cannot be read."""
    if response.status != 403:
        return None
    fields: Any
    try:
        if response.content_type in JSON_TYPES:
            fields = json.loads(response.body)
        elif response.content_type in PLIST_TYPES:
            fields = plist.loads(response.body)
        else:
            return None
    except (ValueError, MalformedMessage, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("code"), str):
        return None
    description, message, details = (
        fields.get("description"),
        fields.get("message"),
        fields.get("details"),
    )
    return TypedError(
        code=fields["code"],
        description=description if isinstance(description, str) else None,
        message=message if isinstance(message, str) else None,
        details=details if isinstance(details, dict) else None,
    )


def refusal(step: str, response: HttpResponse) -> PeerRefused:
    """The device's error for an answer that refuses, in the server's own words where it has some."""
    typed = typed_error(response)
    if typed is None:
        return PeerRefused(step, _words(response), status=response.status)
    words = [typed.code]
    words += [text for text in (typed.message, typed.description) if text]
    if typed.code == SOFTWARE_UPDATE_REQUIRED and typed.details:
        wanted = typed.details.get("OSVersion")
        words.append(f"OS version {wanted} is required")
    return PeerRefused(step, ": ".join(words), status=response.status)


def _words(response: HttpResponse) -> str:
    """The body's first line where it is plain text; web pages say nothing to a person."""
    if response.content_type not in ("text/plain", "application/json", ""):
        return "refused"
    text = response.body[: 4 * WORDS_SHOWN].decode(errors="replace").strip()
    line = text.splitlines()[0][:WORDS_SHOWN] if text else ""
    return line if line.isprintable() and line else "refused"
