"""From the answers of Apple's side (`emulator.wire.assignment`, `emulator.wire.token`) to what is stored.

The codecs are those of the stand-in; here stand the names of our own tables, and an error that says at which step it happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from certs import cms
from certs.errors import MalformedMessage
from certs.identity import Identity
from emulator.wire import assignment as wire
from emulator.wire import token as token_file
from emulator.wire.assignment import Operation
from emulator.wire.fields import Fields, optional, present, required
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
        page = wire.Page.from_fields(present(answer))
        if not 0 < len(page.cursor) <= MAX_CURSOR:
            raise MalformedMessage("cursor", f"1 to {MAX_CURSOR} characters", len(page.cursor))
        return Page(
            devices=tuple(_device(present(record), token_id, delta) for record in page.devices),
            cursor=page.cursor,
            more_to_follow=page.more_to_follow,
        )
    except MalformedMessage as error:
        step = "assignment_sync" if delta else "assignment_fetch"
        raise AppleMalformed(step, str(error)) from error


def _device(record: Fields, token_id: str, delta: bool) -> ListedDevice:
    listed = wire.ListedDevice.from_fields(record)
    operation = Operation.from_fields(record) if delta else None
    return ListedDevice(
        token_id=token_id,
        serial=listed.serial_number,
        model=listed.model or None,
        description=listed.description or None,
        color=listed.color or None,
        asset_tag=listed.asset_tag or None,
        os=listed.os,
        device_family=listed.device_family,
        profile_status=listed.profile_status,
        profile_uuid=listed.profile_uuid,
        profile_assign_time=listed.profile_assign_time,
        profile_push_time=listed.profile_push_time,
        assigned_date=listed.device_assigned_date,
        assigned_by=listed.device_assigned_by,
        op_type=None if operation is None else operation.op_type.value,
        op_date=None if operation is None else operation.op_date,
    )


def account_of(answer: Fields) -> Account:
    """Raises AppleMalformed."""
    try:
        account = wire.Account.from_fields(answer)
    except MalformedMessage as error:
        raise AppleMalformed("assignment_account", str(error)) from error
    return Account(
        server_name=account.server_name,
        server_uuid=account.server_uuid,
        org_name=account.org_name,
        org_id=account.org_id,
        admin_id=account.admin_id or None,
    )


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
        return wire.profile_uuid_of(required(answer, "profile_uuid", str))
    except MalformedMessage as error:
        raise AppleMalformed(step, str(error)) from error


def credentials_of(data: bytes, identity: Identity) -> Credentials:
    """What a token file holds (apple-services.md 5.2, 5.3). Raises CertsError."""
    token = token_file.decode_content(cms.decrypt(token_file.decode_message(data), identity))
    return Credentials(
        consumer_key=token.consumer_key,
        consumer_secret=token.consumer_secret,
        access_token=token.access_token,
        access_secret=token.access_secret,
        expires_at=token.access_token_expiry,
    )
