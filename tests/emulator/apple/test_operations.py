"""The operation log and the roster: positions never change, a week and an hour is kept, gaps are closed."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.clock import SimulatedClock
from emulator.apple.assignment_cursor import LIFETIME
from emulator.apple.operations import KEPT, PRUNE_AT, Kind, OperationLog, Roster

NOW = SimulatedClock().now()


def test_an_entry_keeps_its_position_and_its_moment() -> None:
    log = OperationLog()
    for number, kind in enumerate(Kind):
        assert log.append(kind, f"S{number}", NOW + timedelta(seconds=number)) == number
    entries = list(log.since(3))
    assert [(entry.position, entry.kind, entry.serial_number) for entry in entries] == [
        (3, Kind.REPLACED, "S3"),
        (4, Kind.SILENT, "S4"),
    ]
    assert entries[0].at == NOW + timedelta(seconds=3)
    assert log.end == 5
    assert list(log.since(5)) == []


def test_what_is_older_than_a_week_and_an_hour_goes_and_positions_stay() -> None:
    assert timedelta(hours=1) == KEPT - LIFETIME  # a cursor that is good points at what is there
    log = OperationLog()
    for number in range(PRUNE_AT + 10):
        log.append(Kind.ADDED, f"S{number}", NOW)
    log.append(Kind.ADDED, "KEPT", NOW + KEPT)
    assert len(log) == PRUNE_AT + 11
    log.append(Kind.ADDED, "LATER", NOW + KEPT + timedelta(seconds=1))
    assert (log.base, log.end) == (PRUNE_AT + 10, PRUNE_AT + 12)
    assert [entry.serial_number for entry in log.since(0)] == ["KEPT", "LATER"]


def test_a_clock_that_goes_back_does_not_put_the_log_out_of_order() -> None:
    log = OperationLog()
    log.append(Kind.ADDED, "A", NOW)
    log.append(Kind.ADDED, "B", NOW - timedelta(days=1))
    assert [entry.at for entry in log.since(0)] == [NOW, NOW]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60))
@settings(max_examples=60)
def test_a_roster_is_a_sorted_dictionary(steps: list[tuple[bool, int]]) -> None:
    roster, model, position = Roster(), dict[int, str](), 0
    for add, number in steps:
        if add or not model:
            position += 1 + number % 3
            roster.add(position, f"S{position}")
            model[position] = f"S{position}"
        else:
            gone = sorted(model)[number % len(model)]
            roster.remove(gone)
            del model[gone]
        assert len(roster) == len(model)
        assert list(roster.between(0, position + 1)) == sorted(model.items())
        half = position // 2
        assert list(roster.between(half, position)) == [
            item for item in sorted(model.items()) if half <= item[0] < position
        ]


def test_a_roster_closes_its_gaps_when_there_are_many() -> None:
    roster = Roster()
    for position in range(2 * PRUNE_AT):
        roster.add(position, f"S{position}")
    for position in range(2 * PRUNE_AT - 1):
        roster.remove(position)
    assert len(roster._serials) <= PRUNE_AT + 2
    assert list(roster) == [f"S{2 * PRUNE_AT - 1}"]


def test_a_roster_refuses_what_cannot_be() -> None:
    roster = Roster()
    roster.add(5, "A")
    with pytest.raises(ValueError, match="not after"):
        roster.add(5, "B")
    with pytest.raises(KeyError):
        roster.remove(4)
    with pytest.raises(KeyError):
        roster.remove(6)
