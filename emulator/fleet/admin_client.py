"""A client of the management ports: of the Apple stand-ins and of `mdmserver`. JSON both ways, bearer token."""

import json
from dataclasses import dataclass
from typing import Any, cast

from certs.errors import CertsError
from certs.transport import HttpResponse, Transport
from emulator.errors import PeerRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminClient:
    """One management port; `step` names it in errors and reports."""

    transport: Transport
    url: str
    token: str
    step: str

    async def call(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        data: bytes = b"",
        data_type: str = "",
    ) -> dict[str, Any]:
        """Send JSON, or `data` as it is, get a JSON object. Raises PeerRefused with the port's own words."""
        answer = await self.fetch(method, path, content, data=data, data_type=data_type)
        try:
            return cast(dict[str, Any], json.loads(answer.body))
        except ValueError as error:
            raise PeerRefused(self.step, f"the answer is not JSON: {error}") from error

    async def fetch(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        data: bytes = b"",
        data_type: str = "",
    ) -> HttpResponse:
        """Send JSON, or `data` as it is, get whatever comes with a 2xx. Raises PeerRefused with the port's own words."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        body = data
        if data_type:
            headers["Content-Type"] = data_type
        if content is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(content).encode()
        try:
            answer = await self.transport.request(
                method, f"{self.url}{path}", step=self.step, headers=headers, body=body
            )
        except CertsError as error:
            raise PeerRefused(self.step, str(error)) from error
        if not 200 <= answer.status < 300:
            raise PeerRefused(self.step, _words(answer), status=answer.status)
        return answer


def _words(answer: HttpResponse) -> str:
    try:
        return str(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError):
        return answer.body[:200].decode(errors="replace") or "no reason given"
