"""What the activation service answers: a record, a bare acknowledgement, a refusal or a form (apple-services.md 2.5 and 2.6)."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from certs.errors import MalformedMessage
from emulator.wire import buddyml, plist
from emulator.wire.account_token import AccountToken
from emulator.wire.buddyml import CredentialForm
from emulator.wire.fields import Fields, kind_of, optional, present, required

__all__ = [
    "AccountToken",
    "Acknowledgement",
    "ActivationRecord",
    "ActivationRefused",
    "Answer",
    "CredentialForm",
    "decode_answer",
    "encode_answer",
]

RECORD_CONTENT_TYPE: Final = (
    "text/xml"  # without parameters: pymobiledevice3 compares the whole value
)
BUDDYML_CONTENT_TYPE: Final = "application/x-buddyml"
HTML_CONTENT_TYPE: Final = "text/html"

_XML_TYPES: Final = frozenset(("text/xml", "application/xml", "application/x-apple-plist"))
_LEGACY_ROOTS: Final = ("iphone-activation", "device-activation")
# Bounded repeats, so that a hostile page costs linear time.
_PROTOCOL_SCRIPT: Final = re.compile(
    rb"<script\b[^<>]{0,200}\bid\s?=\s?[\"']?protocol\b[^<>]{0,200}>", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRecord:
    """What makes a device activated; its DeviceCertificate later signs MachineInfo."""

    account_token: bytes  # an AccountToken; the signature is over exactly these bytes
    account_token_certificate: bytes  # PEM
    account_token_signature: bytes
    device_certificate: bytes  # PEM
    unique_device_certificate: bytes | None = None  # two PEM blocks, leaf first
    fair_play_key_data: bytes | None = field(default=None, repr=False)
    regulatory_info: bytes | None = None  # JSON
    device_configuration_flags: str | None = None  # "1": a cloud configuration exists
    unbrick: bool = True

    def to_fields(self) -> Fields:
        return present(
            {
                "AccountToken": self.account_token,
                "AccountTokenCertificate": self.account_token_certificate,
                "AccountTokenSignature": self.account_token_signature,
                "DeviceCertificate": self.device_certificate,
                "DeviceConfigurationFlags": self.device_configuration_flags,
                "FairPlayKeyData": self.fair_play_key_data,
                "RegulatoryInfo": self.regulatory_info,
                "UniqueDeviceCertificate": self.unique_device_certificate,
                "unbrick": self.unbrick,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "ActivationRecord.") -> Self:
        flags = fields.get("DeviceConfigurationFlags")
        if not isinstance(flags, str | int | None) or isinstance(flags, bool):
            raise MalformedMessage(where + "DeviceConfigurationFlags", "string", kind_of(flags))
        return cls(
            account_token=required(fields, "AccountToken", bytes, where),
            account_token_certificate=required(fields, "AccountTokenCertificate", bytes, where),
            account_token_signature=required(fields, "AccountTokenSignature", bytes, where),
            device_certificate=required(fields, "DeviceCertificate", bytes, where),
            unique_device_certificate=optional(fields, "UniqueDeviceCertificate", bytes, where),
            fair_play_key_data=optional(fields, "FairPlayKeyData", bytes, where),
            regulatory_info=optional(fields, "RegulatoryInfo", bytes, where),
            device_configuration_flags=None if flags is None else str(flags),
            unbrick=optional(fields, "unbrick", bool, where) is not False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The service knows the device as activated already and sends no record."""

    show_settings: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRefused:
    """No activation: a fatal error with its title, or a form that wants credentials first."""

    title: str
    form: CredentialForm | None = None


Answer = ActivationRecord | Acknowledgement | ActivationRefused


def encode_answer(answer: ActivationRecord | Acknowledgement, *, legacy: bool = False) -> bytes:
    """The plist under the modern root, or the legacy one, which an acknowledgement always has."""
    if isinstance(answer, ActivationRecord) and not legacy:
        return plist.dumps({"ActivationRecord": answer.to_fields()})
    record = answer.to_fields() if isinstance(answer, ActivationRecord) else None
    shown = answer.show_settings if isinstance(answer, Acknowledgement) else True
    root = {"ack-received": True, "show-settings": shown, "activation-record": record}
    return plist.dumps({"iphone-activation": present(root)})


def encode_html(answer: ActivationRecord | Acknowledgement, *, legacy: bool = False) -> bytes:
    """The same plist in the script of an HTML page, as the service sends it to newer systems."""
    document = encode_answer(answer, legacy=legacy)
    body = document[document.index(b"<plist") :]
    return (
        b'<!DOCTYPE html>\n<html><head><title>iPhone Activation</title>\n<script id="protocol" type="text/x-apple-plist">'
        + body
        + b"</script>\n</head><body></body></html>\n"
    )


def decode_answer(content_type: str, body: bytes) -> Answer:
    """Read an answer with HTTP status 200 by its content type. Raises MalformedMessage."""
    match content_type.partition(";")[0].strip().lower():
        case kind if kind in _XML_TYPES:
            return _from_plist(body)
        case "text/html":
            return _from_plist(_protocol_script(body))
        case "application/x-buddyml":
            return _from_buddyml(body)
        case other:
            raise MalformedMessage(
                "Content-Type", f"{RECORD_CONTENT_TYPE} or {BUDDYML_CONTENT_TYPE}", other
            )


def _from_plist(body: bytes) -> Answer:
    fields = plist.loads(body, "activation answer")
    if "ActivationRecord" in fields:
        return ActivationRecord.from_fields(required(fields, "ActivationRecord", dict))
    for name in _LEGACY_ROOTS:
        if name not in fields:
            continue
        root = required(fields, name, dict)
        if "activation-record" in root:
            where = f"{name}.activation-record."
            return ActivationRecord.from_fields(
                required(root, "activation-record", dict, f"{name}."), where
            )
        if not optional(root, "ack-received", bool, f"{name}."):
            raise MalformedMessage(f"{name}.ack-received", "true, or a record")
        return Acknowledgement(
            show_settings=optional(root, "show-settings", bool, f"{name}.") or False
        )
    raise MalformedMessage("activation answer", "ActivationRecord or iphone-activation")


def _protocol_script(page: bytes) -> bytes:
    """The plist inside `<script id="protocol">`."""
    start = _PROTOCOL_SCRIPT.search(page)
    end = page.find(b"</script", start.end()) if start else -1
    if start is None or end < 0:
        raise MalformedMessage("activation answer", 'a page with <script id="protocol">')
    return page[start.end() : end].strip()


def _from_buddyml(body: bytes) -> Answer:
    page = buddyml.decode(body)
    if page.error_title is not None:
        return ActivationRefused(title=page.error_title)
    if page.acknowledged:
        return Acknowledgement()
    return ActivationRefused(title=page.form.title, form=page.form)
