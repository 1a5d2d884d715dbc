"""When and how devices are pushed: after each enqueue, coalesced, again after a failure, never to a dead token (mdm.md 7, 12.9).

A push only says "connect": what waits for the device is in the queue. So one that is due is one, however often it is asked
for, and a lost one is made up for by pushing again what has waited too long.
"""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from certs.clock import Clock
from certs.errors import CertsError
from certs.identity import Identity
from certs.keys import load_checked, spki_der
from emulator.errors import ConfigurationError
from mdmserver.push_client import PushAnswer, PushClient
from mdmserver.store.base import PushTarget, Store

log = structlog.get_logger()

AT_ONCE: Final = 200  # pushes under way
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 900.0  # what Apple advises after a 5xx
MAX_TRIES: Final = 8
AGAIN_AFTER_S: Final = 3600.0  # commands that nobody has fetched for so long
SPARE_ENTRIES: Final = 100  # of the heap of retries, before it is tidied up
STORED_S: Final = 7 * 86400.0  # how long APNs should keep a push for a device that is away


class Pusher:
    """Pushes for one server and one topic."""

    def __init__(
        self, client: PushClient, topic: str, store: Store, clock: Clock, *, seed: int | None = None
    ) -> None:
        self._client = client
        self._topic = topic
        self._store = store
        self._clock = clock
        self._random = random.Random(seed)
        self._due: dict[str, int] = {}  # UDID -> tries so far, oldest first
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[datetime, int]] = {}  # UDID -> when, tries so far
        self._later: list[tuple[datetime, str]] = []  # heap over them; entries may be out of date
        self._later_news = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self.counts: Counter[str] = Counter()  # accepted, refused, failed, given_up, turned_off

    async def start(self) -> None:
        """Push whoever has not fetched a command of an earlier run, and look after the rest from time to time."""
        self._background = [
            asyncio.create_task(self._retry()),
            asyncio.create_task(self._push_again()),
        ]
        self.wake_all(await self._store.push_waiting(self._clock.now()))

    async def close(self) -> None:
        self._due.clear()
        tasks = [*self._background, *self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def wake(self, udid: str) -> None:
        """There is something for this device."""
        # From the first try: what was said of an earlier push is no longer news.
        self._due[udid] = 0
        self._retries.pop(udid, None)
        self._pump()

    def wake_all(self, udids: Iterable[str]) -> None:
        """Push many."""
        for udid in udids:
            self._due.setdefault(udid, 0)
            self._retries.pop(udid, None)
        self._pump()

    def as_json(self) -> dict[str, int]:
        """What became of the pushes so far."""
        names = ("accepted", "refused", "failed", "given_up", "turned_off")
        return {
            **{name: self.counts[name] for name in names},
            "due": len(self._due) + len(self._under_way),
            "waiting_for_retry": len(self._retries),
        }

    async def settled(self) -> None:
        """Until nothing is due or under way; retries that wait do not count."""
        while self._under_way or self._due:
            await asyncio.wait(list(self._under_way.values()))

    def _pump(self) -> None:
        room = AT_ONCE - len(self._under_way)
        free = (udid for udid in self._due if udid not in self._under_way)
        for udid in list(islice(free, max(0, room))):
            self._under_way[udid] = asyncio.create_task(self._push(udid, self._due.pop(udid)))

    async def _push(self, udid: str, tries: int) -> None:
        try:
            with self._clock.busy():
                target = await self._store.push_target(udid)
                if target is not None and target.off_reason is None:
                    await self._send(target, tries)
        except Exception as error:
            log.exception("push_failed", udid=udid, error=str(error))
        finally:
            del self._under_way[udid]
            self._pump()

    async def _send(self, target: PushTarget, tries: int) -> None:
        if target.topic != self._topic:
            # The certificate is for another topic: APNs would refuse it as well (TopicDisallowed).
            self.counts["refused"] += 1
            log.warning("push_topic_differs", udid=target.udid, topic=target.topic)
            return
        try:
            answer = await self._client.send(
                target.token,
                target.topic,
                target.magic,
                expiration=self._clock.now() + timedelta(seconds=STORED_S),
            )
        except CertsError as error:
            self.counts["failed"] += 1
            self._try_again(target.udid, tries, str(error))
            return
        await self._judge(target, answer, tries)

    async def _judge(self, target: PushTarget, answer: PushAnswer, tries: int) -> None:
        if answer.accepted:
            self.counts["accepted"] += 1
            log.debug("pushed", udid=target.udid, apns_id=answer.apns_id)
            return
        reason = answer.refusal.reason if answer.refusal is not None else str(answer.status)
        self.counts["refused"] += 1
        if answer.token_is_dead:
            turned_off = await self._store.push_off(
                target.udid, target.token, reason, self._clock.now()
            )
            self.counts["turned_off"] += turned_off
            log.warning("push_token_dead", udid=target.udid, reason=reason, turned_off=turned_off)
        elif answer.worth_a_retry:
            self._try_again(target.udid, tries, reason)
        else:
            log.warning("push_refused", udid=target.udid, status=answer.status, reason=reason)

    def _try_again(self, udid: str, tries: int, reason: str) -> None:
        """Later, and later each time; whatever is enqueued meanwhile starts anew."""
        if udid in self._due:
            return  # it was asked for again meanwhile, and goes out now
        tries += 1
        if tries >= MAX_TRIES:
            self.counts["given_up"] += 1
            log.warning("push_given_up", udid=udid, reason=reason, tries=tries)
            return
        wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 4.0 ** (tries - 1))
        wait_s *= 0.75 + self._random.random() / 2
        log.info("push_again", udid=udid, reason=reason, wait_s=round(wait_s, 1), tries=tries)
        due = self._clock.now() + timedelta(seconds=wait_s)
        self._retries[udid] = (due, tries)
        heapq.heappush(self._later, (due, udid))
        if len(self._later) > 2 * len(self._retries) + SPARE_ENTRIES:
            # Enqueues that came during an outage left one behind each.
            self._later = [(due, udid) for udid, (due, _) in self._retries.items()]
            heapq.heapify(self._later)
        self._later_news.set()

    async def _retry(self) -> None:
        """One task for all that wait for another try."""
        while True:
            self._later_news.clear()
            if not self._later:
                await self._later_news.wait()
            elif (wait := self._later[0][0] - self._clock.now()) > timedelta(0):
                await self._sleep_unless_news(wait.total_seconds())
            else:
                due, udid = heapq.heappop(self._later)
                at, tries = self._retries.get(udid, (None, 0))
                if at == due:
                    del self._retries[udid]
                    self._due.setdefault(udid, tries)
                    self._pump()

    async def _sleep_unless_news(self, seconds: float) -> None:
        """Another one that waits may be due earlier."""
        both = [
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self._later_news.wait()),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()

    async def _push_again(self) -> None:
        """APNs may lose what it accepted."""
        while True:
            await self._clock.sleep(AGAIN_AFTER_S)
            with self._clock.busy():
                long_ago = self._clock.now() - timedelta(seconds=AGAIN_AFTER_S)
                udids = await self._store.push_waiting(long_ago)
                if udids:
                    log.info("push_again_what_waits", devices=len(udids))
                    self.wake_all(udids)


def read_identity(path: Path | None) -> Identity | None:
    """The push certificate and its key, both in one PEM file; off the event loop. Raises ConfigurationError."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
        key = load_checked(data)
        certificate, *chain = x509.load_pem_x509_certificates(data)
    except (OSError, ValueError, CertsError) as error:
        raise ConfigurationError(
            str(path), [f"is no certificate with its key in PEM: {error}"]
        ) from error
    if spki_der(key.public_key()) != certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise ConfigurationError(str(path), ["certificate and key do not belong together"])
    return Identity(key, certificate, tuple(chain))


def check_certificate(certificate: x509.Certificate, topic: str) -> None:
    """The push certificate must be for the topic that enrollment profiles name. Raises ConfigurationError."""
    found = topic_of(certificate)
    if found != topic:
        raise ConfigurationError(
            "push_certificate",
            [f"is for topic {found or '(no UID)'}, the enrollment profile names {topic}"],
        )


def topic_of(certificate: x509.Certificate) -> str | None:
    """The UID of the subject (apple-services.md 6.1)."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.USER_ID):
        return str(attribute.value)
    return None
