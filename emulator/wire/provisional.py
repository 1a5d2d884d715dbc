"""Devices added with Apple Configurator: nonces, provisional enrollment and leaving again (apple-services.md 3.4 and 3.6)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.cloud_errors import (
    ALREADY_ENROLLED,
    BAD_REQUEST,
    INVALID_CONFIGURATION,
    CloudConfigurationError,
    refused,
)
from emulator.wire.fields import Fields, required, required_list

LOGIN_PATH: Final = "/v2/login"
NONCE_PATH: Final = "/v2/nonce"
LOGIN_TOKEN: Final = "X-Apple-GS-Token"
SESSION_TOKEN: Final = "X-ADM-Auth-Session"
CONFIGURATOR_SERVER: Final = "Devices Added by Apple Configurator 2"

PROVISIONAL: Final = "PROVISIONAL_ENROLLMENT"
REGULAR: Final = "REGULAR_ENROLLMENT"  # the device belongs to an organization already
SUCCESS: Final = "SUCCESS"
ENROLL_STEP: Final = "provisional_enrollment"


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceRequest:
    """What Configurator posts: the profile that the devices shall get, and who they are."""

    devices: tuple[tuple[str, str], ...]  # serial number and UDID
    server_name: str = CONFIGURATOR_SERVER
    profile: Fields = field(default_factory=dict)  # keys of the assignment API

    def to_fields(self) -> Fields:
        return {
            "profile": self.profile,
            "server_name": self.server_name,
            "devices": [{"serial_number": serial, "udid": udid} for serial, udid in self.devices],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        items: tuple[dict[str, Any], ...] = required_list(fields, "devices", dict)
        return cls(
            devices=tuple(
                (
                    required(item, "serial_number", str, f"devices[{index}]."),
                    required(item, "udid", str, f"devices[{index}]."),
                )
                for index, item in enumerate(items)
            ),
            server_name=required(fields, "server_name", str),
            profile=required(fields, "profile", dict),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce:
    """One entry of the answer."""

    serial_number: str
    udid: str
    status: str = SUCCESS
    value: str | None = None

    def to_fields(self) -> Fields:
        value = {} if self.value is None else {"value": self.value}
        return {
            "status": self.status,
            **value,
            "serialNumber": self.serial_number,
            "udid": self.udid,
        }


def encode_nonces(nonces: Iterable[Nonce]) -> bytes:
    """The answer to Configurator."""
    return json_object.dumps({"nonces": [nonce.to_fields() for nonce in nonces]})


def decode_nonce_request(body: bytes) -> NonceRequest:
    """Read Configurator's request. Raises MalformedMessage."""
    return NonceRequest.from_fields(json_object.loads(body, "nonce request"))


def encode_enrolled(expiry_ms: int) -> bytes:
    """The success of a provisional enrollment; the period's end in milliseconds since 1970."""
    return json_object.dumps({"enrollment_type": PROVISIONAL, "ce_expiry_ts": expiry_ms})


def decode_enrolled(status: int, body: bytes) -> int:
    """The end of the provisional period in milliseconds. Raises CloudConfigurationError for everything else."""
    if status == 400:  # whatever the body says
        raise CloudConfigurationError("", BAD_REQUEST, status=status, step=ENROLL_STEP)
    if status != 200:
        raise refused(status, body, mapped=(401, 403), step=ENROLL_STEP)
    try:
        fields = json_object.loads(body, "enrollment")
        kind = required(fields, "enrollment_type", str)
        if kind == REGULAR:
            raise CloudConfigurationError(kind, ALREADY_ENROLLED, status=status, step=ENROLL_STEP)
        if kind != PROVISIONAL:
            raise MalformedMessage("enrollment_type", PROVISIONAL, kind)
        return required(fields, "ce_expiry_ts", int)
    except MalformedMessage as error:
        raise CloudConfigurationError(
            "", INVALID_CONFIGURATION, status=status, step=ENROLL_STEP, reason=str(error)
        ) from error


def require_done(status: int, body: bytes, step: str) -> None:
    """Leaving, registering and migrating succeed with 200. Raises CloudConfigurationError for everything else."""
    if status != 200:
        raise refused(status, body, step=step)
