"""Keys that device tests need are made before any event loop runs."""

import pytest

from tests.emulator.device.world import warm_up


@pytest.fixture(scope="session", autouse=True)
def _keys_made_ahead() -> None:
    warm_up()
