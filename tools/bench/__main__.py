"""`python -m tools.bench [NAME…] [--count N] [--json FILE] [--quick]`; exit 1 when anything failed, 2 for wrong usage."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from certs.faults import FaultPoint, no_faults
from tools.bench import report, workload
from tools.bench.loop import loop_factory
from tools.bench.workload import WORKLOADS, Result, Workload
from tools.bench.world import World, make_keys, servers_running

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
    names = {one.name: one for one in WORKLOADS}
    if unknown := [name for name in options.names if name not in names]:
        print(
            f"bench: no workload {', '.join(unknown)}; there are {', '.join(names)}",
            file=sys.stderr,
        )
        return 2
    chosen = [names[name] for name in options.names] or list(WORKLOADS)
    count = options.count or (QUICK_COUNT if options.quick else COUNT)
    ahead = make_keys(workload.KEYS_PER_DEVICE * (count + workload.WARM_UP))
    results = []
    for one in chosen:
        print(f"bench: {one.name}", file=sys.stderr)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            work = measure(one, ahead, count=count, quick=options.quick, faults=faults)
            results.append(runner.run(work))
    print("\n".join(report.as_lines(results)))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results), indent=2) + "\n")
    return 1 if any(result.failures for result in results) else 0


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
                facts=await servers.facts(),
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
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads; none: all of them")
    parser.add_argument("--count", type=_positive, help=f"enrollments of each workload, {COUNT}")
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
