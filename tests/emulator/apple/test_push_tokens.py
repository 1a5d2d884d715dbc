"""Store-and-forward: one push per token waits, the newest, until it expires; a token belongs to one device and topic."""

from datetime import timedelta

import pytest

from certs.clock import SimulatedClock
from emulator.apple.push_stats import PushStats
from emulator.apple.push_tokens import Notification, PushTokens, TooManyTokens
from emulator.wire.push import Reason

TOKEN, OTHER = b"\x01" * 32, b"\x02" * 32
TOPIC = "com.apple.mgmt.External.1"
DAY = timedelta(days=1)


class Channel:
    """A wake channel that keeps what it gets, and hands back what it is told to."""

    def __init__(self, tokens: PushTokens) -> None:
        self.tokens = tokens
        self.got: list[str] = []
        self.lost: list[bytes] = []

    def deliver(self, push: Notification) -> None:
        self.got.append(push.apns_id)

    def superseded(self, token: bytes) -> None:
        self.lost.append(token)


class World:
    def __init__(self, limit: int = 10) -> None:
        self.clock = SimulatedClock()
        self.stats = PushStats()
        self.tokens = PushTokens(self.clock, self.stats, limit=limit)
        self.channel = Channel(self.tokens)

    def push(self, apns_id: str, token: bytes = TOKEN, lives: timedelta | None = DAY) -> None:
        now = self.clock.now()
        expires = None if lives is None else now + lives
        self.tokens.accept(
            Notification(
                token=token, apns_id=apns_id, payload=b"{}", accepted_at=now, expires_at=expires
            )
        )


@pytest.fixture
def world() -> World:
    world = World()
    world.tokens.register(TOKEN, TOPIC, "UDID-1")
    return world


def test_a_listening_device_gets_every_push_at_once(world: World) -> None:
    world.tokens.connect(TOKEN, world.channel)
    world.push("1")
    world.push("2", lives=None)
    assert world.channel.got == ["1", "2"]
    assert world.stats.stored == 0


def test_one_push_waits_and_it_is_the_newest(world: World) -> None:
    for number in "123":
        world.push(number)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["3"]
    assert (world.stats.stored, world.stats.coalesced) == (3, 2)


def test_a_delivered_push_is_gone(world: World) -> None:
    world.push("1")
    world.tokens.connect(TOKEN, world.channel)
    world.tokens.disconnect(TOKEN, world.channel)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["1"]


async def test_a_push_waits_until_it_expires_and_no_longer(world: World) -> None:
    world.push("1", lives=timedelta(seconds=60))
    await world.clock.advance(59)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["1"]
    world.tokens.disconnect(TOKEN, world.channel)
    world.push("2", lives=timedelta(seconds=60))
    await world.clock.advance(60)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["1"]
    assert world.stats.expired == 1


def test_one_attempt_means_that_nothing_waits(world: World) -> None:
    world.push("1", lives=None)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == []
    assert world.stats.discarded == 1


async def test_an_expired_push_makes_way_without_being_coalesced(world: World) -> None:
    world.push("1", lives=timedelta(seconds=1))
    await world.clock.advance(2)
    world.push("2")
    assert (world.stats.expired, world.stats.coalesced) == (1, 0)
    assert world.tokens.counts() == (0, 1, 0)


def test_the_newest_channel_wins(world: World) -> None:
    second = Channel(world.tokens)
    world.tokens.connect(TOKEN, world.channel)
    world.tokens.connect(TOKEN, second)
    assert world.channel.lost == [TOKEN]
    world.tokens.disconnect(TOKEN, world.channel)  # the older one's goodbye changes nothing
    world.push("1")
    assert (world.channel.got, second.got) == ([], ["1"])


def test_a_push_given_back_is_stored_unless_a_newer_one_waits(world: World) -> None:
    now = world.clock.now()
    older = Notification(
        token=TOKEN, apns_id="old", payload=b"{}", accepted_at=now, expires_at=now + DAY
    )
    world.push("new")
    world.tokens.give_back(older)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["new"]
    world.tokens.disconnect(TOKEN, world.channel)
    world.tokens.give_back(older)
    world.tokens.connect(TOKEN, world.channel)
    assert world.channel.got == ["new", "old"]


def test_a_push_given_back_goes_to_the_channel_that_came_meanwhile(world: World) -> None:
    now = world.clock.now()
    world.tokens.connect(TOKEN, world.channel)
    world.tokens.give_back(
        Notification(token=TOKEN, apns_id="1", payload=b"{}", accepted_at=now, expires_at=None)
    )
    assert world.channel.got == ["1"]


def test_a_new_token_of_the_same_device_and_topic_ends_the_old_one(world: World) -> None:
    world.tokens.connect(TOKEN, world.channel)
    world.push("1")
    world.tokens.register(OTHER, TOPIC, "UDID-1")
    assert TOKEN not in world.tokens
    gone = world.tokens.gone(TOKEN)
    assert gone is not None
    assert (gone.reason, gone.since) == (Reason.UNREGISTERED, world.clock.now())
    assert world.channel.lost == [TOKEN]


def test_another_topic_of_the_same_device_is_another_matter(world: World) -> None:
    world.tokens.register(OTHER, "com.apple.mgmt.External.2", "UDID-1")
    assert TOKEN in world.tokens
    assert OTHER in world.tokens


def test_registering_again_keeps_what_waits_and_who_listens(world: World) -> None:
    world.push("1")
    world.tokens.register(TOKEN, TOPIC, "UDID-1")
    world.tokens.connect(TOKEN, world.channel)
    world.tokens.register(TOKEN, TOPIC, "UDID-1")
    world.push("2")
    assert world.channel.got == ["1", "2"]


def test_a_token_that_is_registered_again_is_alive_again(world: World) -> None:
    world.tokens.forget(TOKEN)
    assert world.tokens.gone(TOKEN) is not None
    world.tokens.register(TOKEN, TOPIC, "UDID-1")
    assert world.tokens.gone(TOKEN) is None
    world.push("1")
    assert world.tokens.counts() == (0, 1, 0)


def test_a_token_may_pass_to_another_device(world: World) -> None:
    world.tokens.register(TOKEN, TOPIC, "UDID-2")
    world.tokens.register(OTHER, TOPIC, "UDID-1")
    assert TOKEN in world.tokens


def test_an_unknown_token_cannot_listen_and_takes_no_push(world: World) -> None:
    assert world.tokens.connect(OTHER, world.channel) is False
    world.push("1", OTHER)
    assert world.stats.discarded == 1
    assert world.tokens.forget(OTHER) is False


def test_the_number_of_tokens_is_bounded() -> None:
    world = World(limit=2)
    world.tokens.register(TOKEN, TOPIC)
    world.tokens.register(OTHER, TOPIC)
    world.tokens.register(OTHER, TOPIC)
    with pytest.raises(TooManyTokens, match="2 tokens"):
        world.tokens.register(b"\x03", TOPIC)
    world.tokens.forget(TOKEN)
    world.tokens.register(b"\x03", TOPIC)
    assert world.tokens.tokens() == [OTHER, b"\x03"]
