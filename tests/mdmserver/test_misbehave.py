"""Faults on purpose: each action does what it says, at the step it names, and nothing else."""

import asyncio
import ssl

import pytest

from certs.errors import TransportError
from certs.faults import Action
from certs.tls import client_context
from emulator.wire import machineinfo
from mdmserver.misbehave import Misbehaviour
from tests.mdmserver.harness import World, world


class Script:
    """A FaultPoint that answers from a table and remembers what it was asked."""

    def __init__(self, **actions: Action) -> None:
        self.actions = actions
        self.asked: list[tuple[str, int]] = []
        self.was_asked = asyncio.Event()

    def __call__(self, side: str, step: str, message: object, n: int) -> Action | None:
        if step in ("enrollment_profile", "authenticate", "token_update", "idle", "command"):
            assert side == "server"
            self.asked.append((step, n))
            self.was_asked.set()
        return self.actions.pop(step, None)


async def test_every_step_is_asked_and_counted_per_device() -> None:
    script = Script()
    async with world(faults=script) as w:
        for udid, serial in (("a" * 40, "SIM0000001"), ("b" * 40, "SIM0000002")):
            device = w.device(udid=udid, serial=serial, name=f"iPhone-{serial}")
            await device.enroll()
            await device.session()
        one_device = [
            ("enrollment_profile", 1),
            ("authenticate", 1),
            ("token_update", 1),
            ("idle", 1),
            ("command", 1),
            ("command", 2),
        ]
        assert script.asked == one_device * 2


async def test_status_answers_so_and_nothing_has_happened() -> None:
    script = Script(authenticate=Action(name="status", arguments={"status": 503, "body": "later"}))
    async with world(faults=script) as w:
        device = w.device()
        await device.fetch_profile()
        device.identity = await device.get_identity()
        answer = await device.check_in(device.authenticate())
        assert (answer.status, answer.body) == (503, b"later")
        assert await w.server.store.device(device.udid) is None
        assert (await device.check_in(device.authenticate())).status == 200


async def test_body_takes_the_place_of_the_honest_one() -> None:
    arguments = {"body": "<html>", "content_type": "text/html"}
    script = Script(enrollment_profile=Action(name="body", arguments=arguments))
    async with world(faults=script) as w:
        answer = await w.device().ask_for_profile()
        assert (answer.status, answer.body, answer.content_type) == (200, b"<html>", "text/html")


@pytest.mark.parametrize("before", [False, True])
async def test_drop_closes_the_connection_after_or_before_the_act(before: bool) -> None:
    script = Script(token_update=Action(name="drop", arguments={"before": before}))
    async with world(faults=script) as w:
        device = w.device()
        await device.fetch_profile()
        device.identity = await device.get_identity()
        await device.check_in(device.authenticate())
        with pytest.raises(TransportError):
            await device.check_in(device.token_update())
        state = (await device.shown())["state"]
        assert state == ("authenticated" if before else "enrolled")


async def test_delay_lets_simulated_time_pass() -> None:
    script = Script(enrollment_profile=Action(name="delay", arguments={"seconds": 60}))
    async with world(faults=script) as w:
        reader, writer = await asyncio.open_connection(*_address(w), ssl=_trusting(w))
        device = w.device()
        body = machineinfo.sign(device.machine_info(), device.signer)
        head = (
            "POST /ade HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs7-signature\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await script.was_asked.wait()
        await w.clock.advance(59)
        answer = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0.01)
        assert not answer.done()
        await w.clock.advance(1)
        assert (await answer).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


async def test_an_unknown_action_is_our_own_mistake() -> None:
    async with world() as w:
        wrong = Misbehaviour(lambda *_: Action(name="explode"), w.clock)
        with pytest.raises(ValueError, match="expected delay, status, body, drop"):
            await wrong.act("idle", None, "U")


def _address(w: World) -> tuple[str, int]:
    return "127.0.0.1", int(w.server.url.rpartition(":")[2])


def _trusting(w: World) -> ssl.SSLContext:
    return client_context(w.server.tls_roots)
