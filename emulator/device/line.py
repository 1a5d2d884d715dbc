"""The connection to the MDM server that the steps of one wake-up share."""

from collections.abc import Callable

from certs.identity import Identity
from emulator.http import HttpSession, TrustSet


class Line:
    """The HTTP session of one wake-up, kept from step to step while identity and trust stay the same."""

    def __init__(self) -> None:
        self._session: HttpSession | None = None
        self._identity: Identity | None = None
        self._trust: TrustSet | None = None

    async def session(
        self, trust: TrustSet, identity: Identity, connect: Callable[[], HttpSession]
    ) -> HttpSession:
        """The session that is there, or a new one in place of what was there for another identity or trust."""
        if self._session is None or self._identity is not identity or self._trust != trust:
            await self.close()
            self._session = connect()
            self._identity, self._trust = identity, trust
        return self._session

    async def close(self) -> None:
        """End its connections."""
        leaving, self._session = self._session, None
        if leaving is not None:
            await leaving.close()
