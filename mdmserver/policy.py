"""Wanted state against reported state: which rules hold, and which are mended by a command (design.md, "Policy on every check-in").

Pure decisions: records and facts come in, verdicts go out; `enforcement` asks devices and queues what is decided here.

| rule | wanted | mended by |
|---|---|---|
| `name` | the template's name | Settings/DeviceName, supervised devices only |
| `lock` | the enrollment profile is not removable | that profile, sent again to supervised devices that list it |
| `supervision` | as assigned | nothing: no command sets it |
| `identity` | a certificate that does not end soon | the enrollment profile, sent again as for `lock` |
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from emulator.hardware import version_key
from mdmserver.store.base import ProfileVersion, RuleRecord

MAX_FAILURES: Final = 3  # from then on a mend is tried only once in a while
RETRY_AFTER: Final = timedelta(hours=24)
CURRENT: Final = "current"  # of an identity that need not be renewed yet
ALWAYS_SUPERVISED_SINCE: Final = version_key("13.0")  # ADE devices ignore is_supervised (rule 16)


class Rule(StrEnum):
    """What is looked after."""

    NAME = "name"
    LOCK = "lock"
    SUPERVISION = "supervision"
    IDENTITY = "identity"


class RuleState(StrEnum):
    """How a rule was found last."""

    OK = "ok"
    MENDING = "mending"  # a command is on its way
    FAILED = "failed"  # the device refused it, or it changed nothing
    SUSPENDED = "suspended"  # failed too often: next try within a day
    DRIFT = "drift"  # differs, and no command would help
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedState:
    """What the admin decided for one device."""

    name: str | None  # None: names are left alone
    locked: bool
    supervised: bool

    @classmethod
    def of(
        cls, version: ProfileVersion, *, name: str | None, os_version: str | None
    ) -> "WantedState":
        """Supervision and lock of the profile version the device enrolled with; only the name follows edits (rules 40, 41)."""
        forced = os_version is not None and version_key(os_version) >= ALWAYS_SUPERVISED_SINCE
        return cls(
            name=name,
            locked=version.locked,
            supervised=version.supervised or version.locked or forced,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedState:
    """What a device said in this session; None where it said nothing."""

    name: str | None = None
    supervised: bool | None = None
    listed: bool | None = None  # is the enrollment profile in ProfileList
    removal_disallowed: bool | None = None
    identity: str | None = None  # CURRENT, or when it ends; of the server's own knowledge

    @property
    def locked(self) -> bool | None:
        """Locked means supervised and not removable: an unsupervised device ignores the flag."""
        if not self.listed or self.supervised is None:
            return None
        return self.supervised and bool(self.removal_disallowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One rule judged: what to remember, and whether to send a mend now."""

    record: RuleRecord
    mend: bool = False


def judge(
    wanted: WantedState,
    reported: ReportedState,
    records: dict[str, RuleRecord],
    now: datetime,
) -> list[Verdict]:
    """The verdicts of a session's first look; rules on which the device said nothing are left as they were."""

    def before(rule: Rule) -> RuleRecord:
        return records.get(rule, RuleRecord(rule=rule))

    verdicts = []
    if reported.supervised is not None:
        verdicts.append(_recorded(before(Rule.SUPERVISION), wanted.supervised, reported.supervised))
    if wanted.name is not None and reported.name is not None:
        verdicts.append(
            _mendable(
                before(Rule.NAME),
                wanted.name,
                reported.name,
                now,
                possible=bool(reported.supervised),
            )
        )
    if reported.listed is not None:
        # Not listed is drift and never a reason to send it; so is a lock that nobody wanted.
        possible = wanted.locked and reported.listed and bool(reported.supervised)
        verdicts.append(
            _mendable(before(Rule.LOCK), wanted.locked, reported.locked, now, possible=possible)
        )
    if reported.identity is not None and reported.supervised is not None:
        possible = reported.supervised and reported.listed is not False
        verdicts.append(
            _mendable(before(Rule.IDENTITY), CURRENT, reported.identity, now, possible=possible)
        )
    return verdicts


def verify(
    wanted: WantedState,
    reported: ReportedState,
    records: dict[str, RuleRecord],
    mended: Iterable[Rule],
) -> list[Verdict]:
    """The verdicts of a second look, after the device acknowledged mends: no further command in this session."""
    facts: dict[Rule, tuple[str | bool | None, str | bool | None]] = {
        Rule.NAME: (wanted.name, reported.name),
        Rule.LOCK: (wanted.locked, reported.locked),
        Rule.IDENTITY: (CURRENT, reported.identity),
    }
    verdicts = []
    for rule in mended:
        record = records.get(rule, RuleRecord(rule=rule))
        want, got = facts[rule]
        if got is None:
            continue
        verdicts.append(
            Verdict(record=_agreed(record, want, got))
            if want == got
            else Verdict(record=failed(replace(record, wanted=want, reported=got)))
        )
    return verdicts


def identity_state(not_after: datetime, renewal_before: timedelta | None, now: datetime) -> str:
    """What stands for a certificate in `ReportedState`."""
    if renewal_before is None or not_after - now > renewal_before:
        return CURRENT
    return f"ends {not_after:%FT%TZ}"


def failed(record: RuleRecord) -> RuleRecord:
    """A mend was refused or changed nothing. NotNow is not a failure and never comes here."""
    return replace(record, state=RuleState.FAILED.value, failures=record.failures + 1)


def _mendable(
    record: RuleRecord,
    wanted: str | bool,
    reported: str | bool | None,
    now: datetime,
    *,
    possible: bool,
) -> Verdict:
    if wanted == reported:
        return Verdict(record=_agreed(record, wanted, reported))
    differs = replace(record, wanted=wanted, reported=reported)
    if not possible:
        return Verdict(record=replace(differs, state=RuleState.DRIFT.value))
    last = record.last_enforced
    if record.failures >= MAX_FAILURES and last is not None and now - last < RETRY_AFTER:
        return Verdict(record=replace(differs, state=RuleState.SUSPENDED.value))
    return Verdict(
        record=replace(differs, state=RuleState.MENDING.value, last_enforced=now), mend=True
    )


def _recorded(record: RuleRecord, wanted: bool, reported: bool) -> Verdict:
    if wanted == reported:
        return Verdict(record=_agreed(record, wanted, reported))
    return Verdict(
        record=replace(record, wanted=wanted, reported=reported, state=RuleState.DRIFT.value)
    )


def _agreed(
    record: RuleRecord, wanted: str | bool | None, reported: str | bool | None
) -> RuleRecord:
    return replace(record, wanted=wanted, reported=reported, state=RuleState.OK.value, failures=0)
