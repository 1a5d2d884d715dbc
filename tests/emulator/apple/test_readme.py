"""The guide of the stand-ins names tests that exist, and every request of the administration."""

import re
from pathlib import Path

import pytest

from certs.clock import SimulatedClock
from emulator.apple.app import AppleServices
from tests.emulator.apple.support import pki

ROOT = Path(__file__).parents[3]
README = (ROOT / "emulator" / "apple" / "README.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", README)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_guide_names_is_there(file: str, name: str) -> None:
    source = (ROOT / file).read_text()
    assert not name or f"def {name}(" in source


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


def _words(path: str) -> set[str]:
    return {word for word in path.split("/") if word and not word.startswith("{")}


async def test_every_request_of_the_administration_is_in_the_guide() -> None:
    async with AppleServices(pki=pki(), clock=SimulatedClock()) as services:
        routes = services._administration().router.resources()
    paths = {resource.canonical for resource in routes}
    assert len(paths) > 20
    missing = [path for path in paths if not all(word in README for word in _words(path))]
    assert missing == []
