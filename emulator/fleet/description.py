"""One device in full, for people and programs: everything it knows, but no key, token or password."""

import dataclasses
import hashlib
from typing import Any

from cryptography import x509

from certs import names
from emulator.device.device import Device, Enrollment

SECRET_FIELDS = frozenset({"push_token", "push_magic", "unlock_token"})


def describe_fully(device: Device) -> dict[str, Any]:
    """Plain data for JSON."""
    hardware = device.hardware
    installed = device.installed_identity
    until = device.provisional_until
    facts = {
        field.name: getattr(hardware, field.name)
        for field in dataclasses.fields(hardware)
        if field.name != "model"
    }
    return {
        "hardware": {"product_type": hardware.model.product_type, **facts},
        "state": device.state.value,
        "failure": None if device.failure is None else dataclasses.asdict(device.failure),
        "name": device.name,
        "supervised": device.supervised,
        "locked": device.locked,
        "provisional_until": None if until is None else until.isoformat(),
        "activated": device.keychain.device is not None,
        "enrollment": None if device.enrollment is None else _enrollment(device.enrollment),
        "identity": None
        if installed is None
        else {"kind": installed.kind, **_certificate(installed.identity.certificate)},
        "profiles": [
            {
                "identifier": profile.identifier,
                "uuid": profile.uuid,
                "display_name": profile.display_name,
                "enrollment": profile.enrollment,
                "managed": profile.managed,
                "removal_disallowed": profile.removal_disallowed,
            }
            for profile in device.profiles.all()
        ],
        "certificates": [
            {"profile": item.profile_identifier, **_certificate(item.certificate)}
            for item in device.keychain.certificates.values()
        ],
        "apps": [dataclasses.asdict(app) for app in device.apps],
        "settings": dataclasses.asdict(device.settings),
        "unsent_result": None if device.outbox is None else device.outbox.command_uuid,
    }


def _enrollment(enrollment: Enrollment) -> dict[str, Any]:
    """Secrets show as length and a short hash."""
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(enrollment):
        value = getattr(enrollment, field.name)
        shown[field.name] = _hidden(value) if field.name in SECRET_FIELDS else value
    return shown


def _hidden(value: bytes | str | None) -> str | None:
    if value is None:
        return None
    data = value.encode() if isinstance(value, str) else value
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:8]}"


def _certificate(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": names.text(certificate.subject),
        "issuer": names.text(certificate.issuer),
        "serial_number": f"{certificate.serial_number:x}",
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }
