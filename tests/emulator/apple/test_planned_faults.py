"""Faults that an administrator plans for one device or for all, while the services run (apple-services.md 2.6)."""

import json
from typing import Any

import aiohttp
import pytest

from certs.errors import MalformedMessage
from emulator.apple import planned_faults
from emulator.apple.planned_faults import PlannedFaults
from emulator.apple.records import ActivationState
from emulator.wire import activation
from emulator.wire.activation import Acknowledgement
from tests.emulator.apple.support import (
    Client,
    Device,
    Reply,
    full,
    is_device_unknown,
    record_of,
)
from tests.emulator.apple.test_activation_lock import LOCK, form_of, lock, submit


async def plan(client: Client, serial: str, *faults: dict[str, Any]) -> Reply:
    body = json.dumps({"faults": faults}).encode()
    return await client.admin("PUT", f"/registry/devices/{serial}/faults", body)


async def outcome(client: Client, device: Device, wanted: str, **info: object) -> Reply:
    entry = {"step": "device_activation", "action": "outcome", "outcome": wanted, "count": 1}
    assert (await plan(client, device.serial_number, entry)).status == 200
    return await client.activate(await full(client, device, **info))


def state(client: Client, device: Device) -> ActivationState:
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    return record.activation_state


# ---- outcomes of activation ----


async def test_a_planned_server_error_is_a_500_and_changes_nothing(
    client: Client, device: Device
) -> None:
    answer = await outcome(client, device, "server_error")
    assert answer.refusal == (500, "SERVER_ERROR", "text/plain")
    assert state(client, device) is ActivationState.UNACTIVATED
    record_of(await client.activate(await full(client, device)))  # the plan is used up


async def test_a_planned_unknown_device_gets_the_fatal_page(client: Client, device: Device) -> None:
    assert is_device_unknown(await outcome(client, device, "device_unknown"))


async def test_a_planned_acknowledgement_holds_no_record(client: Client, device: Device) -> None:
    answer = await outcome(client, device, "acknowledged")
    assert activation.decode_answer("text/xml", answer.body) == Acknowledgement()


async def test_a_planned_lock_opens_for_nobody(client: Client, device: Device) -> None:
    form = form_of(await outcome(client, device, "locked"))
    again = form_of(await submit(client, form, *(LOCK.account or ("", ""))))
    assert again.form is not None
    assert again.form.alert
    assert state(client, device) is ActivationState.UNACTIVATED


async def test_a_planned_activation_passes_a_lock(client: Client, device: Device) -> None:
    lock(client, device)
    record_of(await outcome(client, device, "activated"))


async def test_outcomes_come_after_the_checks(client: Client, device: Device) -> None:
    answer = await outcome(client, device, "activated", baseband=None)
    assert is_device_unknown(answer)


# ---- what happens to an answer on its way ----


async def activate(client: Client, device: Device, **fault: Any) -> Reply:
    entry = {"step": "device_activation", **fault}
    assert (await plan(client, device.serial_number, entry)).status == 200
    return await client.activate(await full(client, device))


async def test_a_status_may_have_headers_and_a_body(client: Client, device: Device) -> None:
    answer = await activate(
        client, device, action="status", status=429, body="SLOW", headers={"Retry-After": "7"}
    )
    assert answer.refusal == (429, "SLOW", "text/plain")
    assert answer.headers["Retry-After"] == "7"


async def test_a_truncated_answer_is_whole_http_and_half_a_plist(
    client: Client, device: Device
) -> None:
    answer = await activate(client, device, action="truncate")
    assert answer.status == 200
    with pytest.raises(MalformedMessage):
        activation.decode_answer("text/xml", answer.body)


async def test_a_cut_answer_ends_within_its_body(client: Client, device: Device) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await activate(client, device, action="cut", bytes=100)
    assert state(client, device) is ActivationState.ACTIVATED


async def test_a_content_type_may_be_wrong(client: Client, device: Device) -> None:
    answer = await activate(
        client, device, action="content_type", content_type="text/xml; charset=utf-8"
    )
    assert answer.content_type == "text/xml; charset=utf-8"


