"""One session: what it sends, where it goes, how it counts, and how it ends."""

import asyncio
import contextlib
from typing import Any

import pytest

from certs.clock import SimulatedClock, SystemClock
from certs.errors import ForbiddenHost, MalformedMessage, TransportError
from certs.faults import Action, FaultPoint, Side, no_faults
from certs.hosts import HostMap, place_of
from certs.transport import Timing, Transport
from emulator.config import MAX_REDIRECTS
from emulator.http import HttpDoor, HttpSession, OutgoingRequest, TrustSet
from tests.emulator.http_peers import Talk, make_world, raw_server, read_request, says

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def plain_session(*rules: str, **options: Any) -> HttpSession:
    door = HttpDoor(clock=SystemClock(), hosts=HostMap.parse(list(rules)))
    return door.session(trust=TrustSet(), **options)


def redirect(status: int, location: str) -> bytes:
    return (
        f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )


class Recorder:
    """A server that keeps every request and answers by path; paths it has no answer for get `OK`."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = {f"/{path}": answer for path, answer in answers.items()}
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            path = request.split(b" ")[1].decode()
            writer.write(self.answers.get(path, OK))

    @property
    def lines(self) -> list[str]:
        """The request lines."""
        return [request.split(b" HTTP/1.1\r\n")[0].decode() for request in self.requests]


# --- what is sent


async def test_a_session_is_a_transport() -> None:
    async with plain_session() as session:
        transport: Transport = session
        assert transport is session


async def test_a_request_is_sent_as_a_device_sends_it() -> None:
    server = Recorder()
    async with raw_server(server) as peer, plain_session() as session:
        await session.request(
            "PUT",
            peer.url("/checkin?a=b c&d=%20"),
            step="authenticate",
            headers={"Content-Type": "application/x-apple-aspen-mdm-checkin"},
            body=b"<plist/>",
        )
    assert server.requests == [
        b"PUT /checkin?a=b%20c&d=%20 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(peer.port).encode() + b"\r\n"
        b"User-Agent: MDM/1.0\r\n"
        b"Accept: */*\r\n"
        b"Accept-Encoding: gzip, deflate\r\n"
        b"Content-Type: application/x-apple-aspen-mdm-checkin\r\n"
        b"Content-Length: 8\r\n"
        b"\r\n"
        b"<plist/>"
    ]


async def test_the_caller_may_override_what_the_session_would_say() -> None:
    server = Recorder()
    async with raw_server(server) as peer, plain_session(user_agent="profiled/1.0") as session:
        await session.request("GET", peer.url(), step="test")
        await session.request("GET", peer.url(), step="test", headers={"ACCEPT": "text/plain"})
    assert b"\r\nUser-Agent: profiled/1.0\r\n" in server.requests[0]
    assert b"\r\nAccept: text/plain\r\n" in server.requests[1]
    assert b"*/*" not in server.requests[1]


async def test_a_put_without_body_says_so_and_a_get_says_nothing() -> None:
    server = Recorder()
    async with raw_server(server) as peer, plain_session() as session:
        await session.request("PUT", peer.url(), step="test")
        await session.request("GET", peer.url(), step="test")
    assert b"Content-Length: 0\r\n" in server.requests[0]
    assert b"Content-Length" not in server.requests[1]


@pytest.mark.parametrize(
    "headers", [{"Host": "other"}, {"content-length": "5"}, {"X-A": "b\r\nHost: other"}]
)
async def test_headers_that_would_break_the_framing_are_our_own_mistake(
    headers: dict[str, str],
) -> None:
    async with plain_session() as session:
        with pytest.raises(ValueError, match="Host|content-length|line break"):
            await session.request("GET", "http://127.0.0.1:1/", step="test", headers=headers)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "https://",
        "https:///path",
        "http://[::1/",
        "http://host:99999/",
        "http://a..b/",
        "host",
        "",
    ],
)
async def test_a_url_that_leads_nowhere_is_a_transport_error(url: str) -> None:
    async with plain_session() as session:
        with pytest.raises(TransportError, match="URL: expected"):
            await session.request("GET", url, step="test")


async def test_nobody_listening_is_said_in_words() -> None:
    async with raw_server(says(OK)) as peer:
        pass
    async with plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request("GET", peer.url(), step="test")
    assert caught.value.reason == f"connection refused by 127.0.0.1:{peer.port}"


# --- where it goes


@pytest.mark.parametrize(
    "url",
    ["https://mdmenrollment.apple.com/x", "http://APPLE.COM./", "https://albert.apple.com:8443/"],
)
async def test_a_real_apple_host_is_refused_by_name(url: str) -> None:
    timings: list[Timing] = []
    async with plain_session(on_timing=timings.append) as session:
        with pytest.raises(ForbiddenHost, match="real Apple host"):
            await session.request("GET", url, step="cloud_configuration")
    [timing] = timings
    assert (timing.step, timing.status) == ("cloud_configuration", None)
    assert "real Apple host" in str(timing.error)


async def test_a_redirect_to_a_real_apple_host_is_refused_by_name() -> None:
    server = Recorder(go=redirect(302, "https://gdmf.apple.com/v2"))
    async with raw_server(server) as peer, plain_session() as session:
        with pytest.raises(ForbiddenHost, match="gdmf.apple.com"):
            await session.request("GET", peer.url("/go"), step="test")


async def test_a_mapped_apple_host_reaches_its_stand_in_under_its_own_name() -> None:
    world, server = make_world("iprofiles.apple.com"), Recorder()
    async with raw_server(server, world.context) as peer:
        hosts = HostMap.parse([f"iprofiles.apple.com=127.0.0.1:{peer.port}"])
        door = HttpDoor(clock=world.clock, hosts=hosts)
        async with door.session(trust=world.trust) as session:
            answer = await session.request("GET", "https://iprofiles.apple.com/x", step="test")
    assert answer.url == "https://iprofiles.apple.com/x"
    assert b"\r\nHost: iprofiles.apple.com\r\n" in server.requests[0]


async def test_a_map_to_plain_http_keeps_url_and_host_header() -> None:
    server = Recorder()
    async with raw_server(server) as peer:
        rule = f"https://mdm.example.test=http://127.0.0.1:{peer.port}"
        async with plain_session(rule) as session:
            answer = await session.request("PUT", "https://mdm.example.test/mdm", step="idle")
            odd = await session.request("GET", "https://mdm.example.test:8443/mdm", step="idle")
    assert (answer.status, answer.url) == (200, "https://mdm.example.test/mdm")
    assert b"\r\nHost: mdm.example.test\r\n" in server.requests[0]
    assert odd.url == "https://mdm.example.test:8443/mdm"
    assert b"\r\nHost: mdm.example.test:8443\r\n" in server.requests[1]


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_put_is_sent_again_where_a_redirect_leads(status: int) -> None:
    server = Recorder(old=redirect(status, "/new?x=1"))
    async with raw_server(server) as peer, plain_session() as session:
        answer = await session.request(
            "PUT", peer.url("/old"), step="test", body=b"abc", headers={"Content-Type": "text/a"}
        )
    assert answer.url == peer.url("/new?x=1")
    assert server.lines == ["PUT /old", "PUT /new?x=1"]
    assert server.requests[1].endswith(b"Content-Type: text/a\r\nContent-Length: 3\r\n\r\nabc")
    assert peer.connections == 1


async def test_303_turns_a_post_into_a_get_without_body() -> None:
    server = Recorder(form=redirect(303, "done"))
    async with raw_server(server) as peer, plain_session() as session:
        await session.request(
            "POST", peer.url("/form"), step="test", body=b"abc", headers={"Content-Type": "text/a"}
        )
    assert server.lines == ["POST /form", "GET /done"]
    assert b"Content-Type" not in server.requests[1]
    assert server.requests[1].endswith(b"\r\n\r\n")


async def test_each_hop_passes_the_host_map() -> None:
    server = Recorder(go=redirect(307, "https://second.example.test/there"))
    async with raw_server(server) as peer:
        rule = f"https://second.example.test=http://127.0.0.1:{peer.port}"
        async with plain_session(rule) as session:
            answer = await session.request("GET", peer.url("/go"), step="test")
    assert answer.url == "https://second.example.test/there"
    assert b"\r\nHost: second.example.test\r\n" in server.requests[1]


async def test_a_password_stays_with_the_origin_it_was_for() -> None:
    second = Recorder()
    secrets = {"Authorization": "Basic c2VjcmV0", "Cookie": "a=b", "Mdm-Signature": "kept"}
    async with raw_server(second) as elsewhere:
        first = Recorder(away=redirect(307, elsewhere.url("/there")), near=redirect(307, "/here"))
        async with raw_server(first) as peer, plain_session() as session:
            await session.request("GET", peer.url("/away"), step="test", headers=secrets)
            await session.request("GET", peer.url("/near"), step="test", headers=secrets)
    assert b"Authorization" not in second.requests[0]
    assert b"Cookie" not in second.requests[0]
    assert b"\r\nMdm-Signature: kept\r\n" in second.requests[0]
    assert first.lines == ["GET /away", "GET /near", "GET /here"]
    assert b"\r\nAuthorization: Basic c2VjcmV0\r\n" in first.requests[2]


async def test_a_redirect_loop_is_noticed() -> None:
    server = Recorder(a=redirect(302, "/b"), b=redirect(302, "/a"))
    async with raw_server(server) as peer, plain_session() as session:
        with pytest.raises(TransportError) as caught:
            await session.request("GET", peer.url("/a"), step="test")
    assert caught.value.reason == f"redirect loop: back at {peer.url('/a')}"
    assert server.lines == ["GET /a", "GET /b"]


async def test_ten_redirects_are_followed_and_eleven_are_not() -> None:
    hops = {str(n): redirect(302, f"/{n + 1}") for n in range(MAX_REDIRECTS)}
    server = Recorder(**hops, far=redirect(302, "/0"))
    async with raw_server(server) as peer, plain_session() as session:
        answer = await session.request("GET", peer.url("/0"), step="test")
        assert answer.url == peer.url(f"/{MAX_REDIRECTS}")
        with pytest.raises(TransportError) as caught:
            await session.request("GET", peer.url("/far"), step="test")
    assert caught.value.reason == f"more than {MAX_REDIRECTS} redirects"
    assert caught.value.url == peer.url("/far")


async def test_a_redirect_out_of_http_is_the_callers_answer() -> None:
    """The private scheme that ends an account-driven sign-in (mdm.md, section 1e) is for the web view."""
    target = "apple-remotemanagement-user-login://authentication-results?access-token=x"
    server = Recorder(login=redirect(308, target))
    async with raw_server(server) as peer, plain_session() as session:
        answer = await session.request("GET", peer.url("/login"), step="test")
    assert (answer.status, answer.header("location")) == (308, target)


async def test_a_redirect_that_cannot_be_read_is_a_transport_error() -> None:
    server = Recorder(
        go=redirect(302, "http://[broken"), where=b"HTTP/1.1 302 Hm\r\nContent-Length: 0\r\n\r\n"
    )
    async with raw_server(server) as peer, plain_session() as session:
        with pytest.raises(TransportError, match="redirect that leads nowhere"):
            await session.request("GET", peer.url("/go"), step="test")
        answer = await session.request("GET", peer.url("/where"), step="test")
    assert answer.status == 302  # without a Location it is an answer like any other


# --- connections


async def test_two_requests_at_once_take_two_connections_and_keep_one() -> None:
    both = asyncio.Event()
    waiting = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        while True:
            await read_request(reader)
            waiting += 1
            if waiting == 2:
                both.set()
            await both.wait()
            writer.write(OK)

    async with raw_server(talk) as peer, plain_session() as session:
        await asyncio.gather(*(session.request("GET", peer.url(), step="test") for _ in range(2)))
        await session.request("GET", peer.url(), step="test")
        assert peer.connections == 2


async def test_sessions_never_share_a_connection() -> None:
    server = Recorder()
    door = HttpDoor(clock=SystemClock())
    async with raw_server(server) as peer:
        for _ in range(2):
            async with door.session(trust=TrustSet()) as session:
                await session.request("GET", peer.url(), step="test")
        assert peer.connections == 2


def forgetful(answers_before_leaving: int, *, leaves_on_request: bool) -> Talk:
    """A server that answers so often on each connection and then leaves, at once or when asked again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(answers_before_leaving):
            await read_request(reader)
            writer.write(OK)
        if leaves_on_request:
            await read_request(reader)

    return talk


