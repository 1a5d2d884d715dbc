"""Independent programs started by a test on loopback: waited for until they listen, killed by their own process id."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 5.0
RUN_TIMEOUT_S: Final = 30.0


def needed(program: str) -> str:
    """Its path; the test is skipped where it is absent."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def server_on_path(program: str) -> str:
    """A real MDM server's program, which nobody has to have: the test is skipped where it is absent."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not on PATH")
    return path


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@asynccontextmanager
async def listening(
    program: str, *arguments: str, port: int, folder: Path, **environment: str
) -> AsyncIterator[Path]:
    """The program from when `port` takes connections; gives the file with all that it says."""
    async with _started(program, arguments, folder, environment) as (process, said):
        await _connected(process, port, said)
        yield said


@asynccontextmanager
async def running(
    program: str, *arguments: str, folder: Path, **environment: str
) -> AsyncIterator[Path]:
    """A program that listens nowhere, until the test has seen enough; gives the file with all that it says."""
    async with _started(program, arguments, folder, environment) as (_, said):
        yield said


@asynccontextmanager
async def _started(
    program: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    said = folder / f"{Path(program).name}.log"
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=folder,
            env=_environment(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process, said
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}


async def _connected(process: asyncio.subprocess.Process, port: int, said: Path) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if process.returncode is not None:
                    pytest.fail(f"it ended at once: {_end_of(said)}")
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


def _end_of(said: Path) -> str:
    return said.read_text(errors="replace")[-500:]


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ran to its end."""

    status: int
    output: bytes
    said: str  # on stderr


async def run(
    program: str, *arguments: str, folder: Path, stdin: bytes = b"", **environment: str
) -> Finished:
    """Run it to its end, in `folder`; killed with its children when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=folder,
        env=_environment(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            output, said = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, output, said.decode(errors="replace"))
