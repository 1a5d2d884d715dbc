"""Our programs' loop, and the collector that is as it was once a program has ended."""

import asyncio
import gc

import pytest

from certs import event_loop
from certs.event_loop import SELDOM, run_program


@pytest.mark.parametrize("name", ["uvloop", "asyncio"])
def test_a_program_runs_on_the_loop_that_is_there_and_the_collector_seldom(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "LOOP_NAME", name)
    before = gc.get_threshold()

    async def work() -> tuple[str, tuple[int, ...], int]:
        kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        return kind, gc.get_threshold(), gc.get_freeze_count()

    loop, thresholds, frozen = run_program(work())
    assert (loop, thresholds) == (name, SELDOM)
    assert frozen > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_a_program_that_fails_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()

    async def work() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run_program(work())
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_goes_wrong_outside_of_tasks_is_said_but_for_uvloops_complaint(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        for words in ("unable to perform operation; the handler is closed", "something else"):
            loop.call_exception_handler({"message": words, "exception": RuntimeError(words)})

    run_program(work())
    assert [record.message.splitlines()[0] for record in caplog.records] == ["something else"]
