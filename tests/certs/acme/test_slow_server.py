"""A server that takes its time, by setting or by fault: what a poller sees, and our client as that poller."""

from collections.abc import Callable
from typing import Any

import pytest

from certs import csr
from certs.acme.policy import AcmePolicy
from certs.clock import SystemClock
from certs.errors import AcmeProblem
from certs.faults import Action, FaultPoint
from certs.keys import generate
from certs.transport import HttpResponse
from tests.certs.acme.world import SERIAL, RawClient, RawOrder, fields, name, open_world, problem_of

KEY = generate("p256")
CSR = csr.build(KEY, name(SERIAL))


class NotingClock(SystemClock):
    """Notes every pause and makes none."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def slow_at(step: str, polls: int) -> FaultPoint:
    action = Action(name="processing", arguments={"polls": polls})
    return lambda side, at, message, n: action if (side, at) == ("server", step) else None


def settings(way: str, step: str) -> dict[str, Any]:
    """Three polls at a step, by the policy or by a fault."""
    if way == "fault":
        return {"faults": slow_at(step, 3)}
    at_challenge = step == "challenge"
    policy = AcmePolicy(
        slow_validation=3 if at_challenge else 0,
        slow_finalize=0 if at_challenge else 3,
        retry_after_s=7,
    )
    return {"policy": policy}


async def watched(
    look: Callable[[], Any], seen: Callable[[dict[str, Any]], str]
) -> tuple[list[str], list[str | None]]:
    """States and Retry-After of four looks."""
    states, pauses = [], []
    for _ in range(4):
        response: HttpResponse = await look()
        states.append(seen(fields(response)))
        pauses.append(response.header("retry-after"))
    return states, pauses


@pytest.mark.parametrize("way", ["policy", "fault"])
@pytest.mark.parametrize("by", ["challenge", "authorization", "order"])
async def test_a_challenge_is_decided_after_as_many_polls(way: str, by: str) -> None:
    async with open_world(**settings(way, "challenge")) as world:
        order = await (await RawClient(world).register()).order()
        answer = await order.attested(KEY)
        wait = "7" if way == "policy" else "1"
        assert (fields(answer)["status"], answer.header("retry-after")) == ("processing", wait)
        url = {"order": order.url, "authorization": order.authorization}.get(by, order.challenge)
        states, pauses = await watched(
            lambda: order.client.post(url, None), lambda shown: str(shown["status"])
        )
    before = "processing" if by == "challenge" else "pending"
    after = "ready" if by == "order" else "valid"
    assert states == [before, before, after, after]
    assert pauses == [wait, wait, None, None]


@pytest.mark.parametrize("way", ["policy", "fault"])
async def test_a_certificate_is_there_after_as_many_polls(way: str) -> None:
    async with open_world(**settings(way, "finalize")) as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        answer = await order.finalize(CSR)
        assert fields(answer)["status"] == "processing"
        assert answer.header("retry-after") == ("7" if way == "policy" else "1")
        assert "certificate" not in fields(answer)
        await _refused_meanwhile(order)
        states, _ = await watched(
            lambda: order.client.post(order.url, None), lambda shown: str(shown["status"])
        )
        assert states == ["processing", "processing", "valid", "valid"]
        assert len(world.devices.issued_to) == 1
        url = order.url.replace("/order/", "/certificate/")
        assert (await order.client.post(url, None)).status == 200


async def _refused_meanwhile(order: RawOrder) -> None:
    url = order.url.replace("/order/", "/certificate/")
    assert problem_of(await order.client.post(url, None))[0] == 404
    again = problem_of(await order.finalize(CSR))
    assert again == (403, "orderNotReady", "the order is processing")


async def test_our_client_polls_as_it_is_told() -> None:
    clock = NotingClock()
    policy = AcmePolicy(slow_validation=3, slow_finalize=2, retry_after_s=5)
    async with open_world(policy=policy) as world:
        chain = await world.client(clock=clock).enroll(
            CSR, identifier=SERIAL, attest=world.attest(KEY)
        )
        assert world.devices.issued_to == [chain[0]]
        assert world.transport.steps.count("order") == 3 + 2
    assert clock.pauses == [5.0] * 4


async def test_our_client_learns_of_a_late_refusal() -> None:
    async with open_world(policy=AcmePolicy(slow_validation=2)) as world:
        with pytest.raises(AcmeProblem) as caught:
            await world.client(clock=NotingClock()).enroll(
                CSR, identifier=SERIAL, attest=world.attest(KEY, serial_number="ANOTHER001")
            )
        assert world.devices.issued_to == []
    assert caught.value.type == "badAttestationStatement"
    assert caught.value.subproblems


async def test_what_is_processing_cannot_be_answered_again() -> None:
    async with open_world(policy=AcmePolicy(slow_validation=5)) as world:
        order = await (await RawClient(world).register()).order()
        await order.answer({})
        assert fields(await order.attested(KEY))["status"] == "processing"
        for _ in range(5):
            await order.client.post(order.challenge, None)
        assert await order.states() == ("invalid", "invalid", "invalid")
