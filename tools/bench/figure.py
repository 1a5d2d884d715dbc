"""One figure of the bench: what was measured, the primitive it is held against, and whether a wanted bound holds.

A group of figures is a module of this package with `MEASUREMENTS`; `groups.py` lists the groups. Everything is measured
in CPU time of the processes that do the work, or in memory, never in wall time.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tools.bench.primitives import REFERENCE_MS

Unit = Literal["ms", "per s and core", "MB", "count"]
Side = Literal["ratio", "scaled", "value"]

DIGITS: Final = {"ms": 3, "per s and core": 1, "MB": 1, "count": 0}


@dataclass(frozen=True, slots=True)
class Bound:
    """What is wanted of a figure: of its ratio to the primitive, of its scaled value, or of the value as it stands."""

    side: Side
    limit: float
    at_least: bool = False  # else at most

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{self.side} {'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`value` and `primitive_value` are in `unit` and come from the same run, minutes apart at most."""

    name: str
    value: float
    unit: Unit
    primitive: str  # such as "2 × rsa2048 private"
    primitive_value: float
    reference_ms: float  # one RSA-2048 signature in this run, for scaling
    bound: Bound | None = None
    note: str = ""  # what a reader should know, such as a histogram in words

    @property
    def ratio(self) -> float:
        """How many times the primitive; of a rate, how many times slower than the primitive's."""
        if self.unit == "per s and core":
            return self.primitive_value / self.value
        return self.value / self.primitive_value

    @property
    def scaled(self) -> float:
        """As if one RSA-2048 signature took 0.30 ms; memory and counts stay what they are."""
        if self.unit == "ms":
            return self.value * REFERENCE_MS / self.reference_ms
        if self.unit == "per s and core":
            return self.value * self.reference_ms / REFERENCE_MS
        return self.value

    @property
    def holds(self) -> bool:
        """False only when a bound is wanted and missed."""
        if self.bound is None:
            return True
        sides: dict[Side, float] = {
            "ratio": self.ratio,
            "scaled": self.scaled,
            "value": self.value,
        }
        return self.bound.holds(sides[self.bound.side])

    def as_record(self) -> dict[str, Any]:
        """The figure as plain data."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "scaled": self.scaled,
            "primitive": self.primitive,
            "primitive_value": self.primitive_value,
            "ratio": self.ratio,
            "rsa2048_signature_ms": self.reference_ms,
            "wanted": None if self.bound is None else str(self.bound),
            "holds": self.holds,
            "note": self.note,
        }

    def as_row(self) -> tuple[str, ...]:
        """The figure as cells of the table."""
        digits = DIGITS[self.unit]
        return (
            self.name,
            self.unit,
            f"{self.value:.{digits}f}",
            f"{self.scaled:.{digits}f}",
            self.primitive,
            f"{self.primitive_value:.{digits}f}",
            f"{self.ratio:.2f}",
            "-" if self.bound is None else str(self.bound),
            "-" if self.bound is None else "yes" if self.holds else "NO",
        )


def calmest(rounds: Iterable[Figure]) -> Figure:
    """Of one figure, measured several times, the round that was disturbed least: others on the machine only ever slow it down.

    Chosen by what was measured, never by its primitive: a primitive that was disturbed would flatter.
    """
    return min(rounds, key=lambda one: -one.value if one.unit == "per s and core" else one.value)


COLUMNS: Final = (
    "figure",
    "unit",
    "value",
    "scaled",
    "primitive",
    "its value",
    "ratio",
    "wanted",
    "holds",
)

Measure = Callable[[bool], Awaitable[list[Figure]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures that come out of one run. `measure(quick)` raises MeasurementFailed when anything was wrong."""

    name: str
    what: str
    measure: Measure


class MeasurementFailed(Exception):
    """The work under the clock did not do what it should, so that its figure would mean nothing."""
