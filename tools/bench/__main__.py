"""`python -m tools.bench [NAME…] [--count N] [--json FILE] [--quick]`: names are groups, rows of the road, or measurements.

Exit 0: all of it ran and every wanted bound holds; 1: something failed or a bound is missed; 2: wrong usage.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from certs.errors import CertsError
from certs.event_loop import run_program
from certs.faults import FaultPoint, no_faults
from emulator.errors import EmulatorError
from tools.bench import report, workload
from tools.bench.figure import Figure, Measurement, MeasurementFailed
from tools.bench.groups import GROUPS, ROAD
from tools.bench.servers import ServerFacts
from tools.bench.workload import WORKLOADS, Result, Workload
from tools.bench.world import ServersFailed, World, make_keys, servers_running

COUNT: Final = 40  # enrollments of a workload
QUICK_COUNT: Final = 2
FEWER: Final = 2  # one in so many where keys are made during the run
CYCLES: Final = 10  # cycles for each enrollment
BATCHES: Final = 9
QUICK_BATCHES: Final = 1
TIME_LIMIT_S: Final = 240.0  # for one workload


def main(arguments: Sequence[str] | None = None, faults: FaultPoint = no_faults) -> int:
    """Run the bench and print its table; `faults` lets a test break the devices' requests."""
    options = _parser().parse_args(arguments)
    try:
        chosen = choose(options.names)
    except KeyError as unknown:
        print(f"bench: no {unknown.args[0]}; there are {', '.join(_names())}", file=sys.stderr)
        return 2
    results = _run_road(chosen.workloads, options.count, options.quick, faults)
    figures, failures = _run_measurements(chosen.measurements, options.quick)
    if results:
        print("\n".join(report.as_lines(results)))
    if chosen.measurements:
        print("\n".join(report.figure_lines(figures, failures, judged=not options.quick)))
    if options.json:
        content = report.as_json(results, figures, failures)
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    missed = not options.quick and not all(figure.holds for figure in figures)
    return 1 if missed or failures or any(result.failures for result in results) else 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run measures."""

    workloads: tuple[Workload, ...]
    measurements: tuple[Measurement, ...]


def choose(wanted: Sequence[str]) -> Choice:
    """Everything when nothing is named. Raises KeyError with the first name that is none."""
    workloads: list[Workload] = []
    measurements: list[Measurement] = []
    for name in wanted or (ROAD, *GROUPS):
        of_road = [one for one in WORKLOADS if name in (ROAD, one.name)]
        of_groups = [
            one for group, members in GROUPS.items() for one in members if name in (group, one.name)
        ]
        if not of_road and not of_groups:
            raise KeyError(name)
        workloads += [one for one in of_road if one not in workloads]
        measurements += [one for one in of_groups if one not in measurements]
    return Choice(tuple(workloads), tuple(measurements))


def _names() -> list[str]:
    members = [one.name for group in GROUPS.values() for one in group]
    return [ROAD, *(one.name for one in WORKLOADS), *GROUPS, *members]


def _run_road(
    chosen: Sequence[Workload], count: int | None, quick: bool, faults: FaultPoint
) -> list[Result]:
    if not chosen:
        return []
    count = count or (QUICK_COUNT if quick else COUNT)
    ahead = make_keys(workload.KEYS_PER_DEVICE * (count + workload.WARM_UP))
    results = []
    for one in chosen:
        print(f"bench: {one.name}", file=sys.stderr)
        work = measure(one, ahead, count=count, quick=quick, faults=faults)
        results.append(run_program(work))
    return results


def _run_measurements(
    chosen: Sequence[Measurement], quick: bool
) -> tuple[list[Figure], dict[str, str]]:
    """The figures of those that went well, and why the others did not."""
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    for one in chosen:
        print(f"bench: {one.name}", file=sys.stderr)
        try:
            figures += run_program(asyncio.wait_for(one.measure(quick), TIME_LIMIT_S))
        except TimeoutError:
            failures[one.name] = f"not finished within {TIME_LIMIT_S:g} s"
        except (MeasurementFailed, ServersFailed, CertsError, EmulatorError) as error:
            failures[one.name] = str(error)
    return figures, failures


async def measure(
    one: Workload,
    ahead: Sequence[bytes],
    *,
    count: int,
    quick: bool = False,
    faults: FaultPoint = no_faults,
) -> Result:
    """One workload against servers of its own."""
    passes = max(1, count // FEWER) if one.takes_fewer else count
    if one.way != "enroll":
        passes = count * CYCLES
    with tempfile.TemporaryDirectory(prefix="mdm-bench-") as folder:
        async with servers_running(one.server) as servers:
            world = World(
                servers=servers,
                facts=await servers.facts(ServerFacts),
                folder=Path(folder),
                rsa_keys=ahead,
                faults=faults,
            )
            return await workload.run(
                one,
                world,
                count=passes,
                batches=QUICK_BATCHES if quick else BATCHES,
                time_limit_s=TIME_LIMIT_S,
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join((ROAD, *GROUPS))}, or one of their rows; none: everything",
    )
    parser.add_argument(
        "--count", type=_positive, help=f"enrollments of each row of the road, {COUNT}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument(
        "--quick", action="store_true", help="few runs: shows that it works, no more"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _set_up_logging() -> None:
    """As the command line does for fleets, but quieter: the bench says itself what failed."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    _set_up_logging()
    sys.exit(main())
