"""Files that a person writes."""

from pathlib import Path

import pytest
from pydantic import Field

from emulator import settings_file
from emulator.errors import ConfigurationError


class Sample(settings_file.FileModel):
    serial: str = "none"
    os_version: str = "17.0"
    count: int = Field(default=1, ge=1)
    locked: bool = True


def test_scalars_that_yaml_would_spoil_survive() -> None:
    sample = settings_file.parse(
        "serial: 0123456\nos_version: 17.10\ncount: 3\nlocked: no\n", Sample, source="f"
    )
    assert (sample.serial, sample.os_version, sample.count, sample.locked) == (
        "0123456",
        "17.10",
        3,
        False,
    )


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_file.parse("count: five\nlocked: maybe\nbogus: 1\n", Sample, source="fleet.yaml")
    assert str(caught.value).startswith("fleet.yaml: 3 mistakes\n")
    assert [line.split(":")[0] for line in caught.value.mistakes] == ["count", "locked", "bogus"]


@pytest.mark.parametrize(
    ("text", "reason"), [("a: [", "is not YAML"), ("- 1", "top level"), ("[" * 3000, "is not YAML")]
)
def test_what_is_no_mapping_gets_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        settings_file.parse(text, Sample, source="f")


def test_an_empty_file_means_the_defaults() -> None:
    assert settings_file.parse("", Sample, source="f") == Sample()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        settings_file.read(tmp_path / "none.yaml", Sample)
