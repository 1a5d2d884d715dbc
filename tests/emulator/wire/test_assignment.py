"""The JSON of the device assignment API: round trips, garbage, and the published captures (apple-services.md 4)."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import assignment, json_object
from emulator.wire.assignment import (
    Account,
    DevicesRequest,
    ListedDevice,
    LockRequest,
    Operation,
    OpType,
    Page,
    PageRequest,
)
from tests.support import VECTORS, needs_vectors

NOW = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
words = st.text(min_size=1, max_size=10)
moments = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
).map(lambda moment: moment.replace(microsecond=0))
devices = st.builds(
    ListedDevice,
    serial_number=words,
    model=words,
    description=st.text(max_size=5),
    color=st.text(max_size=5),
    asset_tag=st.text(max_size=5),
    os=st.none() | st.sampled_from(["iOS", "iPadOS"]),
    device_family=st.none() | words,
    profile_status=st.sampled_from(["empty", "assigned", "pushed", "removed"]),
    profile_uuid=st.none() | words,
    profile_assign_time=st.none() | moments,
    profile_push_time=st.none() | moments,
    device_assigned_date=st.none() | moments,
    device_assigned_by=st.none() | words,
    mdm_migration_deadline=st.none() | moments,
    imei=st.tuples() | st.tuples(words),
    meid=st.tuples() | st.tuples(words),
    wifi_mac_address=st.none() | words,
    is_replacement_device=st.none() | st.booleans(),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS: tuple[Any, ...] = (
    ListedDevice,
    Operation,
    Page,
    PageRequest,
    DevicesRequest,
    LockRequest,
    Account,
)
KEYS = ("serial_number", "op_type", "op_date", "cursor", "limit", "devices", "device", "escrow_key")


def vector(name: str) -> Any:
    return json.loads((VECTORS / "dep" / name).read_text())


@given(devices)
@settings(max_examples=80)
def test_a_device_record_comes_back(device: ListedDevice) -> None:
    assert ListedDevice.from_fields(device.to_fields()) == device


@given(devices)
@settings(max_examples=30)
def test_nothing_absent_is_sent_as_null_or_as_an_empty_time(device: ListedDevice) -> None:
    fields = device.to_fields()
    assert None not in fields.values()
    assert "" not in {fields[key] for key in fields if key.endswith(("_time", "_date", "_uuid"))}


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), json_values),
)
@settings(max_examples=200)
def test_whatever_the_fields_only_a_malformed_message_comes_out(kind: Any, fields: Any) -> None:
    with contextlib.suppress(MalformedMessage):
        kind.from_fields(fields)


@given(st.binary(max_size=40))
@settings(max_examples=60)
def test_whatever_the_bytes_a_body_is_an_object_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert isinstance(assignment.decode(data), dict)


def test_a_page_comes_back_with_its_operations() -> None:
    operation = Operation(op_type=OpType.DELETED, op_date=NOW, released_by_replacement=True)
    page = Page(
        devices=({"serial_number": "A", **operation.to_fields()},),
        cursor="MDow",
        more_to_follow=True,
        fetched_until=NOW,
    )
    data = json_object.dumps(page.to_fields())
    assert Page.from_fields(json.loads(data)) == page
    assert Operation.from_fields(dict(page.devices[0])) == operation
    assert b'"fetched_until":"2026-01-31T23:59:59Z"' in data


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (None, 1),
        ("", 1),
        ("x", 1),
        ("0", 1),
        ("3", 3),
        (" 7 ", 7),
        ("10", 10),
        ("9" * 50, 10),
        ("²", 1),
    ],
)
def test_a_protocol_version_is_one_that_we_know(text: str | None, version: int) -> None:
    assert assignment.version_of(text) == version


def test_serials_and_uuids_are_read_in_any_spelling() -> None:
    request = DevicesRequest.from_fields(
        {"devices": [" sim1 "], "profile_uuid": "95c2189c-b0ef-b319-2bc7-b3c555091d22"}
    )
    assert request.devices == ("SIM1",)
    assert request.profile_uuid == "95C2189CB0EFB3192BC7B3C555091D22"


# ---- captures ----


@needs_vectors
@pytest.mark.vectors
def test_captured_accounts_are_read() -> None:
    for name, server, urls in (
        ("micromdm-account_response.json", "dev", 18),
        ("petarov-fetch-account-L41-response.json", "MY-DEV-LOCAL (server.petarov.net)", 3),
    ):
        account = Account.from_fields(vector(name))
        assert (account.server_name, len(account.urls)) == (server, urls)
        assert account.org_type == "org"
    older = Account.from_fields(vector("nanodep-account-L248.json"))
    assert (older.server_name, older.org_id) == ("Example Server", None)


@needs_vectors
@pytest.mark.vectors
def test_a_captured_fetch_is_read() -> None:
    page = Page.from_fields(vector("petarov-fetch-devices-sync-devices-L45-response.json"))
    first, second = (ListedDevice.from_fields(dict(device)) for device in page.devices)
    assert (first.model, first.profile_status) == ("iPad mini 4", "pushed")
    assert first.profile_push_time == datetime(2025, 2, 18, 20, 13, 6, tzinfo=UTC)
    assert second.mdm_migration_deadline == datetime(2026, 3, 2, 9, tzinfo=UTC)
    assert len(page.cursor) <= assignment.MAX_CURSOR


@needs_vectors
@pytest.mark.vectors
def test_a_captured_sync_is_read() -> None:
    page = Page.from_fields(vector("petarov-fetch-devices-sync-devices-L139-response.json"))
    operations = [Operation.from_fields(dict(device)) for device in page.devices]
    assert [operation.op_type for operation in operations] == ["modified", "modified", "deleted"]
    empty = Page.from_fields(vector("petarov-fetch-devices-sync-devices-L124-response.json"))
    assert (list(empty.devices), empty.more_to_follow) == ([], False)


@needs_vectors
@pytest.mark.vectors
def test_captured_requests_are_read() -> None:
    request = PageRequest.from_fields(
        vector("petarov-fetch-devices-sync-devices-L122-request.json")
    )
    assert request.cursor is not None
    assign = DevicesRequest.from_fields(vector("petarov-assign-profile-L186-request.json"))
    assert assign.devices == ("C112342756", "B222342AF8")
    details = DevicesRequest.from_fields(vector("petarov-fetch-device-details-L211-request.json"))
    assert details.devices == ("B9FPP3Q6GMK7", "BNPT0GHHM7252")


@needs_vectors
@pytest.mark.vectors
def test_captured_details_are_read() -> None:
    content = vector("petarov-fetch-device-details-L214-response.json")["devices"]
    statuses = {serial: facts["response_status"] for serial, facts in content.items()}
    assert statuses == {"B9FPP3Q6GMK7": "SUCCESS", "BNPT0GHHM7252": "NOT_ACCESSIBLE"}
    assert ListedDevice.from_fields(content["B9FPP3Q6GMK7"]).serial_number == "B9FPP3Q6GMK7"
