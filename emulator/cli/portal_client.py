"""What the `mdm-emulator portal` commands share: the administration of running stand-ins, and how a server is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import typer

from certs.event_loop import run_program
from emulator.cli.options import refuse

if TYPE_CHECKING:
    from certs.transport import HttpResponse

STEP: Final = "portal"
PAGE: Final = 1000  # what the administration gives at once


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalClient:
    """One administration; each call is a request of its own."""

    url: str
    token: str

    @classmethod
    def open(cls, apple: Path | None, admin: str | None, token_file: Path | None) -> Self:
        """From the state folder of `apple serve`, or from URL and file. Ends the command where neither is right."""
        from emulator.apple.addresses import Addresses

        if apple is not None and admin is not None:
            refuse(
                "portal: --apple and --admin exclude each other, as options or in the environment"
            )
        if apple is not None:
            at = Addresses.read(apple)
            admin, token_file = at.admin_url, token_file or Path(at.token_file)
        if admin is None or token_file is None:
            refuse(
                "portal: say where the stand-ins are: --apple DIR, or --admin URL and --admin-token FILE"
            )
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            refuse(f"portal: {token_file}: cannot be read: {error}")
        if not token or not token.isascii() or len(token.split()) > 1:
            refuse(f"portal: {token_file}: holds no bearer token")
        return cls(url=admin.rstrip("/"), token=token)

    def call(self, method: str, path: str, content: object = None) -> Any:
        """JSON both ways. Raises PeerRefused with the administration's own words."""
        import json

        return json.loads(self.fetch(method, path, content).body)

    def fetch(self, method: str, path: str, content: object = None) -> "HttpResponse":
        return run_program(self._fetch(method, path, content))

    async def _fetch(self, method: str, path: str, content: object) -> "HttpResponse":
        from certs.clock import SystemClock
        from emulator.errors import PeerRefused
        from emulator.fleet.admin_client import AdminClient
        from emulator.http import HttpDoor, TrustSet

        async with HttpDoor(clock=SystemClock()).session(trust=TrustSet(system=True)) as session:
            client = AdminClient(transport=session, url=self.url, token=self.token, step=STEP)
            try:
                return await client.fetch(method, path, content)
            except PeerRefused as error:
                if error.status == 401:
                    reason = "the token is not that of the stand-ins at"
                    raise PeerRefused(STEP, f"{reason} {self.url}", status=401) from error
                if error.status is not None:
                    raise
                reason = f"{error.reason}: does `mdm-emulator apple serve` run there?"
                raise PeerRefused(STEP, reason) from error

    def servers(self) -> list[dict[str, Any]]:
        """Every MDM server of the portal."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", f"/portal/servers?offset={len(found)}&limit={PAGE}")
            found += page["servers"]
            if len(found) >= page["total"] or not page["servers"]:
                return found

    def server(self, name: str) -> dict[str, Any]:
        """One server by UUID, by name, or as ORGANIZATION/NAME. Ends the command unless exactly one is meant."""
        uuid = name.replace("-", "").upper()
        servers = self.servers()
        found = [
            server
            for server in servers
            if uuid == server["uuid"] or name in (server["name"], _full_name(server))
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(_full_name(server) for server in (found or servers)[:20]) or "none"
        refuse(
            f"portal: {len(found)} servers are called {name!r}: write ORGANIZATION/NAME ({known})"
            if found
            else f"portal: no server is called {name!r} (there are: {known})"
        )


def client(context: typer.Context) -> PortalClient:
    """The administration that the options before the command name."""
    apple, admin, token_file = context.obj
    return PortalClient.open(apple, admin, token_file)


def read(path: Path) -> str:
    """A PEM file as text. Ends the command when it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"portal: {path}: cannot be read as PEM: {error}")


def keep(path: Path, data: bytes) -> None:
    """A file with secrets: for its owner only."""
    from certs.whole_file import write_whole

    try:
        write_whole(path, data)
    except OSError as error:
        refuse(f"portal: {path}: cannot be written: {error.strerror}")


def _full_name(server: dict[str, Any]) -> str:
    return f"{server['organization']}/{server['name']}"
