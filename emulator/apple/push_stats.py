"""What the push stand-in counts, as JSON for people and as Prometheus text for a scraper."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "sim_apns_"


@dataclass(slots=True, kw_only=True)
class PushStats:
    """Plain counters; the hot path adds to them and does nothing else."""

    pushes: int = 0  # accepted with 200
    delivered_live: int = 0
    delivered_on_connect: int = 0  # had been stored
    stored: int = 0
    coalesced: int = 0  # replaced a push that still waited
    expired: int = 0  # waited too long
    discarded: int = 0  # not to be stored, and nobody was there
    lost: int = 0  # accepted and thrown away on purpose
    duplicated: int = 0
    delayed: int = 0
    returned: int = 0  # sent to a connection that died before it acknowledged
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    connections: int = 0  # of providers, since the start
    goaways: int = 0
    resets: int = 0  # streams that a provider gave up
    couriers_dropped: int = 0  # wake connections that had stopped reading

    def as_json(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in _COUNTERS}
        return {**facts, "refused": dict(self.refused)}


# Every counter and what it counts; the collector needs no list of its own.
_COUNTERS: Final = {
    "pushes": "Notifications accepted with 200",
    "delivered_live": "Notifications delivered to a listening device",
    "delivered_on_connect": "Stored notifications delivered when their device returned",
    "stored": "Notifications stored for a device that was offline",
    "coalesced": "Waiting notifications replaced by a newer one",
    "expired": "Stored notifications that waited too long",
    "discarded": "Notifications not to be stored whose device was offline",
    "lost": "Notifications lost on purpose",
    "duplicated": "Notifications delivered again on purpose",
    "delayed": "Notifications delayed on purpose",
    "returned": "Notifications taken back from a wake connection that died",
    "connections": "Provider connections since the start",
    "goaways": "GOAWAY frames sent",
    "resets": "Streams reset by providers",
    "couriers_dropped": "Wake connections dropped because they had stopped reading",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is there at this moment."""

    tokens: int
    online: int
    pending: int
    gone: int
    provider_connections: int
    wake_connections: int

    def as_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _GAUGES}


_GAUGES: Final = {
    "tokens": "Registered device tokens",
    "online": "Tokens whose device listens",
    "pending": "Notifications stored at the moment",
    "gone": "Remembered tokens that are no more",
    "provider_connections": "Open provider connections",
    "wake_connections": "Open wake connections",
}


class _Collector(Collector):
    def __init__(self, stats: PushStats, gauges: Callable[[], Gauges]) -> None:
        self._stats = stats
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(self._stats, name))
        refused = CounterMetricFamily(PREFIX + "refused", "Refused requests", labels=["reason"])
        for reason, count in sorted(self._stats.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        now = self._gauges()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=getattr(now, name))


def exposition(stats: PushStats, gauges: Callable[[], Gauges]) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(stats, gauges))
    return generate_latest(registry)
