"""The fleet file: who the devices are, and every mistake at once."""

import re
from pathlib import Path

import pytest

from emulator import settings_file
from emulator.errors import ConfigurationError
from emulator.fleet import fleet as fleet_file
from emulator.fleet.fleet import FleetFile

MIXED = """
name: ward
seed: 7
groups:
  - count: 3
    model: [iPhone14,5, iPad13,18]
    os_version: ["17.5.1", "17.6.1"]
    organization: Hospital
    server: main
  - model: iPhone14,5
    os_version: "27.10"
    build: 24K100
    serials: [SIM0012345]
    organization: Hospital
  - count: 2
"""


def read(text: str) -> FleetFile:
    path = "fleet.yaml"
    return fleet_file.validate(settings_file.load(text, source=path), source=path)


def test_groups_become_devices_in_order_with_their_owners() -> None:
    plans = fleet_file.plan(read(MIXED))
    assert [p.position for p in plans] == list(range(6))
    assert [p.hardware.model.product_type for p in plans[:4]] == [
        "iPhone14,5",
        "iPad13,18",
        "iPhone14,5",
        "iPhone14,5",
    ]
    assert [p.hardware.os_version for p in plans[:4]] == ["17.5.1", "17.6.1", "17.5.1", "27.10"]
    assert [(p.organization, p.server) for p in plans] == [
        *[("Hospital", "main")] * 3,
        ("Hospital", None),
        (None, None),
        (None, None),
    ]
    assert plans[3].hardware.serial_number == "SIM0012345"
    assert plans[3].hardware.build == "24K100"


def test_the_same_file_gives_the_same_devices_and_another_seed_others() -> None:
    first = fleet_file.plan(read(MIXED))
    assert fleet_file.plan(read(MIXED)) == first
    other = fleet_file.plan(read(MIXED.replace("seed: 7", "seed: 8")))
    assert {p.hardware.udid for p in first}.isdisjoint(p.hardware.udid for p in other)


def test_three_mistakes_are_told_at_once() -> None:
    text = """
    seed: seven
    apple: {url: "https://127.0.0.1:1"}
    groups:
      - count: 0
        model: iPhone99,9
        colour: red
    """
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    places = [mistake.split(":")[0] for mistake in caught.value.mistakes]
    assert places == ["seed", "apple", "groups.0.count", "groups.0.model", "groups.0.colour"]


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ("server: main\n    organization: Hospital", None),
        ("server: main", "server needs an organization"),
        ("build: 1A1", "build needs one entry for each os_version"),
        ("count: 2\n    serials: [SIMA]", "1 serials for a count of 2"),
    ],
)
def test_what_does_not_fit_together_is_a_mistake(change: str, mistake: str | None) -> None:
    text = f"groups:\n  - {change}\n"
    if mistake is None:
        read(text)
        return
    with pytest.raises(ConfigurationError, match=mistake):
        read(text)


def test_a_system_that_the_model_never_had_is_a_mistake_named_by_its_group() -> None:
    text = "groups:\n  - {model: 'iPhone14,5', os_version: '12.0'}\n  - {os_version: '3.0'}\n"
    with pytest.raises(ConfigurationError) as caught:
        fleet_file.plan(read(text))
    assert caught.value.mistakes[0].startswith("groups.0: ")
    assert any(mistake.startswith("groups.1: ") for mistake in caught.value.mistakes)


def test_a_serial_number_given_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="SIMA is given twice"):
        read("groups:\n  - {serials: [SIMA]}\n  - {serials: [SIMA]}\n")


def test_paths_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("profile: enroll.mobileconfig\ngroups: [{}]\n")
    assert fleet_file.read(file).profile == tmp_path / "enroll.mobileconfig"


def test_a_fleet_survives_its_json(tmp_path: Path) -> None:
    fleet = read(MIXED)
    assert FleetFile.model_validate_json(fleet.model_dump_json()) == fleet


@pytest.mark.parametrize(
    ("written", "skew"), [("90", (90.0, 90.0)), (["-5", "300"], (-5.0, 300.0)), (0, (0.0, 0.0))]
)
def test_a_clock_skew_is_one_number_or_two(written: object, skew: tuple[float, float]) -> None:
    content = {"behaviour": {"clock_skew_s": written}, "groups": [{"count": 1}]}
    assert fleet_file.validate(content, source="test").behaviour.clock_skew_s == skew


@pytest.mark.parametrize("written", [["300", "-5"], "long", ["1"], "1e12", "nan"])
def test_a_clock_skew_that_makes_no_sense_is_a_mistake(written: object) -> None:
    content = {"behaviour": {"clock_skew_s": written}, "groups": [{"count": 1}]}
    with pytest.raises(ConfigurationError, match="behaviour.clock_skew_s"):
        fleet_file.validate(content, source="test")


def test_the_fleet_files_of_the_readme_are_fleet_files() -> None:
    readme = Path(__file__).resolve().parents[3] / "README.md"
    blocks = re.findall(r"```yaml\n(.*?)```", readme.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert fleet_file.plan(read(block))
