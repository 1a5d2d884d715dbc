"""The stand-ins as a program: PKI, registry, tokens and addresses of one state folder, from start to end.

    STATE/apple/                 simulated PKI, as a fleet keeps it in its own state folder
    STATE/apple/registry.sqlite  organisations, servers, devices, tokens
    STATE/apple/admin-token      bearer token of the administration
    STATE/apple/anchors/         every anchor as PEM, trust-bundle.pem, README.md
    STATE/apple/proxy/           the proxy's CA
    STATE/apple/serving.json     where everything is, while it runs

All of it is for its owner only, but for the anchors.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from certs.admin_guard import load_token
from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.whole_file import write_whole
from emulator.apple import tokens, trust_guide
from emulator.apple.addresses import FOLDER, Addresses
from emulator.apple.app import AppleServices
from emulator.apple.assignment_faults import AssignmentFaults
from emulator.apple.pki import SimPKI
from emulator.apple.serve_file import AppleFile, TokenFile
from emulator.errors import ConfigurationError
from emulator.wire import token as wire
from emulator.wire.token import ServerToken

REGISTRY: Final = "registry.sqlite"
TOKEN: Final = "admin-token"
ANCHORS: Final = "anchors"
BUNDLE: Final = "trust-bundle.pem"


class Serving:
    """What `mdm-emulator apple serve` runs; an async context manager."""

    addresses: Addresses

    def __init__(self, file: AppleFile, state: Path, clock: Clock, *, keep: bool = True) -> None:
        """`keep` False: the registry stays in memory, and `state` is a folder that goes away."""
        self.file = file
        self.state = state
        self.services: AppleServices
        self._clock = clock
        self._keep = keep
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        file, folder = self.file, self.state.absolute() / FOLDER
        try:
            pki = await asyncio.to_thread(SimPKI.open, folder, self._clock)
        except OSError as error:
            raise ConfigurationError(
                str(self.state), [f"cannot keep the state: {error.strerror}"]
            ) from error
        services = AppleServices(
            pki=pki,
            clock=self._clock,
            portal=file.portal,
            activation_settings=file.activation,
            cloud_settings=file.cloud_configuration,
            host=file.host,
            port=file.port,
            admin_port=file.admin_port,
            hosts=file.names,
            token=await asyncio.to_thread(_token, folder / TOKEN),
            push=file.push,
            assignment=file.assignment,
            assignment_faults=AssignmentFaults(file.faults.assignment),
            state=folder / REGISTRY if self._keep else None,
            proxy_port=file.proxy_port,
            proxy_folder=folder / "proxy",
        )
        for serial, faults in file.faults.devices.items():
            services.planned_faults.plan(serial, faults)
        services.push.faults.plan(file.faults.push)
        self.services = await self._stack.enter_async_context(services)
        self.addresses = await asyncio.to_thread(self._export, folder)
        await self._issue_tokens()
        self.addresses.write(self.state)
        self._stack.callback(Addresses.remove, self.state)

    def _export(self, folder: Path) -> Addresses:
        """Write what others need: anchors, and one file of trust for TLS."""
        services = self.services
        anchors = folder / ANCHORS
        trust_guide.export(services.pki, anchors)
        roots = [services.pki.pems()["sim-tls-ca.pem"]]
        if services.proxy_authority is not None:
            roots.append(services.proxy_authority.pem())
        bundle = anchors / BUNDLE
        write_whole(bundle, "".join(roots).encode(), 0o644)
        plain = services.push.plain_port
        return Addresses(
            url=services.url,
            push_url=services.push_url,
            admin_url=services.admin_url,
            token_file=str(folder / TOKEN),
            tls_root=str(anchors / "sim-tls-ca.pem"),
            trust_bundle=str(bundle),
            anchors=str(anchors),
            proxy_url=None if services.proxy is None else services.proxy.url,
            push_plain_url=None if plain is None else f"http://127.0.0.1:{plain}",
        )

    async def _issue_tokens(self) -> None:
        """The token files that the settings ask for; where file and token are there already, both stay."""
        registry, now = self.services.registry, self._clock.now()
        for number, wanted in enumerate(self.file.tokens):
            organization = registry.organizations.get(wanted.organization)
            server = None if organization is None else organization.servers.get(wanted.server)
            if organization is None or server is None:
                raise ConfigurationError(
                    f"tokens.{number}", [f"server {wanted.server!r} is not in the portal any more"]
                )
            ledger = registry.ledgers[server.uuid]
            if ledger.token is not None and wanted.file.exists():
                continue
            token = tokens.issue(registry, ledger, organization, now, by=wanted.by)
            await self.services.keep()
            await asyncio.to_thread(_write, wanted, token, ledger.certificate)


def _write(wanted: TokenFile, token: ServerToken, certificate: bytes | None) -> None:
    if wanted.format == "json":
        data = wire.encode(token)
    elif certificate is None:
        raise ConfigurationError(str(wanted.file), ["the server has no certificate any more"])
    else:
        recipient = tokens.recipient(certificate)
        data = tokens.seal(token, recipient, cipher=wanted.cipher, lengths=wanted.lengths)
    try:
        wanted.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(wanted.file, data)
    except OSError as error:
        raise ConfigurationError(
            str(wanted.file), [f"cannot be written: {error.strerror}"]
        ) from error


def _token(path: Path) -> str:
    try:
        return load_token(path)
    except MalformedMessage as error:
        raise ConfigurationError(str(path), [str(error)]) from error