async def test_a_dropped_answer_never_comes(client: Client, device: Device) -> None:
    with pytest.raises(aiohttp.ClientError):
        await activate(client, device, action="drop")


async def test_other_devices_are_not_concerned(
    client: Client, device: Device, other: Device
) -> None:
    await plan(client, other.serial_number, {"step": "device_activation", "action": "status"})
    record_of(await client.activate(await full(client, device)))


async def test_a_plan_for_all_serves_whoever_comes(
    client: Client, device: Device, other: Device
) -> None:
    entry = {"step": "drm_handshake", "action": "status", "status": 503, "count": 2}
    assert (await plan(client, "*", entry)).status == 200
    answers = [
        (await client.handshake(one.handshake_request())).status
        for one in (device, other, device, other)
    ]
    assert answers == [503, 503, 200, 200]


# ---- the administrator ----


async def test_a_plan_is_shown_as_it_stands_and_taken_away(client: Client, device: Device) -> None:
    path = f"/registry/devices/{device.serial_number}/faults"
    entry = {"step": "drm_handshake", "action": "status", "status": 503, "count": 2}
    assert (await plan(client, device.serial_number, entry)).json() == {"faults": [entry]}
    await client.handshake(device.handshake_request())
    assert (await client.admin("GET", path)).json() == {"faults": [{**entry, "count": 1}]}
    assert (await client.admin("DELETE", path)).json() == {"faults": []}
    assert (await client.handshake(device.handshake_request())).status == 200


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"step": "nowhere", "action": "drop"}, "faults.0.step"),
        ({"step": "attestation", "action": "explode"}, "faults.0.action"),
        ({"step": "attestation", "action": "status", "status": 99}, "faults.0.status"),
        ({"step": "attestation", "action": "outcome", "outcome": "locked"}, "faults.0"),
        ({"step": "device_activation", "action": "outcome"}, "faults.0"),
        ({"step": "device_activation", "action": "drop", "outcome": "locked"}, "faults.0"),
        ({"step": "attestation", "action": "drop", "colour": "red"}, "faults.0.colour"),
        ([], "faults.0"),
    ],
)
async def test_a_mistake_in_a_plan_is_named_and_changes_nothing(
    client: Client, device: Device, entry: Any, place: str
) -> None:
    good = {"step": "attestation", "action": "drop"}
    await plan(client, device.serial_number, good)
    answer = await plan(client, device.serial_number, entry)
    assert answer.status == 400
    assert answer.json()["error"].startswith(f"{place}: ")
    shown = await client.admin("GET", f"/registry/devices/{device.serial_number}/faults")
    assert shown.json() == {"faults": [good]}


async def test_a_serial_number_that_cannot_be_one_is_refused(client: Client) -> None:
    assert (await plan(client, "no-serial")).status == 400


def test_the_devices_own_plan_comes_before_that_of_all() -> None:
    faults = PlannedFaults()
    entries = planned_faults.read(
        [{"step": "attestation", "action": "status", "status": status} for status in (500, 503)]
    )
    faults.plan("*", entries[:1])
    faults.plan("A", entries[1:])
    for serial, status in (("A", 503), ("B", 500)):
        action = faults.take("attestation", serial, ("status",))
        assert action is not None
        assert action.arguments["status"] == status
    assert faults.take("attestation", "A", ("drop",)) is None


# ---- deactivation ----


async def test_an_administrator_takes_an_activation_back(client: Client, device: Device) -> None:
    record_of(await client.activate(await full(client, device)))
    path = f"/registry/devices/{device.serial_number}/deactivate"
    answer = await client.admin("POST", path)
    assert answer.json()["activation_state"] == "Unactivated"
    again = await client.activate(await full(client, device, activation_state="Activated"))
    record_of(again)  # the registry does not agree that it is activated
    assert (await client.admin("POST", "/registry/devices/NOBODY/deactivate")).status == 404
