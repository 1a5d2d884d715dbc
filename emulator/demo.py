"""The demo: everything on loopback, from power-on to a supervised, locked, named device.

It starts the Apple stand-ins and `mdmserver`, lets the server find its devices by a server token and assign its profile
to them, enrolls a mixed fleet, lets users rename some devices and one try to
remove the locked profile, lets every device check in again, and compares what was expected before the start with what
the server's admin API says **and** with what the devices say. Nothing in it is special: the same store, runner,
stand-ins and server serve `enroll` and `serve`.
"""

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypedDict

from certs.clock import Clock, SystemClock
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.keys import generate
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.demo_assignment import AssignmentDesk
from emulator.device.device import Device
from emulator.device.surroundings import Surroundings
from emulator.device.user import RemovalDenied, remove_profile, rename
from emulator.errors import ConfigurationError, EmulatorError
from emulator.fleet.fleet import AppleSection, BehaviourSection, DevicePlan, FleetFile, Group, plan
from emulator.fleet.progress import Shown
from emulator.fleet.run import FleetRun, RunOptions
from emulator.fleet.runner import Outcome
from emulator.fleet.stats import StepSummary
from emulator.fleet.store import DeviceRow
from emulator.hardware import acme_capable
from mdmserver.app import MdmServer
from mdmserver.settings import Settings

ORGANIZATION: Final = "Example Hospital"
SERVER: Final = "mdmserver"
UNASSIGNED: Final = 2  # devices that belong to the organization but have no profile
RENAMED: Final = 5  # users who rename their device in Settings
ISSUERS: Final = {"acme": "MDM ACME CA", "scep": "MDM SCEP CA"}  # of mdmserver
SMALLEST: Final = UNASSIGNED + 2
WAVE_TIMEOUT_S: Final = 60.0  # from the pushes to the last device's check-in

