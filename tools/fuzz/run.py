"""The loop: inputs from the good files, decoded under watch for a chosen time; each new finding is made small and kept."""

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.fuzz.mutate import mutated
from tools.fuzz.targets import Target
from tools.fuzz.watch import Finding, high_water, watch

SHRINK_S: Final = 5.0  # for one finding
WARM_UP: Final = 2000  # inputs after which caches are full
GROWTH_LIMIT_BYTES: Final = 64 * 1024 * 1024
CORPUS_LIMIT: Final = 64  # of accepted mutants that are changed further


@dataclass(slots=True)
class Outcome:
    """What a target's turn brought."""

    target: str
    inputs: int = 0
    findings: list[tuple[Finding, Path | None]] = field(default_factory=list)


def fuzz(
    target: Target,
    *,
    seconds: float,
    seed: int,
    folder: Path,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Fuzz one target for `seconds`, or for `limit` inputs when that comes first."""
    chance = random.Random(f"{target.name} {seed}")
    seeds = list(target.seeds())
    accepted: list[bytes] = []
    outcome = Outcome(target.name)
    known: set[tuple[str, str]] = set()
    ends = time.monotonic() + seconds
    warm = high_water()
    while time.monotonic() < ends and (limit is None or outcome.inputs < limit):
        if outcome.inputs < len(seeds):
            data = seeds[outcome.inputs]
        else:
            base = chance.choice(accepted) if accepted and chance.random() < 0.3 else None
            data = mutated(base if base is not None else chance.choice(seeds), chance, seeds)
        outcome.inputs += 1
        if outcome.inputs == WARM_UP:
            warm = high_water()
        found = watch(target, data)
        if found is None:
            if len(data) < 64 * 1024 and chance.random() < 0.01:
                accepted = [*accepted, data][-CORPUS_LIMIT:]
            continue
        if (found.kind, found.place) in known:
            continue
        known.add((found.kind, found.place))
        path = keep(shrunk(target, data, found), target, folder)
        outcome.findings.append((found, path))
        say(f"{target.name}: {found.kind} at {found.place}: {found.detail}; kept as {path}")
    grown = high_water() - warm
    if not outcome.findings and outcome.inputs > WARM_UP and grown > GROWTH_LIMIT_BYTES:
        # No single input does it: something is kept from each.
        outcome.findings.append((Finding("growth", target.name, f"{grown >> 20} MiB"), None))
        say(f"{target.name}: grew by {grown >> 20} MiB in {outcome.inputs} inputs")
    return outcome


def keep(data: bytes, target: Target, folder: Path) -> Path:
    """Put an input where the tests replay it."""
    place = folder / target.name
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    return path


def shrunk(target: Target, data: bytes, found: Finding) -> bytes:
    """A smaller input with the same finding: pieces are left out, from large to small, as long as it stays."""
    if found.kind in ("slow", "memory"):
        return data
    ends = time.monotonic() + SHRINK_S
    size = len(data) // 2
    while size and time.monotonic() < ends:
        start = 0
        while start < len(data) and time.monotonic() < ends:
            shorter = data[:start] + data[start + size :]
            again = watch(target, shorter)
            if again is not None and (again.kind, again.place) == (found.kind, found.place):
                data = shorter
            else:
                start += size
        size //= 2
    return data
