"""Which model and which system a device gets: what the fleet file names, checked, and a draw for the rest."""

import difflib
import re
from bisect import bisect_left
from functools import lru_cache
from typing import Final

from emulator.errors import ConfigurationError
from emulator.hardware.identifiers import SERIAL_NUMBER
from emulator.hardware.models import Model, model, models
from emulator.hardware.releases import (
    BUILD,
    OSRelease,
    listed_version,
    offered,
    os_name,
    release,
    releases,
    version_of_build,
)
from emulator.hardware.versions import version_key

VERSION: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")
OLDEST: Final = (11,)


def choose(
    product_type: str | None,
    os_version: str | None,
    build: str | None,
    serial_number: str | None,
    model_draw: int,
    system_draw: int,
) -> tuple[Model, str, str]:
    """Model, OS version and build. Raises ConfigurationError that lists every mistake."""
    mistakes: list[str] = []
    if serial_number is not None and not SERIAL_NUMBER.fullmatch(serial_number):
        mistakes.append(
            f"serial_number: expected 8 to 14 upper-case letters and digits, got {serial_number!r}"
        )
    chosen: Model | None = None
    if product_type is not None:
        chosen = model(product_type)
        if chosen is None:
            mistakes.append(
                f"product_type: {product_type!r} is not known; {_similar(product_type)}"
            )
    mistakes += _text_mistakes(os_version, build)
    if mistakes:
        raise ConfigurationError(_subject(product_type), mistakes)
    if chosen is None:
        chosen = _draw_model(os_version, build, model_draw)
    version, build = _system(chosen, os_version, build, system_draw)
    return chosen, version, build


def _draw_model(os_version: str | None, build: str | None, draw: int) -> Model:
    """One of the models that can run the wanted system; of all that have a release when none is wanted."""
    candidates = _candidates(os_version, build)
    if not candidates:
        mistake = (
            _unlisted_version("iPhone", os_version) if os_version else _unlisted_build(build or "")
        )
        raise ConfigurationError(_subject(None), [mistake])
    return candidates[draw % len(candidates)]


@lru_cache(maxsize=256)
def _candidates(os_version: str | None, build: str | None) -> tuple[Model, ...]:
    version = os_version or (listed_version(build, "iPhone") if build else None)
    wanted = version_key(version or "")

    def fits(r: OSRelease) -> bool:
        return (not wanted or version_key(r.version) == wanted) and build in (None, r.build)

    everything = models()
    found = tuple(m for m in everything if any(map(fits, offered(m))))
    if found or os_version is None:
        return found
    able = tuple(m for m in everything if m.supports(os_version))
    if build is None:  # a listed release that went only to models older than the table's
        return tuple(m for m in able if release(m.family, os_version) is not None)
    return able or everything  # a pair that no table has


def _system(chosen: Model, os_version: str | None, build: str | None, draw: int) -> tuple[str, str]:
    """Version and build for a model."""
    family, subject = chosen.family, _subject(chosen.product_type)
    if os_version is not None and build is not None:
        _check_pair(chosen, os_version, build)
        return os_version, build
    if build is not None:
        listed = listed_version(build, chosen.product_type)
        if listed is None:
            raise ConfigurationError(subject, [_unlisted_build(build)])
        _check_range(chosen, listed)
        return listed, build
    if os_version is not None:
        listed_release = release(family, os_version)
        if listed_release is None:
            raise ConfigurationError(subject, [_unlisted_version(family, os_version)])
        _check_range(chosen, os_version)
        return listed_release.version, listed_release.build
    possible = offered(chosen)
    if not possible:
        raise ConfigurationError(
            subject,
            [f"os_version: no release for {chosen.name} is known: give `os_version` and `build`"],
        )
    drawn = possible[draw % len(possible)]
    return drawn.version, drawn.build


def _text_mistakes(os_version: str | None, build: str | None) -> list[str]:
    mistakes = []
    if os_version is not None:
        if not VERSION.fullmatch(os_version):
            mistakes.append(f"os_version: expected numbers such as 17.6.1, got {os_version!r}")
        elif version_key(os_version) < OLDEST:
            mistakes.append(f"os_version: 11.0 is the oldest, got {os_version}")
    if build is not None and not BUILD.fullmatch(build):
        mistakes.append(f"build: expected a build such as 22B83, got {build!r}")
    return mistakes


def _check_pair(chosen: Model, os_version: str, build: str) -> None:
    """A pair of one's own may be in no table, but must not contradict it: servers read the version off the build."""
    told = listed_version(build, chosen.product_type) or version_of_build(
        build, chosen.product_type
    )
    listed = listed_version(build, chosen.product_type) is not None
    same = version_key(told or "") == version_key(os_version)
    same_major = version_key(told or "")[:1] == version_key(os_version)[:1]
    if not (same if listed else same_major):
        raise ConfigurationError(
            _subject(chosen.product_type),
            [f"build: {build} belongs to {told}, but os_version is {os_version}"],
        )


def _check_range(chosen: Model, version: str) -> None:
    if not chosen.supports(version):
        last = f"to {chosen.max_os}" if chosen.max_os else "on"
        raise ConfigurationError(
            _subject(chosen.product_type),
            [
                f"os_version: {chosen.name} runs {chosen.min_os} {last}, not {version}"
                " (give `os_version` and `build` to insist)"
            ],
        )


def _unlisted_version(family: str, version: str) -> str:
    known = [r.version for r in releases() if family in r.families]
    wanted = version_key(version)
    below = [v for v in known if version_key(v) < wanted][-2:]
    above = [v for v in known if version_key(v) > wanted][:2]
    closest = ", ".join(below + above)
    return (
        f"os_version: no build of {os_name(family, version)} {version} is known: give `build` too"
        f" (closest known: {closest})"
    )


def _unlisted_build(build: str) -> str:
    known = sorted({r.build for r in releases()}, key=_build_key)
    place = bisect_left(known, _build_key(build), key=_build_key)
    closest = ", ".join(known[max(place - 2, 0) : place + 2])
    return f"build: {build} is not known: give `os_version` too (closest known: {closest})"


def _build_key(build: str) -> tuple[int, str, int]:
    """The order in which builds were made: number, letter, number."""
    found = BUILD.fullmatch(build)
    assert found is not None
    return int(found["number"]), found["letter"], int(found["count"])


def _similar(product_type: str) -> str:
    known = [m.product_type for m in models()]
    closest = difflib.get_close_matches(product_type, known, n=3, cutoff=0.4) or [known[0]]
    return f"closest known: {', '.join(closest)}"


def _subject(product_type: str | None) -> str:
    return f"device {product_type}" if product_type else "device"
