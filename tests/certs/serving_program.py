"""`mdm-certs serve` in a process of its own, and what it printed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LINES = 5  # that it prints before it serves


@contextmanager
def program(*arguments: str, lines: int = LINES) -> Iterator[dict[str, str]]:
    """What it printed, by name; at the end it is stopped, and must end well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "certs", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        said = {}
        for _ in range(lines):
            what, value = re.split(r"\s{2,}", process.stdout.readline().strip(), maxsplit=1)
            said[what] = value
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 0
