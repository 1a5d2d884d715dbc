"""The decision table of the policy: pure facts in, verdicts out (design.md, "Policy on every check-in")."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmserver.policy import (
    MAX_FAILURES,
    ReportedState,
    Rule,
    RuleState,
    Verdict,
    WantedState,
    failed,
    judge,
    verify,
)
from mdmserver.store.base import ProfileVersion, RuleRecord

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WANTED = WantedState(name="iPad-1", locked=True, supervised=True)
GOOD = ReportedState(name="iPad-1", supervised=True, listed=True, removal_disallowed=True)
VERSION = ProfileVersion(
    version=1,
    identifier="p",
    supervised=False,
    locked=False,
    topic="com.apple.mgmt.x",
    server_url="https://s/mdm",
    check_in_url="https://s/checkin",
    sign_message=True,
)


def verdicts(
    reported: ReportedState,
    wanted: WantedState = WANTED,
    records: dict[str, RuleRecord] | None = None,
) -> dict[str, Verdict]:
    return {v.record.rule: v for v in judge(wanted, reported, records or {}, NOW)}


def outcome(verdict: Verdict) -> tuple[str, bool]:
    return verdict.record.state, verdict.mend


@pytest.mark.parametrize(
    ("rule", "wanted", "reported", "expected"),
    [
        (Rule.NAME, {}, {}, ("ok", False)),
        (Rule.NAME, {}, {"name": "Bob's"}, ("mending", True)),
        (Rule.NAME, {}, {"name": "Bob's", "supervised": False}, ("drift", False)),
        (Rule.LOCK, {}, {}, ("ok", False)),
        (Rule.LOCK, {}, {"removal_disallowed": False}, ("mending", True)),
        (Rule.LOCK, {}, {"removal_disallowed": False, "supervised": False}, ("drift", False)),
        (Rule.LOCK, {}, {"supervised": False}, ("drift", False)),
        (Rule.LOCK, {}, {"listed": False, "removal_disallowed": False}, ("drift", False)),
        (Rule.LOCK, {"locked": False}, {"removal_disallowed": False}, ("ok", False)),
        (Rule.LOCK, {"locked": False}, {}, ("drift", False)),
        (Rule.LOCK, {"locked": False}, {"listed": False}, ("drift", False)),
        (Rule.SUPERVISION, {}, {}, ("ok", False)),
        (Rule.SUPERVISION, {}, {"supervised": False}, ("drift", False)),
        (Rule.SUPERVISION, {"supervised": False}, {}, ("drift", False)),
    ],
)
def test_each_difference_has_its_answer(
    rule: Rule,
    wanted: dict[str, object],
    reported: dict[str, object],
    expected: tuple[str, bool],
) -> None:
    found = verdicts(replace(GOOD, **reported), replace(WANTED, **wanted))  # type: ignore[arg-type]
    assert outcome(found[rule]) == expected


def test_what_a_device_did_not_say_is_left_as_it_was() -> None:
    assert verdicts(ReportedState()) == {}
    assert set(verdicts(replace(GOOD, listed=None))) == {"name", "supervision"}
    assert set(verdicts(replace(GOOD, name=None))) == {"lock", "supervision"}
    assert "name" not in verdicts(GOOD, replace(WANTED, name=None))


def test_a_verdict_writes_down_what_was_wanted_and_reported() -> None:
    found = verdicts(replace(GOOD, name="Bob's"))["name"].record
    assert (found.wanted, found.reported, found.last_enforced) == ("iPad-1", "Bob's", NOW)


@pytest.mark.parametrize(
    ("failures", "ago", "expected"),
    [
        (2, timedelta(minutes=1), ("mending", True)),
        (3, timedelta(hours=23, minutes=59), ("suspended", False)),
        (3, timedelta(hours=24), ("mending", True)),
        (7, timedelta(minutes=1), ("suspended", False)),
        (7, timedelta(days=2), ("mending", True)),
    ],
)
def test_after_three_failures_a_mend_is_tried_once_in_24_hours(
    failures: int, ago: timedelta, expected: tuple[str, bool]
) -> None:
    record = RuleRecord(rule="name", failures=failures, last_enforced=NOW - ago)
    found = verdicts(replace(GOOD, name="Bob's"), records={"name": record})["name"]
    assert outcome(found) == expected
    assert found.record.failures == failures


def test_agreement_forgets_failures_and_keeps_when_it_was_enforced() -> None:
    record = RuleRecord(rule="name", failures=9, last_enforced=NOW - timedelta(days=3))
    found = verdicts(GOOD, records={"name": record})["name"].record
    assert (found.failures, found.last_enforced) == (0, NOW - timedelta(days=3))


def test_nothing_new_is_found_twice() -> None:
    first = {rule: v.record for rule, v in verdicts(GOOD).items()}
    assert {rule: v.record for rule, v in verdicts(GOOD, records=first).items()} == first


def test_the_second_look_says_whether_mends_held() -> None:
    records = {"name": RuleRecord(rule="name", state="mending", failures=1)}
    (held,) = verify(WANTED, GOOD, records, {Rule.NAME})
    assert (held.record.state, held.record.failures, held.mend) == ("ok", 0, False)
    (not_held,) = verify(WANTED, replace(GOOD, name="Bob's"), records, {Rule.NAME})
    assert (not_held.record.state, not_held.record.failures) == ("failed", 2)
    assert not not_held.mend
    assert verify(WANTED, ReportedState(), records, {Rule.NAME}) == []


def test_a_failure_counts() -> None:
    assert failed(RuleRecord(rule="lock")).failures == 1
    assert failed(RuleRecord(rule="lock")).state == RuleState.FAILED.value


@pytest.mark.parametrize(
    ("supervised", "locked", "os_version", "expected"),
    [
        (False, False, "12.5.7", False),
        (False, False, "13.0", True),
        (False, False, None, False),
        (True, False, "12.5.7", True),
        (False, True, "12.5.7", True),
    ],
)
@pytest.mark.ade(16)
def test_supervision_is_wanted_as_assigned_and_always_from_13_on(
    supervised: bool, locked: bool, os_version: str | None, expected: bool
) -> None:
    version = replace(VERSION, supervised=supervised, locked=locked)
    wanted = WantedState.of(version, name=None, os_version=os_version)
    assert (wanted.supervised, wanted.locked) == (expected, locked)


@settings(max_examples=60)
@given(
    reported=st.builds(
        ReportedState,
        name=st.none() | st.sampled_from(["iPad-1", "other"]),
        supervised=st.none() | st.booleans(),
        listed=st.none() | st.booleans(),
        removal_disallowed=st.none() | st.booleans(),
    ),
    locked=st.booleans(),
    failures=st.integers(0, MAX_FAILURES + 1),
)
def test_only_supervised_devices_are_ever_mended(
    reported: ReportedState, locked: bool, failures: int
) -> None:
    records = {r.value: RuleRecord(rule=r, failures=failures, last_enforced=NOW) for r in Rule}
    for verdict in judge(replace(WANTED, locked=locked), reported, records, NOW):
        if verdict.mend:
            assert reported.supervised is True
            assert failures < MAX_FAILURES
            assert verdict.record.wanted != verdict.record.reported
            assert verdict.record.rule != Rule.SUPERVISION
            assert verdict.record.rule != Rule.LOCK or reported.listed
