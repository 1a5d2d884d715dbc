"""The settings file of `mdm-emulator apple serve`: everything about the stand-ins of one process (README.md of this folder).

YAML, every scalar read as text, every mistake reported at once with its path. The portal part has the keys of a portal file.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from certs.hosts import is_loopback
from emulator import settings_file
from emulator.apple.activation import ActivationSettings
from emulator.apple.assignment_faults import Faults
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.apple.planned_faults import EVERYBODY, PlannedFault
from emulator.apple.portal import Portal, PortalOrganization, duplicates
from emulator.apple.portal_device import PortalDevice, serial_number
from emulator.apple.push_faults import PushFault
from emulator.apple.push_settings import PushSettings
from emulator.apple.tokens import Lengths, TokenCipher
from emulator.errors import ConfigurationError
from emulator.settings_file import FileModel

Port = Annotated[int, Field(ge=0, le=65535)]
OFF: Final = "off"
EVERYWHERE: Final = ("0.0.0.0", "::")


def _device(text: str) -> str:
    return text if text == EVERYBODY else serial_number(text)


def _port_or_off(value: object) -> object:
    return None if value == OFF else value


class ServedPush(PushSettings):
    """Push, on a port that stays the same."""

    port: Port = Field(9445, description="provider API over TLS; 0: any free one")


class TokenFile(FileModel):
    """A server token, put into a file at the start: where the server has none yet, or the file is not there."""

    organization: str
    server: str
    file: Path = Field(description="relative to this file; made for its owner only")
    format: Literal["p7m", "json"] = Field(
        "p7m", description="p7m needs the server's certificate; json is what is inside"
    )
    by: str | None = Field(None, description="Apple ID of who downloads it")
    cipher: TokenCipher = "aes128"
    lengths: Lengths = "indefinite"


class FaultsSection(FileModel):
    """What goes wrong from the start on; the admin API changes it while the services run."""

    assignment: Faults = Field(
        {}, description="for each endpoint, such as POST /devices/sync, a list of {count, response}"
    )
    devices: dict[Annotated[str, AfterValidator(_device)], tuple[PlannedFault, ...]] = Field(
        {}, description="by serial number, or * for all, what goes wrong for a device"
    )
    push: tuple[PushFault, ...] = Field((), description="what goes wrong with pushes")


class AppleFile(FileModel):
    """The stand-ins of one process. Ports 0 are chosen by the system."""

    host: str = Field("127.0.0.1", min_length=1, description="address of services and push")
    names: tuple[str, ...] = Field((), description="further names of the TLS certificate")
    port: Port = Field(9443, description="activation, cloud configuration, attestation, assignment")
    admin_port: Port = Field(9444, description="administration, on loopback alone")
    proxy_port: Annotated[Port | None, BeforeValidator(_port_or_off)] = Field(
        9446, description="CONNECT proxy that leads Apple's names here; off: none"
    )
    state: Path | None = Field(
        None, description="folder that keeps everything; without it all is lost at the end"
    )
    organizations: tuple[PortalOrganization, ...] = ()
    devices: tuple[PortalDevice, ...] = ()
    tokens: tuple[TokenFile, ...] = ()
    activation: ActivationSettings = ActivationSettings()
    cloud_configuration: CloudConfigurationSettings = CloudConfigurationSettings()
    assignment: AssignmentSettings = AssignmentSettings()
    push: ServedPush = ServedPush()
    faults: FaultsSection = FaultsSection()

    @model_validator(mode="after")
    def _tokens_of_servers(self) -> Self:
        servers = {
            (organization.name, server.name): server
            for organization in self.organizations
            for server in organization.servers
        }
        for number, token in enumerate(self.tokens):
            server = servers.get((token.organization, token.server))
            if server is None:
                raise ValueError(
                    f"tokens.{number}: there is no server {token.server!r} of {token.organization!r}"
                )
            if token.format == "p7m" and server.certificate is None:
                raise ValueError(
                    f"tokens.{number}: a .p7m is sealed for the certificate of {token.server!r}, "
                    "which has none: give it one, or choose format json"
                )
        files = [str(token.file) for token in self.tokens]
        twice = sorted({file for file in files if files.count(file) > 1})
        if twice:
            raise ValueError(f"tokens: {', '.join(twice)} is named twice")
        return self

    @model_validator(mode="after")
    def _ports(self) -> Self:
        if self.proxy_port is not None and not (is_loopback(self.host) or self.host in EVERYWHERE):
            raise ValueError(
                f"proxy_port: the proxy leads to loopback alone: with host {self.host} say off"
            )
        ports = [self.port, self.admin_port, self.push.port, self.proxy_port, self.push.plain_port]
        taken = [port for port in ports if port]
        if len(set(taken)) < len(taken):
            raise ValueError("the ports must differ")
        return self

    @property
    def portal(self) -> Portal:
        return Portal(organizations=self.organizations, devices=self.devices)


def read(path: Path | None, **changes: object) -> AppleFile:
    """The settings of a file, or the defaults, with `changes` of the command line; paths are relative to the file.

    Raises ConfigurationError with every mistake.
    """
    if path is None:
        return settings_file.validate(_changed({}, changes), AppleFile, source="command line")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error}"]) from error
    content = settings_file.load(text, source=str(path))
    file = _validated(content, changes, source=str(path))
    beside = path.parent
    tokens = tuple(token.model_copy(update={"file": beside / token.file}) for token in file.tokens)
    state = file.state
    if state is not None and "state" not in changes:
        state = beside / state
    return file.model_copy(update={"tokens": tokens, "state": state})


def _validated(content: object, changes: dict[str, object], *, source: str) -> AppleFile:
    """Duplicates are looked for even where something else is wrong, to report all at once."""
    mistakes = list(duplicates(content))
    try:
        file = settings_file.validate(_changed(content, changes), AppleFile, source=source)
    except ConfigurationError as error:
        raise ConfigurationError(source, error.mistakes + mistakes) from error
    if mistakes:
        raise ConfigurationError(source, mistakes)
    return file


def _changed(content: object, changes: dict[str, object]) -> object:
    """`push_port` is the one change that is not at the top."""
    if not isinstance(content, dict):
        return content
    merged: dict[str, Any] = {**content, **changes}
    push_port = merged.pop("push_port", None) if "push_port" in changes else None
    if push_port is not None:
        push = merged.get("push") or {}
        merged["push"] = {**push, "port": push_port} if isinstance(push, dict) else push
    return merged
