"""Delivery: in order, one at a time, never again once answered, and DeviceConfigured last and once (mdm.md 4; bugs N01, N06, M04)."""

import asyncio
from typing import Any

import pytest

from certs.faults import Action
from certs.transport import HttpResponse
from emulator.wire.command import Response, Status, decode_command
from tests.mdmserver.harness import RawDevice, world

QUERIES = ["DeviceInformation", "ProfileList"]


async def settled(device: RawDevice, *, awaiting: bool = False) -> None:
    """Enrolled, named, with an empty queue."""
    await device.enroll(awaiting=awaiting)
    await device.session()


async def after_queries(device: RawDevice) -> HttpResponse:
    """Idle, and both queries answered: the answer holds what comes after them."""
    answer = await device.idle()
    for _ in QUERIES:
        command = decode_command(answer.body)
        answer = await device.answer(command, **device.result(command))
    return answer


async def test_commands_come_in_the_order_they_were_queued() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        wanted = ["SecurityInfo", "CertificateList", "RestartDevice"]
        uuids = [await device.enqueue(name) for name in wanted]
        device.seen.clear()
        assert await device.session() == [*QUERIES, *wanted]
        assert [c.command_uuid for c in device.seen[2:]] == uuids
        assert await device.session() == QUERIES


async def test_a_session_ends_with_zero_bytes() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        answer = await after_queries(device)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("content-length") == "0"
        assert w.server.sessions.open_count == 0


async def test_not_now_keeps_a_command_for_the_next_session() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        first = await device.enqueue("InstallApplication", iTunesStoreID=1)
        second = await device.enqueue("SecurityInfo")
        device.seen.clear()
        names = await device.session(InstallApplication=Status.NOT_NOW)
        assert names == [*QUERIES, "InstallApplication", "SecurityInfo"]  # once, not for ever: N01
        device.seen.clear()
        assert await device.session() == [*QUERIES, "InstallApplication"]
        assert device.seen[-1].command_uuid == first
        for uuid in (first, second):
            command = await w.server.store.command(uuid)
            assert command is not None
            assert command.state.value == "acknowledged"


async def test_an_unanswered_command_is_delivered_again_under_its_uuid() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        uuid = await device.enqueue("SecurityInfo")
        for _ in range(2):  # the device dies before it answers
            answer = await after_queries(device)
            assert decode_command(answer.body).command_uuid == uuid
        command = await w.server.store.command(uuid)
        assert command is not None
        assert (command.deliveries, command.state.value) == (2, "delivered")


async def test_a_result_whose_answer_was_lost_is_stored_once_and_the_command_not_sent_again() -> (
    None
):
    lost: list[str] = []

    def lose_one(side: str, step: str, message: object, n: int) -> Action | None:
        if isinstance(message, Response) and message.command_uuid in lost:
            lost.remove(message.command_uuid)
            return Action(name="drop")
        return None

    async with world(faults=lose_one) as w:
        device = w.device()
        await settled(device)
        uuid = await device.enqueue("SecurityInfo")
        command = decode_command((await after_queries(device)).body)
        lost.append(uuid)
        with pytest.raises(Exception, match="closed the connection|reset"):
            await device.answer(command, SecurityInfo={"HardwareEncryptionCaps": 3})
        # The device kept the result and starts its next session with it.
        answer = await device.answer(command, SecurityInfo={"HardwareEncryptionCaps": 0})
        assert decode_command(answer.body).request_type == "DeviceInformation"
        assert "SecurityInfo" not in await device.session()
        stored = await w.server.store.command(uuid)
        assert stored is not None
        assert stored.result is not None
        assert b"<integer>3</integer>" in stored.result


async def test_a_query_that_got_lost_with_its_connection_is_asked_again() -> None:
    """The device never saw the second look at its name, and sends the result of the mend again."""
    async with world() as w:
        device = w.device()
        await settled(device)
        device.name = "Bob's phone"
        mend = decode_command((await after_queries(device)).body)
        assert mend.request_type == "Settings"
        item = {"Item": "DeviceName", "Status": "Acknowledged"}
        device.name = "iPhone-SIM0000001"
        for _ in range(2):  # the answer to the first is lost on its way
            look = decode_command((await device.answer(mend, Settings=[item])).body)
            assert look.request_type == "DeviceInformation"
        await device.answer(look, **device.result(look))
        assert (await device.shown())["name"] == "iPhone-SIM0000001"


async def test_a_result_may_open_a_session() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        uuid = await device.enqueue("SecurityInfo")
        command = decode_command((await after_queries(device)).body)
        w.server.sessions.forget(device.udid)  # as after a restart of the server
        answer = await device.answer(command)
        assert decode_command(answer.body).request_type == "DeviceInformation"
        stored = await w.server.store.command(uuid)
        assert stored is not None
        assert stored.state.value == "acknowledged"


async def test_a_result_for_an_unknown_command_is_accepted() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        response = Response(udid=device.udid, status=Status.ACKNOWLEDGED, command_uuid="never sent")
        assert (await device.connect(response)).status == 200


