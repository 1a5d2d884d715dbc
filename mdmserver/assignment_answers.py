"""From the wire of Apple's side to what is stored: pages, accounts, results per serial number, token files."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes

from certs import cms
from certs.errors import MalformedMessage
from certs.identity import Identity
from emulator.wire import json_object
from emulator.wire.fields import Fields, optional, present, required, required_list
from mdmserver.assignment_errors import AppleMalformed
from mdmserver.store.assignment_base import Account, Credentials, ListedDevice

MAX_CURSOR = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a sync."""

    devices: tuple[ListedDevice, ...]
    cursor: str
    more_to_follow: bool


def page_of(answer: Fields, token_id: str, *, delta: bool = False) -> Page:
    """Raises AppleMalformed."""
    try:
        fields = present(answer)
        cursor = required(fields, "cursor", str)
        if not 0 < len(cursor) <= MAX_CURSOR:
            raise MalformedMessage("cursor", f"1 to {MAX_CURSOR} characters", len(cursor))
        return Page(
            devices=tuple(
                _device(present(record), token_id, delta)
                for record in required_list(fields, "devices", dict)
            ),
            cursor=cursor,
            more_to_follow=required(fields, "more_to_follow", bool),
        )
    except MalformedMessage as error:
        step = "assignment_sync" if delta else "assignment_fetch"
        raise AppleMalformed(step, str(error)) from error


def _device(record: Fields, token_id: str, delta: bool) -> ListedDevice:
    op_type = required(record, "op_type", str) if delta else None
    if op_type not in (None, "added", "modified", "deleted"):
        raise MalformedMessage("op_type", "added, modified or deleted", op_type)
    return ListedDevice(
        token_id=token_id,
        serial=required(record, "serial_number", str),
        model=optional(record, "model", str),
        description=optional(record, "description", str),
        color=optional(record, "color", str),
        asset_tag=optional(record, "asset_tag", str),
        os=optional(record, "os", str),
        device_family=optional(record, "device_family", str),
        profile_status=optional(record, "profile_status", str) or "empty",
        profile_uuid=optional(record, "profile_uuid", str),
        profile_assign_time=_time(record, "profile_assign_time"),
        profile_push_time=_time(record, "profile_push_time"),
        assigned_date=_time(record, "device_assigned_date"),
        assigned_by=optional(record, "device_assigned_by", str),
        op_type=op_type,  # type: ignore[arg-type]
        op_date=_time(record, "op_date", needed=delta),
    )


def _time(record: Fields, key: str, needed: bool = False) -> datetime | None:
    text = required(record, key, str) if needed else optional(record, key, str)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedMessage(key, "a time as of RFC 3339", text) from error
    return at.replace(tzinfo=at.tzinfo or UTC)


def account_of(answer: Fields) -> Account:
    """Raises AppleMalformed."""
    try:
        fields = present(answer)
        return Account(
            server_name=optional(fields, "server_name", str),
            server_uuid=optional(fields, "server_uuid", str),
            org_name=optional(fields, "org_name", str),
            org_id=optional(fields, "org_id", str),
            admin_id=optional(fields, "admin_id", str),
        )
    except MalformedMessage as error:
        raise AppleMalformed("assignment_account", str(error)) from error


def results_of(step: str, answer: Fields) -> tuple[Mapping[str, str], float | None]:
    """Apple's word per serial number, and after how many seconds the throttled may come again. Raises AppleMalformed."""
    try:
        fields = present(answer)
        devices = optional(fields, "devices", dict) or {}
        for serial in devices:
            required(devices, serial, str, "devices.")
        return devices, optional(fields, "retry_after_seconds", float)
    except MalformedMessage as error:
        raise AppleMalformed(step, str(error)) from error


def profile_uuid_of(step: str, answer: Fields) -> str:
    """Raises AppleMalformed."""
    try:
        return required(answer, "profile_uuid", str).replace("-", "").upper()
    except MalformedMessage as error:
        raise AppleMalformed(step, str(error)) from error


def credentials_of(data: bytes, identity: Identity) -> Credentials:
    """What a token file holds (5.2, 5.3). Raises CertsError."""
    inner = _content(cms.decrypt(_content(data), identity))
    text = inner.replace(b"-----BEGIN MESSAGE-----", b"").replace(b"-----END MESSAGE-----", b"")
    fields = json_object.loads(text.strip(), "token")
    expires_at = _time(fields, "access_token_expiry", needed=True)
    assert expires_at is not None
    return Credentials(
        consumer_key=required(fields, "consumer_key", str),
        consumer_secret=required(fields, "consumer_secret", str),
        access_token=required(fields, "access_token", str),
        access_secret=required(fields, "access_secret", str),
        expires_at=expires_at,
    )


def _content(part: bytes) -> bytes:
    """The content of a MIME part."""
    content = message_from_bytes(part).get_payload(decode=True)
    if not isinstance(content, bytes):
        raise MalformedMessage("token file", "one MIME part")
    return content
