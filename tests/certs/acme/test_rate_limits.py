"""429 and Retry-After at our client, which waits as it is told and no longer than is sensible (RFC 8555, section 6.6)."""

import pytest
from cryptography import x509

from certs import csr
from certs.acme.policy import AcmePolicy
from certs.acme.session import MAX_RATE_LIMIT_S, RATE_LIMIT_RETRIES
from certs.errors import AcmeProblem
from certs.faults import Action, FaultPoint
from certs.keys import generate
from tests.certs.acme.test_slow_server import NotingClock
from tests.certs.acme.world import SERIAL, World, name, open_world

KEY = generate("p256")


def limited(step: str, times: int, **arguments: object) -> FaultPoint:
    """The server refuses the first so many requests of one step."""
    action = Action(name="rate-limited", arguments=arguments)
    return lambda side, at, message, n: (
        action if (side, at) == ("server", step) and n <= times else None
    )


async def enroll(world: World, clock: NotingClock) -> tuple[x509.Certificate, ...]:
    return await world.client(clock=clock).enroll(
        csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
    )


@pytest.mark.parametrize(
    "step",
    [
        "directory",
        "new_nonce",
        "new_account",
        "new_order",
        "challenge",
        "finalize",
        "order",
        "certificate",
    ],
)
async def test_a_limited_request_is_made_again_after_the_pause_that_is_named(step: str) -> None:
    clock = NotingClock()
    async with open_world(faults=limited(step, 2, retry_after_s=7)) as world:
        assert await enroll(world, clock)
        steps = world.transport.steps
        assert len(world.devices.issued_to) == 1
    assert steps.count(step) == 3
    assert clock.pauses == [7.0, 7.0]


@pytest.mark.parametrize("step", ["directory", "new_nonce", "new_order"])
async def test_a_limit_that_stays_is_the_servers_last_word(step: str) -> None:
    clock = NotingClock()
    async with open_world(faults=limited(step, 99)) as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll(world, clock)
        assert world.transport.steps.count(step) == 1 + RATE_LIMIT_RETRIES
    assert (caught.value.type, caught.value.status) == ("rateLimited", 429)
    assert clock.pauses == [60.0] * RATE_LIMIT_RETRIES


@pytest.mark.parametrize("pause", [None, MAX_RATE_LIMIT_S + 1])
async def test_nobody_waits_without_a_time_or_for_too_long(pause: float | None) -> None:
    clock = NotingClock()
    async with open_world(faults=limited("new_order", 99, retry_after_s=pause)) as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll(world, clock)
        assert world.transport.steps.count("new_order") == 1
    assert caught.value.retry_after_s == pause
    assert clock.pauses == []


@pytest.mark.parametrize("step", ["directory", "new_order"])
async def test_a_bare_429_of_a_proxy_is_a_rate_limit(step: str) -> None:
    clock = NotingClock()
    action = Action(name="status", arguments={"status": 429})
    async with open_world(faults=lambda *asked: action if asked[1] == step else None) as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll(world, clock)
    assert (caught.value.type, caught.value.status) == ("rateLimited", 429)
    assert clock.pauses == []  # it did not say how long


async def test_whoever_waits_as_long_as_is_named_is_not_too_early() -> None:
    """Retry-After is whole seconds (RFC 9110, section 10.2.3); a part of one counts as one."""
    clock = NotingClock()
    async with open_world(faults=limited("new_order", 1, retry_after_s=1.2)) as world:
        assert await enroll(world, clock)
    assert clock.pauses == [2.0]


async def test_each_account_has_so_many_orders_in_an_hour() -> None:
    """The wait until the hour is over is too long for a client that has a profile to install."""
    clock = NotingClock()
    async with open_world(policy=AcmePolicy(orders_per_hour=1)) as world:
        client = world.client(clock=clock)
        request = csr.build(KEY, name(SERIAL))
        await client.enroll(request, identifier=SERIAL, attest=world.attest(KEY))
        with pytest.raises(AcmeProblem, match="more than 1 orders of one account"):
            await client.enroll(request, identifier=SERIAL, attest=world.attest(KEY))
    assert clock.pauses == []
