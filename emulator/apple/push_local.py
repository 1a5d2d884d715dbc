"""The wake channel of a fleet that shares our event loop: no socket, no JSON; a push is a call."""

import asyncio
from collections.abc import Callable

from emulator.apple.push_tokens import Notification, PushTokens

OnPush = Callable[[Notification], None]


class LocalChannel:
    """A `WakeChannel` that hands each push over in the next turn of the loop, and so counts it as delivered."""

    def __init__(self, tokens: PushTokens, on_push: OnPush) -> None:
        self._tokens = tokens
        self._on_push = on_push
        self._closed = False

    def deliver(self, push: Notification) -> None:
        asyncio.get_running_loop().call_soon(self._hand_over, push)

    def superseded(self, token: bytes) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nobody listens any more."""
        self._closed = True
        self._tokens.disconnect_all(self)

    def _hand_over(self, push: Notification) -> None:
        if self._closed or not self._tokens.listens(push.token, self):
            self._tokens.give_back(push)  # the device went away in this very turn
        else:
            self._tokens.delivered(push)
            self._on_push(push)
