"""The devices' own HTTP/1.1: asyncio and httptools, a client identity per connection, time-outs, redirects, bounds."""

from emulator.http.door import HttpDoor, HttpSession
from emulator.http.request import Origin, OutgoingRequest
from emulator.http.tls import TrustSet

__all__ = ["HttpDoor", "HttpSession", "Origin", "OutgoingRequest", "TrustSet"]
