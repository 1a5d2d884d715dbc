"""Which steps share a connection: those of one wake-up, as long as identity and trust stay the same."""

from dataclasses import replace

from certs import names
from certs.keys import generate
from emulator.device.channel import one_line, open_channel
from emulator.device.session import Session, check_in
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import mdm_authority, scripted_mdm, surroundings


async def test_channels_of_one_wake_up_share_their_session() -> None:
    device = managed_device()
    async with one_line(surroundings()) as around:
        async with open_channel(device, around, check_in=True) as first:
            pass
        async with open_channel(device, around) as second:
            assert second.transport is first.transport
    async with open_channel(device, surroundings()) as later:
        assert later.transport is not first.transport


async def test_a_new_identity_never_speaks_on_the_old_ones_line() -> None:
    device = managed_device()
    ca, _, _ = mdm_authority()
    async with one_line(surroundings()) as around:
        async with open_channel(device, around) as first:
            pass
        installed = device.installed_identity
        assert installed is not None
        renewed = ca.issue_identity(generate("p256"), names.from_subject([[["CN", "renewed"]]]))
        device.keychain.add(replace(installed, identity=renewed))
        async with open_channel(device, around) as second:
            assert second.transport is not first.transport
            assert second.identity is renewed


async def test_other_pins_never_share_a_line() -> None:
    device = managed_device(check_in_url_pins=("ANOTHER-UUID",))
    async with one_line(surroundings()) as around:
        async with open_channel(device, around, check_in=True) as pinned:
            pass
        async with open_channel(device, around) as unpinned:
            assert unpinned.transport is not pinned.transport


async def test_several_sessions_run_on_one_connection() -> None:
    async with scripted_mdm() as mdm:
        device = managed_device(url=mdm.url)
        async with Session(device, surroundings()) as session:
            reports = [await session.run() for _ in range(3)]
        assert [report.commands for report in reports] == [0, 0, 0]
        await check_in(device, surroundings())
    assert [item.message.status.value for item in mdm.received] == ["Idle"] * 4
