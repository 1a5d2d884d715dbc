"""An opened fleet: its store, its door to the network, and the Apple stand-ins it meets.

Stand-ins that run already are named in the fleet file; otherwise this process starts its own on loopback, whose
simulated PKI lives in the state folder so that enrolled devices keep their factory identities.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from pydantic import ValidationError

from certs.clock import Clock, SystemClock
from certs.faults import FaultPoint, no_faults
from certs.hosts import HostMap
from certs.keys import FreshKeys, KeyPool, KeySource
from emulator.apple.app import AppleServices
from emulator.apple.cloudconfig import CloudConfigurationSettings
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.apple.proxy_authority import PUBLIC_FILE
from emulator.device.device import Device
from emulator.device.setup_assistant import (
    AutomatedEnrollment,
    EnrollmentWay,
    ProfileEnrollment,
    UrlEnrollment,
)
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import State
from emulator.device.surroundings import AppleEndpoints, Behaviour, Surroundings
from emulator.errors import ConfigurationError
from emulator.fleet.admin_client import AdminClient
from emulator.fleet.courier import Courier, LocalCourier, SocketCourier
from emulator.fleet.fleet import DevicePlan, FleetFile, plan
from emulator.fleet.preflight import preflight
from emulator.fleet.provision import FactoryKeys, assign, register
from emulator.fleet.runner import DEFAULT_CONCURRENCY, Outcome, Runner, describe
from emulator.fleet.spells import run_spells
from emulator.fleet.stats import Stats
from emulator.fleet.store import DeviceRow, FleetStore
from emulator.fleet.wake import Waker
from emulator.http import HttpDoor, TrustSet
from emulator.http.tls import TlsContexts
from emulator.wire.cloudconfig import CloudConfiguration, Organization

STORE_NAME: Final = "fleet.sqlite"
UNPROVISIONED: Final = "UNPROVISIONED"  # a row that holds keys, but no certificates yet
POOLED_KEYS: Final = 3  # RSA keys a device needs at most: factory, SCEP identity, SCEP signer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line adds to a fleet file."""

    state: Path
    hosts: HostMap = field(default_factory=HostMap)
    authorities: tuple[x509.Certificate, ...] = ()  # trusted beside the system's
    system_trust: bool = True
    concurrency: int = DEFAULT_CONCURRENCY
    clock: Clock = field(default_factory=SystemClock)
    faults: FaultPoint = no_faults


