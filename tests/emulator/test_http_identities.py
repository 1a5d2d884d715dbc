"""Client identities on shared TLS contexts: hundreds of devices, and never one with another's certificate."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

import certs.keys
import certs.tls
from certs.identity import Identity
from emulator.http import HttpDoor
from tests.emulator.http_peers import World, make_world, web_server
from tests.support import rsa_key

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

loops = pytest.mark.parametrize(
    "loop_factory",
    [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ],
)


def shown_name(request: web.Request) -> str:
    """The common name in the certificate that came with the handshake; `nobody` without one."""
    certificate = certs.tls.peer_certificate(request)
    if certificate is None:
        return "nobody"
    [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


async def answer_with_name(request: web.Request) -> web.Response:
    return web.Response(text=shown_name(request))


def fleet(world: World, count: int) -> dict[str, Identity]:
    """Identities with P-256 keys, every tenth with one of a few RSA keys."""
    keys = {number: rsa_key(number % 40 // 10) for number in range(0, count, 10)}
    return {f"device-{n}": world.device(f"device-{n}", keys.get(n)) for n in range(count)}


async def visit(world: World, identities: dict[str, Identity | None], rounds: int) -> list[str]:
    """Connect with each identity `rounds` times, sixty at a time; return what went wrong."""
    wrong: list[str] = []
    places = asyncio.Semaphore(60)
    door = HttpDoor(clock=world.clock)
    async with web_server(answer_with_name, world.context) as peer:

        async def connect(name: str, identity: Identity | None) -> None:
            async with places, door.session(trust=world.trust, identity=identity) as session:
                for path in (f"/{name}/first", f"/{name}/second"):
                    answer = await session.request("GET", peer.url(path), step="idle")
                    shown = answer.body.decode()
                    if shown != ("nobody" if identity is None else name):
                        wrong.append(f"{name} was taken for {shown}")

        # Rounds and devices interleaved: all three connections of a device are open among those of the others.
        await asyncio.gather(
            *(connect(name, who) for _ in range(rounds) for name, who in identities.items())
        )
    return wrong


@loops
def test_nine_hundred_connections_of_three_hundred_devices_show_their_own_certificates(
    loop_factory: LoopFactory,
) -> None:
    world = make_world()
    identities: dict[str, Identity | None] = {**fleet(world, 300)}
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(visit(world, identities, 3)) == []


@loops
def test_sessions_without_identity_show_none_among_others_that_do(
    loop_factory: LoopFactory,
) -> None:
    world = make_world()
    identities: dict[str, Identity | None] = {}
    for number, (name, identity) in enumerate(fleet(world, 30).items()):
        identities[name] = identity
        identities[f"stranger-{number}"] = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(visit(world, identities, 2)) == []


def test_identities_stay_apart_when_they_pass_through_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certs.tls, "use_memory_files", False)
    world = make_world()
    identities: dict[str, Identity | None] = {**fleet(world, 20)}
    with asyncio.Runner() as runner:
        assert runner.run(visit(world, identities, 2)) == []


async def test_a_device_never_shows_the_certificate_of_another_key_type_loaded_before() -> None:
    """In TLS 1.3 OpenSSL would rather present an EC identity left in a context than the RSA one loaded last."""
    world = make_world()
    elliptic = world.device("elliptic")
    rivest = world.device("rivest", rsa_key())
    door = HttpDoor(clock=world.clock)
    names = []
    async with web_server(answer_with_name, world.context) as peer:
        for identity in (elliptic, rivest, elliptic, rivest):
            async with door.session(trust=world.trust, identity=identity) as session:
                answer = await session.request("GET", peer.url(), step="idle")
                names.append(answer.body.decode())
    assert names == ["elliptic", "rivest", "elliptic", "rivest"]


async def test_the_issuers_of_an_identity_are_shown_with_it() -> None:
    """A server that knows only the root gets the intermediate from the device."""
    world = make_world()
    lower = type(world.ca).create("Lower CA", clock=world.clock, parent=world.ca)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "below")])
    identity = lower.issue_identity(certs.keys.generate("p256"), subject)
    assert identity.chain == (lower.certificate,)
    door = HttpDoor(clock=world.clock)
    async with (
        web_server(answer_with_name, world.context) as peer,
        door.session(trust=world.trust, identity=identity) as session,
    ):
        answer = await session.request("GET", peer.url(), step="idle")
    assert answer.body == b"below"


async def test_an_identity_goes_to_the_origin_that_was_asked_and_to_no_other() -> None:
    world = make_world()
    identity = world.device("careful")
    door = HttpDoor(clock=world.clock)
    async with contextlib.AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(web_server(answer_with_name, world.context))

        async def send_away(request: web.Request) -> web.Response:
            if request.path == "/back":
                return web.Response(text=shown_name(request))
            raise web.HTTPTemporaryRedirect(elsewhere.url("/there"))

        first = await stack.enter_async_context(web_server(send_away, world.context))
        session = await stack.enter_async_context(
            door.session(trust=world.trust, identity=identity)
        )
        away = await session.request("PUT", first.url("/go"), step="idle", body=b"x")
        back = await session.request("GET", first.url("/back"), step="idle")
        direct = await session.request("GET", elsewhere.url("/there"), step="idle")
    assert away.url == elsewhere.url("/there")
    assert away.body == b"nobody"
    assert back.body == b"careful"
    # Asked for by name, the other server sees the identity, on a connection of its own.
    assert direct.body == b"careful"
