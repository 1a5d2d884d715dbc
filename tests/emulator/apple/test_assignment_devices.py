"""Fetch, sync and their cursors, details, disown, locks, replacements (apple-services.md 4.5 to 4.8, 4.10, 9.3)."""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from certs.clock import SimulatedClock
from emulator.apple.records import ActivationLock, HardwareFacts
from emulator.wire import bypass_code
from tests.emulator.apple.assignment_support import (
    OTHER_UUID,
    Ade,
    admin,
    good,
    portal,
    serials,
    signed_up,
)
from tests.emulator.apple.support import Client, Device

DAY_S = 86400.0
WEEK_S = 7 * DAY_S


async def refused(ade: Ade, path: str, content: Any) -> str:
    """The word of a 400."""
    reply = await ade.ask("POST", path, content)
    assert (reply.status, reply.content_type) == (400, "text/plain"), reply.body
    return reply.body.decode()


# ---- fetch ----


async def test_a_fetch_lists_the_servers_devices_in_the_order_in_which_they_came(ade: Ade) -> None:
    await ade.assign_in_portal("SIM0")
    page = await ade.fetch()
    assert serials(page) == ["SIM1", "SIM2", "SIM3", "SIM0"]
    assert page["more_to_follow"] is False
    assert page["fetched_until"] == "2026-01-01T00:00:00Z"
    assert page["devices"][0] == {
        "serial_number": "SIM1",
        "model": "iPhone",
        "description": "IPHONE",
        "color": "",
        "asset_tag": "",
        "os": "iOS",
        "device_family": "iPhone",
        "profile_status": "empty",
        "device_assigned_date": "2026-01-01T00:00:00Z",
        "device_assigned_by": "it@example.com",
    }


async def test_pages_hold_a_hundred_devices_unless_asked_and_never_above_a_thousand(
    client: Client, clock: SimulatedClock
) -> None:
    client.services.apply(portal(*(f"SIM{number:05d}" for number in range(1100))))
    ade = await signed_up(client, clock)
    assert [len((await ade.fetch(limit=limit))["devices"]) for limit in (None, 7, 5000)] == [
        100,
        7,
        1000,
    ]


async def test_paging_is_stable_while_devices_come_and_go(ade: Ade) -> None:
    """Neither twice nor never: who comes meanwhile is told by the sync, and who goes, too."""
    first = await ade.fetch(limit=1)
    await ade.assign_in_portal("SIM9")
    await ade.assign_in_portal("SIM1", "SIM2", server="Test")
    await ade.assign_in_portal("SIM1")
    second = await ade.fetch(first["cursor"], limit=1)
    assert (serials(first), serials(second)) == (["SIM1"], ["SIM3"])
    assert (first["more_to_follow"], second["more_to_follow"]) == (True, False)
    assert await ade.told_since(second["cursor"]) == [
        ("SIM9", "added"),
        ("SIM1", "deleted"),
        ("SIM2", "deleted"),
        ("SIM1", "added"),
    ]


async def test_a_page_may_be_asked_for_again(ade: Ade) -> None:
    first = await ade.fetch(limit=2)
    pages = [serials(await ade.fetch(first["cursor"], limit=2)) for _ in range(2)]
    assert pages == [["SIM3"], ["SIM3"]]


