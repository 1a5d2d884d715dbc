"""The nonces of an ACME server, good once each (RFC 8555, section 6.5); the table has a limit, so that load cannot grow it for ever."""

import os
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from certs.acme.jws import base64url
from certs.clock import Clock

NONCE_LIFETIME: Final = timedelta(hours=1)
MAX_NONCES: Final = 100_000


class NonceStore:
    """Each nonce is good once, for an hour, and while at most `limit` newer ones have been given out."""

    def __init__(self, clock: Clock, limit: int = MAX_NONCES) -> None:
        self._clock = clock
        self._limit = limit
        self._given: OrderedDict[str, datetime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._given)

    def new(self) -> str:
        nonce = base64url(os.urandom(16))
        self._given[nonce] = self._clock.now()
        if len(self._given) > self._limit:
            self._given.popitem(last=False)
        return nonce

    def use(self, nonce: str) -> bool:
        """True the first time for a nonce of ours that is not too old."""
        given = self._given.pop(nonce, None)
        return given is not None and self._clock.now() - given <= NONCE_LIFETIME
