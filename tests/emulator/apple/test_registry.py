"""The registry: one record per serial number, found by UDID and key, and no device that takes another's place."""

from datetime import timedelta

import pytest

from certs.clock import SimulatedClock
from emulator.apple.claims import RegistryConflict, fingerprint
from emulator.apple.portal import Portal
from emulator.apple.records import HardwareFacts
from emulator.apple.registry import Registry, UnknownOwner

NOW = SimulatedClock().now()
PORTAL = Portal.parse("""
organizations:
  - name: A
    servers:
      - {name: S, profile: {url: https://mdm.example.com}}
""")


def facts(number: int, **changes: object) -> HardwareFacts:
    values: dict[str, object] = {
        "serial_number": f"SIM{number}",
        "udid": f"UDID-{number}",
        "product_type": "iPhone14,5",
        "factory_key": fingerprint(b"factory %d" % number),
        "attestation_key": fingerprint(b"attestation %d" % number),
    }
    return HardwareFacts(**{**values, **changes})  # type: ignore[arg-type]


def registry_with(*devices: HardwareFacts) -> Registry:
    registry = Registry()
    registry.check(devices)
    for device in devices:
        registry.provision(device)
    return registry


def conflicts_of(registry: Registry, *batch: HardwareFacts) -> list[str]:
    with pytest.raises(RegistryConflict) as refused:
        registry.check(batch)
    return refused.value.conflicts


def test_a_device_is_found_by_serial_udid_and_either_key() -> None:
    registry = registry_with(facts(1), facts(2))
    record = registry.get("SIM1")
    assert record is not None
    assert registry.by_udid("UDID-1") is record
    assert registry.by_key(b"factory 1") is record
    assert registry.by_key(b"attestation 1") is record
    assert registry.provisioned("SIM1", "UDID-1") is record
    assert registry.provisioned("SIM1", "UDID-2") is None
    assert registry.by_key(b"factory 9") is None
    assert registry.by_udid("UDID-9") is None


def test_the_same_device_again_is_no_conflict_and_renews_what_may_change() -> None:
    registry = registry_with(facts(1, os_version="17.0"))
    registry.check([facts(1, os_version="18.1")])
    record = registry.provision(facts(1, os_version="18.1"))
    assert record.hardware is not None
    assert record.hardware.os_version == "18.1"


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({"udid": "UDID-9"}, "SIM1: registered with UDID UDID-1, not UDID-9"),
        ({"factory_key": b"x"}, "SIM1: registered with another factory_public_key"),
        ({"attestation_key": b"x"}, "SIM1: registered with another attestation_public_key"),
    ],
)
def test_a_known_serial_with_other_identifiers_is_a_conflict(
    changes: dict[str, object], conflict: str
) -> None:
    assert conflicts_of(registry_with(facts(1)), facts(1, **changes)) == [conflict]


@pytest.mark.parametrize(
    ("key", "conflict"),
    [
        ("udid", "SIM2: UDID UDID-1 belongs to SIM1"),
        ("factory_key", "SIM2: factory_public_key belongs to SIM1"),
        ("attestation_key", "SIM2: attestation_public_key belongs to SIM1"),
    ],
)
def test_a_new_serial_with_anothers_identifiers_is_a_conflict(key: str, conflict: str) -> None:
    stolen = {key: getattr(facts(1), key)}
    assert conflicts_of(registry_with(facts(1)), facts(2, **stolen)) == [conflict]
    assert conflicts_of(Registry(), facts(1), facts(2, **stolen)) == [conflict]


def test_every_conflict_of_a_batch_is_listed() -> None:
    registry = registry_with(facts(1), facts(2))
    batch = facts(1, udid="UDID-3"), facts(4), facts(5, udid="UDID-2")
    assert conflicts_of(registry, *batch) == [
        "SIM1: registered with UDID UDID-1, not UDID-3",
        "SIM5: UDID UDID-2 belongs to SIM2",
    ]
    assert registry.get("SIM4") is None


def test_the_same_serial_twice_in_a_batch_must_be_the_same_device() -> None:
    Registry().check([facts(1), facts(1)])
    assert conflicts_of(Registry(), facts(1), facts(1, udid="UDID-9")) == [
        "SIM1: registered with UDID UDID-1, not UDID-9"
    ]


def test_a_removed_device_frees_its_identifiers_and_leaves_its_owner() -> None:
    registry = registry_with(facts(1), facts(2))
    PORTAL.apply(registry, NOW)
    registry.own(["SIM1"], "A", "S", NOW)
    assert registry.remove("SIM1")
    assert registry.remove("SIM2")
    assert not registry.remove("SIM2")
    owned = registry.get("SIM1")
    assert owned is not None
    assert owned.hardware is None
    assert owned.profile is not None
    assert registry.get("SIM2") is None
    registry.check([facts(3, udid="UDID-1", factory_key=facts(1).factory_key)])


def test_owning_needs_an_organization_and_server_of_the_portal() -> None:
    registry = Registry()
    PORTAL.apply(registry, NOW)
    with pytest.raises(UnknownOwner, match="no organization 'B' in the portal"):
        registry.own(["SIM1"], "B", None, NOW)
    with pytest.raises(UnknownOwner, match="no server 'T' in organization 'A'"):
        registry.own(["SIM1"], "A", "T", NOW)
    assert registry.records == {}


def test_only_devices_that_exist_are_devices() -> None:
    registry = registry_with(facts(1))
    PORTAL.apply(registry, NOW)
    registry.own(["SIM7"], "A", None, NOW)
    assert [record.serial_number for record in registry.devices()] == ["SIM1"]


def owned() -> Registry:
    registry = registry_with(facts(1))
    PORTAL.apply(registry, NOW)
    registry.own(["SIM1", "SIM2"], "A", "S", NOW)
    return registry


def test_a_released_device_has_no_owner_and_no_profile_but_stays_known() -> None:
    registry = owned()
    record = registry.get("SIM1")
    assert record is not None
    record.add_provisionally(NOW, from_activation=True)
    assert registry.release("SIM1", NOW)
    assert (record.organization, record.server, record.profile) == (None, None, None)
    assert (record.provisional_until, record.provisional_from_activation) == (None, False)
    assert registry.provisioned("SIM1", "UDID-1") is record
    assert not registry.release("SIM1", NOW)
    assert registry.release("SIM2", NOW)
    assert registry.get("SIM2") is None


@pytest.mark.ade(45)
@pytest.mark.parametrize("from_activation", [True, False])
def test_the_thirty_days_start_at_the_first_activation_or_at_once(from_activation: bool) -> None:
    record = owned().get("SIM1")
    assert record is not None
    assert record.add_provisionally(NOW, from_activation=from_activation) == NOW + timedelta(30)
    later = NOW + timedelta(days=9)
    record.activated(later)
    start = later if from_activation else NOW
    assert record.provisional_until == start + timedelta(days=30)
    record.activated(later + timedelta(days=9))  # erased and activated again: no new period
    assert record.provisional_until == start + timedelta(days=30)
