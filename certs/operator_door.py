"""Where an operator decides on SCEP requests that wait: a port of its own on loopback, behind a bearer token.

`Operator` is the other end, for the command line: it finds door and token in a file of the CA folder, which only the owner can
read and which is there while the server runs.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import structlog
from aiohttp import web
from cryptography.hazmat.primitives import hashes

from certs import names
from certs.admin_guard import admin_middleware
from certs.authorize import WaitingRequest
from certs.clock import Clock
from certs.errors import CertsError
from certs.keys import spki_der
from certs.scep.approval import ManualApproval
from certs.scep.transactions import WAITING_FOR
from certs.whole_file import write_whole

log = structlog.get_logger()

FILE: Final = "operator.json"  # in the CA folder
REQUESTS: Final = "/requests"
TIMEOUT_S: Final = 10.0


class OperatorDoor:
    """The handlers."""

    def __init__(self, approval: ManualApproval, token: str, clock: Clock) -> None:
        self._approval = approval
        self._token = token
        self._clock = clock

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=[admin_middleware(self._token, lambda: {"127.0.0.1", "localhost"})]
        )
        app.router.add_get(REQUESTS, self.waiting)
        app.router.add_post(f"{REQUESTS}/{{id}}/{{decision:approve|deny}}", self.decide)
        return app

    async def waiting(self, request: web.Request) -> web.Response:
        """Those nobody has decided on, oldest first; never a challenge."""
        self._approval.forget(self._clock.now() - WAITING_FOR)
        return web.json_response({"requests": [self._shown(one) for one in self._approval.waiting]})

    async def decide(self, request: web.Request) -> web.Response:
        """The next poll of that client brings the certificate, or badRequest."""
        self._approval.forget(self._clock.now() - WAITING_FOR)
        request_id, decision = request.match_info["id"], request.match_info["decision"]
        try:
            if decision == "approve":
                self._approval.approve(request_id)
            else:
                self._approval.deny(request_id)
        except LookupError as error:
            return web.json_response({"error": str(error)}, status=404)
        log.info("scep_request_decided", id=request_id, decision=decision)
        return web.json_response({"id": request_id, "decision": decision})

    def _shown(self, one: WaitingRequest) -> dict[str, Any]:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(spki_der(one.request.public_key))
        return {
            "id": one.id,
            "transaction_id": one.transaction_id,
            "subject": names.text(one.request.subject),
            "key_sha256": digest.finalize().hex(),
            "since": f"{one.since:%FT%TZ}",
            "waited_s": round((self._clock.now() - one.since).total_seconds()),
            "polls": one.polls,
        }


class OperatorRefused(CertsError):
    """The door is not there, or said no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Door and token."""

    url: str
    token: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises OperatorRefused where no server of this folder lets an operator decide."""
        try:
            fields = json.loads((folder / FILE).read_bytes())
            return cls(url=str(fields["url"]), token=str(fields["token"]))
        except FileNotFoundError:
            raise OperatorRefused(
                f"{folder}: no `mdm-certs serve --approval manual` runs with this folder"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorRefused(f"{folder / FILE}: cannot be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Where others of the same owner find the door."""
        content = {"url": self.url, "token": self.token}
        write_whole(folder / FILE, json.dumps(content).encode() + b"\n")

    def waiting(self) -> list[dict[str, Any]]:
        """As `OperatorDoor.waiting` says. Raises OperatorRefused."""
        return list(self._ask("GET", REQUESTS)["requests"])

    def decide(self, request_id: str, decision: str) -> None:
        """`approve` or `deny` the request that `waiting` shows with this id. Raises OperatorRefused."""
        self._ask("POST", f"{REQUESTS}/{quote(request_id, safe='')}/{decision}")

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            headers={"Authorization": f"Bearer {self.token}"},
        )
        # Never by a proxy of the environment: the door is on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                raise OperatorRefused(_words(error.read(), error.code)) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError):  # killed, so that its file stayed
                reason = "the `mdm-certs serve --approval manual` that was here has ended"
            raise OperatorRefused(f"{self.url}: {reason}") from error


def _words(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