async def test_a_device_cannot_answer_anothers_command() -> None:
    async with world() as w:
        device, other = w.device(), w.device(udid="f" * 40, serial="SIM0000003")
        await settled(device)
        await settled(other)
        uuid = await device.enqueue("SecurityInfo")
        response = Response(udid=other.udid, status=Status.ACKNOWLEDGED, command_uuid=uuid)
        assert (await other.connect(response)).status == 200
        stored = await w.server.store.command(uuid)
        assert stored is not None
        assert (stored.state.value, stored.result) == ("queued", None)


@pytest.mark.parametrize(
    ("status", "state"),
    [(Status.ERROR, "error"), (Status.COMMAND_FORMAT_ERROR, "command_format_error")],
)
async def test_an_error_ends_a_command(status: Status, state: str) -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        uuid = await device.enqueue("FooBar")
        assert await device.session(FooBar=status) == [*QUERIES, "FooBar"]
        stored = await w.server.store.command(uuid)
        assert stored is not None
        assert stored.state.value == state
        assert await device.session() == QUERIES


async def test_two_requests_of_one_device_at_once_are_taken_in_turn() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        answers = await asyncio.gather(*(device.idle() for _ in range(5)))
        assert all(answer.status == 200 for answer in answers)
        assert len({decode_command(answer.body).command_uuid for answer in answers}) == 5
        assert await device.session() == QUERIES


async def test_a_result_sent_twice_at_once_is_taken_in_turn() -> None:
    async with world() as w:
        device = w.device()
        await settled(device)
        await device.enqueue("SecurityInfo")
        last = decode_command((await after_queries(device)).body)
        answers = await asyncio.gather(*(device.answer(last) for _ in range(2)))
        assert [answer.status for answer in answers] == [200, 200]
        # One ended the session, the other began a new one.
        assert sorted(len(answer.body) > 0 for answer in answers) == [False, True]


# -- Setup Assistant --------------------------------------------------------------------------------------------------

SETUP = ({"request_type": "SecurityInfo"}, {"request_type": "InstallProfile", "Payload": b"<x/>"})


class SetupDevice(RawDevice):
    """Does not take the setup profile for its enrollment profile."""

    def result(self, command: Any) -> dict[str, Any]:
        return {} if command.request_type == "InstallProfile" else super().result(command)


def waiting(w: Any) -> SetupDevice:
    return SetupDevice(world=w, signer=w.apple.activate())


async def test_configured_commands_come_before_device_configured() -> None:
    async with world(setup_commands=SETUP) as w:
        device = waiting(w)
        await device.enroll(awaiting=True)
        assert await device.session() == [
            *QUERIES,
            "Settings",
            "DeviceInformation",
            "SecurityInfo",
            "InstallProfile",
            "DeviceConfigured",
        ]


@pytest.mark.ade(68)
async def test_a_device_that_does_not_wait_is_never_sent_device_configured() -> None:
    async with world(setup_commands=SETUP) as w:
        device = waiting(w)
        await device.enroll(awaiting=False)
        names = await device.session()
        assert names[-2:] == ["SecurityInfo", "InstallProfile"]
        assert "DeviceConfigured" not in await device.session()


async def test_nobody_is_released_while_an_earlier_command_was_put_off() -> None:
    async with world(setup_commands=SETUP) as w:
        device = waiting(w)
        await device.enroll(awaiting=True)
        for _ in range(3):
            names = await device.session(InstallProfile=Status.NOT_NOW)
            assert names[-1] == "InstallProfile"
            assert (await device.shown())["state"] == "awaiting_configuration"
        assert (await device.session())[-2:] == ["InstallProfile", "DeviceConfigured"]
        assert (await device.shown())["state"] == "enrolled"


async def test_a_put_off_query_holds_the_device_too() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll(awaiting=True)
        assert await device.session(DeviceInformation=Status.NOT_NOW) == QUERIES
        assert (await device.session())[-1] == "DeviceConfigured"


@pytest.mark.ade(66)
async def test_device_configured_is_sent_once_per_enrollment() -> None:
    async with world() as w:
        device = w.device()
        await settled(device, awaiting=True)
        for _ in range(2):
            assert "DeviceConfigured" not in await device.session()
        # The device says once more that it waits, as one that restarted might: not again.
        await device.check_in(device.token_update(awaiting=True))
        assert "DeviceConfigured" not in await device.session()
        await settled(device, awaiting=True)  # but a new enrollment gets its own
        assert [c.request_type for c in device.seen].count("DeviceConfigured") == 2


async def test_device_configured_put_off_or_lost_keeps_its_uuid() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll(awaiting=True)
        for _ in range(2):
            await device.session(DeviceConfigured=Status.NOT_NOW)
        assert (await device.shown())["state"] == "awaiting_configuration"
        await device.session()
        sent = {c.command_uuid for c in device.seen if c.request_type == "DeviceConfigured"}
        assert len(sent) == 1
        assert (await device.shown())["state"] == "enrolled"


async def test_device_configured_refused_is_not_repeated() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll(awaiting=True)
        await device.session(DeviceConfigured=Status.ERROR)
        assert "DeviceConfigured" not in await device.session()
        assert (await device.shown())["state"] == "awaiting_configuration"
        await device.enqueue("DeviceConfigured")  # an admin may
        await device.session()
        assert (await device.shown())["state"] == "enrolled"
