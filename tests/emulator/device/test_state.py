"""The state table, walked over every pair of state and event."""

import pytest

from emulator.device.state import MANAGED, TRANSITIONS, Event, State, advance
from emulator.errors import IllegalTransition
from tests.emulator.device.world import make_device


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_listed_pairs_move_and_all_others_raise_and_change_nothing(
    state: State, event: Event
) -> None:
    device = make_device()
    device.state = state
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
        device.apply(event)
        assert device.state is TRANSITIONS[state, event]
        return
    with pytest.raises(IllegalTransition, match=f"{event.name} is not possible while {state.name}"):
        device.apply(event)
    assert device.state is state


def test_every_state_but_the_first_can_be_reached_from_power_on() -> None:
    reached = {State.UNACTIVATED}
    while True:
        further = {after for (before, _), after in TRANSITIONS.items() if before in reached}
        if further <= reached:
            break
        reached |= further
    assert reached == set(State)


@pytest.mark.parametrize("state", sorted(MANAGED))
def test_a_managed_device_can_be_erased_and_unenrolled(state: State) -> None:
    assert advance(state, Event.ERASED) is State.ERASED
    assert advance(state, Event.PROFILE_REMOVED) is State.HOME_UNMANAGED


@pytest.mark.parametrize(
    "road",
    [
        [
            Event.ACTIVATION_RECORD_RECEIVED,
            Event.CLOUD_CONFIGURATION_RECEIVED,
            Event.PROFILE_RECEIVED,
            Event.IDENTITY_ISSUED,
            Event.AUTHENTICATE_ACCEPTED,
            Event.TOKEN_UPDATE_ACCEPTED_AWAITING,
            Event.DEVICE_CONFIGURED,
            Event.TOKEN_UPDATE_ACCEPTED,
        ],
        [
            Event.ACTIVATION_RECORD_RECEIVED,
            Event.NO_CLOUD_CONFIGURATION,
            Event.PROFILE_RECEIVED,
            Event.IDENTITY_ISSUED,
            Event.AUTHENTICATE_ACCEPTED,
            Event.TOKEN_UPDATE_ACCEPTED,
        ],
    ],
)
def test_automated_and_manual_enrollment_end_enrolled(road: list[Event]) -> None:
    state = State.UNACTIVATED
    for event in road:
        state = advance(state, event)
    assert state is State.ENROLLED
