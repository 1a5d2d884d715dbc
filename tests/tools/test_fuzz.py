"""The fuzzer finds what is planted, keeps it small, and what it ever found stays mended."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.errors import MalformedMessage
from tools.fuzz import __main__ as command
from tools.fuzz import run, targets, watch
from tools.fuzz.mutate import MAX_BYTES, mutated
from tools.fuzz.run import fuzz
from tools.fuzz.targets import BY_NAME, TARGETS, Target

REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions"
KEPT = sorted(REGRESSIONS.glob("*/*.bin"))


@pytest.mark.parametrize("path", KEPT, ids=[f"{path.parent.name}/{path.stem}" for path in KEPT])
def test_what_was_found_once_is_mended(path: Path) -> None:
    assert watch.watch(BY_NAME[path.parent.name], path.read_bytes(), alarm=False) is None


def test_findings_are_of_targets_that_exist() -> None:
    assert {path.parent.name for path in KEPT} <= set(BY_NAME)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_each_target_starts_from_a_good_file_and_survives_a_few_changes(
    target: Target, tmp_path: Path
) -> None:
    good = 0
    for seed in target.seeds():
        try:
            target.decode(seed)
        except target.errors:
            continue
        good += 1
    assert good
    outcome = fuzz(target, seconds=30, seed=4711, folder=tmp_path, limit=good + 60)
    assert outcome.inputs == good + 60
    assert outcome.findings == []


def planted(decode: Callable[[bytes], object]) -> Target:
    return Target("planted", decode, lambda: [b"good file, quite long, with a few words in it"])


def test_another_error_than_the_documented_is_found_made_small_and_kept(tmp_path: Path) -> None:
    def decode(data: bytes) -> None:
        if not data.startswith(b"good"):
            raise MalformedMessage("file", "good")
        if b"q" not in data:
            raise KeyError("q")

    said: list[str] = []
    outcome = fuzz(
        planted(decode), seconds=30, seed=1, folder=tmp_path, limit=2000, say=said.append
    )
    ((finding, path),) = outcome.findings
    assert finding.kind == "KeyError"
    assert path is not None
    assert path.read_bytes() == b"good"
    assert path.parent == tmp_path / "planted"
    assert len(said) == 1
    assert "kept as" in said[0]


def test_the_same_seed_makes_the_same_inputs(tmp_path: Path) -> None:
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        fuzz(planted(seen.append), seconds=30, seed=seed, folder=tmp_path, limit=50)
        return seen

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)
    assert inputs(1)[0] == b"good file, quite long, with a few words in it"


def test_an_input_that_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TIME_LIMIT_S", 0.02)

    def busy(data: bytes) -> None:
        try:
            while True:
                pass
        except Exception:  # a decoder that catches broadly does not hide it
            return

    found = watch.watch(planted(busy), b"x")
    assert found is not None
    assert found.kind == "slow"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def slow(data: bytes) -> int:
        return sum(range(3_000_000))

    found = watch.watch(planted(slow), b"x", alarm=False)
    assert found is not None
    assert (found.kind, found.place) == ("slow", "planted")


def test_an_input_that_takes_too_much_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MEMORY_LIMIT_BYTES", 1024 * 1024)
    marks = iter([100 * 1024 * 1024, 200 * 1024 * 1024])
    monkeypatch.setattr(watch, "high_water", lambda: next(marks))
    found = watch.watch(planted(len), b"x")
    assert found is not None
    assert (found.kind, found.detail) == ("memory", "100 MiB for 1 bytes")


def test_a_decoder_that_keeps_something_of_each_input_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WARM_UP", 5)
    level = iter(range(0, 10**12, 2**20))  # a MiB more whenever it is looked at
    monkeypatch.setattr(run, "high_water", lambda: next(level))
    monkeypatch.setattr(run, "GROWTH_LIMIT_BYTES", 2**19)
    outcome = fuzz(planted(len), seconds=30, seed=1, folder=tmp_path, limit=20)
    assert [(finding.kind, path) for finding, path in outcome.findings] == [("growth", None)]


def test_inputs_stay_within_bounds() -> None:
    chance = random.Random(3)
    for _ in range(300):
        assert len(mutated(b"12 abc" * 100, chance, [b"other"])) <= MAX_BYTES
        mutated(b"", chance, [b""])


def test_the_command_ends_with_1_when_it_found_something_and_2_for_a_wrong_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seconds", "0.2", "--folder", str(tmp_path)]
    assert command.main(["push", *arguments]) == 0
    assert "push" in capsys.readouterr().out
    monkeypatch.setitem(targets.BY_NAME, "push", planted(lambda data: data[1000]))
    assert command.main(["push", *arguments]) == 1
    said = capsys.readouterr().out
    assert "found: planted: IndexError" in said
    assert command.main(["nothing"]) == 2
    assert "no target nothing; there are der, " in capsys.readouterr().err


def test_without_captured_files_every_target_still_has_a_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(targets, "VECTORS", tmp_path)
    targets.captured.cache_clear()
    try:
        for target in TARGETS:
            assert list(target.seeds()), target.name
    finally:
        targets.captured.cache_clear()
