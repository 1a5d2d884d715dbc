"""How the demo's devices get their profile: by automated device enrollment's own way, from the server token to the assignment.

In a browser a person does this once: a key pair made by the MDM server, its certificate taken to Apple's portal, the server
token taken back, a default profile. From then on the server asks Apple's assignment API by itself.
"""

import sys
from dataclasses import dataclass
from typing import Any, Final

from certs.clock import Clock
from emulator.errors import StepTimeout
from emulator.fleet.admin_client import AdminClient

STEP: Final = "device assignment"
DEADLINE_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.02
TOKEN_TYPE: Final = "application/pkcs7-mime"


@dataclass(kw_only=True)
class AssignmentDesk:
    """The person with two windows open: the portal and the management of the MDM server."""

    portal: AdminClient
    server: AdminClient
    clock: Clock
    _key: str = ""
    _token_file: bytes = b""
    _token: str = ""

    async def register_server(self, organization: str, name: str) -> None:
        """Make the MDM server known to the portal; what comes back is its server token (.p7m)."""
        key = await self.server.call("POST", "/v1/token-keys", {"consent": True})
        self._key = str(key["key_id"])
        pem = await self.server.fetch("GET", f"/v1/token-keys/{self._key}/certificate.pem")
        wanted = {"organization": organization, "name": name, "certificate": pem.body.decode()}
        self._token_file = (await self.portal.fetch("POST", "/portal/servers", wanted)).body
        _say(
            f"{name} is in the portal of {organization}; server token: {len(self._token_file)} bytes of .p7m"
        )

    async def upload_token(self) -> None:
        """Give the server its token, and a default profile; it asks for its devices at once."""
        answer = await self.server.call(
            "POST",
            f"/v1/token-keys/{self._key}/token",
            data=self._token_file,
            data_type=TOKEN_TYPE,
        )
        self._token = str(answer["token_id"])
        path = f"/v1/tokens/{self._token}/profiles"
        profile = await self.server.call("POST", path, {"default": True})
        _say(f"token uploaded; default profile {profile['profile_uuid']}")

    async def wait_until_assigned(self, count: int) -> None:
        """Until the server lists so many devices and each of them has a profile. Raises StepTimeout."""
        began = self.clock.now()
        while True:
            status = await self._status()
            if status["listed"] == count and status["without_profile"] == 0:
                break
            if (self.clock.now() - began).total_seconds() > DEADLINE_S:
                raise StepTimeout(STEP, DEADLINE_S)
            await self.clock.sleep(LOOK_AGAIN_S)
        _say(f"{count} devices synced, each with its profile assigned")

    async def _status(self) -> dict[str, Any]:
        token = await self.server.call("GET", f"/v1/tokens/{self._token}")
        return dict(token["devices"])


def _say(words: str) -> None:
    print(f"{STEP}: {words}", file=sys.stderr)
