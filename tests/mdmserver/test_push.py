"""The server pushes: when, to whom, how often, and to which tokens never again (mdm.md 7, 12.9; bugs P01, P03)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certs.clock import SimulatedClock
from certs.faults import Action, FaultPoint, no_faults
from emulator.apple.app import AppleServices
from emulator.wire.push import Reason
from mdmserver import push as push_rules
from tests.emulator.apple.push_support import (
    PAYLOAD,
    TOPIC,
    Listener,
    faulty,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki
from tests.mdmserver.harness import RawDevice, World, world

MAGIC = "7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D"  # of the raw device
RAW_TOKEN = b"\x01" * 32


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


class Pushed:
    """A server, its APNs, and a device that listens there."""

    def __init__(self, w: World, services: AppleServices) -> None:
        self.world = w
        self.services = services

    async def device(self, **facts: Any) -> tuple[RawDevice, Listener]:
        listener = Listener(self.services, RAW_TOKEN, self.world.server.topic)
        listener.online()
        device = self.world.device(**facts)
        await device.enroll()
        await self.settled()
        return device, listener

    async def settled(self) -> None:
        pusher = self.world.server.pusher
        assert pusher is not None
        await pusher.settled()

    async def state(self, device: RawDevice) -> dict[str, Any]:
        answer = await self.world.admin("GET", f"/v1/devices/{device.udid}/push")
        assert answer.status == 200
        return dict(json.loads(answer.body))

    async def counts(self) -> dict[str, int]:
        return dict(json.loads((await self.world.admin("GET", "/v1/push")).body))


@asynccontextmanager
async def pushed(
    *, faults: FaultPoint = no_faults, state: Path | None = None, **settings: Any
) -> AsyncIterator[Pushed]:
    clock = SimulatedClock()
    async with (
        push_services(clock, faults=faults, **settings) as services,
        world(clock=clock, state=state, topic=TOPIC) as w,
    ):
        roots = [services.pki.tls_ca.certificate]
        await w.server.use_push(push_identity(TOPIC), services.push_url, roots)
        yield Pushed(w, services)


def payloads(listener: Listener) -> list[bytes]:
    return [push.payload for push in listener.got]


async def test_the_first_token_update_and_each_command_are_followed_by_a_push() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        assert payloads(listener) == [PAYLOAD]
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert payloads(listener) == [PAYLOAD] * 2
        assert (await p.counts())["accepted"] == 2
        assert (await device.check_in(device.token_update())).status == 200
        await p.settled()
        assert len(listener.got) == 2  # a later TokenUpdate is no news


async def test_commands_queued_together_are_one_push() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        pusher = p.world.server.pusher
        assert pusher is not None
        before = len(listener.got)
        for _ in range(5):
            pusher.wake(device.udid)
        await p.settled()
        assert len(listener.got) - before == 2  # one under way, one for all that came meanwhile


async def test_an_administrator_may_push_one_device_or_all() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        answer = await p.world.admin("POST", f"/v1/devices/{device.udid}/push")
        assert answer.status == 202
        await p.settled()
        answer = await p.world.admin("POST", "/v1/push")
        assert (answer.status, json.loads(answer.body)) == (202, {"devices": 1})
        await p.settled()
        assert len(listener.got) == 3
        assert (await p.world.admin("POST", "/v1/devices/NOBODY/push")).status == 404
        assert (await p.world.admin("GET", "/v1/devices/NOBODY/push")).status == 404


async def test_without_a_certificate_nobody_is_pushed() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert (await w.admin("POST", "/v1/push")).status == 409
        assert (await w.admin("GET", "/v1/push")).status == 409
        answer = await w.admin("POST", f"/v1/devices/{device.udid}/push")
        assert "not set up" in json.loads(answer.body)["error"]
        await device.enqueue("SecurityInfo")


async def test_a_410_turns_the_token_off_until_the_next_token_update() -> None:
    async with pushed() as p:
        device, _ = await p.device()
        p.services.push.tokens.forget(RAW_TOKEN)
        await device.enqueue("SecurityInfo")
        await p.settled()
        state = await p.state(device)
        assert (state["off"], state["topic"]) == ("Unregistered", TOPIC)
        refused = p.services.push.stats.refused["Unregistered"]
        assert refused == 1
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert p.services.push.stats.refused["Unregistered"] == refused  # it is not tried again
        answer = await p.world.admin("POST", f"/v1/devices/{device.udid}/push")
        assert (answer.status, "Unregistered" in answer.body.decode()) == (409, True)
        assert json.loads((await p.world.admin("POST", "/v1/push")).body) == {"devices": 0}

        fresh = Listener(p.services, b"\x02" * 32, TOPIC)
        fresh.online()
        assert (await device.check_in(device.token_update(token=b"\x02" * 32))).status == 200
        assert (await p.state(device))["off"] is None
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert payloads(fresh) == [PAYLOAD]


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken"])
async def test_other_words_for_a_dead_token_do_the_same(reason: str) -> None:
    async with pushed(faults=faulty("answer", reason=reason)) as p:
        device, _ = await p.device()
        assert (await p.state(device))["off"] == reason
        assert (await p.counts())["turned_off"] == 1


async def test_a_late_410_says_nothing_about_a_newer_token() -> None:
    async with pushed() as p:
        device, _ = await p.device()
        store, now = p.world.server.store, p.world.clock.now()
        await device.check_in(device.token_update(token=b"\x02" * 32))
        assert await store.push_off(device.udid, RAW_TOKEN, "Unregistered", now) is False
        assert (await p.state(device))["off"] is None


async def test_a_new_enrollment_starts_with_a_clean_slate() -> None:
    async with pushed() as p:
        device, _ = await p.device()
        p.services.push.tokens.forget(RAW_TOKEN)
        await device.enqueue("SecurityInfo")
        await p.settled()
        Listener(p.services, RAW_TOKEN, TOPIC)
        device.signer = p.world.apple.activate()
        device.profile = None
        await device.enroll()
        assert (await p.state(device))["off"] is None


@pytest.mark.parametrize("reason", [Reason.SERVICE_UNAVAILABLE, Reason.TOO_MANY_REQUESTS])
async def test_what_may_pass_is_tried_again_later_and_later(reason: Reason) -> None:
    def fault(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "push" and n <= 2:
            return Action(name="answer", arguments={"reason": reason.value})
        return None

    async with pushed(faults=fault) as p:
        _, listener = await p.device()
        assert listener.got == []
        await p.world.clock.advance(2)
        await p.settled()
        assert (p.services.push.stats.refused[reason], listener.got) == (2, [])
        await p.world.clock.advance(6)
        await p.settled()
        assert payloads(listener) == [PAYLOAD]
        assert (await p.counts())["waiting_for_retry"] == 0


async def test_a_push_is_given_up_in_the_end_and_the_next_enqueue_starts_anew() -> None:
    async with pushed(faults=faulty("answer", reason="ServiceUnavailable")) as p:
        device, _ = await p.device()
        await p.world.clock.advance(3 * 3600)
        counts = await p.counts()
        assert (counts["given_up"], counts["refused"]) == (1, push_rules.MAX_TRIES)
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert (await p.counts())["refused"] == push_rules.MAX_TRIES + 1


async def test_a_refusal_that_is_our_own_fault_is_not_repeated() -> None:
    async with pushed(faults=faulty("answer", reason="BadTopic")) as p:
        device, _ = await p.device()
        await p.world.clock.advance(600)
        assert (await p.counts())["refused"] == 1
        assert (await p.state(device))["off"] is None


async def test_a_lost_connection_is_made_anew() -> None:
    async with pushed(faults=faulty("drop", at=1)) as p:
        _, listener = await p.device()
        assert (await p.counts())["failed"] == 1
        await p.world.clock.advance(2)
        await p.settled()
        assert payloads(listener) == [PAYLOAD]
        assert p.services.push.stats.connections == 2


async def test_a_goaway_loses_no_push() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        p.services.push.go_away(Reason.SHUTDOWN)
        await device.enqueue("SecurityInfo")
        await p.world.clock.advance(3)
        await p.settled()
        assert len(listener.got) == 2


async def test_a_refused_stream_is_tried_again() -> None:
    async with pushed(faults=faulty("refuse-stream", at=1)) as p:
        _, listener = await p.device()
        await p.world.clock.advance(2)
        await p.settled()
        assert payloads(listener) == [PAYLOAD]


async def test_a_service_that_is_not_there_is_waited_for() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        await p.services.push.stop()
        await device.enqueue("SecurityInfo")
        await p.world.clock.advance(60)
        counts = await p.counts()
        assert counts["failed"] >= 2
        assert counts["waiting_for_retry"] == 1
        assert len(listener.got) == 1


async def test_an_outage_leaves_one_retry_a_device_however_much_is_enqueued() -> None:
    async with pushed() as p:
        device, _ = await p.device()
        await p.services.push.stop()
        pusher = p.world.server.pusher
        assert pusher is not None
        for _ in range(3 * push_rules.SPARE_ENTRIES):
            pusher.wake(device.udid)
            await p.settled()
        assert (await p.counts())["waiting_for_retry"] == 1
        assert len(pusher._later) <= push_rules.SPARE_ENTRIES + 2
        failed = (await p.counts())["failed"]
        await p.world.clock.advance(2)
        await p.settled()
        assert (await p.counts())["failed"] == failed + 1


async def test_a_push_that_went_out_takes_the_place_of_its_retry() -> None:
    async with pushed(faults=faulty("answer", at=1, reason="ServiceUnavailable")) as p:
        device, listener = await p.device()
        assert (await p.counts())["waiting_for_retry"] == 1
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert (await p.counts())["waiting_for_retry"] == 0
        await p.world.clock.advance(60)
        await p.settled()
        assert len(listener.got) == 1


async def test_what_apns_lost_is_pushed_again_an_hour_later() -> None:
    async with pushed(faults=faulty("lose", at=2)) as p:
        device, listener = await p.device()
        await device.session()
        await device.enqueue("SecurityInfo")
        await p.settled()
        assert len(listener.got) == 1
        await p.world.clock.advance(2 * push_rules.AGAIN_AFTER_S)
        await p.settled()
        assert len(listener.got) >= 2
        before = len(listener.got)
        await device.session()  # it fetches the command
        await p.world.clock.advance(2 * push_rules.AGAIN_AFTER_S)
        await p.settled()
        assert len(listener.got) == before


async def test_a_restart_pushes_what_waits(tmp_path: Path) -> None:
    clock = SimulatedClock()
    async with push_services(clock) as services:
        roots = [services.pki.tls_ca.certificate]
        listener = Listener(services, RAW_TOKEN, TOPIC)
        listener.online()
        async with world(clock=clock, state=tmp_path, topic=TOPIC) as w:
            device = w.device()
            await device.enroll()
            await device.enqueue("SecurityInfo")
        assert listener.got == []
        async with world(clock=clock, state=tmp_path, topic=TOPIC) as w:
            await w.server.use_push(push_identity(TOPIC), services.push_url, roots)
            assert w.server.pusher is not None
            await w.server.pusher.settled()
        assert payloads(listener) == [PAYLOAD]


async def test_stored_pushes_expire_by_our_word() -> None:
    async with pushed() as p:
        device, listener = await p.device()
        listener.offline()
        await device.enqueue("SecurityInfo")
        await p.settled()
        record = p.services.push.tokens.get(RAW_TOKEN)
        assert record is not None
        assert record.pending is not None
        assert record.pending.expires_at is not None
        left = record.pending.expires_at - p.world.clock.now()
        assert timedelta(days=7) - left < timedelta(seconds=2)


async def test_a_device_of_another_topic_is_never_pushed(tmp_path: Path) -> None:
    """It enrolled before the server's topic was changed: this certificate may not push it."""
    clock = SimulatedClock()
    async with push_services(clock) as services:
        listener = Listener(services, RAW_TOKEN, TOPIC)
        listener.online()
        async with world(clock=clock, state=tmp_path, topic=TOPIC) as w:
            device = w.device()
            await device.enroll()
            await device.enqueue("SecurityInfo")
        other = "com.apple.mgmt.Other"
        async with world(clock=clock, state=tmp_path, topic=other) as w:
            roots = [services.pki.tls_ca.certificate]
            await w.server.use_push(push_identity(other), services.push_url, roots)
            assert w.server.pusher is not None
            await w.server.pusher.settled()
            counts = w.server.pusher.as_json()
        assert (counts["refused"], counts["accepted"], counts["turned_off"]) == (1, 0, 0)
        assert services.push.stats.connections == 0
        assert listener.got == []
