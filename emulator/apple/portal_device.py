"""What the portal file may say of single devices, beside who owns them: what is printed on the box, and a lock."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from certs.errors import MalformedMessage
from emulator.apple.records import ActivationLock, Purchase
from emulator.apple.registry import Registry
from emulator.settings_file import FileModel
from emulator.wire import bypass_code


def serial_number(text: str) -> str:
    """Upper case, as the services have it (apple-services.md 9.3)."""
    serial = text.strip().upper()
    if not (serial.isascii() and serial.isalnum() and len(serial) <= 20):
        raise ValueError("a serial number has up to 20 letters and digits")
    return serial


def _bypass_code(text: str) -> str:
    try:
        bypass_code.decode(text)
    except MalformedMessage:
        raise ValueError("expected the 26 characters of a bypass code") from None
    return text


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


SerialNumber = Annotated[str, AfterValidator(serial_number)]
Moment = Annotated[datetime, AfterValidator(_in_utc)]


class PortalLock(FileModel):
    """An activation lock that is on the device already."""

    login: str | None = Field(None, min_length=1)
    password: str | None = Field(None, min_length=1)
    bypass_code: Annotated[str, AfterValidator(_bypass_code)] | None = None
    message: str = ActivationLock().message

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if (self.login is None) != (self.password is None):
            raise ValueError("login and password belong together")
        if self.login is None and self.bypass_code is None:
            raise ValueError("give login and password, a bypass_code, or both")
        return self

    def to_lock(self) -> ActivationLock:
        account = None
        if self.login is not None and self.password is not None:
            account = (self.login, self.password)
        escrow_hash = None
        if self.bypass_code is not None:
            escrow_hash = bypass_code.escrow_hash(bypass_code.decode(self.bypass_code))
        return ActivationLock(account=account, escrow_hash=escrow_hash, message=self.message)


class PortalDevice(FileModel):
    """One device; what is not said stays as it is."""

    serial_number: SerialNumber
    product_type: str | None = Field(None, description="such as iPhone14,5")
    description: str | None = None
    color: str | None = None
    asset_tag: str | None = None
    migration_deadline: Moment | None = None
    replaces: SerialNumber | None = Field(None, description="the device that this one stands for")
    replacement_date: Moment | None = None
    activation_lock: PortalLock | None = None

    def purchase(self, before: Purchase) -> Purchase:
        """What is known with this."""
        told = self.model_dump(exclude={"serial_number", "activation_lock"}, exclude_none=True)
        return replace(before, **told)


def apply_devices(registry: Registry, devices: Iterable[PortalDevice]) -> None:
    """Write down what is said of devices. A lock with a bypass code costs some milliseconds."""
    for device in devices:
        record = registry.record(device.serial_number)
        record.purchase = device.purchase(record.purchase or Purchase())
        registry.changed(record)
        if device.activation_lock is not None:
            record.lock(device.activation_lock.to_lock())


def describe_devices(registry: Registry) -> list[dict[str, Any]]:
    """Devices of which more is known than their owner, in the shape of the file; no lock."""
    return [
        PortalDevice(
            serial_number=record.serial_number,
            **{name: getattr(record.purchase, name) for name in Purchase.__slots__},
        ).model_dump(mode="json", exclude_none=True)
        for record in registry.records.values()
        if record.purchase is not None and record.purchase != Purchase()
    ]
