"""The way to Apple's side for one token: a connection of our own, the token's session, and what a refusal says about the token."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from certs.clock import Clock
from emulator.http import HttpDoor, TrustSet
from mdmserver.assignment_client import AssignmentClient, Session
from mdmserver.assignment_errors import AppleError, TokenExpired
from mdmserver.store.assignment_base import AssignmentStore, Credentials, Token, Trouble

log = structlog.get_logger()


class AppleSide:
    """Makes clients; remembers each token's session for as long as the process lives."""

    def __init__(
        self,
        store: AssignmentStore,
        door: HttpDoor,
        trust: TrustSet,
        *,
        url: str,
        user_agent: str,
    ) -> None:
        self._store = store
        self._door = door
        self._trust = trust
        self._url = url
        self._user_agent = user_agent
        self._sessions: defaultdict[str, Session] = defaultdict(Session)  # by token

    @property
    def _clock(self) -> Clock:
        return self._door.clock

    @asynccontextmanager
    async def client(
        self, token: Token, *, patient: bool = False
    ) -> AsyncIterator[AssignmentClient]:
        """Ask for `token`; an AppleError about the token itself becomes the token's trouble, and success ends that."""
        try:
            if token.credentials.expires_at <= self._clock.now():
                raise TokenExpired(token.credentials.expires_at)
            session = self._sessions[token.token_id]
            async with self._connected(token.credentials, session, patient) as client:
                yield client
        except AppleError as error:
            if error.about_token:
                await self._note(token, error)
            raise
        if token.trouble is not None:
            await self._store.set_trouble(token.token_id, None)
            log.info("assignment_token_accepted", token=token.token_id)

    @asynccontextmanager
    async def trial(self, credentials: Credentials) -> AsyncIterator[AssignmentClient]:
        """Ask with credentials that are not stored; nothing is remembered."""
        async with self._connected(credentials, Session(), False) as client:
            yield client

    @asynccontextmanager
    async def _connected(
        self, credentials: Credentials, session: Session, patient: bool
    ) -> AsyncIterator[AssignmentClient]:
        async with self._door.session(trust=self._trust, user_agent=self._user_agent) as transport:
            yield AssignmentClient(
                transport, self._url, credentials, session, clock=self._clock, patient=patient
            )

    async def _note(self, token: Token, error: AppleError) -> None:
        trouble = Trouble(
            word=error.word, detail=error.detail, step=error.step, at=self._clock.now()
        )
        await self._store.set_trouble(token.token_id, trouble)
        log.warning(
            "assignment_token_refused",
            token=token.token_id,
            name=token.name,
            step=error.step,
            word=error.word,
            status=error.http_status,
        )

    def forget(self, token_id: str) -> None:
        """The token is renewed or deleted."""
        self._sessions.pop(token_id, None)
