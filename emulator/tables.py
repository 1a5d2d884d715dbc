"""Results for people: tables on stdout."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from emulator.fleet.stats import StepSummary

DEVICE_COLUMNS: Final = (
    "serial",
    "model",
    "os_version",
    "identity",
    "state",
    "supervised",
    "locked",
    "name",
    "error",
)


def print_devices(devices: Sequence[Mapping[str, Any]], *, console: Console | None = None) -> None:
    """One row a device; the error column only when some device has one."""
    columns = [
        column
        for column in DEVICE_COLUMNS
        if column != "error" or any(device.get("error") for device in devices)
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for device in devices:
        table.add_row(*(_cell(device.get(column)) for column in columns))
    (console or _console()).print(table)


def print_steps(steps: Mapping[str, StepSummary], *, console: Console | None = None) -> None:
    """One row a protocol step: how often, how many failed, how long."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    for column in ("count", "errors", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for name, step in steps.items():
        table.add_row(
            name,
            str(step["count"]),
            str(step["errors"]),
            f"{step['p50_ms']:.1f}",
            f"{step['p99_ms']:.1f}",
        )
    (console or _console()).print(table)


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # A pipe has no width: never fold a row that another program will read.
        console.width = 240
    return console


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
