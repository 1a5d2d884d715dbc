"""The cloud configuration service (iprofiles): which MDM server a device belongs to (apple-services.md 3.2 to 3.4, 9.2)."""

from collections.abc import Mapping
from typing import Final, Literal

import structlog
from pydantic import Field

from certs.clock import Clock
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.device_envelope import EnvelopeChecks, claimed_serial
from emulator.apple.records import DeviceRecord
from emulator.settings_file import FileModel
from emulator.wire import cloudconfig
from emulator.wire.device_request import Operation
from emulator.wire.envelope import Envelope

log = structlog.get_logger()

ProvisionalStart = Literal["activation", "enrollment"]

JSON: Final = "application/json"


class CloudConfigurationSettings(FileModel):
    """What a run may choose about cloud configurations."""

    provisional_start: ProvisionalStart = Field(
        "activation",
        description="when the 30 days of a device added with Apple Configurator start (rule 45)",
    )
    legacy: bool = Field(False, description="serve the way that Macs once went, too")


class CloudConfigurationService:
    """`POST /v2/profile`."""

    step = "cloud_configuration"

    def __init__(self, checks: EnvelopeChecks, clock: Clock) -> None:
        self._checks = checks
        self._clock = clock

    def headers(self) -> Mapping[str, str]:
        return {"Cache-Control": "no-cache, no-store"}

    def decode(self, received: Received) -> Envelope:
        return self._checks.decode(received.body)  # whatever the content type says (3.2)

    def serial_number(self, message: Envelope) -> str:
        return claimed_serial(message)

    async def answer(self, message: Envelope) -> Answer:
        record, _ = self._checks.asks(message, Operation.PROFILE)
        return configuration_for(record, self._clock)


def configuration_for(record: DeviceRecord, clock: Clock) -> Answer:
    """C6 to C8: what a device gets once it is known which one asks."""
    if record.organization is None:
        raise Refusal("C6", 400, "DEVICE_NOT_ENROLLED", "no organization owns this device")
    if record.profile is None:
        return Answer(body=b"PROFILE_NOT_FOUND", outcome="PROFILE_NOT_FOUND")
    document = document_for(record)
    if record.pushed(clock.now()):
        log.info("profile_pushed", serial=record.serial_number, profile=record.profile.uuid)
    return Answer(
        body=cloudconfig.encode_answer(document), content_type=JSON, outcome="configuration"
    )


def document_for(record: DeviceRecord) -> cloudconfig.CloudConfiguration:
    """The configuration of a device that has a profile, by the mapping of apple-services.md 3.3.

    Organisation facts come from the portal; magic, department and support contacts from the profile; `server-uid` is the
    server's UUID.
    """
    assert record.organization is not None
    assert record.profile is not None
    until = record.provisional_until
    return cloudconfig.from_assignment(
        record.profile.fields,
        record.organization.facts,
        server_uid=record.server.uuid if record.server else None,
        provisional_expiry_ms=None if until is None else int(until.timestamp() * 1000),
    )
