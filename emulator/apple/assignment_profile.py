"""An assignment profile: what the assignment API takes for one, and the words it has for what it does not take (4.9).

The portal file and `POST /profile` share the limits; a file's mistakes are sentences, the API's are words.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from certs.errors import shorten
from emulator.apple.answer import Refusal
from emulator.apple.records import Profile
from emulator.settings_file import FileModel
from emulator.wire import json_object
from emulator.wire.fields import present


def _https(text: str) -> str:
    if not text.lower().startswith("https://") or len(text) == len("https://"):
        raise ValueError("expected an https:// URL")
    return text


def _certificate(text: str) -> str:
    """A certificate in PEM or base64 DER, kept as base64 DER on one line."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            certificate = x509.load_pem_x509_certificate(text.strip().encode())
        else:
            der = base64.b64decode("".join(text.split()), validate=True)
            certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        raise ValueError("expected a certificate, PEM or base64 of DER") from None
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


Url = Annotated[str, Field(max_length=2000), AfterValidator(_https)]
CertificateText = Annotated[str, AfterValidator(_certificate)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=125, strip_whitespace=True)]


class AssignmentProfile(FileModel):
    """A profile as the assignment API defines it; defaults are the API's."""

    url: Url
    profile_name: Name = "Enrollment"
    configuration_web_url: Url | None = None
    allow_pairing: bool = True
    is_supervised: bool = False
    is_mandatory: bool = False
    is_mdm_removable: bool = True
    await_device_configured: bool = False
    is_multi_user: bool = False
    is_return_to_service: bool = False
    auto_advance_setup: bool = False
    do_not_use_profile_from_backup: bool = False
    anchor_certs: tuple[CertificateText, ...] | None = None
    supervising_host_certs: tuple[CertificateText, ...] | None = None
    skip_setup_items: tuple[str, ...] | None = None
    org_magic: str | None = Field(None, min_length=1, max_length=256)
    department: str | None = Field(None, max_length=125)
    support_phone_number: str | None = Field(None, max_length=50)
    support_email_address: str | None = Field(None, max_length=250)
    language: str | None = None
    region: str | None = None

    @field_validator("is_mdm_removable")
    @classmethod
    def _flags(cls, removable: bool, info: ValidationInfo) -> bool:
        """The API's FLAGS_INVALID, still enforced although devices of today supervise in any case."""
        if not removable and info.data.get("is_supervised") is False:
            raise ValueError("false requires is_supervised true (FLAGS_INVALID)")
        return removable

    @field_validator("is_return_to_service")
    @classmethod
    def _exclusive(cls, return_to_service: bool, info: ValidationInfo) -> bool:
        if return_to_service and info.data.get("is_multi_user"):
            raise ValueError("is_multi_user and is_return_to_service exclude each other")
        return return_to_service

    def to_fields(self) -> dict[str, object]:
        """The keys of the assignment API, those without a value absent."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.model_dump(exclude_none=True).items()
            # Booleans that only newer systems know stay away unless somebody wrote them.
            if key in self.model_fields_set or key in _ALWAYS
        }

    def to_profile(self, server_uuid: str) -> Profile:
        """The profile with a UUID of its own content, for one that a file says and that is read again and again."""
        fields = self.to_fields()
        canonical = json.dumps([server_uuid, fields], sort_keys=True)
        return Profile(
            uuid=hashlib.sha256(canonical.encode()).hexdigest()[:32].upper(), fields=fields
        )


_ALWAYS: Final = frozenset(
    {
        "profile_name",
        "allow_pairing",
        "is_supervised",
        "is_mandatory",
        "is_mdm_removable",
        "await_device_configured",
    }
)

# The API's word for a mistake in each key; what has none is a body that cannot be read.
_WORDS: Final = {
    "profile_name": "CONFIG_NAME_INVALID",
    "url": "CONFIG_URL_INVALID",
    "configuration_web_url": "CONFIG_URL_INVALID",
    "department": "DEPARTMENT_INVALID",
    "support_phone_number": "SUPPORT_PHONE_INVALID",
    "support_email_address": "SUPPORT_EMAIL_INVALID",
    "org_magic": "MAGIC_INVALID",
    "language": "LOCALE_INVALID",
    "region": "LOCALE_INVALID",
    "is_mdm_removable": "FLAGS_INVALID",
    "is_return_to_service": "FLAGS_INVALID",
}
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_REGION: Final = re.compile(r"[A-Z]{2}|[0-9]{3}")
_BOOLEANS: Final = tuple(
    key for key, field in AssignmentProfile.model_fields.items() if field.annotation is bool
)


def define(fields: Mapping[str, Any]) -> Profile:
    """The profile that `POST /profile` defines, with a UUID of its own each time. Raises Refusal with the API's word.

    Unknown members are ignored. Of several mistakes the first of REQUIRED, INVALID, FLAGS is answered.
    """
    given = {
        key: value
        for key, value in present(dict(fields)).items()
        if key in AssignmentProfile.model_fields and (value != "" or key in ("org_magic", "url"))
    }
    for key, word in (("profile_name", "CONFIG_NAME_REQUIRED"), ("url", "CONFIG_URL_REQUIRED")):
        if not given.get(key):
            raise Refusal("PROFILE", 400, word, f"{key} is missing or empty")
    try:
        profile = AssignmentProfile.model_validate_json(json_object.dumps(given), strict=True)
    except ValidationError as error:
        raise _refusal(error) from error
    for key, pattern in (("language", _LANGUAGE), ("region", _REGION)):
        value = getattr(profile, key)
        if value is not None and not pattern.fullmatch(value):
            raise Refusal("PROFILE", 400, "LOCALE_INVALID", f"{key} {shorten(value)}")
    return Profile(uuid=secrets.token_hex(16).upper(), fields=profile.to_fields())


def shown(profile: Profile) -> dict[str, object]:
    """As `GET /profile` answers: every boolean with its value, its UUID, no devices."""
    defaults = {key: AssignmentProfile.model_fields[key].default for key in _BOOLEANS}
    return {**defaults, **profile.fields, "profile_uuid": profile.uuid}


def _refusal(error: ValidationError) -> Refusal:
    mistakes = []
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        # A flag that is no boolean is no combination of flags.
        combined = item["type"] == "value_error" or not key.startswith("is_")
        word = _WORDS.get(key, "") if combined else ""
        mistakes.append(
            (word == "FLAGS_INVALID", word or "MALFORMED_REQUEST_BODY", key, item["msg"])
        )
    _, word, key, reason = min(mistakes, key=lambda mistake: mistake[0])
    return Refusal("PROFILE", 400, word, f"{key}: {reason}")