class FleetRun:
    """Opens everything that running a fleet needs; use as an async context manager.

    `fleet` None: the one that the store remembers from its enrollment.
    """

    def __init__(self, fleet: FleetFile | None, options: RunOptions) -> None:
        self.stats = Stats()
        self._given = fleet
        self._options = options
        self._stack = AsyncExitStack()
        self._own: AppleServices | None = None

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
        options = self._options
        path = options.state / STORE_NAME
        if self._given is None and not path.exists():
            raise ConfigurationError(str(path), ["does not exist: enroll a fleet first"])
        if self._given is not None:
            preflight(self._given)  # before anything is written
        self.store = await self._stack.enter_async_context(FleetStore(path))
        self.fleet = self._given or await self._remembered()
        self.keys: KeySource = KeyPool() if self.fleet.keys == "pool" else FreshKeys()
        url, admin_url, token = await self._stand_ins()
        self.waker = Waker() if self.fleet.wake.mode == "push" else None
        self._door = HttpDoor(clock=options.clock, hosts=options.hosts, faults=options.faults)
        self._session = await self._stack.enter_async_context(
            self._door.session(trust=self._trust(), user_agent="mdm-emulator")
        )
        self.registry = self.admin_client(admin_url, token, step="registry")
        self.runner = Runner(
            self.store,
            self._surroundings(url),
            stats=self.stats,
            concurrency=options.concurrency,
            on_settled=self.waker.settle if self.waker else lambda device: None,
        )
        if self.waker is not None:
            self.waker.attach(self.runner, self._courier(self.waker, url, token))
            self._stack.push_async_callback(self.waker.close)

    def _courier(self, waker: Waker, url: str, token: str) -> Courier:
        """Calls to stand-ins of our own, a WebSocket to others."""
        clock = self._options.clock
        if self._own is not None:
            return LocalCourier(self._own.push, waker.subscriptions, waker.arrived, clock)
        return SocketCourier(
            url,
            token,
            waker.subscriptions,
            waker.arrived,
            context=TlsContexts().for_connection(self._trust(), None).context,
            hosts=self._options.hosts,
            clock=clock,
            seed=self.fleet.seed,
        )

    def admin_client(self, url: str, token: str, *, step: str) -> AdminClient:
        """A client of a management port, through this fleet's door."""
        return AdminClient(transport=self._session, url=url, token=token, step=step)

    async def _remembered(self) -> FleetFile:
        facts = await self.store.facts()
        try:
            return FleetFile.model_validate_json(facts["fleet"])
        except (KeyError, ValidationError) as error:
            raise ConfigurationError(
                str(self.store.path), ["holds no fleet: enroll one first"]
            ) from error

    async def _stand_ins(self) -> tuple[str, str, str]:
        """URL, admin URL and token of the stand-ins; starts them when none run already."""
        apple = self.fleet.apple
        if apple.url and apple.admin_url and apple.token_file:
            try:
                token = apple.token_file.read_text().strip()
            except OSError as error:
                raise ConfigurationError(
                    "apple.token_file", [f"cannot be read: {error}"]
                ) from error
            return apple.url.rstrip("/"), apple.admin_url.rstrip("/"), token
        portal = Portal.read(apple.portal) if apple.portal else Portal()
        folder = self._options.state / "apple"
        pki = await asyncio.to_thread(SimPKI.open, folder, self._options.clock)
        self._own = await self._stack.enter_async_context(
            AppleServices(
                pki=pki,
                clock=self._options.clock,
                portal=portal,
                cloud_settings=CloudConfigurationSettings(
                    legacy=self.fleet.behaviour.cloud_configuration == "legacy"
                ),
                push=self.fleet.apple.push,
                proxy_port=self.fleet.apple.proxy_port,
                proxy_folder=folder / "proxy",
                faults=self._options.faults,
            )
        )
        return self._own.url, self._own.admin_url, self._own.token

    def _trust(self) -> TrustSet:
        roots = list(self._options.authorities)
        if self._own is not None:
            roots.append(self._own.pki.tls_ca.certificate)
        if self.fleet.apple.ca is not None:
            roots += read_authorities([self.fleet.apple.ca], source="apple.ca")
        return TrustSet(system=self._options.system_trust).with_roots(*roots)

    def _surroundings(self, apple_url: str) -> Surroundings:
        return Surroundings(
            door=self._door,
            clock=self._options.clock,
            keys=self.keys,
            apple=AppleEndpoints(
                activation_url=apple_url,
                cloud_configuration_url=apple_url,
                attestation_url=apple_url,
            ),
            trust=self._trust(),
            behaviour=Behaviour(
                activation=self.fleet.apple.activation, **self.fleet.behaviour.model_dump()
            ),
            faults=self._options.faults,
            push=self.waker,
        )

    @property
    def way(self) -> EnrollmentWay:
        """How the fleet file says its devices enroll."""
        if self.fleet.profile is not None:
            try:
                return ProfileEnrollment(self.fleet.profile.read_bytes())
            except OSError as error:
                raise ConfigurationError(
                    str(self.fleet.profile), [f"cannot be read: {error}"]
                ) from error
        if self.fleet.enroll_url is not None:
            assigned = self.fleet.assigned
            return UrlEnrollment(
                self.fleet.enroll_url,
                CloudConfiguration(
                    organization=Organization(name=self.fleet.name),
                    url=self.fleet.enroll_url,
                    is_supervised=assigned.supervised,
                    is_mandatory=True,
                    is_mdm_removable=assigned.removable,
                    await_device_configured=assigned.await_configuration,
                ),
            )
        return AutomatedEnrollment()

    async def sleep_until_pushed(self) -> None:
        """Every enrolled device sleeps and wakes by push, and goes through its offline spells, until cancelled."""
        if self.waker is None:
            raise ConfigurationError("wake", ["this fleet does not wake by push"])
        await self.waker.listen(await self.store.rows())
        spells = self.fleet.wake.offline
        if spells is None:
            await asyncio.Event().wait()
        else:
            await run_spells(
                self.waker,
                self.waker.serials(),
                spells,
                seed=self.fleet.seed,
                clock=self._options.clock,
            )

    def addresses(self) -> list[str]:
        """Where our own stand-ins are, for whoever points a server here."""
        if self._own is None:
            return []
        lines = [f"APNs: {self._own.push_url}", f"administration: {self._own.admin_url}"]
        if self._own.push.plain_port is not None:
            lines.append(f"APNs without TLS: http://127.0.0.1:{self._own.push.plain_port}")
        if self._own.proxy is not None:
            trust = self._options.state / "apple" / "proxy" / PUBLIC_FILE
            lines.append(f"proxy: HTTPS_PROXY={self._own.proxy.url} SSL_CERT_FILE={trust}")
        return lines

    async def outcomes(self) -> list[Outcome]:
        """How every device stands now; one whose last session failed says so."""
        return [
            replace(describe(thaw(row.snapshot), self._options.clock.now()), error=row.error)
            for row in await self.store.rows()
            if row.state != UNPROVISIONED
        ]

    async def remember(self) -> None:
        """Keep the fleet file in the store, for later check-ins."""
        await self.store.remember(fleet=self.fleet.model_dump_json())

    async def manufacture(self) -> list[DeviceRow]:
        """Make the devices that the store does not hold yet; returns the rows of all, in fleet order.

        Raises ConfigurationError when the fleet is impossible or the store holds another one.
        """
        plans = plan(self.fleet)
        known = {row.position: row for row in await self.store.rows()}
        others = [
            f"holds another fleet (device {row.position} is {row.serial}, not {device.hardware.serial_number}): choose another --state"
            for device in plans
            if (row := known.get(device.position)) and row.udid != device.hardware.udid
        ]
        if others:
            raise ConfigurationError(str(self.store.path), others[:1])
        missing = [device for device in plans if device.position not in known]
        if isinstance(self.keys, KeyPool):
            await asyncio.to_thread(self.keys.fill, "rsa2048", POOLED_KEYS * len(missing))
        await self.store.save_all([await self._blank(device) for device in missing])
        await self._agree(plans)
        return await self.store.rows()

    async def select(self, names: list[str]) -> list[DeviceRow]:
        """The rows of these serial numbers or UDIDs, or all. Raises ConfigurationError naming every unknown one."""
        await self._agree(plan(self.fleet))
        if not names:
            return await self.store.rows()
        found = [await self.store.find(name) for name in names]
        unknown = [name for name, row in zip(names, found, strict=True) if row is None]
        if unknown:
            raise ConfigurationError(
                str(self.store.path), [f"no device {name}" for name in unknown]
            )
        return [row for row in found if row is not None]

    async def _agree(self, plans: list[DevicePlan]) -> None:
        """Make stand-ins and store agree: provision what has no certificates, tell our own stand-ins of the rest."""
        rows = await self.store.rows()
        hardware = {device.position: device.hardware for device in plans}
        blank = [row for row in rows if row.state == UNPROVISIONED and row.position in hardware]
        identities = await register(
            self.registry,
            [(hardware[row.position], FactoryKeys.thaw(row.snapshot)) for row in blank],
            activated=self.fleet.apple.activation == "off",
        )
        made = [
            _row(row, Device.manufacture(hardware[row.position], identity))
            for row, identity in zip(blank, identities, strict=True)
        ]
        await self.store.save_all(made)
        await self._register_again(rows)
        if made or self._own is not None:
            await assign(self.registry, plans)

    async def _register_again(self, rows: list[DeviceRow]) -> None:
        """Tell the stand-ins of devices made before, where that is needed.

        Our own registry lives in memory and has forgotten them; and with activation `off` an erased device gets a new
        DeviceCertificate, as every activation issues one.
        """
        off = self.fleet.apple.activation == "off"
        chosen = [
            row
            for row in rows
            if row.state != UNPROVISIONED
            and (self._own is not None or (off and row.state == State.UNACTIVATED.name))
        ]
        devices = [thaw(row.snapshot) for row in chosen]
        identities = await register(
            self.registry,
            [(device.hardware, FactoryKeys.of(device.factory)) for device in devices],
            activated=off,
        )
        renewed = []
        for row, device, identity in zip(chosen, devices, identities, strict=True):
            if off and device.state is State.UNACTIVATED:
                device.factory = identity
                renewed.append(_row(row, device))
        await self.store.save_all(renewed)

    async def _blank(self, device: DevicePlan) -> DeviceRow:
        own = await FactoryKeys.make(self.keys)
        return DeviceRow(
            serial=device.hardware.serial_number,
            position=device.position,
            udid=device.hardware.udid,
            state=UNPROVISIONED,
            snapshot=own.freeze(),
        )


def _row(row: DeviceRow, device: Device) -> DeviceRow:
    return DeviceRow(
        serial=row.serial,
        position=row.position,
        udid=row.udid,
        state=device.state.name,
        outcome=row.outcome,
        error=row.error,
        snapshot=freeze(device),
    )


def read_authorities(files: list[Path], source: str = "--ca") -> tuple[x509.Certificate, ...]:
    """Read files of authorities. Raises ConfigurationError with every one that is not PEM certificates."""
    found: list[x509.Certificate] = []
    mistakes: list[str] = []
    for file in files:
        try:
            found += x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError) as error:
            mistakes.append(f"{file}: {error}")
    if mistakes:
        raise ConfigurationError(source, mistakes)
    return tuple(found)
