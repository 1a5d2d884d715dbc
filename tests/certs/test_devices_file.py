"""The devices file of `mdm-certs serve`: who may order, and every mistake at once."""

from pathlib import Path

import pytest

from certs.authorize import Grant
from certs.devices_file import AnyAttestedDevice, read
from certs.entries_file import BadEntriesFile
from certs.errors import ChallengeRefused


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    return path


async def test_a_device_is_known_by_its_identifier(tmp_path: Path) -> None:
    known = read(
        written(
            tmp_path,
            "- {identifier: code-1, serial_number: 0123456, udid: 00008110-001A}\n"
            "- {identifier: F2LYYYYYYY}\n",
        )
    )
    assert await known.authorize("code-1") == Grant(
        reference="code-1", serial_number="0123456", udid="00008110-001A"
    )
    assert (await known.authorize("F2LYYYYYYY")).udid is None
    with pytest.raises(ChallengeRefused):
        await known.authorize("code-2")


async def test_without_a_file_the_identifier_itself_is_the_device() -> None:
    grant = await AnyAttestedDevice().authorize("F2LYYYYYYY")
    assert (grant.reference, grant.serial_number, grant.udid) == ("F2LYYYYYYY", None, None)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "- {identifier: one}\n- {serial_number: S}\n- {identifier: one}\n- text\n"
        "- {identifier: two, colour: red}\n- {identifier: three, udid: [1]}\n- {identifier: a/b}\n",
    )
    with pytest.raises(BadEntriesFile) as caught:
        read(path)
    assert [mistake[:30] for mistake in caught.value.mistakes] == [
        "device 2: identifier is missin",
        "device 3: identifier one is gi",
        "device 4: must have the keys i",
        "device 5: unknown key colour",
        "device 6: every value must be ",
        "device 7: permanent-identifier",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "must be a list of devices"),
        ("{}", "must be a list of devices"),
        ("[", "is not YAML"),
        ("- !!python/object:os.system {}", "device 1"),
        ("\0", "is not YAML"),
    ],
)
def test_what_is_no_list_of_devices_is_refused(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(BadEntriesFile, match=mistake):
        read(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadEntriesFile, match="devices.yaml: cannot be read: No such file"):
        read(tmp_path / "devices.yaml")
