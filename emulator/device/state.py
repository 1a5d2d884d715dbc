"""Where a device stands on its road from power-on to the home screen, and what moves it there.

The whole road is the one table below. A device in Setup Assistant that meets an error shows it and waits in FAILED;
a retry takes it back to the last place from which the road can be walked again.
"""

from enum import StrEnum
from typing import Final

from emulator.errors import IllegalTransition


class State(StrEnum):
    """Every place on the road; the value is what stores and reports show."""

    UNACTIVATED = "unactivated"
    LOCKED_OUT = "locked_out"  # activation lock: only the owner or the bypass code opens it
    ACTIVATED = "activated"
    CLOUD_CONFIGURED = "cloud_configured"
    WEB_AUTHENTICATED = "web_authenticated"
    PROFILE_FETCHED = "profile_fetched"
    IDENTIFIED = "identified"  # certificates installed, identity issued, server not yet told
    AUTHENTICATED = "authenticated"  # the server accepted Authenticate
    AWAITING_CONFIGURATION = "awaiting_configuration"
    ENROLLED = "enrolled"  # managed, on the home screen
    HOME_UNMANAGED = "home_unmanaged"
    WIPE_REQUIRED = "wipe_required"
    ERASED = "erased"
    FAILED = "failed"  # Device.failure names the step and the reason


class Event(StrEnum):
    """Everything that can move a device."""

    ACTIVATION_RECORD_RECEIVED = "activation_record_received"
    ACTIVATION_LOCK_MET = "activation_lock_met"
    DEACTIVATED = "deactivated"  # by a program on a USB host
    CLOUD_CONFIGURATION_RECEIVED = "cloud_configuration_received"
    NO_CLOUD_CONFIGURATION = "no_cloud_configuration"
    USER_AUTHENTICATED = "user_authenticated"
    PROFILE_RECEIVED = "profile_received"
    IDENTITY_ISSUED = "identity_issued"
    AUTHENTICATE_ACCEPTED = "authenticate_accepted"
    TOKEN_UPDATE_ACCEPTED = "token_update_accepted"
    TOKEN_UPDATE_ACCEPTED_AWAITING = "token_update_accepted_awaiting"
    DEVICE_CONFIGURED = "device_configured"
    PROFILE_REMOVED = "profile_removed"  # by the user, by command, by 401 or an unrecognized device
    WIPE_DEMANDED = "wipe_demanded"
    ERASED = "erased"
    POWERED_ON = "powered_on"
    STEP_FAILED = "step_failed"
    BACK_TO_UNACTIVATED = "back_to_unactivated"
    BACK_TO_ACTIVATED = "back_to_activated"
    BACK_TO_CLOUD_CONFIGURED = "back_to_cloud_configured"
    BACK_TO_HOME_UNMANAGED = "back_to_home_unmanaged"


MANAGED: Final = frozenset({State.AWAITING_CONFIGURATION, State.ENROLLED})
CAN_FAIL: Final = (
    State.UNACTIVATED,
    State.LOCKED_OUT,
    State.ACTIVATED,
    State.CLOUD_CONFIGURED,
    State.WEB_AUTHENTICATED,
    State.PROFILE_FETCHED,
    State.IDENTIFIED,
    State.AUTHENTICATED,
    State.HOME_UNMANAGED,
)

# A managed device is erased instead: what its server would make of it is not known.
CAN_BE_DEACTIVATED: Final = (
    State.ACTIVATED,
    State.CLOUD_CONFIGURED,
    State.WEB_AUTHENTICATED,
    State.HOME_UNMANAGED,
    State.FAILED,
)

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.UNACTIVATED, Event.ACTIVATION_RECORD_RECEIVED): State.ACTIVATED,
    (State.UNACTIVATED, Event.ACTIVATION_LOCK_MET): State.LOCKED_OUT,
    (State.LOCKED_OUT, Event.ACTIVATION_LOCK_MET): State.LOCKED_OUT,  # still locked
    (State.LOCKED_OUT, Event.ACTIVATION_RECORD_RECEIVED): State.ACTIVATED,
    **{(state, Event.DEACTIVATED): State.UNACTIVATED for state in CAN_BE_DEACTIVATED},
    (State.ACTIVATED, Event.CLOUD_CONFIGURATION_RECEIVED): State.CLOUD_CONFIGURED,
    (State.ACTIVATED, Event.NO_CLOUD_CONFIGURATION): State.HOME_UNMANAGED,
    (State.CLOUD_CONFIGURED, Event.USER_AUTHENTICATED): State.WEB_AUTHENTICATED,
    # Automated enrollment fetches its profile in Setup Assistant; the other ways enter from activated or home.
    (State.CLOUD_CONFIGURED, Event.PROFILE_RECEIVED): State.PROFILE_FETCHED,
    (State.WEB_AUTHENTICATED, Event.PROFILE_RECEIVED): State.PROFILE_FETCHED,
    (State.ACTIVATED, Event.PROFILE_RECEIVED): State.PROFILE_FETCHED,
    (State.HOME_UNMANAGED, Event.PROFILE_RECEIVED): State.PROFILE_FETCHED,
    (State.PROFILE_FETCHED, Event.PROFILE_RECEIVED): State.PROFILE_FETCHED,  # after a restart
    (State.PROFILE_FETCHED, Event.IDENTITY_ISSUED): State.IDENTIFIED,
    (State.IDENTIFIED, Event.AUTHENTICATE_ACCEPTED): State.AUTHENTICATED,
    (State.AUTHENTICATED, Event.TOKEN_UPDATE_ACCEPTED): State.ENROLLED,
    (State.AUTHENTICATED, Event.TOKEN_UPDATE_ACCEPTED_AWAITING): State.AWAITING_CONFIGURATION,
    (
        State.AWAITING_CONFIGURATION,
        Event.TOKEN_UPDATE_ACCEPTED_AWAITING,
    ): State.AWAITING_CONFIGURATION,
    (State.AWAITING_CONFIGURATION, Event.DEVICE_CONFIGURED): State.ENROLLED,
    (State.ENROLLED, Event.TOKEN_UPDATE_ACCEPTED): State.ENROLLED,  # a fresh push token
    **{(state, Event.PROFILE_REMOVED): State.HOME_UNMANAGED for state in MANAGED},
    **{(state, Event.WIPE_DEMANDED): State.WIPE_REQUIRED for state in MANAGED},
    **{(state, Event.STEP_FAILED): State.FAILED for state in CAN_FAIL},
    (State.FAILED, Event.BACK_TO_UNACTIVATED): State.UNACTIVATED,
    (State.FAILED, Event.BACK_TO_ACTIVATED): State.ACTIVATED,
    (State.FAILED, Event.BACK_TO_CLOUD_CONFIGURED): State.CLOUD_CONFIGURED,
    (State.FAILED, Event.BACK_TO_HOME_UNMANAGED): State.HOME_UNMANAGED,
    # Erasing needs no consent of any state; what is erased comes up as new.
    **{(state, Event.ERASED): State.ERASED for state in State if state is not State.ERASED},
    (State.ERASED, Event.POWERED_ON): State.UNACTIVATED,
}


def advance(state: State, event: Event) -> State:
    """Return the state that follows; the caller keeps the old one if this raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.name} is not possible while {state.name}") from None
