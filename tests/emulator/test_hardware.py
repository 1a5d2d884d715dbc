"""Devices from a seed, and the tables of models and releases behind them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.errors import ConfigurationError
from emulator.hardware import (
    SERIAL_PREFIX,
    Hardware,
    acme_capable,
    luhn_digit,
    model,
    models,
    os_name,
    printed_imei,
    release,
    releases,
    version_key,
    version_of_build,
)
from emulator.hardware.identifiers import permuted

PROTOCOL = Path(__file__).resolve().parents[3] / "shared" / "protocol"
needs_facts = pytest.mark.skipif(not PROTOCOL.is_dir(), reason="vectors are absent")


def facts(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((PROTOCOL / name).read_text())
    return found


# --- the tables


@needs_facts
def test_every_model_of_the_facts_is_in_the_table_with_every_value() -> None:
    rows = facts("models.json")
    assert [row["product_type"] for row in rows] == [m.product_type for m in models()]
    for row in rows:
        known = model(row["product_type"])
        assert known is not None
        for name in set(row) - {"evidence"}:
            value = getattr(known, name)
            assert (list(value) if isinstance(value, tuple) else value) == row[name], name


@needs_facts
def test_every_release_of_the_facts_is_in_the_table_with_every_value() -> None:
    rows = [{k: v for k, v in row.items() if k != "evidence"} for row in facts("os_releases.json")]
    assert rows == [
        {
            "os": r.os,
            "version": r.version,
            "build": r.build,
            "released": r.released.isoformat() if r.released else None,
            "families": list(r.families),
        }
        for r in releases()
    ]


def test_the_tables_reach_from_ios_11_to_the_newest() -> None:
    assert len(models()) == 134
    assert len(releases()) == 373
    assert (releases()[0].version, releases()[-1].version) == ("11.0", "27.0.1")


def test_a_release_is_found_by_family_and_version() -> None:
    assert (found := release("iPad", "16.4")) is not None
    assert (found.os, found.build) == ("iPadOS", "20E246")
    assert (found := release("iPhone", "16.4")) is not None
    assert (found.os, found.build) == ("iOS", "20E247")
    assert (found := release("iPad", "12.4")) is not None
    assert (found.os, found.build) == ("iOS", "16G77")
    assert release("iPad", "16.0") is None  # never public
    assert release("iPhone", "18") == release("iPhone", "18.0")
    assert model("iPhone99,1") is None


@pytest.mark.parametrize(
    ("family", "version", "name"),
    [
        ("iPad", "12.5.7", "iOS"),
        ("iPad", "13.0", "iPadOS"),
        ("iPad", "26.0", "iPadOS"),
        ("iPhone", "13.0", "iOS"),
        ("iPhone", "27.0", "iOS"),
    ],
)
def test_ipads_run_ipados_from_13_on(family: str, version: str, name: str) -> None:
    assert os_name(family, version) == name


@pytest.mark.parametrize(
    ("smaller", "larger"), [("9.3", "11.0"), ("17.2", "17.10"), ("17.2", "17.2.1"), ("", "1")]
)
def test_versions_compare_as_numbers(smaller: str, larger: str) -> None:
    assert version_key(smaller) < version_key(larger)


def test_trailing_zeros_and_suffixes_make_no_difference() -> None:
    assert version_key("16") == version_key("16.0") == version_key("16.0.0") == (16,)
    assert version_key("17.1 (a)") == (17, 1)
    assert version_key("beta") == ()


@given(st.text(max_size=50))
def test_any_text_has_a_version_key(text: str) -> None:
    assert all(number >= 0 for number in version_key(text))


# --- builds


def test_every_listed_build_has_its_listed_version() -> None:
    for row in releases():
        for family in row.families:
            assert version_of_build(row.build, f"{family}99,1") == row.version


@pytest.mark.parametrize(
    ("build", "version"),
    [
        ("20A5283p", "16.0"),  # a beta: the first version of its train
        ("20B79", "16.1"),
        ("21A350", "17.0"),  # 17.0.2 for iPhone 15 alone
        ("17H100", "13.7"),
        ("22H999", "18.7"),
        ("24B77", "27.1"),  # a train beyond the table
        ("24D1", "27.3"),
        ("25A100", "28.0"),
        ("14A403", "10.0"),  # and before it
    ],
)
def test_an_unlisted_build_gets_the_version_of_its_train(build: str, version: str) -> None:
    assert version_of_build(build, "iPhone10,1") == version
    assert version_of_build(build, "iPad8,1") == version


@pytest.mark.parametrize("text", ["", "16.0", "A20", "20a1", "20A", "20A1pp", "20A1\n", "２０A1"])
def test_what_is_no_build_has_no_version(text: str) -> None:
    assert version_of_build(text, "iPhone10,1") is None


# --- who gets ACME (design: iOS 16.0, iPadOS 16.1, A11)


@pytest.mark.parametrize(
    ("product_type", "os_version", "build", "capable"),
    [
        ("iPhone10,1", None, "20A362", True),  # A11, iOS 16.0
        ("iPhone10,1", None, "19H422", False),  # 15.8.8
        ("iPhone9,1", None, "20A362", False),  # A10
        ("iPad7,5", "17.7.11", "21H461", False),  # A10 on iPadOS 17
        ("iPad8,1", None, "20B82", True),  # A12X, iPadOS 16.1
        ("iPad8,1", None, "20A5349b", False),  # iPadOS 16.0, never public
        ("iPad8,1", "16.0", "20A362", False),
        ("iPad8,1", None, "19H422", False),
        ("iPhone10,1", None, "20A5283p", True),
        ("iPhone99,1", None, "20A362", True),  # unknown: newer than the table
        ("iPhone99,1", None, "19H422", False),
        ("iPad99,1", None, "20A362", False),
        ("iPad99,1", "28.0", "25A1", True),
        ("iPod9,1", None, "20A362", True),
        ("iPhone12,1", "17.0", "nonsense", True),  # from 17.0 on the device tells its version
        ("iPhone12,1", None, "nonsense", False),
        ("iPhone12,1", "nonsense", "20A362", False),
    ],
)
def test_attested_acme_needs_system_and_chip(
    product_type: str, os_version: str | None, build: str, capable: bool
) -> None:
    assert acme_capable(product_type, os_version=os_version, build=build) is capable


def test_no_model_attests_below_16_and_all_with_a11_do_from_16_1_on() -> None:
    for known in models():
        pt = known.product_type
        assert not acme_capable(pt, os_version="15.8.8", build="19H422")
        assert acme_capable(pt, os_version="16.1", build="20B82") is known.attests


# --- devices


seeds = st.integers(min_value=0, max_value=2**63)
indexes = st.integers(min_value=0, max_value=10**6)


@given(seeds, indexes)
def test_the_same_seed_and_index_give_the_same_device(seed: int, index: int) -> None:
    assert Hardware.from_seed(seed, index) == Hardware.from_seed(seed, index)


def test_a_known_seed_gives_a_known_device() -> None:
    """Fleets of earlier versions must come back as they were: change this only on purpose."""
    device = Hardware.from_seed(7)
    assert device.to_fields() == {
        "product_type": "iPad8,3",
        "os_version": "26.4.2",
        "build": "23E261",
        "os_name": "iPadOS",
        "serial_number": "SIMZT7NDVASH",
        "udid": "00008027-0007C1FDAB2D4C3E",
        "ecid": 0x7C1FDAB2D4C3E,
        "imei": "356454209142073",
        "imei2": None,
        "meid": "35645420914207",
        "iccid": "8999936343771656228",
        "eid": "89999000739568639331538614561348",
        "phone_number": "+13035550191",
        "wifi_mac": "02:36:d0:10:be:60",
        "bluetooth_mac": "02:36:d0:10:be:61",
        "ethernet_mac": "02:36:d0:10:be:62",
        "storage_gb": 64,
        "model_number": "MU0X2",
        "region_info": "LL/A",
        "regulatory_model": "A1979",
        "device_class": "iPad",
    }


@given(seeds, indexes)
def test_a_snapshot_brings_the_device_back(seed: int, index: int) -> None:
    device = Hardware.from_seed(seed, index)
    assert Hardware.from_fields(device.to_fields()) == device


def test_a_snapshot_of_an_unknown_model_or_without_a_field_is_malformed() -> None:
    fields = Hardware.from_seed(1).to_fields()
    with pytest.raises(MalformedMessage, match="hardware.product_type"):
        Hardware.from_fields({**fields, "product_type": "iPhone99,1"})
    del fields["udid"]
    with pytest.raises(MalformedMessage, match="hardware.udid"):
        Hardware.from_fields(fields)


@settings(max_examples=300)
@given(seeds, indexes)
def test_a_device_is_one_that_could_exist(seed: int, index: int) -> None:
    device = Hardware.from_seed(seed, index)
    known = device.model
    listed = release(known.family, device.os_version)
    assert listed is not None
    assert listed.build == device.build
    assert known.supports(device.os_version)
    assert version_key(device.os_version) >= (11,)
    assert device.os_name == listed.os
    assert device.device_class == known.family
    assert device.storage_gb in known.storage_gb
    assert device.regulatory_model in known.regulatory
    assert device.model_number in known.model_numbers or not known.model_numbers
    assert device.full_model_number == device.model_number + "LL/A"
    assert device.attests is acme_capable(known.product_type, os_version=None, build=device.build)


@settings(max_examples=300)
@given(seeds, indexes)
def test_the_numbers_of_a_device_have_their_shapes(seed: int, index: int) -> None:
    device = Hardware.from_seed(seed, index)
    modern = version_key(device.model.min_os) >= (14, 5)
    assert re.fullmatch(r"SIM[0-9A-HJ-NP-Z]+", device.serial_number)
    assert len(device.serial_number) == (10 if modern else 12)
    if device.model.udid_style == "8-16":
        chip = device.model.chip_id.upper()
        assert device.udid == f"0000{chip}-{device.ecid:016X}"
        assert len(device.udid) == 25
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", device.udid)
    macs = [
        int(a.replace(":", ""), 16)
        for a in (device.wifi_mac, device.bluetooth_mac, device.ethernet_mac)
    ]
    assert macs == [macs[0], macs[0] + 1, macs[0] + 2]
    assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", device.wifi_mac)
    assert macs[0] >> 40 & 0b11 == 0b10  # locally administered, one station


@settings(max_examples=300)
@given(seeds, indexes)
def test_cellular_numbers_follow_the_model(seed: int, index: int) -> None:
    device = Hardware.from_seed(seed, index)
    cellular = [device.imei, device.iccid, device.phone_number]
    assert all(cellular) if device.model.cellular else not any(cellular)
    assert (device.eid is not None) is device.model.esim
    assert (device.imei2 is not None) is (device.model.esim and device.device_class == "iPhone")
    for imei in filter(None, (device.imei, device.imei2)):
        assert re.fullmatch(r"35[0-9]{13}", imei)
        assert luhn_total(imei) % 10 == 0
    if device.iccid:
        assert re.fullmatch(r"89[0-9]{17}", device.iccid)
        assert luhn_total(device.iccid) % 10 == 0
    if device.eid:
        assert re.fullmatch(r"89[0-9]{30}", device.eid)
        assert int(device.eid) % 97 == 1
    if device.meid:
        assert re.fullmatch(r"[0-9A-F]{14}", device.meid)
    if device.phone_number:
        assert re.fullmatch(r"\+1[2-9][0-9]{2}55501[0-9]{2}", device.phone_number)


def luhn_total(digits: str) -> int:
    """ISO/IEC 7812-1, annex B, written out: every second digit from the right counts twice, digit by digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 else 1)
        total += sum(int(d) for d in str(number))
    return total


@pytest.mark.parametrize(
    ("digits", "check"), [("49015420323751", "8"), ("7992739871", "3"), ("0", "0"), ("", "0")]
)
def test_luhn_digits_are_those_of_published_examples(digits: str, check: str) -> None:
    assert luhn_digit(digits) == check


def test_models_with_and_without_a_meid() -> None:
    assert Hardware.from_seed(1, product_type="iPhone9,1").meid is not None
    assert Hardware.from_seed(1, product_type="iPhone9,3").meid is None  # GSM only
    assert Hardware.from_seed(1, product_type="iPhone17,1").meid is None
    assert Hardware.from_seed(1, product_type="iPad7,5").meid is None  # no modem


def test_an_imei_is_printed_in_groups() -> None:
    assert printed_imei("353918051234561") == "35 391805 123456 1"
    phone = Hardware.from_seed(1, product_type="iPhone14,5")
    assert phone.imei is not None
    assert phone.printed_imei == printed_imei(phone.imei)
    assert Hardware.from_seed(1, product_type="iPad12,1").printed_imei is None


@given(seeds, st.integers(min_value=2, max_value=500))
def test_identifiers_are_permutations_of_the_index(seed: int, size: int) -> None:
    assert {permuted(n, size, seed=seed, what="x") for n in range(size)} == set(range(size))


def test_no_two_devices_of_a_large_fleet_share_a_number() -> None:
    """Twenty thousand of one old and one new model; random numbers of this size would already collide."""
    for product_type in ("iPhone10,1", "iPhone14,5"):
        fleet = [Hardware.from_seed(7, n, product_type=product_type) for n in range(20_000)]
        for name in ("serial_number", "udid", "ecid", "imei", "iccid", "wifi_mac"):
            assert len({getattr(device, name) for device in fleet}) == len(fleet), name
        assert len({d.imei for d in fleet} | {d.imei2 for d in fleet if d.imei2}) == len(fleet) * (
            2 if fleet[0].imei2 else 1
        )


def test_different_seeds_are_different_fleets() -> None:
    one = {Hardware.from_seed(1, n).serial_number for n in range(1000)}
    two = {Hardware.from_seed(2, n).serial_number for n in range(1000)}
    assert len(one | two) == 2000


def test_a_fleet_mixes_families_chips_and_systems() -> None:
    fleet = [Hardware.from_seed(3, n) for n in range(300)]
    assert {d.device_class for d in fleet} == {"iPhone", "iPad"}
    assert {d.attests for d in fleet} == {True, False}
    assert {int(d.os_version.split(".")[0]) for d in fleet} >= {12, 13, 14, 15, 16, 17, 18, 26, 27}
    assert len({d.model for d in fleet}) > 60


# --- what a fleet file may say


def test_what_is_named_leaves_the_other_numbers_as_they_were() -> None:
    free = Hardware.from_seed(5, 3)
    named = Hardware.from_seed(5, 3, product_type="iPhone14,5", os_version="17.5.1")
    assert (named.model.product_type, named.os_version, named.build) == (
        "iPhone14,5",
        "17.5.1",
        "21F90",
    )
    assert (named.wifi_mac, named.ecid) == (free.wifi_mac, free.ecid)


def test_a_serial_number_of_ones_own_is_taken_and_hashed_into_an_old_udid() -> None:
    one = Hardware.from_seed(5, product_type="iPhone9,1", serial_number="0123456789")
    two = Hardware.from_seed(5, product_type="iPhone9,1")
    assert one.serial_number == "0123456789"
    assert two.serial_number.startswith(SERIAL_PREFIX)
    assert one.udid != two.udid


@given(seeds, st.sampled_from([m.product_type for m in models() if m.product_type != "iPhone19,4"]))
def test_every_model_can_be_asked_for(seed: int, product_type: str) -> None:
    assert Hardware.from_seed(seed, product_type=product_type).model.product_type == product_type


@given(seeds, st.sampled_from(sorted({r.version for r in releases()})))
def test_every_version_can_be_asked_for_without_a_model(seed: int, version: str) -> None:
    device = Hardware.from_seed(seed, os_version=version)
    assert device.os_version == version
    assert device.model.supports(version)


def test_a_build_alone_tells_the_version() -> None:
    device = Hardware.from_seed(1, product_type="iPad8,1", build="20E246")
    assert (device.os_version, device.build) == ("16.4", "20E246")
    anywhere = Hardware.from_seed(1, build="20E246")
    assert anywhere.device_class == "iPad"


def test_a_pair_that_no_table_has_is_taken_as_it_is() -> None:
    """iPadOS 16.0 was never public (rule 9); 17.10 does not exist."""
    never_public = Hardware.from_seed(
        1, product_type="iPad13,18", os_version="16.0", build="20A362"
    )
    assert (never_public.os_version, never_public.build) == ("16.0", "20A362")
    assert never_public.attests is False
    future = Hardware.from_seed(1, os_version="17.10", build="21K5")
    assert (future.os_version, future.build) == ("17.10", "21K5")
    duo = Hardware.from_seed(1, product_type="iPhone19,4", os_version="27.1", build="24B77")
    assert (duo.model.name, duo.os_version) == ("iPhone Duo", "27.1")
    beta = Hardware.from_seed(1, product_type="iPhone14,5", os_version="18.1", build="22B5007p")
    assert beta.build == "22B5007p"


def test_old_trains_go_only_to_devices_that_could_not_move_on() -> None:
    for seed in range(200):
        assert version_key(Hardware.from_seed(seed, product_type="iPhone12,1").os_version) not in {
            version_key(v) for v in ("15.8", "16.7.5", "18.7.5")
        }
    eight = {Hardware.from_seed(s, product_type="iPhone10,1").os_version for s in range(300)}
    assert "16.7.16" in eight
    assert "15.8.8" not in eight


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown model": (
        {"product_type": "iPhone14,55"},
        [
            "product_type: 'iPhone14,55' is not known; closest known: iPhone14,5, iPhone18,5, iPhone17,5"
        ],
    ),
    "a version without a known build": (
        {"os_version": "17.10"},
        [
            "os_version: no build of iOS 17.10 is known: give `build` too"
            " (closest known: 17.7.1, 17.7.2, 18.0, 18.0.1)"
        ],
    ),
    "a version that iPads never got": (
        {"product_type": "iPad13,18", "os_version": "16.0"},
        [
            "os_version: no build of iPadOS 16.0 is known: give `build` too"
            " (closest known: 15.8.7, 15.8.8, 16.1, 16.1.1)"
        ],
    ),
    "a version too new for the model": (
        {"product_type": "iPhone8,1", "os_version": "26.0"},
        [
            "os_version: iPhone 6s runs 9.0 to 15.8.8, not 26.0"
            " (give `os_version` and `build` to insist)"
        ],
    ),
    "a version too old for the model": (
        {"product_type": "iPhone17,1", "os_version": "17.0"},
        [
            "os_version: iPhone 16 Pro runs 18.0 on, not 17.0"
            " (give `os_version` and `build` to insist)"
        ],
    ),
    "an unknown build": (
        {"product_type": "iPhone14,5", "build": "22B84"},
        [
            "build: 22B84 is not known: give `os_version` too (closest known: 22A3370, 22B83, 22B91, 22C152)"
        ],
    ),
    "a build of another version": (
        {"product_type": "iPhone14,5", "os_version": "17.0", "build": "22B83"},
        ["build: 22B83 belongs to 18.1, but os_version is 17.0"],
    ),
    "a build of another major version": (
        {"product_type": "iPhone14,5", "os_version": "17.0", "build": "20A999"},
        ["build: 20A999 belongs to 16.0, but os_version is 17.0"],
    ),
    "a model without a release": (
        {"product_type": "iPhone19,4"},
        ["os_version: no release for iPhone Duo is known: give `os_version` and `build`"],
    ),
    "everything at once": (
        {"product_type": "x", "os_version": "9.3", "build": "9", "serial_number": "short"},
        [
            "serial_number: expected 8 to 14 upper-case letters and digits, got 'short'",
            "product_type: 'x' is not known; closest known: iPhone8,1",
            "os_version: 11.0 is the oldest, got 9.3",
            "build: expected a build such as 22B83, got '9'",
        ],
    ),
    "no version at all": (
        {"os_version": "latest"},
        ["os_version: expected numbers such as 17.6.1, got 'latest'"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_field_and_the_closest_known_values(name: str) -> None:
    wanted, mistakes = MISTAKES[name]
    with pytest.raises(ConfigurationError) as caught:
        Hardware.from_seed(1, **wanted)
    assert caught.value.mistakes == mistakes


def test_a_device_can_move_to_another_system() -> None:
    device = Hardware.from_seed(1, product_type="iPad7,5", os_version="12.0")
    assert device.os_name == "iOS"
    updated = device.updated("17.7.11", "21H461")
    assert (updated.os_name, updated.os_version, updated.build) == ("iPadOS", "17.7.11", "21H461")
    assert updated.udid == device.udid
