"""JSON shapes of the management API, and commands as people write them."""

import base64
import binascii
from datetime import datetime
from typing import Any, Final

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.fields import Fields, required
from mdmserver.store.base import DeviceRecord, QueuedCommand, RuleRecord

MAX_DEPTH: Final = 32


def device_json(
    device: DeviceRecord, rules: dict[str, RuleRecord], expected_name: str | None
) -> dict[str, Any]:
    """One device; `supervised`, `locked` and `name` are what it reported last."""
    sha256 = device.certificate_sha256
    return {
        "udid": device.udid,
        "serial": device.serial,
        "model": device.product,
        "os_version": device.os_version,
        "build": device.build,
        "state": device.state.value,
        "identity": device.kind,
        "certificate_sha256": sha256.hex() if sha256 is not None else None,
        "issuer": device.issuer,
        "supervised": device.supervised,
        "locked": device.locked,
        "name": device.name,
        "expected_name": expected_name,
        "unenroll": device.unenroll,
        "last_seen": _time(device.last_seen),
        "last_reported": _time(device.reported_at),
        "enrolled_at": _time(device.enrolled_at),
        "policy": [rule_json(rule) for rule in rules.values()],
    }


def rule_json(rule: RuleRecord) -> dict[str, Any]:
    """One policy rule of a device."""
    return {
        "rule": rule.rule,
        "wanted": rule.wanted,
        "reported": rule.reported,
        "state": rule.state,
        "last_enforced": _time(rule.last_enforced),
        "failures": rule.failures,
    }


def command_json(command: QueuedCommand) -> dict[str, Any]:
    """One command and its result; the parameters stay out, as they may hold secrets."""
    return {
        "command_uuid": command.uuid,
        "udid": command.udid,
        "request_type": command.request_type,
        "origin": command.origin,
        "rule": command.rule,
        "state": command.state.value,
        "queued_at": _time(command.queued_at),
        "delivered_at": _time(command.delivered_at),
        "deliveries": command.deliveries,
        "finished_at": _time(command.finished_at),
        "result": to_json(plist.loads(command.result)) if command.result is not None else None,
    }


def to_json(value: Any) -> Any:
    """A property list value: data becomes `{"base64": …}`, a date ISO 8601 text."""
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case datetime():
            return _time(value)
        case dict():
            return {key: to_json(item) for key, item in value.items()}
        case list():
            return [to_json(item) for item in value]
        case str() | bool() | int() | float() | None:
            return value
        case _:
            return str(value)


def from_json(value: Any, where: str = "command", depth: int = 0) -> Any:
    """The property list value that JSON stands for; `{"base64": …}` alone is data. Raises MalformedMessage."""
    if depth > MAX_DEPTH:
        raise MalformedMessage(where, f"at most {MAX_DEPTH} levels")
    match value:
        case {"base64": str(text)} if len(value) == 1:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise MalformedMessage(f"{where}.base64", "standard base64") from None
        case dict():
            return {
                key: from_json(item, f"{where}.{key}", depth + 1) for key, item in value.items()
            }
        case list():
            return [
                from_json(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)
            ]
        case None:
            raise MalformedMessage(where, "a value: a property list knows no null")
        case _:
            return value


def command_from_json(content: Fields) -> dict[str, Any]:
    """`{"request_type": …, parameters…}` with property list values. Raises MalformedMessage."""
    if not required(content, "request_type", str):
        raise MalformedMessage("request_type", "a RequestType", "")
    if "RequestType" in content:
        raise MalformedMessage("RequestType", "request_type alone")
    fields = from_json(content)
    assert isinstance(fields, dict)
    return fields


def command_from_plist(data: bytes) -> dict[str, Any]:
    """A Command dictionary, or the whole command around it (whose CommandUUID is not kept). Raises MalformedMessage."""
    content = plist.loads(data, "command")
    fields = dict(required(content, "Command", dict) if "Command" in content else content)
    name = required(fields, "RequestType", str)
    del fields["RequestType"]
    return {**fields, "request_type": name}


def _time(at: datetime | None) -> str | None:
    return f"{at:%FT%TZ}" if at is not None else None
