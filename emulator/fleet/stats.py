"""What a run measured: counts, errors and latency percentiles per protocol step.

Latencies go into HDR histograms (three significant digits, 1 µs to 1 h), so that percentiles of parts can be merged.
"""

from dataclasses import dataclass, field
from typing import Final, TypedDict

from hdrh.histogram import HdrHistogram

from certs.transport import Timing

_LOWEST_US: Final = 1
_HIGHEST_US: Final = 3_600_000_000
_DIGITS: Final = 3


class StepSummary(TypedDict):
    """One row of a report."""

    count: int
    errors: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class _Step:
    count: int = 0
    errors: int = 0
    latency: HdrHistogram = field(
        default_factory=lambda: HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    )


class Stats:
    """Collects the Timing of every request of a run."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}

    def record(self, timing: Timing) -> None:
        """Count one request; no answer or an HTTP status from 400 on is an error."""
        step = self._steps.get(timing.step)
        if step is None:
            step = self._steps[timing.step] = _Step()
        step.count += 1
        if timing.error is not None or timing.status is None or timing.status >= 400:
            step.errors += 1
        step.latency.record_value(
            min(_HIGHEST_US, max(_LOWEST_US, round(timing.latency_ms * 1000)))
        )

    def observe(self, name: str, latency_ms: float) -> None:
        """Count something that is no request, such as the time from a push to the connection that it causes."""
        self.record(Timing(step=name, latency_ms=latency_ms, status=200))

    def histogram(self, name: str) -> HdrHistogram | None:
        """The latencies of one step in microseconds."""
        step = self._steps.get(name)
        return None if step is None else step.latency

    def summary(self) -> dict[str, StepSummary]:
        """Every step in the order it was first seen."""
        return {
            name: StepSummary(
                count=step.count,
                errors=step.errors,
                p50_ms=round(step.latency.get_value_at_percentile(50) / 1000, 3),
                p99_ms=round(step.latency.get_value_at_percentile(99) / 1000, 3),
            )
            for name, step in self._steps.items()
        }
