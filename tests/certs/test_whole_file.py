"""Files that are there whole or not at all, on file systems with and without hard links."""

import os
import stat
from pathlib import Path

import pytest

from certs.whole_file import write_once, write_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    for content in b"first", b"second":
        write_whole(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert names(tmp_path) == {"a"}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("links", [True, False], ids=["hard-links", "no-hard-links"])
def test_the_first_content_is_there_whole(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError("this file system has no hard links")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    assert write_once(tmp_path / "a", b"first", 0o644) == b"first"
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == {"a"}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_who_comes_second_gets_the_first_content(tmp_path: Path) -> None:
    write_once(tmp_path / "a", b"first")
    assert write_once(tmp_path / "a", b"second") == b"first"
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_a_write_that_fails_leaves_nothing_half(
    tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a", b"content")  # type: ignore[operator]
    assert names(tmp_path) == set()
