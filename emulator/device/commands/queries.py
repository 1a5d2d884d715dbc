"""The table of DeviceInformation queries: which exist on which OS, and what a server needs to have them answered.

From `emulator/data/device_information_queries.json`, the iOS rows of Apple's schema (mdm.md 5.1).
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from emulator.device.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One row of the table."""

    query: str
    introduced: str
    removed: str | None = None
    access_right: int = 0
    supervised: bool = False
    shared_ipad_only: bool = False
    user_channel_only: bool = False
    user_enrollment: bool = True  # answered under User Enrollment as well

    def answered_by(self, device: Device) -> bool:
        """Whether this device tells its server, on the device channel; what it does not tell is left out."""
        enrollment = device.enrollment
        return (
            enrollment is not None
            and device.runs(self.introduced)
            and not (self.removed and device.runs(self.removed))
            and enrollment.allows(self.access_right)
            and (device.supervised or not self.supervised)
            # Shared iPad and its user channel: no device here is one.
            and not self.shared_ipad_only
            and not self.user_channel_only
        )


@cache
def queries() -> dict[str, Query]:
    """The table, by query name."""
    source = files("emulator.data").joinpath("device_information_queries.json")
    rows = json.loads(source.read_bytes())
    return {row["query"]: Query(**row) for row in rows}
