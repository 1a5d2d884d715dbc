"""Settings of one server: a YAML file, every scalar read as text, every mistake reported at once."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from pydantic import AfterValidator, Field, field_validator, model_validator

from certs.errors import CertsError
from certs.hosts import HostMap, is_loopback
from emulator.errors import ConfigurationError
from emulator.settings_file import FileModel, parse
from mdmserver import naming

TOPIC_PREFIX: Final = "com.apple.mgmt."
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(FileModel):
    """What an administrator decides; README.md of this folder explains each key."""

    organization: str = Field("Simulated MDM", min_length=1, max_length=64)
    topic: str | None = None  # None: com.apple.mgmt.External.<UUID made at the first start>
    host: str = Field("127.0.0.1", min_length=1)
    port: Port = 0
    admin_host: str = Field("127.0.0.1", min_length=1)
    admin_port: Port = 0
    public_url: str | None = None  # None: https://host:port as bound
    profile_identifier: str = Field("simulated-mdm.enrollment", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    profile_name: str = "Enrollment"

    name_template: Annotated[str, AfterValidator(naming.check)] = "{{DEVICETYPE}}-{{SERIAL}}"
    supervised: bool = True
    locked: bool = True
    await_configuration: bool = True
    setup_commands: tuple[dict[str, Any], ...] = ()
    profile_list_every_s: float = Field(0, ge=0)

    sign_message: bool = True
    access_rights: int = Field(8191, ge=1, le=8191)
    challenge_minutes: float = Field(15, gt=0)
    identity_days: float = Field(365, gt=0, le=36_500)
    # None: a third of identity_days, at most 30; 0: identities are left to expire.
    renew_days_before: float | None = Field(None, ge=0)
    acme_key_size: int = 384
    allow_unattested: bool = False
    machine_info_roots: tuple[Path, ...] = ()
    attestation_roots: tuple[Path, ...] = ()

    assignment_url: str = "https://mdmenrollment.apple.com"
    assignment_roots: tuple[Path, ...] = ()  # none: the machine's own
    assignment_map: tuple[str, ...] = ()  # HOST[:PORT]=HOST:PORT, as --map of mdm-emulator
    assignment_user_agent: str = Field("mdm-server/1.0", min_length=1, max_length=200)
    removed_days: int = Field(30, ge=30, le=45)  # that long a removed device is shown (rule 107)

    push_certificate: Path | None = None  # PEM: certificate and key; its UID is the topic
    push_url: str | None = None  # base URL of APNs (a stand-in); with push_certificate
    push_roots: tuple[Path, ...] = ()  # to which that URL must lead

    @model_validator(mode="after")
    def _push(self) -> Self:
        if (self.push_certificate is None) != (self.push_url is None):
            raise ValueError("push_certificate and push_url belong together")
        if self.push_url is not None and not self.push_roots:
            raise ValueError("push_url needs push_roots")
        if self.push_url is not None and urlsplit(self.push_url).scheme != "https":
            raise ValueError("push_url: must be https://HOST[:PORT]")
        return self

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str | None) -> str | None:
        if topic is not None and not topic.startswith(TOPIC_PREFIX):
            raise ValueError(f"must start with {TOPIC_PREFIX}")  # else MCMDMErrorDomain 12022
        return topic

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be https://HOST[:PORT]")  # else MCMDMErrorDomain 12034
        return url.rstrip("/")

    @field_validator("assignment_url")
    @classmethod
    def _assignment_url(cls, url: str) -> str:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (
            parts.scheme == "http" and is_loopback(parts.hostname or "")
        )
        if not secure or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be https://HOST[:PORT], or http:// on loopback")
        return url.rstrip("/")

    @field_validator("assignment_map")
    @classmethod
    def _assignment_map(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        try:
            HostMap.parse(list(rules))
        except CertsError as error:
            raise ValueError(str(error)) from error
        return rules

    @field_validator("access_rights")
    @classmethod
    def _access_rights(cls, rights: int) -> int:
        if rights & 2 and not rights & 1:
            raise ValueError("2 (install profiles) needs 1 (inspect them)")
        if rights & 128 and not rights & 64:
            raise ValueError("128 (install provisioning profiles) needs 64 (inspect them)")
        return rights

    @field_validator("acme_key_size")
    @classmethod
    def _acme_key_size(cls, size: int) -> int:
        if size not in (256, 384):
            raise ValueError("must be 256 or 384, as the key is bound to hardware")
        return size

    @field_validator("setup_commands")
    @classmethod
    def _setup_commands(cls, commands: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for index, command in enumerate(commands, start=1):
            name = command.get("request_type")
            if not isinstance(name, str) or not name:
                raise ValueError(f"command {index} needs a request_type")
            if name == "DeviceConfigured":
                raise ValueError("DeviceConfigured is sent by itself, as the last command")
        return commands

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_days_before is not None and self.renew_days_before >= self.identity_days:
            raise ValueError("renew_days_before must be less than identity_days")
        return self

    @property
    def renewal_before(self) -> timedelta | None:
        """How long before its end an identity is renewed; None: never."""
        days = self.renew_days_before
        if days is None:
            days = min(30.0, self.identity_days / 3)
        return timedelta(days=days) if days else None

    @property
    def sends_supervised(self) -> bool:
        """What the assignment says: a locked profile is always supervised, else FLAGS_INVALID."""
        return self.supervised or self.locked


def load(path: Path) -> Settings:
    """Read a settings file; paths in it are relative to it. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error}"]) from error
    settings = parse(text, Settings, source=str(path))
    folder = path.parent
    return settings.model_copy(
        update={
            "machine_info_roots": tuple(folder / root for root in settings.machine_info_roots),
            "attestation_roots": tuple(folder / root for root in settings.attestation_roots),
            "assignment_roots": tuple(folder / root for root in settings.assignment_roots),
            "push_roots": tuple(folder / root for root in settings.push_roots),
            "push_certificate": settings.push_certificate and folder / settings.push_certificate,
            "setup_commands": _typed_commands(text),
        }
    )


def _typed_commands(text: str) -> tuple[dict[str, Any], ...]:
    """Commands keep YAML's own types: their numbers and booleans travel to devices as such."""
    content = yaml.safe_load(text) or {}
    return tuple(content.get("setup_commands") or ())


def read_certificates(paths: Sequence[Path], source: str) -> list[x509.Certificate]:
    """Every certificate of some PEM files. Raises ConfigurationError with every file that has none."""
    certificates: list[x509.Certificate] = []
    mistakes = []
    for path in paths:
        try:
            certificates += x509.load_pem_x509_certificates(path.read_bytes())
        except OSError as error:
            mistakes.append(f"{path}: cannot be read: {error.strerror}")
        except ValueError:
            mistakes.append(f"{path}: holds no certificate in PEM")
    if mistakes:
        raise ConfigurationError(source, mistakes)
    return certificates
