"""The groups of figures beside the road's workloads, by the name that the command line knows them by."""

from typing import Final

from tools.bench import apple, certs, push
from tools.bench.figure import Measurement

ROAD: Final = "road"

GROUPS: Final[dict[str, tuple[Measurement, ...]]] = {
    "certs": certs.MEASUREMENTS,
    "apple": apple.MEASUREMENTS,
    "push": push.MEASUREMENTS,
}
