"""Who the devices of a fleet are: the fleet file, and the plan of every device that follows from it.

The same file and seed always give the same devices (model, OS, serial number, UDID, IMEI, addresses); keys and
certificates are new each time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from emulator import settings_file
from emulator.apple.push_settings import PushSettings
from emulator.errors import ConfigurationError
from emulator.fleet.spells import OfflineSpells
from emulator.hardware import Hardware, model, models
from emulator.settings_file import FileModel

MAX_SKEW_S: Final = 10 * 365 * 86400.0


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _product_types(value: object) -> object:
    """A product type holds a comma, so YAML reads [iPhone14,5] as two items: put them together again."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return value
    joined: list[object] = []
    for item in value:
        if isinstance(item, str) and item.isdigit() and joined and "," not in str(joined[-1]):
            joined[-1] = f"{joined[-1]},{item}"
        else:
            joined.append(item)
    return joined


ProductTypes = Annotated[tuple[str, ...], BeforeValidator(_product_types)]
OneOrMany = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


def _from_to(value: object) -> object:
    return [value, value] if isinstance(value, str | int | float) else value


Seconds = Annotated[float, Field(ge=-MAX_SKEW_S, le=MAX_SKEW_S)]
FromTo = Annotated[tuple[Seconds, Seconds], BeforeValidator(_from_to)]


class AppleSection(FileModel):
    """The Apple stand-ins of a run: those that run already, or a portal file for ones started along with the fleet."""

    url: str | None = Field(
        None, description="base URL of running stand-ins, such as https://127.0.0.1:9443"
    )
    admin_url: str | None = Field(
        None, description="their admin URL, such as http://127.0.0.1:9444"
    )
    token_file: Path | None = Field(
        None, description="file that holds the bearer token of the admin URL"
    )
    ca: Path | None = Field(
        None, description="PEM file with the authority of their TLS certificates"
    )
    portal: Path | None = Field(
        None, description="portal YAML for stand-ins that this run starts itself"
    )
    activation: Literal["full", "lite", "off"] = "full"
    push: PushSettings = Field(
        PushSettings(), description="APNs of stand-ins that this run starts itself"
    )
    proxy_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="start a CONNECT proxy that leads Apple's names to these stand-ins; 0: any port",
    )

    @model_validator(mode="after")
    def _running_or_started(self) -> Self:
        running = (self.url, self.admin_url, self.token_file)
        if any(running) and not all(running):
            raise ValueError("url, admin_url and token_file belong together")
        if self.ca and not self.url:
            raise ValueError("ca is for running stand-ins: give their url, too")
        if self.url and self.portal:
            raise ValueError("portal is for stand-ins started here; url names running ones")
        return self


