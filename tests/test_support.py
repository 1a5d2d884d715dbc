"""The seams every room hangs on: the host map, the clock, the key guard."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from certs import keys
from certs.clock import SimulatedClock
from certs.errors import ForbiddenHost, MalformedMessage
from certs.hosts import Destination, HostMap, is_apple_host


@pytest.mark.parametrize(
    "host",
    ["apple.com", "albert.apple.com", "ALBERT.Apple.com.", "x.icloud.com", "is1.mzstatic.com"],
)
def test_apple_names_are_known_however_they_are_written(host: str) -> None:
    assert is_apple_host(host)


@pytest.mark.parametrize("host", ["a" * 64 + "ü.example", "ü..example"])
def test_what_no_resolver_would_look_up_is_no_host(host: str) -> None:
    with pytest.raises(MalformedMessage, match="host: expected a host name"):
        HostMap().resolve(f"https://{host}/x")


@pytest.mark.parametrize("host", ["notapple.com", "apple.com.example", "localhost", "127.0.0.1"])
def test_other_names_are_not_taken_for_apple(host: str) -> None:
    assert not is_apple_host(host)


def test_an_unmapped_apple_host_is_refused() -> None:
    with pytest.raises(ForbiddenHost, match="albert.apple.com"):
        HostMap().resolve("https://albert.apple.com/deviceservices/drmHandshake")


@pytest.mark.parametrize(
    "host", ["gdmf.\uff41pple.com", "gdmf.apple\u3002com", "\u24d0pple.com", "GDMF.APPLE.COM."]
)
def test_an_apple_name_in_disguise_is_refused(host: str) -> None:
    with pytest.raises(ForbiddenHost, match="apple.com"):
        HostMap().resolve(f"https://{host}/x")
    with pytest.raises(ForbiddenHost, match="apple.com"):
        HostMap.parse([f"mdm.example.org={host}:443"])


def test_no_rule_leads_to_apple() -> None:
    with pytest.raises(ForbiddenHost, match="albert.apple.com is a real"):
        HostMap.parse(["mdm.example.org=albert.apple.com:443"])


def test_an_apple_host_may_be_mapped_only_to_loopback() -> None:
    with pytest.raises(ForbiddenHost):
        HostMap.parse(["albert.apple.com=10.1.2.3:443"])
    mapped = HostMap.parse(["albert.apple.com=127.0.0.1:9443"])
    assert mapped.resolve("https://albert.apple.com/x") == Destination("127.0.0.1", 9443, True)


def test_a_rule_with_a_port_maps_that_port_alone() -> None:
    mapped = HostMap.parse(["mdm.example.org:8443=127.0.0.1:1234"])
    assert mapped.resolve("https://mdm.example.org:8443/").port == 1234
    assert mapped.resolve("https://mdm.example.org/") == Destination("mdm.example.org", 443, True)


def test_tls_may_be_taken_away_only_towards_loopback() -> None:
    mapped = HostMap.parse(["https://mdm.example.org=http://127.0.0.1:9000"])
    assert mapped.resolve("https://mdm.example.org/mdm") == Destination("127.0.0.1", 9000, False)
    with pytest.raises(MalformedMessage, match="loopback"):
        HostMap.parse(["https://mdm.example.org=http://192.0.2.1:9000"])


def test_a_plain_url_stays_plain_through_a_map() -> None:
    mapped = HostMap.parse(["mdm.example.org=127.0.0.1:9000"])
    assert mapped.resolve("http://mdm.example.org/scep") == Destination("127.0.0.1", 9000, False)


@pytest.mark.parametrize(
    "rule",
    ["nothing", "a=b", "a=b:c", "a=b:0", "a:0=b:1", "a=b:99999", "ftp://a=b:1", "a/b=c:1", "=b:1"],
)
def test_a_bad_rule_is_named(rule: str) -> None:
    with pytest.raises(MalformedMessage, match="--map"):
        HostMap.parse([rule])


@pytest.mark.parametrize("url", ["ftp://host/x", "https:///x", "https://host:99999/", "nonsense"])
def test_a_bad_url_is_malformed(url: str) -> None:
    with pytest.raises(MalformedMessage, match="URL"):
        HostMap().resolve(url)


async def test_simulated_time_wakes_sleepers_in_order_and_at_their_own_moment() -> None:
    clock = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))
    woken: list[tuple[str, datetime]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper(name, s)) for name, s in [("late", 60), ("early", 5)]]
    await clock.advance(90)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert woken == [
        ("early", start + timedelta(seconds=5)),
        ("late", start + timedelta(seconds=60)),
    ]
    assert clock.now() == start + timedelta(seconds=90)
    await asyncio.gather(*tasks)


async def test_simulated_time_stands_still_while_a_request_is_in_flight() -> None:
    clock = SimulatedClock()
    with clock.busy(), pytest.raises(TimeoutError, match="1 requests"):
        await clock.advance(1, guard_s=0.01)


async def test_rsa_generation_on_the_event_loop_is_our_own_mistake() -> None:
    with pytest.raises(keys.KeyWorkOnEventLoop):
        keys.generate("rsa2048")
    with pytest.raises(keys.KeyWorkOnEventLoop):
        keys.load_checked(b"")
    assert (await keys.FreshKeys().take("rsa1024")).key_size == 1024


async def test_a_pool_gives_each_key_once_and_counts_the_late_ones() -> None:
    pool = keys.KeyPool()
    await asyncio.to_thread(pool.fill, "rsa1024", 2)
    taken = {keys.to_der(await pool.take("rsa1024")) for _ in range(3)}
    assert len(taken) == 3
    assert (pool.made_late, pool.ready("rsa1024"), pool.ready("rsa2048")) == (1, 0, 0)
    assert (await pool.take("p256")).key_size == 256  # made at once, which is not late
    assert pool.made_late == 1
