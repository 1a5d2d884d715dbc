"""Joining an organization with a nonce, and leaving it while the 30 days last (apple-services.md 3.4, 3.6; rule 45)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from emulator.apple.app import AppleServices
from emulator.apple.planned_faults import PlannedFault
from emulator.apple.portal import Portal
from emulator.device.cloud_configuration import fetch_cloud_configuration
from emulator.device.commands.profiles import profile_list
from emulator.device.device import Device
from emulator.device.migration import end_migration, register_push_token, start_migration
from emulator.device.provisional import LeavingDenied, enroll_provisionally, leave_provisionally
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.device.surroundings import Surroundings
from emulator.device.user import RemovalDenied, remove_profile
from emulator.errors import IllegalTransition, PeerRefused
from emulator.http import TrustSet
from emulator.wire.cloudconfig import CloudConfigurationError
from emulator.wire.provisional import NonceRequest
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    ScriptedMdm,
    apple_services,
    make_device,
    register,
    scripted_mdm,
    surroundings,
    with_command,
)

URL = "https://mdm.example.com/enroll"


@asynccontextmanager
async def added(
    day: float,
) -> AsyncIterator[tuple[Device, ScriptedMdm, AppleServices, Surroundings]]:
    """A managed, unremovable device that was added with Configurator, `day` days after its activation."""
    async with scripted_mdm() as mdm:
        device = managed_device(url=mdm.url)
        async with apple_services(device, profile_keys={"url": f"{mdm.url}/enroll"}) as apple:
            around = surroundings(apple=apple)
            now = around.clock.now()
            start = now - timedelta(days=day)
            record = apple.registry.get(device.hardware.serial_number)
            assert record is not None
            until = record.add_provisionally(start, from_activation=False)
            configuration = device.cloud_configuration
            assert configuration is not None
            device.cloud_configuration = replace(
                configuration, provisional_expiry_ms=int(until.timestamp() * 1000)
            )
            yield device, mdm, apple, around


def owner(apple: AppleServices, device: Device) -> str | None:
    record = apple.registry.get(device.hardware.serial_number)
    assert record is not None
    return record.organization.name if record.organization else None


@pytest.mark.ade(45)
async def test_on_day_29_the_user_leaves_supervision_management_and_organization() -> None:
    async with added(29) as (device, mdm, apple, around):
        await leave_provisionally(device, around)
        assert owner(apple, device) is None
    assert device.state is State.HOME_UNMANAGED
    assert (device.supervised, device.enrollment, device.cloud_configuration) == (False, None, None)
    assert mdm.names_of() == ["CheckOut"]


@pytest.mark.ade(45)
async def test_on_day_31_settings_offer_no_way_out() -> None:
    async with added(31) as (device, mdm, apple, around):
        with pytest.raises(LeavingDenied, match="the provisional period ended at"):
            await leave_provisionally(device, around)
        with pytest.raises(RemovalDenied, match="locked to its management"):
            await remove_profile(device, PROFILE_IDENTIFIER, around)
        assert owner(apple, device) == "Example Inc"
    assert device.managed
    assert mdm.received == []


@pytest.mark.ade(45)
async def test_removing_the_profile_on_day_29_is_the_same_as_leaving() -> None:
    async with added(29) as (device, mdm, apple, around):
        await remove_profile(device, PROFILE_IDENTIFIER, around)
        assert owner(apple, device) is None
    assert device.state is State.HOME_UNMANAGED
    assert mdm.names_of() == ["CheckOut"]


@pytest.mark.ade(45)
async def test_the_profile_list_shows_the_way_out_for_thirty_days() -> None:
    async with added(0) as (device, _, _, around):
        now = around.clock.now()
        for day, forbidden in ((29, False), (30, True)):
            outcome = profile_list(device, with_command("ProfileList"), now + timedelta(days=day))
            (item,) = outcome.fields["ProfileList"]
            assert item["PayloadRemovalDisallowed"] is forbidden


async def test_a_device_that_was_bought_has_no_way_out() -> None:
    device = managed_device()
    with pytest.raises(LeavingDenied, match="was not added provisionally"):
        await leave_provisionally(device, surroundings())
    assert device.managed


async def test_a_service_that_says_no_changes_nothing() -> None:
    async with added(29) as (device, mdm, apple, around):
        apple.registry.release(device.hardware.serial_number, around.clock.now())
        with pytest.raises(CloudConfigurationError) as caught:
            await leave_provisionally(device, around)
    assert (caught.value.code, caught.value.word, caught.value.status) == (
        33018,
        "CANNOT_ENROLL",
        400,
    )
    assert caught.value.step == "provisional_leave"
    assert device.managed
    assert mdm.received == []


async def test_the_period_outlives_a_restart() -> None:
    async with added(3) as (device, _, _, _):
        assert thaw(freeze(device)).provisional_until == device.provisional_until


# ---- joining ----


async def nonce_of_configurator(device: Device, around: Surroundings) -> str:
    """What Apple Configurator does on the Mac beside the device."""
    assert around.apple is not None
    url = around.apple.provisional_url
    trust = TrustSet().with_roots(device.factory.anchors.tls_root)
    request = NonceRequest(
        devices=((device.hardware.serial_number, device.hardware.udid),), profile={"url": URL}
    )
    async with around.door.session(trust=trust, user_agent="Configurator/2.17") as session:
        login = await session.request(
            "GET", url + "/v2/login", step="login", headers={"X-Apple-GS-Token": "Example%20Inc"}
        )
        answer = await session.request(
            "POST",
            url + "/v2/nonce",
            step="nonce",
            headers={"X-ADM-Auth-Session": login.body.decode()},
            body=json.dumps(request.to_fields()).encode(),
        )
    (entry,) = json.loads(answer.body)["nonces"]
    return str(entry["value"])


@asynccontextmanager
async def invited() -> AsyncIterator[tuple[Device, AppleServices, Surroundings, str]]:
    """An activated device, and a nonce for it."""
    device = make_device()
    device.state = State.ACTIVATED
    device.keychain.device = device.factory.factory
    async with apple_services(device) as apple:
        apple.apply(Portal.from_content({"organizations": [{"name": "Example Inc"}]}))
        around = surroundings(apple=apple)
        yield device, apple, around, await nonce_of_configurator(device, around)


async def test_a_device_joins_with_its_nonce_and_gets_the_period_with_its_configuration() -> None:
    async with invited() as (device, apple, around, nonce):
        until = await enroll_provisionally(device, around, nonce)
        assert owner(apple, device) == "Example Inc"
        await fetch_cloud_configuration(device, around)
    assert device.state is State.CLOUD_CONFIGURED
    assert device.provisional_until == until
    assert device.is_provisional(around.clock.now())
    assert abs(until - around.clock.now() - timedelta(days=30)) < timedelta(minutes=1)


async def test_a_used_nonce_is_33014() -> None:
    async with invited() as (device, _, around, _):
        with pytest.raises(CloudConfigurationError) as caught:
            await enroll_provisionally(device, around, "another")
    assert (caught.value.code, caught.value.word) == (33014, "NONCE_EXPIRED")


async def test_provisional_enrollment_goes_to_a_host_of_its_own_where_there_is_one() -> None:
    async with invited() as (device, _, around, nonce):
        assert around.apple is not None
        elsewhere = replace(around.apple, enrollment_url="https://127.0.0.1:1")
        with pytest.raises(PeerRefused, match="127.0.0.1:1"):
            await enroll_provisionally(device, replace(around, apple=elsewhere), nonce)


async def test_a_device_that_is_not_activated_cannot_join() -> None:
    with pytest.raises(IllegalTransition, match="not activated"):
        await enroll_provisionally(make_device(), surroundings(), "nonce")


def fault(step: str, **answer: Any) -> PlannedFault:
    return PlannedFault.model_validate({"step": step, "action": "body", **answer})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"status": 400, "body": "CANNOT_ENROLL"}, 33023),  # whatever the body says
        ({"status": 401, "body": "NONCE_EXPIRED"}, 33014),
        ({"status": 403, "body": "CANNOT_ENROLL"}, 33018),
        ({"status": 401, "body": "WHATEVER"}, 34000),
        ({"status": 403, "body": ""}, 34000),
        ({"status": 500, "body": "NONCE_EXPIRED"}, 34004),
        ({"status": 503, "body": ""}, 34004),
        ({"status": 204, "body": ""}, 34004),
        ({"status": 200, "body": '{"enrollment_type":"REGULAR_ENROLLMENT"}'}, 33018),
        ({"status": 200, "body": '{"enrollment_type":"OTHER","ce_expiry_ts":1}'}, 34003),
        ({"status": 200, "body": '{"enrollment_type":"PROVISIONAL_ENROLLMENT"}'}, 34003),
        (
            {
                "status": 200,
                "body": '{"enrollment_type":"PROVISIONAL_ENROLLMENT","ce_expiry_ts":"1"}',
            },
            34003,
        ),
        ({"status": 200, "body": "PROFILE_NOT_FOUND"}, 34003),
    ],
)
async def test_every_answer_to_an_enrollment_has_its_code(
    answer: dict[str, Any], code: int
) -> None:
    async with invited() as (device, apple, around, nonce):
        apple.planned_faults.plan("*", [fault("provisional_enrollment", **answer)])
        with pytest.raises(CloudConfigurationError) as caught:
            await enroll_provisionally(device, around, nonce)
    assert (caught.value.code, caught.value.status) == (code, answer["status"])
    assert f"MCCloudConfigurationErrorDomain {code}" in str(caught.value)


# ---- the other operations ----

ANSWERS = [
    ({"status": 400, "body": "INVALID_DEVICE"}, 33023),
    ({"status": 401, "body": "INVALID_SIGNATURE"}, 33016),
    ({"status": 401, "body": "WHATEVER"}, 34000),
    ({"status": 400, "body": "WHATEVER"}, 34004),
    ({"status": 403, "body": "CANNOT_ENROLL"}, 34004),
    ({"status": 500, "body": ""}, 34004),
    ({"status": 503, "body": ""}, 34004),
]


@pytest.mark.parametrize(("answer", "code"), ANSWERS)
async def test_every_refusal_to_leave_has_its_code(answer: dict[str, Any], code: int) -> None:
    async with added(1) as (device, _, apple, around):
        apple.planned_faults.plan("*", [fault("provisional_leave", **answer)])
        with pytest.raises(CloudConfigurationError) as caught:
            await leave_provisionally(device, around)
    assert (caught.value.code, caught.value.status) == (code, answer["status"])
    assert device.managed


@pytest.mark.parametrize(("answer", "code"), ANSWERS)
@pytest.mark.parametrize("step", ["device_register", "start_migration", "end_migration"])
async def test_every_refusal_of_a_notice_has_its_code(
    step: str, answer: dict[str, Any], code: int
) -> None:
    device = make_device()
    async with apple_services() as apple:
        register(apple, device)
        apple.planned_faults.plan("*", [fault(step, count=1, **answer)])
        around = surroundings(apple=apple)

        async def tell() -> None:
            match step:
                case "device_register":
                    await register_push_token(device, around, token=bytes(32), topic="t")
                case "start_migration":
                    await start_migration(device, around)
                case _:
                    await end_migration(device, around, server_uid="A" * 32, status="success")

        with pytest.raises(CloudConfigurationError) as caught:
            await tell()
        assert (caught.value.code, caught.value.step) == (code, step)
        await tell()  # and without the fault it is accepted
