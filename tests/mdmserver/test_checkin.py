"""PUT /checkin: what each message changes, and what broken ones get (mdm.md 3, 12)."""

import asyncio
import dataclasses

import pytest

from emulator.wire import checkin
from emulator.wire.checkin import (
    Authenticate,
    DeclarativeManagement,
    GetBootstrapToken,
    GetToken,
    TokenUpdate,
)
from tests.mdmserver.harness import world
from tests.support import VECTORS, needs_vectors

BOMB = b"""<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<plist version="1.0"><dict><key>MessageType</key><string>&c;</string></dict></plist>"""


async def test_authenticate_starts_a_new_life_without_the_old_queue() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        await device.session()
        uuid = await device.enqueue("EraseDevice")
        await device.enroll()  # erased by hand and enrolled again: R12
        shown = await device.shown()
        assert shown["name"] is None
        assert shown["policy"] == []
        assert "EraseDevice" not in await device.session()
        assert (await w.admin("GET", f"/v1/commands/{uuid}")).status == 404


async def test_token_update_keeps_an_unlock_token_that_it_does_not_repeat() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        changed = device.token_update(token=b"\x02" * 48, push_magic="NEW", unlock_token=None)
        assert (await device.check_in(changed)).status == 200
        record = await w.server.store.device(device.udid)
        assert record is not None
        assert (record.push_token, record.push_magic, record.unlock_token) == (
            b"\x02" * 48,
            "NEW",
            b"unlock",
        )


async def test_a_token_update_without_awaiting_configuration_leaves_the_device_waiting() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll(awaiting=True)
        await device.check_in(device.token_update(awaiting=None))
        assert (await device.shown())["state"] == "awaiting_configuration"
        await device.check_in(device.token_update(awaiting=False))
        assert (await device.shown())["state"] == "enrolled"
        await device.check_in(device.token_update(awaiting=True))
        assert (await device.shown())["state"] == "enrolled"  # only an enrollment starts to wait


async def test_a_token_update_for_another_topic_changes_nothing() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await device.check_in(device.token_update(topic="com.apple.mgmt.other"))
        assert answer.status == 400
        assert answer.body.startswith(b"Topic: expected com.apple.mgmt.External.")


async def test_check_out_withdraws_what_is_queued() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        uuid = await device.enqueue("SecurityInfo")
        assert (await device.check_in(device.check_out())).status == 200
        assert (await device.shown())["state"] == "checked_out"
        command = await w.server.store.command(uuid)
        assert command is not None
        assert command.state.value == "withdrawn"
        answer = await w.admin(
            "POST",
            f"/v1/devices/{device.udid}/commands",
            body=b'{"request_type": "SecurityInfo"}',
        )
        assert answer.status == 409


@pytest.mark.parametrize(
    "message",
    [
        GetToken(udid="", token_service_type="com.apple.maid"),
        GetBootstrapToken(udid=""),
        DeclarativeManagement(udid="", endpoint="tokens"),
    ],
    ids=lambda m: type(m).__name__,
)
async def test_messages_that_are_not_served_get_400_by_name(message: checkin.Message) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await device.check_in(dataclasses.replace(message, udid=device.udid))
        assert (answer.status, answer.body.decode()) == (
            400,
            "MessageType: expected Authenticate, TokenUpdate or CheckOut, "
            f"got {type(message).__name__!r}",
        )


async def test_user_enrollment_and_the_user_channel_are_not_served() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        byod = Authenticate(enrollment_id="E1", topic=device.topic)
        answer = await device.check_in(byod)
        assert answer.status == 400
        assert b"User Enrollment is not offered here" in answer.body
        user = TokenUpdate(
            udid=device.udid,
            user_id="FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            topic=device.topic,
            token=b"\x09",
            push_magic="USER",
        )
        answer = await device.check_in(user)
        assert answer.status == 400
        assert b"the user channel is not served here" in answer.body
        record = await w.server.store.device(device.udid)
        assert record is not None
        assert record.push_magic != "USER"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BOMB, b""),
        (b"", b""),
        (b"<html>", b""),
        (b"\x00" * 2000, b""),
        (b"<plist version='1.0'><dict/></plist>", b"MessageType: expected string"),
    ],
    ids=["bomb", "empty", "html", "zeroes", "nothing in it"],
)
async def test_what_is_no_message_gets_400(body: bytes, reason: bytes) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        before = await device.shown()
        for path, kind in (
            ("/checkin", checkin.CONTENT_TYPE),
            ("/mdm", "application/x-apple-aspen-mdm"),
        ):
            answer = await device.send("PUT", path, body, kind)
            assert answer.status == 400, answer.body
            if path == "/checkin":
                assert reason in answer.body
        assert await device.shown() == before


async def test_a_body_without_end_is_refused_unread() -> None:
    async with world() as w:
        device = w.device(channel="mtls")
        await device.enroll()
        answer = await device.send("PUT", "/checkin", b"x" * (11 << 20), checkin.CONTENT_TYPE)
        assert answer.status == 413


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(
    "name",
    ["checkin-unknown-messagetype-nanomdm.plist", "TokenUpdate-commandment-iOS-11.3.1.plist"],
)
async def test_captured_malformed_messages_get_400(name: str) -> None:
    body = await asyncio.to_thread((VECTORS / "malformed" / name).read_bytes)
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await device.send("PUT", "/checkin", body, checkin.CONTENT_TYPE)
        assert answer.status == 400


async def test_other_content_types_get_400() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        body = checkin.encode(device.check_out())
        answer = await device.send("PUT", "/checkin", body, "application/x-apple-aspen-mdm")
        assert answer.status == 400
        assert answer.body.startswith(
            b"Content-Type: expected application/x-apple-aspen-mdm-checkin"
        )
        answer = await device.send("PUT", "/mdm", body, "text/plain")
        assert answer.status == 400


@pytest.mark.parametrize(
    ("version", "status", "build"),
    [("18.1", 403, "22B83"), ("17.0", 403, "21A329"), ("16.7", 401, "20H19")],
)
async def test_a_device_marked_to_unenroll_gets_the_answer_that_makes_it(
    version: str, status: int, build: str
) -> None:
    async with world() as w:
        told = version if status == 403 else None
        device = w.device(os_version=told, build=build)
        await device.enroll()
        await device.session()
        assert (await w.admin("POST", f"/v1/devices/{device.udid}/unenroll")).status == 200
        for _ in range(2):  # the answer may get lost
            answer = await device.idle()
            assert answer.status == status
            if status == 403:
                assert answer.content_type == "application/json"
                assert b'"code": "com.apple.unrecognized.device"' in answer.body
        assert (await device.shown())["state"] == "checked_out"
        assert (await device.check_in(device.authenticate())).status == status
        await device.enroll()  # a new enrollment is a new life
        assert (await device.session())[0] == "DeviceInformation"
        assert (await device.shown())["unenroll"] is False


async def test_nobody_else_is_ever_answered_401() -> None:
    async with world() as w:
        device, other = w.device(), w.device(udid="f" * 40, serial="SIM0000003")
        await device.enroll()
        await other.enroll()
        await w.admin("POST", f"/v1/devices/{device.udid}/unenroll")
        other.udid = device.udid
        assert (await other.idle()).status == 400
        assert (await device.idle(tls=None, sign=None)).status == 400
