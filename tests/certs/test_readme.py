"""The checklist of `certs/README.md` names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "certs" / "README.md").read_text()


def test_every_test_that_the_checklist_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUIDE)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file()
        or not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_file_that_the_guide_names_exists() -> None:
    for name in re.findall(r"`((?:scep|acme|inspection)?/?\w+\.py)`", GUIDE):
        assert (ROOT / "certs" / name).is_file(), name
