"""The administrator's side of push: certificates from the Sim APNs CA, tokens, statistics, GOAWAY on demand.

The routes join those of `admin`, behind its guard. Only the answer that makes a key holds one.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.errors import MalformedMessage
from certs.keys import generate, to_pem
from emulator import settings_file
from emulator.apple.pki import SimPKI
from emulator.apple.push_certificate import TOPIC_PREFIX
from emulator.apple.push_faults import PushFaults, PushFaultsPlan
from emulator.apple.push_stats import Gauges, PushStats, exposition
from emulator.apple.push_tokens import PushTokens
from emulator.wire import json_object
from emulator.wire.fields import optional, required
from emulator.wire.push import Reason, token_of

log = structlog.get_logger()

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
YEAR: Final = 365


class PushAdmin:
    """The handlers."""

    def __init__(
        self,
        pki: SimPKI,
        tokens: PushTokens,
        stats: PushStats,
        gauges: Callable[[], Gauges],
        go_away: Callable[[Reason], int],
        faults: PushFaults,
    ) -> None:
        self._pki = pki
        self._tokens = tokens
        self._stats = stats
        self._gauges = gauges
        self._go_away = go_away
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/push/stats", self.stats),
            web.post("/push/certificates", self.certificate),
            web.post("/push/goaway", self.goaway),
            web.get("/push/faults", self.faults),
            web.put("/push/faults", self.plan),
            web.delete("/push/faults", self.honest),
            web.get("/push/tokens/{token}", self.token),
            web.delete("/push/tokens/{token}", self.forget),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text; the scraper sends the bearer token."""
        text = exposition(self._stats, self._gauges)
        return web.Response(body=text, headers={"Content-Type": PROMETHEUS})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response({**self._stats.as_json(), **self._gauges().as_json()})

    async def certificate(self, request: web.Request) -> web.Response:
        """`{"topic", "days"?, "csr"?}`: a push certificate; without a CSR (PEM) the key is made here and sent along."""
        fields = json_object.loads(await request.read(), "push certificate request")
        topic = required(fields, "topic", str)
        days = optional(fields, "days", float) or YEAR
        request_pem = optional(fields, "csr", str)
        if not topic.startswith(TOPIC_PREFIX) or len(topic) > 255 or not topic.isascii():
            raise MalformedMessage("topic", f"ASCII text that starts with {TOPIC_PREFIX}", topic)
        answer: dict[str, Any] = {"topic": topic}
        if request_pem is None:
            key = await asyncio.to_thread(generate, "rsa2048")
            answer["private_key"] = to_pem(key).decode()
            public_key = key.public_key()
        else:
            public_key = csr.decode(request_pem.encode()).public_key
        certificate = self._pki.issue_push_certificate(public_key, topic, days=days)
        answer["certificate"] = _pem(certificate)
        log.info("push_certificate_issued", topic=topic, serial=f"{certificate.serial_number:x}")
        return web.json_response(answer, status=201)

    async def goaway(self, request: web.Request) -> web.Response:
        """`{"reason"?}`: end every provider connection with GOAWAY, as a service that is restarted does."""
        body = await request.read()
        fields = json_object.loads(body, "goaway") if body else {}
        word = optional(fields, "reason", str) or Reason.SHUTDOWN.value
        try:
            reason = Reason(word)
        except ValueError:
            raise MalformedMessage("reason", "a reason of APNs", word) from None
        return web.json_response({"closed": self._go_away(reason)})

    async def faults(self, request: web.Request) -> web.Response:
        """What is left of the plan."""
        return web.json_response({"faults": self._faults.shown()})

    async def plan(self, request: web.Request) -> web.Response:
        """`{"faults": [{step, action, …}]}` (`push_faults`), in place of the plan before."""
        content = json_object.loads(await request.read(), "faults")
        plan = settings_file.validate(content, PushFaultsPlan, source="faults")
        self._faults.plan(plan.faults)
        log.info("push_faults_planned", count=len(plan.faults))
        return await self.faults(request)

    async def honest(self, request: web.Request) -> web.Response:
        """Nothing goes wrong any more."""
        self._faults.plan(())
        log.info("push_faults_planned", count=0)
        return await self.faults(request)

    async def token(self, request: web.Request) -> web.Response:
        """What is known of one token."""
        token = token_of(request.match_info["token"])
        record = self._tokens.get(token)
        if record is not None:
            return web.json_response(
                {
                    "token": token.hex(),
                    "topic": record.topic,
                    "device": record.device,
                    "online": record.channel is not None,
                    "pending": record.pending is not None,
                }
            )
        gone = self._tokens.gone(token)
        if gone is None:
            raise web.HTTPNotFound
        return web.json_response(
            {
                "token": token.hex(),
                "gone": gone.reason.value,
                "since": f"{gone.since:%Y-%m-%dT%H:%M:%SZ}",
            }
        )

    async def forget(self, request: web.Request) -> web.Response:
        """`DELETE /push/tokens/{token}[?reason=ExpiredToken]`: a push to it is a 410 from now on."""
        token = token_of(request.match_info["token"])
        word = request.query.get("reason", Reason.UNREGISTERED.value)
        if word not in (Reason.UNREGISTERED.value, Reason.EXPIRED_TOKEN.value):
            raise MalformedMessage("reason", "Unregistered or ExpiredToken", word)
        if not self._tokens.forget(token, Reason(word)):
            raise web.HTTPNotFound
        log.info("push_token_removed", reason=word)
        return web.json_response({"removed": token.hex()})


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
