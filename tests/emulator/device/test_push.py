"""Pushes as the device sees them: which one wakes it, and how its server learns of a new token (mdm.md 3.2, 7)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio

from certs.faults import Action
from emulator.device.device import Device
from emulator.device.enrollment import send_token_update
from emulator.device.push import announce_token, rotate_token, wakes
from emulator.device.session import check_in
from emulator.device.snapshot import freeze, push_address, thaw
from emulator.device.state import State
from emulator.device.surroundings import Surroundings
from emulator.errors import IllegalTransition, PeerRefused
from emulator.wire.checkin import TokenUpdate
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import Memory, ScriptedMdm, scripted_mdm, surroundings

MAGIC = "7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D"


@pytest_asyncio.fixture
async def mdm() -> AsyncIterator[ScriptedMdm]:
    async with scripted_mdm() as server:
        yield server


@dataclass
class Registered:
    """A `PushRegistration` that remembers what it was told, and what the server had heard by then."""

    mdm: ScriptedMdm | None = None
    tokens: list[bytes] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    async def register(self, device: Device) -> None:
        assert device.enrollment is not None
        self.tokens.append(device.enrollment.push_token)
        self.before.append(len(self.mdm.received) if self.mdm else 0)


def updates(mdm: ScriptedMdm) -> list[TokenUpdate]:
    return [item.message for item in mdm.received if isinstance(item.message, TokenUpdate)]


def with_push(memory: Memory, registered: Registered, **arguments: Any) -> Surroundings:
    return replace(surroundings(memory, **arguments), push=registered)


@pytest.mark.parametrize(
    ("payload", "woken"),
    [
        (f'{{"mdm":"{MAGIC}"}}'.encode(), True),
        (f'{{"aps":{{}},"mdm":"{MAGIC}"}}'.encode(), True),
        (f'{{"mdm":"{MAGIC.lower()}"}}'.encode(), False),
        (b'{"mdm":"00000000-0000-0000-0000-000000000000"}', False),
        (b'{"mdm":""}', False),
        (b'{"mdm":7}', False),
        (b'{"mdm":"\xc3\xa9"}', False),
        (b"{}", False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_only_a_push_with_the_magic_wakes_the_device(payload: bytes, woken: bool) -> None:
    assert wakes(MAGIC, payload) is woken


def test_a_device_without_a_magic_is_woken_by_nothing() -> None:
    assert wakes("", b'{"mdm":""}') is False


async def test_the_token_is_registered_before_the_server_hears_of_it(mdm: ScriptedMdm) -> None:
    device, registered = managed_device(url=mdm.url), Registered(mdm)
    await send_token_update(device, with_push(Memory(), registered))
    assert [update.token for update in updates(mdm)] == registered.tokens
    assert registered.before == [0]


async def test_a_new_token_is_told_without_another_enrollment(mdm: ScriptedMdm) -> None:
    device, memory, registered = managed_device(url=mdm.url), Memory(), Registered(mdm)
    assert device.enrollment is not None
    before = device.enrollment
    await rotate_token(device, with_push(memory, registered))
    (update,) = updates(mdm)
    assert update.token == device.enrollment.push_token != before.push_token
    assert update.push_magic == before.push_magic
    assert update.token == registered.tokens[0]
    assert device.state is State.ENROLLED
    assert device.enrollment.token_update_due is False
    assert memory.snapshots[-1] == freeze(device)
    assert memory.steps == ["token_update"]


async def test_the_magic_may_change_along(mdm: ScriptedMdm) -> None:
    device = managed_device(url=mdm.url)
    assert device.enrollment is not None
    before = device.enrollment.push_magic
    await rotate_token(device, surroundings(), new_magic=True)
    (update,) = updates(mdm)
    assert update.push_magic == device.enrollment.push_magic != before


async def test_a_token_that_could_not_be_told_is_told_at_the_next_session(
    mdm: ScriptedMdm,
) -> None:
    device, memory = managed_device(url=mdm.url), Memory()

    def refuse(side: str, step: str, message: object, n: int) -> Action | None:
        return Action(name="drop-request") if step == "token_update" else None

    with pytest.raises(PeerRefused):
        await rotate_token(device, surroundings(memory, faults=refuse))
    assert updates(mdm) == []
    # Even when it was switched off in between.
    woken = thaw(memory.snapshots[-1])
    assert woken.enrollment is not None
    assert woken.enrollment.token_update_due
    await check_in(woken, surroundings(memory))
    assert [update.token for update in updates(mdm)] == [woken.enrollment.push_token]
    assert [item.path for item in mdm.received] == ["/checkin", "/mdm"]
    await check_in(woken, surroundings(memory))
    assert len(updates(mdm)) == 1


async def test_a_server_may_end_the_management_when_it_hears_of_the_token(
    mdm: ScriptedMdm,
) -> None:
    device = managed_device(url=mdm.url)
    mdm.statuses["TokenUpdate"] = (401, b"")
    with pytest.raises(PeerRefused, match="ended the management"):
        await rotate_token(device, surroundings())
    assert device.enrollment is None
    assert device.state is State.HOME_UNMANAGED


async def test_a_server_error_leaves_the_token_due(mdm: ScriptedMdm) -> None:
    device = managed_device(url=mdm.url)
    mdm.statuses["TokenUpdate"] = (500, b"")
    with pytest.raises(PeerRefused):
        await rotate_token(device, surroundings())
    assert device.enrollment is not None
    assert device.enrollment.token_update_due
    with pytest.raises(PeerRefused):
        await announce_token(device, surroundings())


async def test_a_device_without_management_has_no_token() -> None:
    device = managed_device()
    device.enrollment = None
    with pytest.raises(IllegalTransition, match="has no push token"):
        await rotate_token(device, surroundings())


def test_the_push_address_is_read_from_a_row_without_thawing_it() -> None:
    device = managed_device()
    assert device.enrollment is not None
    device.enrollment = replace(device.enrollment, push_token=b"T" * 32, push_magic=MAGIC)
    address = push_address(freeze(device))
    assert address is not None
    assert (address.topic, address.push_token, address.push_magic) == (
        device.enrollment.topic,
        b"T" * 32,
        MAGIC,
    )
    device.enrollment = None
    assert push_address(freeze(device)) is None