async def test_an_empty_server_has_an_empty_page_and_a_cursor(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    empty = await signed_up(client, clock, OTHER_UUID)
    page = await empty.fetch()
    assert (page["devices"], page["more_to_follow"]) == ([], False)
    assert await empty.told_since(page["cursor"]) == []


@pytest.mark.parametrize(
    "content", [None, {}, {"cursor": None, "limit": None}, {"cursor": "", "unknown": {"a": []}}]
)
async def test_no_cursor_in_any_spelling_begins_a_fetch(ade: Ade, content: Any) -> None:
    page = good(await ade.ask("POST", "/server/devices", content))
    assert len(page["devices"]) == 3


async def test_a_cursor_that_has_given_everything_is_exhausted(ade: Ade) -> None:
    """What real clients run into at every start, before they sync."""
    cursor = await ade.caught_up()
    assert await refused(ade, "/server/devices", {"cursor": cursor}) == "EXHAUSTED_CURSOR"
    after = (await ade.sync(cursor))["cursor"]
    assert await refused(ade, "/server/devices", {"cursor": after}) == "EXHAUSTED_CURSOR"


async def test_a_fetch_may_rest_for_hours_but_not_for_more_than_a_week(ade: Ade) -> None:
    cursor = (await ade.fetch(limit=1))["cursor"]
    await ade.clock.advance(WEEK_S)
    ade.session = ""
    assert serials(await ade.fetch(cursor)) == ["SIM2", "SIM3"]
    await ade.clock.advance(1)
    assert await refused(ade, "/server/devices", {"cursor": cursor}) == "EXPIRED_CURSOR"


# ---- cursors ----


def flipped(cursor: str) -> str:
    return ("A" if cursor[0] != "A" else "B") + cursor[1:]


def sealed_anew(cursor: str) -> str:
    """As somebody would who knows its form, but not the seal."""
    text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    return base64.urlsafe_b64encode(text.replace(b"0:3:", b"0:1:", 1)).rstrip(b"=").decode()


@pytest.mark.parametrize("path", ["/server/devices", "/devices/sync"])
@pytest.mark.parametrize(
    "change",
    [
        lambda cursor: "0",
        lambda cursor: "1536427698-5",
        lambda cursor: cursor[:-1],
        lambda cursor: cursor + "A",
        lambda cursor: cursor + "==",
        lambda cursor: cursor * 20,
        lambda cursor: "ü" * 20,
        flipped,
        sealed_anew,
    ],
)
async def test_a_damaged_cursor_is_invalid(
    ade: Ade, path: str, change: Callable[[str], str]
) -> None:
    cursor = change(await ade.caught_up())
    assert await refused(ade, path, {"cursor": cursor}) == "INVALID_CURSOR"


@pytest.mark.parametrize("path", ["/server/devices", "/devices/sync"])
async def test_another_servers_cursor_is_invalid(
    client: Client, clock: SimulatedClock, ade: Ade, path: str
) -> None:
    cursor = await ade.caught_up()
    other = await signed_up(client, clock, OTHER_UUID)
    assert await refused(other, path, {"cursor": cursor}) == "INVALID_CURSOR"


async def test_a_cursor_is_short_base64_without_padding(ade: Ade) -> None:
    for cursor in (await ade.caught_up(), (await ade.fetch(limit=1))["cursor"]):
        assert re.fullmatch(r"[A-Za-z0-9_-]{40,128}", cursor)


async def test_a_cursor_outlives_the_renewal_of_the_token(ade: Ade) -> None:
    cursor = await ade.caught_up()
    renewed = await signed_up(ade.client, ade.clock)
    assert await renewed.told_since(cursor) == []


# ---- sync ----


async def test_a_sync_needs_a_cursor(ade: Ade) -> None:
    assert await refused(ade, "/devices/sync", {}) == "CURSOR_REQUIRED"
    assert await refused(ade, "/devices/sync", {"cursor": None}) == "CURSOR_REQUIRED"


async def test_an_idle_sync_is_empty_and_brings_a_fresh_cursor(ade: Ade) -> None:
    """EXHAUSTED_CURSOR belongs to fetch alone."""
    cursor = await ade.caught_up()
    for _ in range(3):
        await ade.clock.advance(6 * DAY_S)
        ade.session = ""
        page = await ade.sync(cursor)
        assert page == {
            "devices": [],
            "fetched_until": f"{ade.clock.now():%Y-%m-%dT%H:%M:%SZ}",
            "cursor": page["cursor"],
            "more_to_follow": False,
        }
        assert page["cursor"] != cursor
        cursor = page["cursor"]


@pytest.mark.ade(105)
async def test_a_sync_cursor_is_good_for_seven_days(ade: Ade) -> None:
    """Bug D02."""
    cursor = await ade.caught_up()
    await ade.clock.advance(WEEK_S)
    ade.session = ""
    assert await ade.told_since(cursor) == []
    await ade.clock.advance(1)
    assert await refused(ade, "/devices/sync", {"cursor": cursor}) == "EXPIRED_CURSOR"


@pytest.mark.ade(35)
async def test_the_portal_adds_moves_and_releases(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    other = await signed_up(client, clock, OTHER_UUID)
    cursor, others = await ade.caught_up(), await other.caught_up()
    await ade.clock.advance(60)
    await ade.assign_in_portal("SIM9")
    await ade.assign_in_portal("SIM1", server="Test")
    await admin(client, "POST", "/portal/devices/release", {"serials": ["SIM2"]})
    page = await ade.sync(cursor)
    added, moved, released = page["devices"]
    assert (added["serial_number"], added["op_type"]) == ("SIM9", "added")
    assert added["op_date"] == added["device_assigned_date"] == "2026-01-01T00:01:00Z"
    assert moved == {
        "serial_number": "SIM1",
        "op_type": "deleted",
        "op_date": "2026-01-01T00:01:00Z",
        "released_by_replacement": False,
    }
    assert (released["serial_number"], released["op_type"]) == ("SIM2", "deleted")
    assert await other.told_since(others) == [("SIM1", "added")]
    assert serials(await other.fetch()) == ["SIM1"]


async def test_a_device_that_is_assigned_where_it_is_already_is_no_operation(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM1", "SIM2")
    assert await ade.told_since(cursor) == []


async def test_a_device_that_leaves_its_server_for_none_is_deleted(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM1", server=None)
    assert await ade.told_since(cursor) == [("SIM1", "deleted")]


async def test_whatever_changes_about_a_device_is_modified(ade: Ade) -> None:
    uuid = await ade.define()
    cursor = await ade.caught_up()
    await ade.results("PUT", "/profile/devices", profile_uuid=uuid, devices=["SIM1"])
    assert ade.record("SIM1").pushed(ade.clock.now())
    await ade.results("DELETE", "/profile/devices", devices=["SIM1"])
    await admin(ade.client, "PATCH", "/portal/devices/SIM2", {"asset_tag": "4711"})
    page = await ade.sync(cursor)
    assert serials(page) == ["SIM1", "SIM1", "SIM1", "SIM2"]
    assert {device["op_type"] for device in page["devices"]} == {"modified"}
    assert page["devices"][3]["asset_tag"] == "4711"
    # Each record says how the device is now, not how it was then.
    assert {device["profile_status"] for device in page["devices"][:3]} == {"removed"}


async def test_a_long_sync_is_paged_and_misses_nothing(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal(*(f"NEW{number}" for number in range(5)))
    told, more = [], True
    while more:
        page = await ade.sync(cursor, limit=2)
        told += serials(page)
        cursor, more = page["cursor"], page["more_to_follow"]
    assert told == [f"NEW{number}" for number in range(5)]
    assert (await ade.sync(cursor))["devices"] == []


async def test_a_device_that_came_and_went_is_only_told_to_have_gone(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM9")
    await ade.assign_in_portal("SIM9", server=None)
    assert await ade.told_since(cursor) == [("SIM9", "deleted")]


async def test_devices_may_come_in_silence(ade: Ade) -> None:
    """Bug D03: a bulk transfer that no sync tells of; a full fetch lists them."""
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM8", announce=False)
    await ade.assign_in_portal("SIM9")
    assert await ade.told_since(cursor) == [("SIM9", "added")]
    assert serials(await ade.fetch()) == ["SIM1", "SIM2", "SIM3", "SIM8", "SIM9"]


async def test_a_moved_device_may_be_told_as_modified_alone(
    client: Client, clock: SimulatedClock, ade: Ade
) -> None:
    client.services.registry.moved_as_modified = True
    other = await signed_up(client, clock, OTHER_UUID)
    others = await other.caught_up()
    await ade.assign_in_portal("SIM1", "SIM9", server="Test")
    assert await other.told_since(others) == [("SIM1", "modified"), ("SIM9", "added")]


@pytest.mark.ade(107)
async def test_a_replaced_device_says_so(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await admin(
        ade.client, "POST", "/portal/devices/release", {"serials": ["SIM1"], "replaced": True}
    )
    (device,) = (await ade.sync(cursor))["devices"]
    assert device["released_by_replacement"] is True
    ade.version = 9
    (device,) = (await ade.sync(cursor))["devices"]
    assert set(device) == {"serial_number", "op_type", "op_date"}


async def test_a_fetch_left_half_way_syncs_from_when_it_began(ade: Ade) -> None:
    cursor = (await ade.fetch(limit=1))["cursor"]
    await ade.assign_in_portal("SIM9")
    assert await ade.told_since(cursor) == [("SIM9", "added")]


async def test_two_syncs_at_once_get_the_same(ade: Ade) -> None:
    """Bug D11."""
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM9")
    first, second = await ade.sync(cursor), await ade.sync(cursor)
    assert first["devices"] == second["devices"]


async def test_a_fetch_never_has_operations_and_a_sync_always_has(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal("SIM9")
    assert all("op_type" not in device for device in (await ade.fetch())["devices"])
    assert all("op_date" in device for device in (await ade.sync(cursor))["devices"])


# ---- records and versions ----


async def test_a_device_that_exists_is_listed_with_its_hardware(
    ade: Ade, device: Device, client: Client
) -> None:
    await ade.assign_in_portal(device.serial_number, color="BLACK", asset_tag="A1")
    client.services.registry.provision(
        HardwareFacts(
            serial_number="PAD1",
            udid="U-PAD1",
            product_type="iPad13,18",
            factory_key=b"f",
            attestation_key=b"a",
            wifi_mac="aa:bb:cc:00:11:22",
        )
    )
    await ade.assign_in_portal("PAD1")
    details = good(await ade.ask("POST", "/devices", {"devices": [device.serial_number, "PAD1"]}))[
        "devices"
    ]
    phone, pad = details[device.serial_number], details["PAD1"]
    assert (phone["model"], phone["color"], phone["asset_tag"]) == ("iPhone 13", "BLACK", "A1")
    assert phone["imei"] == ["35 391805 123456 1"]
    assert (pad["os"], pad["device_family"]) == ("iPadOS", "iPad")
    assert pad["wifi_mac_address"] == "AA:BB:CC:00:11:22"
    assert "imei" not in pad


@pytest.mark.parametrize(
    ("version", "system", "present", "absent"),
    [
        (None, None, (), ("os", "device_family", "wifi_mac_address")),
        (1, None, (), ("os", "device_family")),
        (2, "iOS", ("device_family",), ("mdm_migration_deadline",)),
        (6, "iOS", (), ("wifi_mac_address",)),
        (7, "iPadOS", (), ("mdm_migration_deadline",)),
        (8, "iPadOS", ("mdm_migration_deadline",), ("wifi_mac_address",)),
        (10, "iPadOS", ("mdm_migration_deadline", "wifi_mac_address"), ()),
        (99, "iPadOS", ("wifi_mac_address",), ()),
    ],
)
async def test_what_is_told_depends_on_the_protocol_version(
    ade: Ade,
    client: Client,
    version: int | None,
    system: str | None,
    present: tuple[str, ...],
    absent: tuple[str, ...],
) -> None:
    client.services.registry.provision(
        HardwareFacts(
            serial_number="SIM1",
            udid="U",
            product_type="iPad13,18",
            factory_key=b"f",
            attestation_key=b"a",
            wifi_mac="aa:bb:cc:00:11:22",
        )
    )
    deadline = {"migration_deadline": "2026-03-02T09:00:00Z"}
    await admin(client, "PATCH", "/portal/devices/SIM1", deadline)
    ade.version = version
    record = (await ade.fetch())["devices"][0]
    assert record.get("os") == system
    assert all(key in record for key in present)
    assert not any(key in record for key in absent)


# ---- details and disown ----


async def test_details_tell_only_of_the_servers_own_devices(ade: Ade) -> None:
    await ade.assign_in_portal("OTHER", server="Test")
    reply = await ade.ask("POST", "/devices", {"devices": ["sim1", "OTHER", "NOBODY"]})
    devices = good(reply)["devices"]
    assert devices["SIM1"]["response_status"] == "SUCCESS"
    assert devices["SIM1"]["serial_number"] == "SIM1"
    assert devices["OTHER"] == devices["NOBODY"] == {"response_status": "NOT_ACCESSIBLE"}


async def test_details_of_five_thousand_devices_come_in_one_answer(ade: Ade) -> None:
    devices = [f"X{number}" for number in range(5000)]
    assert len(good(await ade.ask("POST", "/devices", {"devices": devices}))["devices"]) == 5000


@pytest.mark.parametrize("content", [{}, {"devices": []}, {"devices": None}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/devices"),
        ("POST", "/devices/disown"),
        ("POST", "/profile/devices"),
        ("PUT", "/profile/devices"),
        ("DELETE", "/profile/devices"),
    ],
)
async def test_devices_are_needed(ade: Ade, method: str, path: str, content: Any) -> None:
    reply = await ade.ask(method, path, content)
    assert reply.refusal == (400, "DEVICE_ID_REQUIRED", "text/plain")


async def test_a_disowned_device_is_nobodys(ade: Ade) -> None:
    cursor = await ade.caught_up()
    await ade.assign_in_portal("OTHER", server="Test")
    results = await ade.results("POST", "/devices/disown", devices=["SIM1", "OTHER", "NOBODY"])
    assert results == {"SIM1": "SUCCESS", "OTHER": "NOT_ACCESSIBLE", "NOBODY": "NOT_ACCESSIBLE"}
    assert ade.services.registry.get("SIM1") is None
    assert await ade.told_since(cursor) == [("SIM1", "deleted")]


# ---- activation lock ----


async def lock(ade: Ade, serial: str, **content: Any) -> str:
    answer = good(await ade.ask("POST", "/device/activationlock", {"device": serial, **content}))
    assert answer["serial_number"] == serial
    return str(answer["response_status"])


async def test_a_server_locks_with_the_hash_of_a_bypass_code(ade: Ade) -> None:
    escrow_key = bypass_code.escrow_hash(bytes(range(16)))
    assert await lock(ade, "SIM1", escrow_key=escrow_key.hex(), lost_message="Lost") == "SUCCESS"
    assert ade.record("SIM1").activation_lock == ActivationLock(
        escrow_hash=escrow_key, message="Lost"
    )
    assert await lock(ade, "SIM1") == "DEVICE_ALREADY_LOCKED"


async def test_without_a_code_the_lock_is_the_administrators(ade: Ade, client: Client) -> None:
    path = "/portal/organizations/Example%20Inc/people/it@example.com"
    await admin(client, "PUT", path, {"role": "administrator", "password": "secret"})
    assert await lock(ade, "SIM1") == "SUCCESS"
    found = ade.record("SIM1").activation_lock
    assert found is not None
    assert found.account == ("it@example.com", "secret")


async def test_what_cannot_be_locked_says_why(ade: Ade, client: Client) -> None:
    assert await lock(ade, "NOBODY") == "NOT_ACCESSIBLE"
    await ade.assign_in_portal("MAC1", product_type="Mac14,2")
    assert await lock(ade, "MAC1") == "DEVICE_NOT_SUPPORTED"
    await admin(client, "PATCH", "/portal/organizations/Example%20Inc", {"org_version": "v1"})
    assert await lock(ade, "SIM1") == "ORG_NOT_SUPPORTED"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"device": 1},
        {"device": "SIM1", "escrow_key": "xy"},
        {"device": "SIM1", "escrow_key": "ab"},
    ],
)
async def test_a_lock_that_cannot_be_read_is_malformed(ade: Ade, content: Any) -> None:
    assert await refused(ade, "/device/activationlock", content) == "MALFORMED_REQUEST_BODY"


# ---- replacements ----


async def test_a_replacement_names_what_it_replaces(ade: Ade, client: Client) -> None:
    facts = {"replaces": "OLD1", "replacement_date": "2025-01-15T00:00:00Z"}
    await admin(client, "PATCH", "/portal/devices/SIM1", facts)
    assert (await ade.fetch())["devices"][0]["is_replacement_device"] is True
    assert good(await ade.ask("GET", "/device/replacementDetails?device=sim1")) == {
        "serial_number": "SIM1",
        "original_device_serial_number": "OLD1",
        "replacement_date": "2025-01-15",
    }


@pytest.mark.parametrize(
    ("query", "word"), [("?device=SIM2", "DEVICE_NOT_FOUND"), ("", "DEVICE_ID_REQUIRED")]
)
async def test_what_replaces_nothing_is_not_found(ade: Ade, query: str, word: str) -> None:
    reply = await ade.ask("GET", f"/device/replacementDetails{query}")
    assert reply.refusal == (400, word, "text/plain")


# ---- account ----


async def test_the_account_says_whose_server_it_is(ade: Ade) -> None:
    account = good(await ade.ask("GET", "/account"))
    assert account["server_name"] == "Production"
    assert account["admin_id"] == account["facilitator_id"] == "it@example.com"
    assert account["org_id_hash"] == hashlib.sha256(account["org_id"].encode()).hexdigest()
    assert (account["org_type"], account["org_version"]) == ("org", "v2")
    limits = {url["uri"]: url.get("limit") for url in account["urls"]}
    assert limits["/devices/sync"] == {"default": 100, "maximum": 1000}
    assert limits["/account"] is None
    ade.version = 2
    assert not {"urls", "org_id"} & set(good(await ade.ask("GET", "/account")))


async def test_account_driven_enrollment_has_one_url(ade: Ade, client: Client) -> None:
    path = "/account-driven-enrollment/profile"
    for method in ("GET", "DELETE"):
        assert (await ade.ask(method, path)).refusal == (404, "NOT_FOUND", "text/plain")
    key = "mdm_service_discovery_url"
    assert await refused(ade, path, {}) == "MDM_SERVICE_DISCOVERY_URL_REQUIRED"
    for url in ("http://example.com", "https://", "https://[", "x" * 3000):
        assert await refused(ade, path, {key: url}) == "MDM_SERVICE_DISCOVERY_URL_NOT_VALID"
    url = "https://example.com/.well-known/com.apple.remotemanagement"
    good(await ade.ask("POST", path, {key: url}))
    assert good(await ade.ask("GET", path)) == {
        key: url,
        "last_updated_timestamp": "2026-01-01T00:00:00Z",
    }
    good(await ade.ask("DELETE", path))
    assert (await ade.ask("GET", path)).status == 404
    await admin(client, "PATCH", "/portal/organizations/Example%20Inc", {"org_version": "v1"})
    assert await refused(ade, path, {key: url}) == "ORG_NOT_SUPPORTED"


async def test_beta_tokens_have_the_real_shape(ade: Ade) -> None:
    tokens = good(await ade.ask("GET", "/os-beta-enrollment/tokens"))["betaEnrollmentTokens"]
    assert tokens
    assert all(set(token) == {"token", "title", "os"} for token in tokens)
    assert {"iOS", "OSX"} <= {token["os"] for token in tokens}
