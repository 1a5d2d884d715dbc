"""`mdm-emulator apple serve` as its users start it: a process of its own, on free ports, ended by a signal."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emulator.apple.addresses import Addresses

READY = "Ctrl-C ends it"
ANY_PORTS = [f"--{port}=0" for port in ("port", "admin-port", "push-port", "proxy-port")]


@dataclass(kw_only=True)
class AppleProcess:
    """One that says it is ready."""

    process: asyncio.subprocess.Process
    state: Path | None
    said: list[str] = field(default_factory=list)  # on stdout

    @property
    def at(self) -> Addresses:
        assert self.state is not None
        return Addresses.read(self.state)

    def value(self, label: str) -> str:
        """What stands behind a label in the first lines."""
        (line,) = [line for line in self.said if line.startswith(f"{label}  ")]
        return line.removeprefix(label).strip()

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit code and what it logged."""
        self.process.send_signal(number)
        _, err = await self.process.communicate()
        return self.process.returncode or 0, err.decode()


@asynccontextmanager
async def apple_serve(
    *arguments: str | Path, state: Path | None = None, **environment: str
) -> AsyncIterator[AppleProcess]:
    """From when it is ready; killed at the end unless the test has stopped it."""
    kept = () if state is None else ("--state", str(state))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emulator", "apple", "serve", *map(str, arguments)),
        *(*ANY_PORTS, *kept),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    running = AppleProcess(process=process, state=state)
    try:
        assert process.stdout is not None
        while READY not in (running.said or [""])[-1]:
            line = await process.stdout.readline()
            if not line:
                _, err = await process.communicate()
                pytest.fail(f"ended with {process.returncode}: {err.decode()}")
            running.said.append(line.decode().rstrip("\n"))
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