SCEP_BY_CHIP: Final = (
    "iPad7,5",
    "17.7.2",
)  # A10: too old a chip for attestation, whatever its system
MIXED: Final = (  # dealt out in turn
    ("iPhone14,5", "18.1"),
    ("iPad13,18", "17.5.1"),
    ("iPhone10,6", "12.4.1"),
    ("iPhone17,1", "27.0.1"),
    ("iPad11,3", "12.2"),
    ("iPhone12,1", "15.7"),
    ("iPad14,1", "16.1"),
    ("iPhone11,8", "13.7"),
    ("iPhone15,2", "16.0"),
    ("iPad8,1", "15.7"),
    ("iPhone13,2", "14.8.1"),
    ("iPad16,3", "26.1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a user may choose."""

    devices: int = 25
    seed: int = 1
    clock: Clock = field(default_factory=SystemClock)
    server_faults: FaultPoint = no_faults  # a test breaks one device with this


class DeviceReport(TypedDict):
    """One row of the result; `supervised`, `locked` and `name` are null where the device is unmanaged."""

    serial: str
    udid: str
    model: str
    os_version: str
    identity: str | None
    state: str
    supervised: bool | None
    locked: bool | None
    name: str | None
    expected_name: str | None
    error: str | None


class DemoReport(TypedDict):
    """The whole result, as `--json` writes it. Later versions may add keys."""

    devices: list[DeviceReport]
    steps: dict[str, StepSummary]
    renamed_back: int
    removal_denied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What must be true of one device at the end, fixed before the start."""

    serial: str
    udid: str
    state: str
    identity: str | None
    issuer: str | None  # common name of the CA that issues identities of this kind
    name: str | None
    managed: bool


def demo_fleet(devices: int, seed: int) -> FleetFile:
    """The fleet of the demo: one A10 iPad, two devices without a profile, the rest mixed."""
    if devices < SMALLEST:
        raise ConfigurationError(
            "--devices", [f"at least {SMALLEST} devices show what there is to show"]
        )

    def group(persona: tuple[str, str], server: str | None = SERVER) -> Group:
        product_type, os_version = persona
        return Group(
            model=(product_type,),
            os_version=(os_version,),
            organization=ORGANIZATION,
            server=server,
        )

    managed = devices - UNASSIGNED - 1
    groups = [
        group(SCEP_BY_CHIP),
        *(group(MIXED[number % len(MIXED)]) for number in range(managed)),
        *(group(MIXED[number], server=None) for number in range(UNASSIGNED)),
    ]
    return FleetFile(
        name="demo",
        seed=seed,
        groups=tuple(groups),
        behaviour=BehaviourSection(awaiting_poll_s=0.5, awaiting_deadline_s=60),
    )


def expect(device: DevicePlan) -> Expectation:
    """Fix what must become of a device."""
    hardware = device.hardware
    managed = device.server is not None
    attested = acme_capable(
        hardware.model.product_type, os_version=hardware.os_version, build=hardware.build
    )
    identity = ("acme" if attested else "scep") if managed else None
    return Expectation(
        serial=hardware.serial_number,
        udid=hardware.udid,
        state="home" if managed else "not_assigned",
        identity=identity,
        issuer=ISSUERS.get(identity or ""),
        name=f"{hardware.device_class}-{hardware.serial_number}" if managed else None,
        managed=managed,
    )


async def run_demo(options: DemoOptions) -> tuple[DemoReport, bool]:
    """Run it; True means that every device ended as planned."""
    fleet = demo_fleet(options.devices, options.seed)
    plans = plan(fleet)
    expectations = {device.hardware.serial_number: expect(device) for device in plans}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mdm-demo-")))
        services, server = await _start(stack, options, folder)
        token_file = folder / "apple-token"
        token_file.write_text(services.token)
        apple = AppleSection(url=services.url, admin_url=services.admin_url, token_file=token_file)
        run = await stack.enter_async_context(
            FleetRun(
                fleet.model_copy(update={"apple": apple}),
                RunOptions(
                    state=folder / "fleet",
                    clock=options.clock,
                    authorities=(services.pki.tls_ca.certificate,),
                    system_trust=False,
                ),
            )
        )
        demo = _Demo(run, server, expectations)
        rows = await demo.assign_devices(options.clock)
        with Shown("enroll", len(rows)) as progress:
            enrolled = await run.runner.enroll(rows, run.way, progress)
        await demo.fall_asleep()
        renamed = await demo.rename_some(enrolled)
        denied = await demo.try_removal(enrolled)
        managed = [outcome for outcome in enrolled if outcome.state == "home"]
        with Shown("check in again", len(managed)) as progress:
            outcomes = await demo.wake_all(enrolled, progress)
        first = {outcome.serial: outcome.error for outcome in enrolled}
        devices = [await demo.judge(outcome, first[outcome.serial]) for outcome in outcomes]
        named = {device["serial"]: device["name"] for device in devices}
        report = DemoReport(
            devices=devices,
            steps=run.stats.summary(),
            renamed_back=sum(
                own != expectations[serial].name == named[serial] for serial, own in renamed.items()
            ),
            removal_denied=denied,
        )
        return report, as_planned(report, options.devices)


def as_planned(report: DemoReport, devices: int) -> bool:
    """Whether everything that was to happen to so many devices has happened."""
    return (
        len(report["devices"]) == devices
        and all(device["error"] is None for device in report["devices"])
        and report["renamed_back"] == min(RENAMED, devices - UNASSIGNED)
        and report["removal_denied"] == 1
    )


async def _start(
    stack: AsyncExitStack, options: DemoOptions, folder: Path
) -> tuple[AppleServices, MdmServer]:
    """Start the stand-ins, whose portal knows the organization and no more, and the server."""
    pki = await asyncio.to_thread(SimPKI.open, folder / "apple", options.clock)
    portal = Portal.from_content({"organizations": [{"name": ORGANIZATION}]})
    services = await stack.enter_async_context(
        AppleServices(pki=pki, clock=options.clock, portal=portal)
    )
    server = await stack.enter_async_context(
        MdmServer(
            Settings(organization=ORGANIZATION, assignment_url=services.url),
            state=folder / "mdmserver",
            clock=options.clock,
            machine_info_roots=[pki.root],
            attestation_roots=[pki.attestation.root],
            assignment_roots=[pki.tls_ca.certificate],
            faults=options.server_faults,
        )
    )
    key = generate("p256")
    certificate = pki.issue_push_certificate(key.public_key(), server.topic)
    await server.use_push(Identity(key, certificate), services.push_url, [pki.tls_ca.certificate])
    return services, server


class _Demo:
    """The acts after enrollment, and the judge."""

    def __init__(
        self, run: FleetRun, server: MdmServer, expectations: dict[str, Expectation]
    ) -> None:
        if run.waker is None:
            raise ConfigurationError("wake", ["the devices of the demo wake by push"])
        self._run = run
        self._waker = run.waker
        self._expectations = expectations
        self._admin = run.admin_client(server.admin_url, server.token, step="mdmserver_admin")

    async def assign_devices(self, clock: Clock) -> list[DeviceRow]:
        """Make the devices; the server learns of them by its token, and assigns its profile to those that are its own."""
        desk = AssignmentDesk(portal=self._run.registry, server=self._admin, clock=clock)
        await desk.register_server(ORGANIZATION, SERVER)
        rows = await self._run.manufacture()
        await desk.upload_token()
        await desk.wait_until_assigned(sum(one.managed for one in self._expectations.values()))
        return rows

    async def fall_asleep(self) -> None:
        """From now on every enrolled device is a row, until a push wakes it; the server's first ones are waiting."""
        await self._waker.listen(await self._run.store.rows())
        await self._waker.wait_until_idle()

    async def wake_all(self, enrolled: list[Outcome], progress: Shown) -> list[Outcome]:
        """The server pushes every device; each checks in, and nothing else makes it do so."""
        self._waker.begin_wave()
        serials = [outcome.serial for outcome in enrolled if outcome.state == "home"]
        await self._admin.call("POST", "/v1/push")
        woken = await self._waker.wait_for(serials, WAVE_TIMEOUT_S, progress)
        asleep = {serial: "no push woke it" for serial in serials if serial not in woken}
        return [
            woken.get(outcome.serial) or replace(outcome, error=asleep.get(outcome.serial))
            for outcome in enrolled
        ]

    async def rename_some(self, enrolled: list[Outcome]) -> dict[str, str | None]:
        """Users give their devices names of their own; what each device then calls itself, by serial number."""
        renamed = {}
        serials = [o.serial for o in enrolled if o.state == "home"][:RENAMED]
        for number, serial in enumerate(serials):

            async def act(device: Device, _: Surroundings, number: int = number) -> None:
                rename(device, f"My device {number + 1}")

            renamed[serial] = (await self._run.runner.act(await self._row(serial), act)).name
        return renamed

    async def try_removal(self, enrolled: list[Outcome]) -> int:
        """One user tries to remove the management profile; returns how often that was denied."""
        serial = next((o.serial for o in reversed(enrolled) if o.state == "home"), None)
        if serial is None:
            return 0

        async def act(device: Device, surroundings: Surroundings) -> None:
            if device.enrollment is not None:
                await remove_profile(device, device.enrollment.profile_identifier, surroundings)

        try:
            await self._run.runner.act(await self._row(serial), act)
        except RemovalDenied:
            return 1
        return 0

    async def judge(self, outcome: Outcome, earlier_error: str | None) -> DeviceReport:
        """Compare expectation, server and device; every difference goes into `error`."""
        expected = self._expectations[outcome.serial]
        server = await self._ask(outcome.udid) if expected.managed else None
        error = earlier_error or outcome.error
        if error is None:
            differences = differences_of(expected, outcome, server)
            error = "; ".join(differences) or None
        facts = server or {}
        return DeviceReport(
            serial=outcome.serial,
            udid=outcome.udid,
            model=outcome.model,
            os_version=outcome.os_version,
            identity=facts.get("identity"),
            state=outcome.state,
            supervised=facts.get("supervised"),
            locked=facts.get("locked"),
            name=facts.get("name"),
            expected_name=expected.name,
            error=error,
        )

    async def _ask(self, udid: str) -> dict[str, Any] | None:
        try:
            return await self._admin.call("GET", f"/v1/devices/{udid}")
        except EmulatorError:
            return None  # the server does not know this device: judged as a difference

    async def _row(self, serial: str) -> DeviceRow:
        row = await self._run.store.find(serial)
        if row is None:
            raise ConfigurationError(serial, ["is not in the fleet's store"])
        return row


def differences_of(
    expected: Expectation, device: Outcome, server: dict[str, Any] | None
) -> list[str]:
    """Every way in which a device did not end as planned, one sentence each."""
    wanted: dict[str, object] = {
        "identity": expected.identity,
        "issuer": expected.issuer,
        "supervised": True if expected.managed else None,
        "locked": True if expected.managed else None,
        "name": expected.name,
    }
    found = []
    if device.state != expected.state:
        found.append(f"the device is at {device.state}, not {expected.state}")
    for key, value in wanted.items():
        if getattr(device, key) != value:
            found.append(f"the device says {key} is {getattr(device, key)!r}, not {value!r}")
    if not expected.managed:
        return found
    if server is None:
        return [*found, "the server does not know the device"]
    for key, value in {**wanted, "state": "enrolled", "expected_name": expected.name}.items():
        if server.get(key) != value:
            found.append(f"the server says {key} is {server.get(key)!r}, not {value!r}")
    return found


def to_json(report: DemoReport) -> str:
    """The report as `--json` writes it."""
    return json.dumps(report, indent=2) + "\n"
