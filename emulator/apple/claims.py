"""Who owns a UDID or a key: no device takes another's place, neither in the registry nor within a batch."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from emulator.apple.records import DeviceRecord, HardwareFacts
from emulator.errors import EmulatorError

K = TypeVar("K", str, bytes)


class RegistryConflict(EmulatorError):
    """Registered identifiers or keys of one device came again with another device's; lists every one of them."""

    def __init__(self, conflicts: list[str]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(conflicts))


def find_conflicts(
    records: Mapping[str, DeviceRecord],
    serials_by_udid: Mapping[str, str],
    serials_by_key: Mapping[bytes, str],
    batch: Iterable[HardwareFacts],
) -> list[str]:
    """Everything in `batch` that belongs to another device already."""
    conflicts: list[str] = []
    udids, keys = _Claims(serials_by_udid), _Claims(serials_by_key)
    seen: dict[str, HardwareFacts] = {}
    for facts in batch:
        record = records.get(facts.serial_number)
        known = seen.get(facts.serial_number) or (record.hardware if record else None)
        conflicts += _differences(known, facts)
        seen[facts.serial_number] = facts
        owners = {
            f"UDID {facts.udid}": udids.claim(facts.udid, facts.serial_number),
            "factory_public_key": keys.claim(facts.factory_key, facts.serial_number),
            "attestation_public_key": keys.claim(facts.attestation_key, facts.serial_number),
        }
        conflicts += [
            f"{facts.serial_number}: {what} belongs to {owner}"
            for what, owner in owners.items()
            if owner is not None
        ]
    return conflicts


class _Claims(Generic[K]):
    """Who owns a UDID or key, in the registry and then in the batch that is being checked."""

    def __init__(self, registered: Mapping[K, str]) -> None:
        self._registered: Mapping[K, str] = registered
        self._batch: dict[K, str] = {}

    def claim(self, key: K, serial_number: str) -> str | None:
        """Note the claim; the owner when that is another device."""
        owner = self._registered.get(key) or self._batch.setdefault(key, serial_number)
        return None if owner == serial_number else owner


def _differences(known: HardwareFacts | None, facts: HardwareFacts) -> list[str]:
    """What makes `facts` another device than the one known under its serial number."""
    if known is None:
        return []
    serial = facts.serial_number
    found = []
    if known.udid != facts.udid:
        found.append(f"{serial}: registered with UDID {known.udid}, not {facts.udid}")
    if known.factory_key != facts.factory_key:
        found.append(f"{serial}: registered with another factory_public_key")
    if known.attestation_key != facts.attestation_key:
        found.append(f"{serial}: registered with another attestation_public_key")
    return found


def fingerprint(spki: bytes) -> bytes:
    """By which the registry knows a key."""
    return hashlib.sha256(spki).digest()
