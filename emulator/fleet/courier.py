"""The fleet's end of the wake channel: one line for all its devices, however many there are (`emulator.wire.courier`).

`LocalCourier` serves a fleet that runs its own stand-ins on the same event loop; `SocketCourier` keeps one WebSocket to stand-ins
anywhere, comes back with a jittered back-off, and acknowledges what it has got.
"""

import asyncio
import random
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.hosts import HostMap
from emulator.apple.push import PushService
from emulator.apple.push_tokens import Notification
from emulator.config import CONNECT_TIMEOUT_S, REGISTRATION_TIMEOUT_S
from emulator.errors import PeerRefused, StepTimeout
from emulator.wire import courier
from emulator.wire.courier import Ack, Forget, Hello, Offline, Online, Subscription
from emulator.wire.push import token_of

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse

log = structlog.get_logger()

STEP: Final = "push_token"
FIRST_BACK_OFF_S: Final = 0.5
LONGEST_BACK_OFF_S: Final = 30.0
HEARTBEAT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A push that has come for a token of ours."""

    token: bytes
    payload: bytes
    age_ms: float  # since APNs accepted it
    stored: bool  # it waited for us


OnPush = Callable[[Arrival], None]


class Courier(Protocol):
    """What the fleet asks of a wake channel."""

    async def register(self, subscription: Subscription) -> None:
        """Make a token known. Raises PeerRefused or StepTimeout."""
        ...

    async def listen(self) -> None:
        """All tokens of the fleet, as they stand. Raises PeerRefused or StepTimeout when nobody is there."""
        ...

    def online(self, token: bytes) -> None: ...

    def offline(self, token: bytes) -> None: ...

    def forget(self, token: bytes) -> None: ...

    async def close(self) -> None: ...


class LocalCourier:
    """Calls instead of frames."""

    def __init__(
        self,
        service: PushService,
        subscriptions: Callable[[], Iterable[Subscription]],
        on_push: OnPush,
        clock: Clock,
    ) -> None:
        self._service = service
        self._subscriptions = subscriptions
        self._on_push = on_push
        self._clock = clock
        self._channel = service.local(self._arrived)

    async def register(self, subscription: Subscription) -> None:
        self._register(subscription)

    async def listen(self) -> None:
        for subscription in self._subscriptions():
            self._register(subscription)

    def online(self, token: bytes) -> None:
        self._service.tokens.connect(token, self._channel)

    def offline(self, token: bytes) -> None:
        self._service.tokens.disconnect(token, self._channel)

    def forget(self, token: bytes) -> None:
        self._service.tokens.forget(token)

    async def close(self) -> None:
        self._channel.close()

    def _register(self, subscription: Subscription) -> None:
        token = token_of(subscription.token)
        self._service.tokens.register(token, subscription.topic, subscription.device)
        if subscription.online:
            self.online(token)

    def _arrived(self, push: Notification) -> None:
        age = self._clock.now() - push.accepted_at
        self._on_push(
            Arrival(
                token=push.token,
                payload=push.payload,
                age_ms=age.total_seconds() * 1000,
                stored=push.stored,
            )
        )


class SocketCourier:
    """One WebSocket, opened at first need and kept open."""

    def __init__(
        self,
        url: str,
        token: str,
        subscriptions: Callable[[], Iterable[Subscription]],
        on_push: OnPush,
        *,
        context: ssl.SSLContext,
        hosts: HostMap,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        self._url = url.rstrip("/") + courier.PATH
        self._token = token
        self._subscriptions = subscriptions
        self._on_push = on_push
        self._context = context
        self._hosts = hosts
        self._clock = clock
        self._random = random.Random(seed)
        self._socket: ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._outgoing: list[courier.ClientFrame] = []
        self._registering: list[Subscription] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by number of the hello
        self._wake = asyncio.Event()
        self._forgotten: set[bytes] = set()  # while nobody could be told
        self._hellos = 0
        self._problem = "no answer yet"
        self.connections = 0

    # --- what the fleet asks

    async def register(self, subscription: Subscription) -> None:
        await self._connection()
        await self._introduce([subscription])

    async def listen(self) -> None:
        if self._connected.is_set():
            await self._introduce(list(self._subscriptions()))
        else:
            await self._connection()  # its first hello names every token

    async def _introduce(self, subscriptions: list[Subscription]) -> None:
        """Name these in a hello of this connection and wait for its confirmation."""
        if not subscriptions:
            return
        self._registering += subscriptions
        self._wake.set()
        ahead = (len(self._registering) - 1) // courier.MAX_DEVICES
        await self._confirmed(self._hellos + 1 + ahead)

    async def _connection(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected())
        try:
            async with asyncio.timeout(REGISTRATION_TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError:
            raise PeerRefused(STEP, f"{self._url}: {self._problem}") from None

    def online(self, token: bytes) -> None:
        self._say(Online(token.hex()))

    def offline(self, token: bytes) -> None:
        self._say(Offline(token.hex()))

    def forget(self, token: bytes) -> None:
        if self._connected.is_set():
            self._say(Forget(token.hex()))
        else:
            self._forgotten.add(token)

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._disconnected()

    # --- the connection

    async def _keep_connected(self) -> None:
        from aiohttp import ClientError, ClientSession, DummyCookieJar

        failures = 0
        async with ClientSession(cookie_jar=DummyCookieJar()) as http:
            while True:
                try:
                    await self._connect(http)
                    failures = 0
                    self._problem = "the connection ended"
                except (ClientError, OSError, TimeoutError, MalformedMessage) as error:
                    self._problem = str(error) or type(error).__name__
                if self._disconnected():
                    failures = 0
                failures += 1
                await self._clock.sleep(self._back_off_s(failures))

    def _back_off_s(self, failures: int) -> float:
        """Doubles up to the longest, and is spread so that fleets do not come back together."""
        longest = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(failures - 1, 10))
        back_off_s = longest * (0.5 + self._random.random() / 2)
        log.warning("courier_away", problem=self._problem, back_off_s=round(back_off_s, 2))
        return back_off_s

    async def _connect(self, http: "ClientSession") -> None:
        """One connection, from its hello to its end. Raises what aiohttp raises."""
        where = self._hosts.resolve(self._url)
        scheme = "wss" if where.tls else "ws"
        host = f"[{where.host}]" if ":" in where.host else where.host
        parts = urlsplit(self._url)
        tls: dict[str, Any] = {"ssl": self._context, "server_hostname": parts.hostname}
        async with http.ws_connect(
            f"{scheme}://{host}:{where.port}{parts.path}",
            headers={"Authorization": f"Bearer {self._token}", "Host": parts.netloc},
            heartbeat=HEARTBEAT_S,
            max_msg_size=courier.MAX_MESSAGE_BYTES,
            **(tls if where.tls else {}),
        ) as socket:
            self._socket = socket
            self.connections += 1
            async with asyncio.timeout(CONNECT_TIMEOUT_S + REGISTRATION_TIMEOUT_S):
                await self._hello(socket)
            writer = asyncio.create_task(self._write(socket))
            try:
                await self._read(socket)
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer

    async def _hello(self, socket: "ClientWebSocketResponse") -> None:
        """Tell all tokens and wait until all are known; pushes may come in between."""
        self._hellos = 0
        self._registering.clear()  # the hellos below name these, too
        for token in self._forgotten:
            await socket.send_bytes(courier.encode(Forget(token.hex())))
        self._forgotten.clear()
        for chunk in _chunks(self._subscriptions(), courier.MAX_DEVICES):
            self._hellos += 1
            await socket.send_bytes(courier.encode(Hello(chunk)))
        self._received = 0
        last = self._hellos
        if last:
            done = self._waiting[last] = asyncio.get_running_loop().create_future()
            while not done.done():
                if not await self._take(socket):
                    raise ConnectionError("closed before the hello was answered")
        self._outgoing.clear()
        self._connected.set()
        log.info("courier_connected", url=self._url, hellos=last)

    async def _read(self, socket: "ClientWebSocketResponse") -> None:
        while await self._take(socket):
            pass

    async def _take(self, socket: "ClientWebSocketResponse") -> bool:
        """One message; False at the end."""
        from aiohttp import WSMsgType

        message = await socket.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return False
        before = self._received
        for frame in courier.decode_server(message.data):
            match frame:
                case courier.Push():
                    self._received += 1
                    self._on_push(_arrival(frame))
                case courier.Registered(count=count):
                    self._registered(count)
                case courier.Refused(reason=reason):
                    raise MalformedMessage("courier", "no refusal", reason)
        if self._received > before:
            # Before anything else is said: an Offline that comes first takes its device's push back.
            await socket.send_bytes(courier.encode(Ack(self._received)))
        return True

    async def _write(self, socket: "ClientWebSocketResponse") -> None:
        """Send what has gathered, registrations of one turn of the loop as one hello."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            frames, self._outgoing = self._outgoing, []
            new = self._registering[: courier.MAX_DEVICES]
            del self._registering[: courier.MAX_DEVICES]
            if self._registering:
                self._wake.set()
            if new:
                self._hellos += 1
                frames = [Hello(new), *frames]
            if frames:
                await socket.send_bytes(courier.encode(*frames))

    def _say(self, frame: courier.ClientFrame) -> None:
        """While nobody is there nothing need be said: the next hello tells everything."""
        if self._connected.is_set():
            self._outgoing.append(frame)
            self._wake.set()

    async def _confirmed(self, number: int) -> None:
        waiter = self._waiting.get(number)
        if waiter is None:
            waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(REGISTRATION_TIMEOUT_S):
                await asyncio.shield(waiter)
        except TimeoutError:
            raise StepTimeout(STEP, REGISTRATION_TIMEOUT_S) from None
        except ConnectionError as error:
            raise PeerRefused(STEP, str(error)) from error

    def _registered(self, count: int) -> None:
        for number in [number for number in self._waiting if number <= count]:
            waiter = self._waiting.pop(number)
            if not waiter.done():
                waiter.set_result(None)

    def _disconnected(self) -> bool:
        """Forget the connection; whether there had been one."""
        was_connected = self._connected.is_set()
        self._connected.clear()
        self._socket = None
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError("the wake channel was lost"))
                waiter.exception()  # it may be that nobody waits any more
        return was_connected


def _arrival(frame: courier.Push) -> Arrival:
    return Arrival(
        token=token_of(frame.token),
        payload=bytes(frame.payload),
        age_ms=frame.age_ms,
        stored=frame.stored,
    )


def _chunks(items: Iterable[Subscription], size: int) -> Iterator[list[Subscription]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