@pytest.mark.parametrize("leaves_on_request", [True, False])
async def test_a_kept_connection_that_the_server_closed_is_replaced_once(
    leaves_on_request: bool,
) -> None:
    talk = forgetful(1, leaves_on_request=leaves_on_request)
    async with raw_server(talk) as peer, plain_session() as session:
        for _ in range(3):
            answer = await session.request("PUT", peer.url(), step="test", body=b"x")
            assert answer.status == 200
        assert peer.connections == 3


async def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async with raw_server(forgetful(0, leaves_on_request=True)) as peer, plain_session() as session:
        with pytest.raises(TransportError, match="closed the connection without an answer"):
            await session.request("GET", peer.url(), step="test")
        assert peer.connections == 1


async def test_half_an_answer_on_a_kept_connection_is_not_tried_again() -> None:
    talk = says(OK, b"HTTP/1.1 200 OK\r\nContent-", then_close=True)
    async with raw_server(talk) as peer, plain_session() as session:
        await session.request("GET", peer.url(), step="test")
        with pytest.raises(TransportError, match="the answer ends early"):
            await session.request("GET", peer.url(), step="test")
        assert peer.connections == 1


async def test_an_answer_before_the_end_of_a_large_body_costs_the_connection() -> None:
    """The rest of the body is still on its way: another request would queue behind it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with raw_server(refuse) as peer, plain_session() as session:
        for _ in range(2):
            answer = await session.request(
                "PUT", peer.url(), step="test", body=bytes(20_000_000), timeout_s=5
            )
            assert answer.status == 413
        assert peer.connections == 2


async def test_a_cancelled_request_takes_its_connection_along() -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()

    timings: list[Timing] = []
    async with raw_server(talk) as peer, plain_session(on_timing=timings.append) as session:
        task = asyncio.create_task(session.request("GET", peer.url(), step="test"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hung_up.wait()
    assert timings == []  # neither an answer nor a failure


async def test_the_end_of_a_session_closes_its_connections() -> None:
    hung_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        assert await reader.read() == b""
        hung_up.set()

    async with raw_server(talk) as peer:
        async with plain_session() as session:
            await session.request("GET", peer.url(), step="test")
            assert not hung_up.is_set()
        await hung_up.wait()
        with pytest.raises(RuntimeError, match="closed"):
            await session.request("GET", peer.url(), step="test")


async def test_a_peer_that_never_says_goodbye_does_not_hold_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("emulator.http.connection.CLOSE_TIMEOUT_S", 0.05)
    world = make_world()
    done = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()

    async with raw_server(talk, world.context) as peer:
        async with HttpDoor(clock=world.clock).session(trust=world.trust) as session:
            await session.request("GET", peer.url(), step="test")
        done.set()


# --- timings, faults, the clock


async def test_each_request_is_timed_once_for_the_door_and_the_session() -> None:
    for_door: list[Timing] = []
    for_session: list[Timing] = []
    door = HttpDoor(clock=SystemClock(), on_timing=for_door.append)
    server = Recorder(
        go=redirect(307, "/gone"), gone=b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    )
    async with (
        raw_server(server) as peer,
        door.session(trust=TrustSet(), on_timing=for_session.append) as session,
    ):
        await session.request("GET", peer.url("/go"), step="get_ca_caps")
    [timing] = for_door
    assert for_session == [timing]
    assert (timing.step, timing.status, timing.error) == ("get_ca_caps", 404, None)
    assert timing.latency_ms > 0


async def test_a_failed_request_is_timed_with_its_reason() -> None:
    timings: list[Timing] = []
    async with (
        raw_server(says(b"no", then_close=True)) as peer,
        plain_session(on_timing=timings.append) as session,
    ):
        with pytest.raises(TransportError):
            await session.request("GET", peer.url(), step="idle")
    [timing] = timings
    assert (timing.step, timing.status) == ("idle", None)
    assert str(timing.error).startswith("the answer ")


def fault_session(faults: FaultPoint, clock: Any = None, **options: Any) -> HttpSession:
    door = HttpDoor(clock=clock or SystemClock(), faults=faults)
    return door.session(trust=TrustSet(), **options)


async def test_the_fault_point_sees_each_request_with_its_number() -> None:
    seen: list[tuple[Side, str, object, int]] = []

    def note(side: Side, step: str, message: object, n: int) -> Action | None:
        seen.append((side, step, message, n))
        return Action(name="somebody-elses")  # actions for other parts change nothing here

    async with raw_server(Recorder()) as peer, fault_session(note, device="SIM1") as session:
        for step in ("idle", "command", "idle"):
            answer = await session.request("PUT", peer.url("/mdm"), step=step, body=b"x")
            assert answer.status == 200
    assert [(side, step, n) for side, step, _, n in seen] == [
        ("device", "idle", 1),
        ("device", "command", 1),
        ("device", "idle", 2),
    ]
    message = seen[0][2]
    assert isinstance(message, OutgoingRequest)
    assert (message.method, message.url, message.body) == ("PUT", peer.url("/mdm"), b"x")
    assert message.device == "SIM1"


def once(name: str, **arguments: Any) -> FaultPoint:
    """A FaultPoint that strikes the first request only."""

    def point(side: Side, step: str, message: object, n: int) -> Action | None:
        return Action(name=name, arguments=arguments) if n == 1 else None

    return point


async def test_a_dropped_request_never_leaves() -> None:
    server = Recorder()
    async with raw_server(server) as peer, fault_session(once("drop-request")) as session:
        with pytest.raises(TransportError, match="fault drop-request"):
            await session.request("PUT", peer.url("/one"), step="idle")
        await session.request("PUT", peer.url("/two"), step="idle")
    assert server.lines == ["PUT /two"]
    assert peer.connections == 1


async def test_a_dropped_response_was_given_but_not_read() -> None:
    server = Recorder()
    async with raw_server(server) as peer, fault_session(once("drop-response")) as session:
        with pytest.raises(TransportError, match="fault drop-response"):
            await session.request("PUT", peer.url("/one"), step="idle")
        await session.request("PUT", peer.url("/two"), step="idle")
    assert server.lines == ["PUT /one", "PUT /two"]
    assert peer.connections == 2


async def test_a_delay_passes_in_simulated_time() -> None:
    clock = SimulatedClock()
    server = Recorder()
    async with (
        raw_server(server) as peer,
        fault_session(once("delay", seconds=3600), clock=clock) as session,
    ):
        task = asyncio.create_task(session.request("PUT", peer.url("/late"), step="idle"))
        await clock.advance(3599)
        assert server.lines == []
        await clock.advance(1)
        assert (await task).status == 200
    assert server.lines == ["PUT /late"]


async def test_simulated_time_stands_still_while_a_request_is_in_flight() -> None:
    clock = SimulatedClock()
    start = clock.now()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await answer.wait()
        writer.write(OK)

    async with raw_server(talk) as peer, fault_session(no_faults, clock=clock) as session:
        task = asyncio.create_task(session.request("GET", peer.url(), step="idle"))
        await asked.wait()
        hurry = asyncio.create_task(clock.advance(60))
        for _ in range(20):
            await asyncio.sleep(0)
        assert clock.now() == start
        answer.set()
        await task
        await hurry
    assert (clock.now() - start).total_seconds() == 60


async def test_a_failed_request_lets_simulated_time_go_on() -> None:
    clock = SimulatedClock()
    async with (
        raw_server(says(b"", then_close=True)) as peer,
        fault_session(no_faults, clock=clock) as session,
    ):
        with pytest.raises(TransportError):
            await session.request("GET", peer.url(), step="idle")
        await clock.advance(60, guard_s=1)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://host/a//b", "https://host"),
        ("https://host", "https://host"),
        ("https://host:8?next=//other/x", "https://host:8"),
        ("https://host#/x", "https://host"),
        ("https:/host/a", "https:"),
        ("host/a", "host"),
        ("", ""),
    ],
)
def test_the_place_of_a_url_ends_where_its_path_begins(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://host", b"/"),
        ("https://host/a", b"/a"),
        ("https://host/a?next=/b", b"/a?next=/b"),
        ("https://host?next=/b", b"/?next=/b"),  # all that stands there belongs to the query
        ("https://host#/b", b"/"),
    ],
)
def test_the_request_line_names_path_and_query(url: str, target: bytes) -> None:
    request = OutgoingRequest(method="GET", url=url, headers={}, body=b"")
    assert request.to_bytes().startswith(b"GET " + target + b" HTTP/1.1\r\n")


def test_a_decision_about_one_place_is_not_taken_for_another() -> None:
    hosts = HostMap.parse(["a.example=127.0.0.1:1"])
    for path in ("", "/x", "/x/y?z=//b.example/", "?q"):
        assert hosts.resolve(f"https://a.example{path}").port == 1
        assert hosts.resolve(f"https://b.example{path}").host == "b.example"
        with pytest.raises(ForbiddenHost):
            hosts.resolve(f"https://mdmenrollment.apple.com{path}")
    for odd in ("https:/\t/c.example/x", "https:/\t/apple.com/x"):
        with pytest.raises(MalformedMessage):
            hosts.resolve(odd)
    assert len(hosts._known) == 2


def test_what_a_map_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.hosts.MAX_KNOWN", 2)
    hosts = HostMap()
    for number in range(5):
        assert hosts.resolve(f"https://h{number}.example/").host == f"h{number}.example"
    assert len(hosts._known) == 2
