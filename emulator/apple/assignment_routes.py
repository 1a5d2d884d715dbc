"""The endpoints of the device assignment API and their paths: one list for the TLS port."""

from aiohttp import web
from aiohttp.typedefs import Handler

from emulator.apple.assignment import AssignmentDesk
from emulator.apple.assignment_account import (
    AccountService,
    BetaService,
    DiscoveryDeleteService,
    DiscoveryService,
    DiscoverySetService,
    SessionService,
    TokenService,
)
from emulator.apple.assignment_devices import (
    DetailsService,
    DisownService,
    FetchService,
    LockService,
    ReplacementService,
    SyncService,
)
from emulator.apple.assignment_profiles import (
    AssignService,
    DefineService,
    ProfileService,
    UnassignService,
)
from emulator.apple.door import Door
from emulator.apple.pace import Pace
from emulator.apple.tokens import BUILT_IN
from emulator.wire import assignment

TOKEN_PATH = "/token"


def assignment_routes(desk: AssignmentDesk, door: Door) -> list[web.RouteDef]:
    handler = door.handler
    pages = Pace(desk.settings.devices_per_minute)
    assigning = Pace(desk.settings.assigned_per_minute)
    assign = handler(AssignService(desk, assigning))

    def get(path: str, handle: Handler) -> web.RouteDef:
        return web.get(path, handle, allow_head=False)

    return [
        get(assignment.SESSION_PATH, handler(SessionService(desk))),
        get(TOKEN_PATH, handler(TokenService(desk, BUILT_IN.consumer_key))),
        get(assignment.ACCOUNT_PATH, handler(AccountService(desk))),
        web.post(assignment.FETCH_PATH, handler(FetchService(desk, pages))),
        web.post(assignment.SYNC_PATH, handler(SyncService(desk, pages))),
        web.post(assignment.DETAILS_PATH, handler(DetailsService(desk))),
        web.post(assignment.DISOWN_PATH, handler(DisownService(desk))),
        web.post(assignment.PROFILE_PATH, handler(DefineService(desk, assigning))),
        get(assignment.PROFILE_PATH, handler(ProfileService(desk))),
        web.post(assignment.ASSIGN_PATH, assign),
        web.put(assignment.ASSIGN_PATH, assign),
        web.delete(assignment.ASSIGN_PATH, handler(UnassignService(desk))),
        web.post(assignment.LOCK_PATH, handler(LockService(desk))),
        get(assignment.REPLACEMENT_PATH, handler(ReplacementService(desk))),
        web.post(assignment.DISCOVERY_PATH, handler(DiscoverySetService(desk))),
        get(assignment.DISCOVERY_PATH, handler(DiscoveryService(desk))),
        web.delete(assignment.DISCOVERY_PATH, handler(DiscoveryDeleteService(desk))),
        get(assignment.BETA_PATH, handler(BetaService(desk))),
    ]
