"""Who may have a certificate from `mdm-certs serve` by ACME: a YAML file of devices, or everybody who is attested.

- {identifier: one-time-code-1, serial_number: F2LXXXXXXX, udid: 00008110-001A34D90E38801E}
- {identifier: F2LYYYYYYY}
"""

from pathlib import Path
from typing import Any, Final

import yaml
from cryptography import x509

from certs.acme.device_attest import check_permanent_identifier
from certs.authorize import Grant, KnownDevices
from certs.errors import CertsError, MalformedMessage

KEYS: Final = ("identifier", "serial_number", "udid")
MAX_BYTES: Final = 16 * 1024 * 1024


class BadDevicesFile(CertsError):
    """Every mistake of a devices file at once."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class AnyAttestedDevice:
    """A DeviceAuthorizer that knows nobody: the identifier itself must be the attested serial number or UDID."""

    async def authorize(self, identifier: str) -> Grant:
        return Grant(reference=identifier)

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        pass


def read(path: Path) -> KnownDevices:
    """The devices of a file. Raises BadDevicesFile."""
    source = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadDevicesFile(source, [f"more than {MAX_BYTES} bytes"])
        # Every scalar as text: a serial number 0123456 stays one.
        content = yaml.load(path.read_bytes(), Loader=yaml.CBaseLoader)
    except OSError as error:
        raise BadDevicesFile(source, [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadDevicesFile(source, [f"is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(content, list) or not content:
        raise BadDevicesFile(source, ["must be a list of devices"])
    return KnownDevices(_grants(source, content))


def _grants(source: str, content: list[Any]) -> dict[str, Grant]:
    grants: dict[str, Grant] = {}
    mistakes: list[str] = []
    for number, entry in enumerate(content, start=1):
        wrong = _mistake(entry)
        if wrong is None and entry["identifier"] in grants:
            wrong = f"identifier {entry['identifier']} is given twice"
        if wrong is not None:
            mistakes.append(f"device {number}: {wrong}")
            continue
        grants[entry["identifier"]] = Grant(
            reference=entry["identifier"],
            serial_number=entry.get("serial_number"),
            udid=entry.get("udid"),
        )
    if mistakes:
        raise BadDevicesFile(source, mistakes)
    return grants


def _mistake(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return f"must have the keys {', '.join(KEYS)}"
    unknown = [str(key) for key in entry if key not in KEYS]
    if unknown:
        return f"unknown key {', '.join(unknown)}"
    if not all(isinstance(value, str) and value for value in entry.values()):
        return "every value must be a text"
    if "identifier" not in entry:
        return "identifier is missing"
    try:
        check_permanent_identifier(entry["identifier"])
    except MalformedMessage as error:
        return str(error)
    return None
