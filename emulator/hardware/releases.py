"""Which systems exist: releases from `emulator/data/os_releases.csv`, builds and their versions, and what follows from them."""

import csv
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Final

from emulator.hardware.models import Model, model
from emulator.hardware.versions import version_key

BUILD: Final = re.compile(
    r"(?P<number>[0-9]{1,3})(?P<letter>[A-Z])(?P<count>[0-9]{1,5})[a-z]?"
)  # 22B83, 20A5283p

ACME_SINCE: Final = {"iPhone": (16,), "iPad": (16, 1)}  # design: iOS 16.0, iPadOS 16.1
IPADOS_SINCE: Final = (13,)

# From these on, a train went only to devices that could not move on to the next one.
LEGACY_SINCE: Final = {
    12: (12, 4, 2),
    15: (15, 7, 2),
    16: (16, 7, 3),
    17: (17, 7, 3),
    18: (18, 7, 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OSRelease:
    """One public version as one or both families got it."""

    os: str  # "iOS" or "iPadOS"
    version: str
    build: str
    released: date | None
    families: tuple[str, ...]

    def offered_to(self, device: Model) -> bool:
        """A device of this model may run it: the family got it, the model supports it, and nothing newer was forced instead."""
        if device.family not in self.families or not device.supports(self.version):
            return False
        key = version_key(self.version)
        legacy = LEGACY_SINCE.get(key[0])
        if legacy is None or key < legacy:
            return True
        return device.max_os is not None and version_key(device.max_os)[0] == key[0]


def os_name(family: str, version: str) -> str:
    """iPads run iPadOS from 13.0 on."""
    return "iPadOS" if family == "iPad" and version_key(version) >= IPADOS_SINCE else "iOS"


def family_of(product_type: str) -> str:
    """`iPad` or `iPhone`, also of a product type that no table knows."""
    return "iPad" if product_type.startswith("iPad") else "iPhone"


@cache
def releases() -> tuple[OSRelease, ...]:
    """All known releases, by version, iOS before iPadOS."""
    text = (files("emulator") / "data" / "os_releases.csv").read_text("utf-8")
    return tuple(
        OSRelease(
            os=row["os"],
            version=row["version"],
            build=row["build"],
            released=date.fromisoformat(row["released"]) if row["released"] else None,
            families=tuple(row["families"].split()),
        )
        for row in csv.DictReader(text.splitlines())
    )


def release(family: str, version: str) -> OSRelease | None:
    """The general release of `version` for `iPhone` or `iPad`; 16 is 16.0."""
    return _by_family_and_version().get((family, version_key(version)))


def offered(device: Model) -> tuple[OSRelease, ...]:
    """The releases that a device of this model may run, oldest first."""
    return _offered(device.product_type)


def version_of_build(build: str, product_type: str) -> str | None:
    """The OS version of a build: by the table, else by the train (20A = 16.0, 20B = 16.1); None for what is no build.

    A beta or a build for one device counts as the first version of its train.
    """
    found = BUILD.fullmatch(build)
    if found is None:
        return None
    listed = listed_version(build, product_type)
    return listed or _version_of_train(int(found["number"]), found["letter"])


def listed_version(build: str, product_type: str) -> str | None:
    """The version of a build that the table has; the device's own family goes first."""
    builds = _by_family_and_build()
    family = family_of(product_type)
    other = "iPhone" if family == "iPad" else "iPad"
    return builds.get((family, build)) or builds.get((other, build))


def acme_capable(product_type: str, *, os_version: str | None, build: str) -> bool:
    """Whether a device gets attested ACME: iOS 16.0 or iPadOS 16.1, on a chip that attests (A11 or later).

    Below 17.0 devices tell only their build. An unknown product type counts as attesting: it is newer than the table.
    """
    known = model(product_type)
    if known is not None and not known.attests:
        return False
    version = os_version or version_of_build(build, product_type)
    return version is not None and version_key(version) >= ACME_SINCE[family_of(product_type)]


@cache
def _by_family_and_version() -> dict[tuple[str, tuple[int, ...]], OSRelease]:
    return {(family, version_key(r.version)): r for r in releases() for family in r.families}


@cache
def _by_family_and_build() -> dict[tuple[str, str], str]:
    return {(family, r.build): r.version for r in releases() for family in r.families}


@cache
def _offered(product_type: str) -> tuple[OSRelease, ...]:
    device = model(product_type)
    return () if device is None else tuple(r for r in releases() if r.offered_to(device))


@cache
def _trains() -> dict[tuple[int, str], str]:
    """(build number, letter) -> the first version that was built there."""
    trains: dict[tuple[int, str], str] = {}
    for row in releases():
        found = BUILD.fullmatch(row.build)
        assert found is not None, row.build
        trains.setdefault((int(found["number"]), found["letter"]), row.version)
    return trains


def _version_of_train(number: int, letter: str) -> str:
    """From the table's trains; beyond them, one letter is one minor version and one number one major version."""
    trains = _trains()
    if (number, letter) in trains:
        return trains[number, letter]
    earlier = [known for n, known in trains if n == number and known < letter]
    if earlier:
        last = max(earlier)
        major, minor = (*version_key(trains[number, last]), 0)[:2]
        return f"{major}.{minor + ord(letter) - ord(last)}"
    nearest = min((n for n, _ in trains), key=lambda n: abs(n - number))
    major = version_key(trains[nearest, "A"])[0] + number - nearest
    return f"{max(major, 0)}.{ord(letter) - ord('A')}"
