"""DeviceInformation: every query of the table, with its rights, releases and conditions (mdm.md 5.1)."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from certs import attestation as certs_attestation
from certs.clock import SimulatedClock
from emulator.device.commands.information import ATTESTATION, VALUES, query_responses
from emulator.device.commands.queries import queries
from emulator.device.device import Device
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.wire import plist
from tests.emulator.device.managed import answer, chain, managed_device
from tests.emulator.device.world import CLOCK, apple_services, pki, surroundings
from tests.support import VECTORS, needs_vectors

TYPES = {
    "UDID": str,
    "BatteryLevel": float,
    "DeviceCapacity": float,
    "AvailableDeviceCapacity": float,
    "CellularTechnology": int,
    "IsSupervised": bool,
    "ServiceSubscriptions": list,
    "OrganizationInfo": dict,
}
ALL = tuple(queries())
NO_VALUE = {  # nothing to say on a device without backup, account or rapid response
    "LastCloudBackupDate",
    "iTunesStoreAccountHash",
    "SupplementalOSVersionExtra",
}


def _answered(device: Device) -> set[str]:
    return set(query_responses(device, ALL))


def test_every_query_of_the_table_has_an_answer_or_a_reason_for_none() -> None:
    table = queries()
    assert len(table) == 68
    without = {
        name
        for name, row in table.items()
        if row.shared_ipad_only or row.user_channel_only or name == ATTESTATION
    }
    assert set(VALUES) == set(table) - without


def test_a_supervised_iphone_with_all_rights_answers_everything_of_its_release() -> None:
    device = managed_device()
    expected = {
        name
        for name, row in queries().items()
        if device.runs(row.introduced)
        and not (row.removed and device.runs(row.removed))
        and not row.shared_ipad_only
        and not row.user_channel_only
    }
    missing_meid = {"MEID"} if device.hardware.meid is None else set()
    assert _answered(device) == expected - NO_VALUE - {ATTESTATION} - missing_meid


@pytest.mark.parametrize(
    ("right", "lost"),
    [
        (16, {"DeviceName", "OSVersion", "SerialNumber", "IsSupervised", "IMEI", "TimeZone"}),
        (32, {"WiFiMAC", "BluetoothMAC", "ICCID", "ServiceSubscriptions", "IsRoaming"}),
        (4096, {"iTunesStoreAccountIsActive"}),
    ],
)
def test_what_a_right_allows_is_left_out_without_it(right: int, lost: set[str]) -> None:
    every, fewer = managed_device(), managed_device(rights=8191 & ~right)
    gone = _answered(every) - _answered(fewer)
    assert lost <= gone
    assert gone == {name for name in _answered(every) if queries()[name].access_right == right}
    assert "UDID" in _answered(fewer)


def test_only_a_supervised_device_tells_its_accessibility_settings() -> None:
    assert "AccessibilitySettings" in _answered(managed_device())
    assert "AccessibilitySettings" not in _answered(managed_device(supervised=False))


@pytest.mark.parametrize(
    ("os_version", "present", "absent"),
    [
        ("13.5.1", {"IMEI", "ICCID", "ServiceSubscriptions"}, {"TimeZone", "ModelNumber"}),
        ("16.1", {"SupplementalBuildVersion", "IMEI"}, {"ModelNumber"}),
        ("18.1", {"ModelNumber", "SoftwareUpdateDeviceID", "IMEI"}, set()),
        ("26.0", {"SoftwareUpdateSettings"}, {"IMEI", "MEID", "PhoneNumber", "IsRoaming"}),
        ("27.0", {"ServiceSubscriptions"}, {"SoftwareUpdateDeviceID", "SoftwareUpdateSettings"}),
    ],
)
def test_queries_come_and_go_with_the_release(
    os_version: str, present: set[str], absent: set[str]
) -> None:
    device = managed_device()
    device.hardware = replace(device.hardware, os_version=os_version)
    answered = _answered(device)
    assert present <= answered
    assert not absent & answered


async def test_unknown_queries_are_left_out_and_the_command_is_acknowledged() -> None:
    outcome = await answer(
        managed_device(), "DeviceInformation", Queries=["UDID", "FavouriteColour", "QuotaSize"]
    )
    assert set(outcome.fields["QueryResponses"]) == {"UDID"}


async def test_without_queries_the_device_answers_the_ones_of_its_setting() -> None:
    device = managed_device()
    plain = await answer(device, "DeviceInformation")
    assert set(plain.fields["QueryResponses"]) == {"DeviceName", "SerialNumber", "UDID"}
    behaviour = Behaviour(default_queries=())
    none = await answer(device, "DeviceInformation", surroundings(behaviour=behaviour))
    assert none.fields == {"QueryResponses": {}}


def test_the_values_are_those_of_the_hardware() -> None:
    device = managed_device()
    device.name = "Ward 3"
    hardware, values = device.hardware, query_responses(device, ALL)
    assert values["DeviceName"] == "Ward 3"
    assert values["IMEI"].replace(" ", "") == hardware.imei
    assert [len(part) for part in values["IMEI"].split(" ")] == [2, 6, 6, 1]
    assert values["ModelNumber"] == values["Model"] + hardware.region_info
    assert values["BuildVersion"] == values["SupplementalBuildVersion"] == hardware.build
    assert values["DeviceCapacity"] == float(hardware.storage_gb)
    assert 0 < values["AvailableDeviceCapacity"] < values["DeviceCapacity"]
    assert 0 <= values["BatteryLevel"] <= 1
    for name, kind in TYPES.items():
        assert type(values[name]) is kind
    assert query_responses(device, ALL) == values  # and they do not wander
    first, second = values["ServiceSubscriptions"]
    assert (first["Slot"], second["Slot"]) == ("CTSubscriptionSlotOne", "CTSubscriptionSlotTwo")
    assert first["IMEI"] != second["IMEI"]
    assert first["EID"] == hardware.eid
    assert plist.loads(plist.dumps(values)) == values


@pytest.mark.parametrize("state", [State.AWAITING_CONFIGURATION, State.ENROLLED])
def test_a_device_says_whether_it_waits_for_configuration(state: State) -> None:
    device = managed_device()
    device.state = state
    awaiting = query_responses(device, ["AwaitingConfiguration"])["AwaitingConfiguration"]
    assert awaiting is (state is State.AWAITING_CONFIGURATION)


@needs_vectors
def test_a_wifi_ipad_answers_the_keys_of_the_captured_one() -> None:
    captured = set(
        [
            "AvailableDeviceCapacity",
            "BluetoothMAC",
            "BuildVersion",
            "DataRoamingEnabled",
            "DeviceCapacity",
            "DeviceName",
            "IsRoaming",
            "Model",
            "ModelName",
            "OSVersion",
            "ProductName",
            "SerialNumber",
            "SubscriberMCC",
            "SubscriberMNC",
            "UDID",
            "VoiceRoamingEnabled",
            "WiFiMAC",
        ]
    )
    assert (VECTORS / "responses").is_dir()
    device = managed_device(
        supervised=False, hardware={"product_type": "iPad6,11", "os_version": "12.1"}
    )
    asked = (
        *captured,
        "IMEI",
        "MEID",
        "ICCID",
        "PhoneNumber",
        "CurrentMCC",
        "ServiceSubscriptions",
    )
    values = query_responses(device, asked)
    assert set(values) == captured
    assert values["SubscriberMCC"] == ""
    assert values["DeviceCapacity"] != round(values["DeviceCapacity"])


# --- DevicePropertiesAttestation


def _leaf(chain_: list[bytes]) -> certs_attestation.Attestation:
    return certs_attestation.verify(chain_, [pki().attestation.root], at=CLOCK.now())


async def _attestation(device: Device, around: Any, **fields: Any) -> list[bytes] | None:
    outcome = await answer(
        device, "DeviceInformation", around, Queries=["UDID", ATTESTATION], **fields
    )
    assert outcome.status.value == "Acknowledged"
    assert "UDID" in outcome.fields["QueryResponses"]
    found: list[bytes] | None = outcome.fields["QueryResponses"].get(ATTESTATION)
    return found


async def test_an_attestation_proves_the_device_and_carries_the_nonce() -> None:
    device = managed_device()
    async with apple_services(device) as apple:
        made = await _attestation(
            device, surroundings(apple=apple), DeviceAttestationNonce=bytes(range(32))
        )
    assert made is not None
    assert len(made) == 2
    proved = _leaf(made)
    assert (proved.serial_number, proved.udid) == (
        device.hardware.serial_number,
        device.hardware.udid,
    )
    assert proved.freshness == bytes(range(32))


async def test_the_last_attestation_is_repeated_until_a_new_nonce_after_seven_days() -> None:
    device, clock = managed_device(), SimulatedClock(CLOCK.now())
    async with apple_services(device) as apple:
        around = surroundings(apple=apple, clock=clock)
        first = await _attestation(device, around, DeviceAttestationNonce=b"one")
        assert await _attestation(device, around) == first
        assert await _attestation(device, around, DeviceAttestationNonce=b"one") == first
        assert await _attestation(device, around, DeviceAttestationNonce=b"two") == first
        clock._now += timedelta(days=7)
        assert await _attestation(device, around) == first
        assert await _attestation(device, around, DeviceAttestationNonce=b"one") == first
        second = await _attestation(device, around, DeviceAttestationNonce=b"two")
    assert second is not None
    assert second != first
    assert _leaf(second).freshness == b"two"


async def test_the_hash_of_the_nonce_is_a_setting() -> None:
    device = managed_device()
    async with apple_services(device) as apple:
        around = surroundings(apple=apple, behaviour=Behaviour(attestation_hashes_nonce=True))
        made = await _attestation(device, around, DeviceAttestationNonce=b"nonce")
    assert made is not None
    assert _leaf(made).freshness == hashlib.sha256(b"nonce").digest()


async def test_an_older_chip_ignores_query_and_nonce() -> None:
    device = managed_device(hardware={"product_type": "iPad7,11", "os_version": "17.5.1"})
    assert not device.hardware.attests
    assert await _attestation(device, surroundings(), DeviceAttestationNonce=b"one") is None


async def test_without_an_attestation_service_the_key_is_left_out() -> None:
    assert await _attestation(managed_device(), surroundings()) is None


async def test_a_nonce_over_32_bytes_is_refused() -> None:
    outcome = await answer(
        managed_device(),
        "DeviceInformation",
        Queries=[ATTESTATION],
        DeviceAttestationNonce=bytes(33),
    )
    assert [entry[1] for entry in chain(outcome)] == [12008]


async def test_the_certificates_are_der_leaf_first() -> None:
    device = managed_device()
    async with apple_services(device) as apple:
        made = await _attestation(device, surroundings(apple=apple))
    assert made is not None
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in made)
    assert leaf.issuer == issuer.subject
    assert issuer == pki().attestation.sub_ca
