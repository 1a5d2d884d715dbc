"""Files that are there whole or not at all, whatever kills the writer: keys, certificates, tokens."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path`, replacing what was there, in one step."""
    temporary = _beside(path, data, mode)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def write_once(path: Path, data: bytes, mode: int = 0o600) -> bytes:
    """Put `data` at `path` unless a file is there already; return what is there now.

    Of two processes that start together one wins, and both go on with the winner's content.
    """
    temporary = _beside(path, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return path.read_bytes()
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
        return data
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return data


def _beside(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask took away
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
