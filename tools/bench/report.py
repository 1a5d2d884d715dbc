"""The result as a table for people and as JSON for CI."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from certs.event_loop import LOOP_NAME
from tools.bench import figure
from tools.bench.figure import Figure
from tools.bench.primitives import REFERENCE, REFERENCE_MS
from tools.bench.workload import Result

COLUMNS = (
    "workload",
    "keys",
    "runs",
    "client ms",
    "scaled ms",
    "per s and core",
    "floor ms",
    "ratio",
    "server ms",
)


def as_record(result: Result) -> dict[str, Any]:
    """One result as plain data; a void figure has only its failures."""
    workload = result.workload
    record: dict[str, Any] = {
        "workload": workload.name,
        "what": workload.what,
        "keys": workload.keys,
        "signer": workload.signer if workload.identity == "scep" else None,
        "runs": result.passes,
        "failures": result.failures,
    }
    if result.failures or not result.passes:
        return record
    client_ms = result.client_s / result.passes * 1000
    floor_ms = result.floor_s / result.passes * 1000
    reference_ms = result.prices[REFERENCE] * 1000
    return record | {
        "client_ms": client_ms,
        "scaled_ms": client_ms * REFERENCE_MS / reference_ms,
        "per_second_per_core": 1000 / client_ms,
        "floor_ms": floor_ms,
        "ratio": client_ms / floor_ms,
        "server_ms": result.server_s / result.passes * 1000,
        "requests": result.requests / result.passes,
        "rsa2048_signature_ms": reference_ms,
        "floor": [
            {
                "step": step.name,
                "why": step.why,
                "operations": {str(kind): times for kind, times in step.operations.items()},
            }
            for step in workload.steps
        ],
        "prices_ms": {str(kind): price * 1000 for kind, price in sorted(result.prices.items())},
    }


def as_json(
    results: Sequence[Result], figures: Sequence[Figure], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The whole run."""
    return {
        "event_loop": LOOP_NAME,
        "reference_ms": REFERENCE_MS,
        "failed": bool(failures) or any(result.failures for result in results),
        "workloads": [as_record(result) for result in results],
        "figures": [figure.as_record() for figure in figures],
        "failures": dict(failures),
    }


def figure_lines(
    figures: Sequence[Figure], failures: Mapping[str, str], *, judged: bool
) -> list[str]:
    """The table of the groups; `judged` false leaves out whether bounds hold, which a quick run cannot say."""
    rows = [figure.COLUMNS, *(one.as_row() for one in figures)]
    lines = _table(rows if judged else [row[:-1] for row in rows], left=(0, 1, 4))
    notes = [f"{one.name}: {one.note}" for one in figures if one.note]
    failed = [f"FAILED {name}: {why}" for name, why in failures.items()]
    return [*lines, *([""] if notes else []), *notes, *([""] if failed else []), *failed]


def _table(rows: Sequence[tuple[str, ...]], *, left: Container[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def as_lines(results: Sequence[Result]) -> list[str]:
    """The table, then every failure."""
    rows = [COLUMNS, *(_row(as_record(result)) for result in results)]
    lines = _table(rows, left=(0, 1))
    lines += ["", *(f"{result.workload.name}: {result.workload.what}" for result in results)]
    lines += ["", *_prices(results)]
    failures = [
        f"FAILED {result.workload.name}: {failure}"
        for result in results
        for failure in result.failures
    ]
    return [*lines, *([""] if failures else []), *failures]


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    names = (record["workload"], record["keys"], str(record["runs"]))
    if "ratio" not in record:
        return (*names, "void", "", "", "", "", "")
    return (
        *names,
        f"{record['client_ms']:.2f}",
        f"{record['scaled_ms']:.2f}",
        f"{record['per_second_per_core']:.0f}",
        f"{record['floor_ms']:.2f}",
        f"{record['ratio']:.2f}",
        f"{record['server_ms']:.2f}",
    )


def _prices(results: Sequence[Result]) -> list[str]:
    """What each operation cost in this run; the last workload that used it speaks."""
    prices = {kind: price for result in results for kind, price in result.prices.items()}
    words = [f"{kind} {price * 1000:.3f}" for kind, price in sorted(prices.items())]
    signature_ms = prices[REFERENCE] * 1000 if REFERENCE in prices else 0.0
    return [
        f"CPU of this process, {LOOP_NAME}. One RSA-2048 signature took {signature_ms:.3f} ms; "
        f"scaled: as if it took {REFERENCE_MS:.2f} ms.",
        "ms each: " + ", ".join(words),
    ]