class Group(FileModel):
    """Some devices alike. Lists are dealt out in turn; what is left out is drawn by the seed."""

    count: int = Field(1, ge=1, le=1_000_000)
    model: ProductTypes = Field((), description="product types, such as iPhone14,5")
    os_version: OneOrMany = Field(
        (), description="such as 17.10; with a build of your own any version is accepted"
    )
    build: OneOrMany = Field((), description="builds belonging to os_version, in the same order")
    serials: tuple[str, ...] = Field((), description="serial numbers to use instead of made ones")
    organization: str | None = Field(
        None, description="who owns these devices in the portal; none: personal devices"
    )
    server: str | None = Field(
        None, description="the MDM server they are assigned to; none: no profile assigned"
    )

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        unknown = [product for product in value if model(product) is None]
        if unknown:
            raise ValueError(
                f"unknown product type {', '.join(unknown)} (such as {models()[0].product_type})"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.server and not self.organization:
            raise ValueError("server needs an organization")
        if self.build and len(self.build) != len(self.os_version):
            raise ValueError("build needs one entry for each os_version")
        if self.serials and len(self.serials) != self.count:
            raise ValueError(f"{len(self.serials)} serials for a count of {self.count}")
        return self


class Wake(FileModel):
    """What makes enrolled devices check in: pushes through our APNs, a clock, or nothing but the user.

    Without a word about it devices can be pushed, and a command that enrolls ends when all are enrolled.
    """

    push: bool | None = Field(
        None, description="true: stay and sleep until pushed; false: no push tokens at the stand-in"
    )
    poll_s: float | None = Field(
        None, gt=0, description="stay, and let each device check in every so many seconds"
    )
    offline: OfflineSpells | None = Field(
        None, description="devices that are out of reach now and then, while they wait for pushes"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.push and self.poll_s is not None:
            raise ValueError("push and poll_s exclude each other")
        if self.offline is not None and self.mode != "push":
            raise ValueError("offline is for devices that wake by push")
        return self

    @property
    def mode(self) -> Literal["push", "poll", "manual"]:
        if self.poll_s is not None:
            return "poll"
        return "manual" if self.push is False else "push"


class BehaviourSection(FileModel):
    """How the devices do what the protocol leaves open; the defaults are those of current devices."""

    cloud_configuration: Literal["v2", "legacy"] = "v2"
    device_key: Literal["new", "factory"] = "factory"
    scep_signer: Literal["apple", "same-key"] = "apple"
    scep_renewal: Literal["pkcs-req", "renewal-req"] = Field(
        "pkcs-req", description="how a profile that comes again gets its next certificate"
    )
    unattested: Literal["none", "empty", "object", "error"] = "none"
    csr_names_identifier: bool = Field(
        False, description="ACME: the CSR names the ClientIdentifier as permanent identifier"
    )
    token_update_after_configured: bool = True
    awaiting_poll_s: float = Field(2.0, gt=0)
    awaiting_deadline_s: float = Field(900.0, gt=0)
    clock_skew_s: FromTo = Field(
        (0.0, 0.0),
        description="seconds by which each device's clock is off, such as 90 or [-5, 300]",
    )

    @field_validator("clock_skew_s")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first number must not be greater than the second")
        return value


class AssignedSection(FileModel):
    """With `enroll_url`: what the cloud configuration would have said of a device assigned to that server."""

    supervised: bool = Field(True, description="devices from 13.0 on are supervised in any case")
    removable: bool = Field(True, description="false: the user cannot remove the management")
    await_configuration: bool = Field(
        False, description="stay in Setup Assistant until DeviceConfigured"
    )


class FleetFile(FileModel):
    """A fleet: who the devices are, which way they enroll, and what they meet on the way."""

    name: str = "fleet"
    seed: int = 0
    apple: AppleSection = AppleSection()
    profile: Path | None = Field(
        None, description="enroll with this .mobileconfig instead of by automated enrollment"
    )
    enroll_url: str | None = Field(
        None, description="POST MachineInfo here instead of asking the cloud configuration"
    )
    assigned: AssignedSection = AssignedSection()
    keys: Literal["fresh", "pool"] = "fresh"
    wake: Wake = Wake()
    behaviour: BehaviourSection = BehaviourSection()
    groups: tuple[Group, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.profile and self.enroll_url:
            raise ValueError("profile and enroll_url exclude each other")
        serials = [serial for group in self.groups for serial in group.serials]
        twice = sorted({serial for serial in serials if serials.count(serial) > 1})
        if twice:
            raise ValueError(f"serial {', '.join(twice)} is given twice")
        return self

    @property
    def size(self) -> int:
        """How many devices."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """One device before it is made: who it is and who owns it."""

    position: int
    hardware: Hardware
    organization: str | None = None
    server: str | None = None


def read(path: Path) -> FleetFile:
    """Read a fleet file. Raises ConfigurationError with every mistake; relative paths are those of the file."""
    fleet = settings_file.read(path, FleetFile)
    base = path.parent

    def beside(file: Path | None) -> Path | None:
        return None if file is None else base / file

    apple = fleet.apple.model_copy(
        update={
            "token_file": beside(fleet.apple.token_file),
            "ca": beside(fleet.apple.ca),
            "portal": beside(fleet.apple.portal),
        }
    )
    return fleet.model_copy(update={"apple": apple, "profile": beside(fleet.profile)})


def validate(content: object, *, source: str) -> FleetFile:
    """Make a fleet of plain data, such as options of the command line."""
    return settings_file.validate(content, FleetFile, source=source)


MISTAKES_LOOKED_FOR: Final = 100  # devices of one group


def plan(fleet: FleetFile) -> list[DevicePlan]:
    """Every device of the fleet in order. Raises ConfigurationError with every combination that cannot exist."""
    plans: list[DevicePlan] = []
    mistakes: list[str] = []
    position = 0
    for number, group in enumerate(fleet.groups):
        for member in range(group.count):
            try:
                plans.append(_device(fleet, group, member, position))
            except ConfigurationError as error:
                found = (f"groups.{number}: {text}" for text in error.mistakes)
                mistakes += [mistake for mistake in found if mistake not in mistakes]
                if member > MISTAKES_LOOKED_FOR:
                    break  # a large group repeats itself
            position += 1
    if mistakes:
        raise ConfigurationError(fleet.name, mistakes)
    return plans


def _device(fleet: FleetFile, group: Group, member: int, position: int) -> DevicePlan:
    def dealt(values: tuple[str, ...]) -> str | None:
        return values[member % len(values)] if values else None

    return DevicePlan(
        position=position,
        hardware=Hardware.from_seed(
            fleet.seed,
            position,
            product_type=dealt(group.model),
            os_version=dealt(group.os_version),
            build=dealt(group.build),
            serial_number=dealt(group.serials),
        ),
        organization=group.organization,
        server=group.server,
    )
