"""`python -m tools.fuzz [TARGET…] --seconds N [--seed N] [--folder DIR]`; exit 1 when something was found, 2 for wrong usage."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from tools.fuzz.run import fuzz
from tools.fuzz.targets import BY_NAME, TARGETS

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "regressions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Give each target its share of the time and print what came of it."""
    options = _parser().parse_args(arguments)
    if unknown := [name for name in options.targets if name not in BY_NAME]:
        print(
            f"fuzz: no target {', '.join(unknown)}; there are {', '.join(BY_NAME)}",
            file=sys.stderr,
        )
        return 2
    chosen = [BY_NAME[name] for name in options.targets] or list(TARGETS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    found = 0
    for target in chosen:
        outcome = fuzz(
            target,
            seconds=options.seconds / len(chosen),
            seed=options.seed,
            folder=options.folder,
            say=lambda line: print(f"found: {line}", flush=True),
        )
        found += len(outcome.findings)
        print(
            f"{target.name:<20} {outcome.inputs:>8} inputs  {len(outcome.findings)} findings",
            flush=True,
        )
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="default: all, in equal shares"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same inputs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where findings are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
