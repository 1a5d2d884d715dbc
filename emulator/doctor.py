"""What may be wrong with the machine that a fleet is to run on: each finding says what to do."""

import importlib.metadata
import importlib.util
import os
import platform
import ssl
import sys
from dataclasses import dataclass
from typing import Final

OURS: Final = "mdm-device-emulator"
PACKAGES: Final = ("certs", "emulator", "mdmserver")
ENOUGH_FILES: Final = 4096  # open connections of a fleet of a thousand, and room
MANY_FILES: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    subject: str
    good: bool
    text: str


def findings() -> list[Finding]:
    """Look at everything once."""
    return [
        _python(),
        _openssl(),
        *_names(importlib.metadata.packages_distributions()),
        _file_limit(),
        _identity_door(),
        _uvloop(),
    ]


def _python() -> Finding:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    return Finding(
        subject="python", good=good, text=version if good else f"{version}: 3.11 or newer is needed"
    )


def _openssl() -> Finding:
    good = ssl.OPENSSL_VERSION_INFO >= (1, 1, 1)
    return Finding(
        subject="openssl",
        good=good,
        text=ssl.OPENSSL_VERSION + ("" if good else ": 1.1.1 or newer is needed"),
    )


def _names(distributions: "dict[str, list[str]] | object") -> list[Finding]:
    """Another distribution that installs a package of our names mixes its files with ours, without a warning."""
    found = []
    for package in PACKAGES:
        owners = distributions.get(package, []) if isinstance(distributions, dict) else []
        foreign = sorted({owner for owner in owners if owner != OURS})
        if foreign:
            text = f"{', '.join(foreign)} installs a package of this name too: use an environment of its own (pipx, uvx)"
        else:
            spec = importlib.util.find_spec(package)
            text = str(spec.origin if spec else "not found")
        found.append(Finding(subject=f"package {package}", good=not foreign, text=text))
    return found


def _file_limit() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES
    if good:
        return Finding(subject="open files", good=True, text=f"limit {soft}")
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        enough = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
        advice = f"raise it with 'ulimit -n {enough}'"
    else:
        advice = f"the hard limit is {hard}: an administrator raises it (limits.conf, LimitNOFILE)"
    return Finding(subject="open files", good=False, text=f"limit {soft}: {advice}")


def _identity_door() -> Finding:
    way = "in memory (memfd)" if hasattr(os, "memfd_create") else "through a 0600 temporary file"
    return Finding(subject="client identities", good=True, text=f"handed to TLS {way}")


def _uvloop() -> Finding:
    there = importlib.util.find_spec("uvloop") is not None
    text = "used" if there else f"not installed (optional): pip install '{OURS}[speed]'"
    return Finding(subject="uvloop", good=True, text=text)
