"""Who may have a certificate from `mdm-certs serve` by ACME: a YAML file of devices, or everybody who is attested.

- {identifier: one-time-code-1, serial_number: F2LXXXXXXX, udid: 00008110-001A34D90E38801E}
- {identifier: F2LYYYYYYY}
"""

from pathlib import Path
from typing import Final

from cryptography import x509

from certs.acme.device_attest import check_permanent_identifier
from certs.authorize import Grant, KnownDevices
from certs.entries_file import Entry, read_entries
from certs.errors import MalformedMessage

KEYS: Final = ("identifier", "serial_number", "udid")


class AnyAttestedDevice:
    """A DeviceAuthorizer that knows nobody: the identifier itself must be the attested serial number or UDID."""

    async def authorize(self, identifier: str) -> Grant:
        return Grant(reference=identifier)

    async def issued(self, grant: Grant, certificate: x509.Certificate) -> None:
        pass


def read(path: Path) -> KnownDevices:
    """The devices of a file. Raises BadEntriesFile."""
    entries = read_entries(path, what="device", keys=KEYS, mistake=_mistake)
    return KnownDevices(
        {
            entry["identifier"]: Grant(
                reference=entry["identifier"],
                serial_number=entry.get("serial_number"),
                udid=entry.get("udid"),
            )
            for entry in entries
        }
    )


def _mistake(entry: Entry) -> str | None:
    try:
        check_permanent_identifier(entry["identifier"])
    except MalformedMessage as error:
        return str(error)
    return None
