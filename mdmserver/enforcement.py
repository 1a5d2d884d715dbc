"""Policy at work: asks a device how it is, writes down what differs, queues the commands that mend it.

`policy` decides; this module turns decisions into commands and rows. When nothing differs it writes one row: last reported.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.wire.command import Command, Response, Status, decode_command
from emulator.wire.fields import optional, optional_list, required
from mdmserver import naming, policy
from mdmserver.devices import command_of, queued
from mdmserver.enrollment import EnrollmentProfiles, Wanted
from mdmserver.policy import ReportedState, Rule, RuleState, Verdict, WantedState
from mdmserver.settings import Settings
from mdmserver.store.base import (
    DeviceRecord,
    ProfileVersion,
    QueuedCommand,
    Report,
    RuleRecord,
    Store,
)

log = structlog.get_logger()


class Question(Enum):
    """The two queries of every check-in; both go over the device channel only."""

    INFORMATION = "DeviceInformation"
    PROFILES = "ProfileList"

    def command(self) -> Command:
        fields: dict[str, Any] = {"request_type": self.value}
        if self is Question.INFORMATION:
            fields["Queries"] = ["DeviceName", "IsSupervised", "OSVersion", "BuildVersion"]
        else:
            fields["ManagedOnly"] = False
        return command_of(fields)


Answers = dict[Question, Response]


class Enforcement:
    """The policy of one server."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        profiles: EnrollmentProfiles,
        *,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._profiles = profiles
        self._clock = clock
        self._versions: dict[int, ProfileVersion] = {}  # they never change

    def questions(self, device: DeviceRecord) -> list[Question]:
        """What to ask in this session: the profiles only as often as the settings say."""
        listed = device.profiles_listed_at
        every = timedelta(seconds=self._settings.profile_list_every_s)
        if listed is not None and every and self._clock.now() - listed < every:
            return [Question.INFORMATION]
        return [Question.INFORMATION, Question.PROFILES]

    def name_of(self, device: DeviceRecord) -> str | None:
        """The name that the template gives this device; None when it gives none, or one too long."""
        try:
            return naming.expand(
                self._settings.name_template,
                product=device.product or "",
                serial=device.serial or "",
            )
        except naming.NameTooLong as error:
            log.warning("name_too_long", udid=device.udid, bytes=error.length)
            return None

    async def judge(self, device: DeviceRecord, answers: Answers) -> None:
        """The first look of a session: record what differs and queue mends."""
        wanted, reported = await self._look(device, answers)
        records = await self._store.rules(device.udid)
        verdicts = policy.judge(wanted, reported, records, self._clock.now())
        kept = await self._withdraw_outdated(device, verdicts, wanted)
        changed = [v.record for v in verdicts if records.get(v.record.rule) != v.record]
        if changed:
            await self._store.record_rules(device.udid, changed)
        mends = [Rule(v.record.rule) for v in verdicts if v.mend and v.record.rule not in kept]
        if Rule.LOCK in mends and Rule.IDENTITY in mends:
            # One profile mends both, and a second would end the code of the first.
            mends.remove(Rule.IDENTITY)
        for rule in mends:
            await self._mend(device, rule, wanted)

    async def verify(self, device: DeviceRecord, answers: Answers, mended: set[Rule]) -> None:
        """The second look, after acknowledged mends: did they hold?"""
        wanted, reported = await self._look(device, answers)
        records = await self._store.rules(device.udid)
        verdicts = policy.verify(wanted, reported, records, mended)
        await self._store.record_rules(device.udid, [verdict.record for verdict in verdicts])
        for verdict in verdicts:
            log.info(
                "policy_mended"
                if verdict.record.state == RuleState.OK.value
                else "policy_not_mended",
                udid=device.udid,
                rule=verdict.record.rule,
            )

    async def mend_refused(self, device: DeviceRecord, rule: Rule) -> None:
        """A mend was answered with an error."""
        records = await self._store.rules(device.udid)
        record = policy.failed(records.get(rule) or RuleRecord(rule=rule))
        await self._store.record_rules(device.udid, [record])
        log.warning(
            "policy_mend_refused", udid=device.udid, rule=rule.value, failures=record.failures
        )

    async def version(self, number: int) -> ProfileVersion:
        if number not in self._versions:
            self._versions[number] = await self._store.profile_version(number)
        return self._versions[number]

    async def _look(
        self, device: DeviceRecord, answers: Answers
    ) -> tuple[WantedState, ReportedState]:
        version = await self.version(device.profile_version)
        report, reported = read_answers(device, answers, version.identifier, self._clock.now())
        if answers:
            await self._store.report(device.udid, report)
        os_version = report.os_version or device.os_version
        wanted = WantedState.of(version, name=self.name_of(device), os_version=os_version)
        return wanted, replace(reported, identity=await self._identity(device))

    async def _identity(self, device: DeviceRecord) -> str | None:
        bound = await self._store.certificate(device.certificate_sha256 or b"")
        if bound is None:
            return None
        return policy.identity_state(
            bound.not_after, self._settings.renewal_before, self._clock.now()
        )

    async def _withdraw_outdated(
        self, device: DeviceRecord, verdicts: list[Verdict], wanted: WantedState
    ) -> set[str]:
        """Withdraw mends of earlier sessions that no longer say what is wanted; the rules whose mend stays open."""
        judged = {v.record.rule: v.mend for v in verdicts}
        open_ = await self._store.open_commands(device.udid)
        mends = {command.uuid: command for command in open_ if command.rule is not None}
        outdated = [
            uuid
            for uuid, command in mends.items()
            if command.rule in judged
            and not (judged[command.rule] and _still_says(command, wanted))
        ]
        if outdated:
            await self._store.withdraw(outdated, self._clock.now())
        return {c.rule for uuid, c in mends.items() if c.rule and uuid not in outdated}

    async def _mend(self, device: DeviceRecord, rule: Rule, wanted: WantedState) -> None:
        fields = (
            name_setting(wanted.name or "")
            if rule is Rule.NAME
            else {"request_type": "InstallProfile", "Payload": await self._profile(device)}
        )
        command = queued(
            command_of(fields), device.udid, "policy", now=self._clock.now(), rule=rule.value
        )
        await self._store.enqueue(command)
        log.info("policy_mend", udid=device.udid, rule=rule.value, command=command.uuid)

    async def _profile(self, device: DeviceRecord) -> bytes:
        """The enrollment profile again: same protocol, Topic, URLs and signer, a new one-time code (rule 8)."""
        bound = await self._store.certificate(device.certificate_sha256 or b"")
        if bound is None:
            raise LookupError(f"device {device.udid} has no certificate of ours")
        deadline = self._clock.now() + timedelta(minutes=self._settings.challenge_minutes)
        return await self._profiles.build(
            Wanted.again(device, bound),
            await self.version(device.profile_version),
            "renewal",
            deadline,
        )


