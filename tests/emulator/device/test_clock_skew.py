"""A device whose clock is wrong: what it dates, and what it takes for outdated (bug C13)."""

import base64
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from certs import cms
from certs.clock import SimulatedClock, SkewedClock
from certs.errors import TransportError
from emulator.device.session import check_in
from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.device.surroundings import Behaviour, Surroundings
from emulator.errors import PeerRefused
from emulator.wire import profile
from tests.emulator.device.enrollment_profiles import scep_profile
from tests.emulator.device.world import CLOCK, make_device, scripted_mdm, surroundings

HOUR = 3600.0


def skewed(seconds: float) -> Surroundings:
    return surroundings(behaviour=Behaviour(clock_skew_s=(seconds, seconds)))


async def test_a_skewed_clock_is_off_by_a_constant_and_sleeps_as_long() -> None:
    clock = SimulatedClock()
    slow = SkewedClock(clock, -90)
    assert clock.now() - slow.now() == timedelta(seconds=90)
    with slow.busy():
        assert clock._in_flight == 1
    await clock.advance(10)
    assert clock.now() - slow.now() == timedelta(seconds=90)


def test_without_a_setting_a_device_shares_the_clock_of_all() -> None:
    around = surroundings()
    assert around.of(make_device()) is around


def test_each_device_has_its_own_share_which_stays() -> None:
    around = surroundings(behaviour=Behaviour(clock_skew_s=(-5, 300)))
    clock = SimulatedClock(CLOCK.now())
    around = replace(around, clock=clock)
    shares = []
    for index in range(20):
        device = make_device(index)
        first = around.of(device).clock.now() - clock.now()
        assert around.of(device).clock.now() - clock.now() == first
        shares.append(first.total_seconds())
    assert all(-5 <= share <= 300 for share in shares)
    assert len(set(shares)) > 10


@pytest.mark.parametrize("seconds", [-5.0, 300.0, -500.0])
async def test_everything_that_a_device_dates_has_its_own_time(seconds: float) -> None:
    device = make_device()
    around = skewed(seconds).of(device)
    async with scripted_mdm() as mdm:
        started = CLOCK.now()
        await set_up(device, around, ProfileEnrollment(profile.encode(scep_profile(mdm.url))))
        await check_in(device, around)
        ended = CLOCK.now()
        headers = [item.headers["mdm-signature"] for item in mdm.received]
    assert len(headers) >= 3
    for header in headers:
        signed = cms.decode_signed(base64.b64decode(header))
        said = signed.signers[0].signing_time
        assert said is not None
        assert _second(started) <= said - timedelta(seconds=seconds) <= ended


async def test_a_device_far_in_the_future_refuses_the_servers_certificate() -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        way = ProfileEnrollment(profile.encode(scep_profile(mdm.url)))
        with pytest.raises(PeerRefused, match="expired") as caught:
            await set_up(device, skewed(20 * 365 * 24 * HOUR).of(device), way)
        assert isinstance(caught.value.__cause__, TransportError)
        # The same profile, the same server, and a clock that is right.
        other = make_device()
        await set_up(other, skewed(60).of(other), way)


async def test_a_device_far_in_the_past_says_that_the_certificate_is_not_valid_yet() -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        way = ProfileEnrollment(profile.encode(scep_profile(mdm.url)))
        with pytest.raises(PeerRefused, match="not valid before"):
            await set_up(device, skewed(-30 * 24 * HOUR).of(device), way)


def _second(moment: datetime) -> datetime:
    """As a signingTime can hold it."""
    return moment.replace(microsecond=0) - timedelta(seconds=1)
