"""Counts and percentiles of a run."""

from certs.transport import Timing
from emulator.fleet.stats import Stats


def test_steps_count_errors_and_percentiles() -> None:
    stats = Stats()
    for ms in range(1, 101):
        stats.record(Timing(step="idle", latency_ms=ms, status=200))
    stats.record(Timing(step="scep", latency_ms=5, status=None, error="refused"))
    stats.record(Timing(step="scep", latency_ms=5, status=500))
    summary = stats.summary()
    assert list(summary) == ["idle", "scep"]
    assert (summary["idle"]["count"], summary["idle"]["errors"]) == (100, 0)
    assert abs(summary["idle"]["p50_ms"] - 50) < 0.1
    assert abs(summary["idle"]["p99_ms"] - 99) < 0.1
    assert summary["scep"]["errors"] == 2


def test_absurd_latencies_stay_inside_the_histogram() -> None:
    stats = Stats()
    stats.record(Timing(step="idle", latency_ms=0, status=200))
    stats.record(Timing(step="idle", latency_ms=1e9, status=200))
    assert stats.summary()["idle"]["count"] == 2