def name_setting(name: str) -> dict[str, Any]:
    """The command that names a device."""
    return {"request_type": "Settings", "Settings": [{"Item": "DeviceName", "DeviceName": name}]}


def mend_succeeded(response: Response) -> bool:
    """Acknowledged, and so is every item of a Settings command (mdm.md 5.6)."""
    if response.status is not Status.ACKNOWLEDGED:
        return False
    items = response.fields.get("Settings")
    return not isinstance(items, list) or all(
        isinstance(item, dict) and item.get("Status") == Status.ACKNOWLEDGED.value for item in items
    )


def read_answers(
    device: DeviceRecord, answers: Answers, identifier: str, now: datetime
) -> tuple[Report, ReportedState]:
    """What the answers say; an answer that cannot be read counts as none and is logged."""
    report = Report(at=now)
    reported = ReportedState()
    information = answers.get(Question.INFORMATION)
    if information is not None:
        try:
            said = required(information.fields, "QueryResponses", dict)
            report = replace(
                report,
                name=optional(said, "DeviceName", str),
                supervised=optional(said, "IsSupervised", bool),
                os_version=optional(said, "OSVersion", str),
                build=optional(said, "BuildVersion", str),
            )
            reported = replace(reported, name=report.name, supervised=report.supervised)
        except MalformedMessage as error:
            log.warning("answer_unreadable", udid=device.udid, error=str(error))
    profiles = answers.get(Question.PROFILES)
    if profiles is not None:
        try:
            ours = _listed(profiles, identifier)
            reported = replace(
                reported,
                listed=ours is not None,
                removal_disallowed=ours is not None
                and (optional(ours, "PayloadRemovalDisallowed", bool) or False),
            )
            report = replace(report, profiles_listed=True, locked=reported.locked)
        except MalformedMessage as error:
            log.warning("answer_unreadable", udid=device.udid, error=str(error))
    return report, reported


def _listed(response: Response, identifier: str) -> dict[str, Any] | None:
    """Our enrollment profile in a ProfileList answer."""
    profiles = optional_list(response.fields, "ProfileList", dict) or ()
    return next((p for p in profiles if p.get("PayloadIdentifier") == identifier), None)


def _still_says(command: QueuedCommand, wanted: WantedState) -> bool:
    """Is an open mend what would be sent today? A profile is not: its one-time code grows old."""
    if command.rule != Rule.NAME.value:
        return False
    fields = decode_command(command.body).fields
    return fields == {
        key: value
        for key, value in name_setting(wanted.name or "").items()
        if key != "request_type"
    }
