"""What a device meets when it looks out: network, time, key material, Apple's services, and who keeps its memory.

A device itself is only data; every function that lets it act takes its surroundings, so that one set of them serves a
whole fleet.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

from certs.clock import Clock, SkewedClock
from certs.errors import CertsError, TransportError
from certs.faults import FaultPoint, no_faults
from certs.keys import FreshKeys, KeySource
from certs.transport import Timing
from emulator.device.line import Line
from emulator.errors import PeerRefused, StepTimeout
from emulator.http import HttpDoor, TrustSet

if TYPE_CHECKING:
    from emulator.device.device import Device

# mdm.md 4.2: what a device puts off while it is locked. Sources disagree on others, so a Behaviour may name them.
NOT_NOW_WHILE_LOCKED: Final = frozenset(
    {"InstallProfile", "RemoveProfile", "Settings", "InstallApplication"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppleEndpoints:
    """Base URLs of the Apple services, such as https://127.0.0.1:9443; the paths of apple-services.md are appended."""

    activation_url: str
    cloud_configuration_url: str
    attestation_url: str
    enrollment_url: str | None = None  # provisional enrollment has a host of its own (3.6)

    @property
    def provisional_url(self) -> str:
        """Where a device joins an organization."""
        return self.enrollment_url or self.cloud_configuration_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a device does what the protocol leaves open, or what real devices are known to do differently."""

    activation: Literal["full", "lite", "off"] = "full"
    cloud_configuration: Literal["v2", "legacy"] = "v2"  # which way it is asked for
    device_key: Literal["new", "factory"] = "factory"  # whose key stands in the DeviceCertRequest
    scep_signer: Literal["apple", "same-key"] = "apple"
    scep_renewal: Literal["pkcs-req", "renewal-req"] = "pkcs-req"  # of a profile that comes again
    unattested: Literal["none", "empty", "object", "error"] = "none"  # ACME without attestation
    csr_names_identifier: bool = False  # ACME: the ClientIdentifier also stands in the CSR
    machine_info_form: Literal["der", "ber", "sha1-ber", "no-attributes"] = "ber"
    token_update_after_configured: bool = True
    awaiting_poll_s: float = 2.0
    awaiting_deadline_s: float = 900.0
    # How far a device's clock is off, in seconds: from, to; each device's own share stays the same.
    clock_skew_s: tuple[float, float] = (0.0, 0.0)
    language: str = "en-US"
    attestation_interval_s: float = (
        7 * 86400.0
    )  # a new DevicePropertiesAttestation at most this often
    attestation_hashes_nonce: bool = False  # freshness is the nonce itself, or its SHA-256
    default_queries: tuple[str, ...] = ("DeviceName", "SerialNumber", "UDID")
    not_now_while_locked: frozenset[str] = NOT_NOW_WHILE_LOCKED


class PushRegistration(Protocol):
    """Where a device makes its push token known, so that pushes reach it."""

    async def register(self, device: "Device") -> None:
        """The device is about to tell its server of this token. Raises PeerRefused or StepTimeout."""
        ...


async def _keep_nothing(device: "Device") -> None:
    """The checkpoint of a device that nobody stores."""


def _time_nothing(device: "Device", timing: Timing) -> None:
    """The timing hook of a device that nobody measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything outside a device that its actions need."""

    door: HttpDoor
    clock: Clock
    keys: KeySource = field(default_factory=FreshKeys)
    apple: AppleEndpoints | None = None  # None: no stand-ins; the device counts as activated
    trust: TrustSet = field(default_factory=TrustSet)
    behaviour: Behaviour = field(default_factory=Behaviour)
    # Awaited after every state change and after a command's effect, before its result is sent.
    checkpoint: Callable[["Device"], Awaitable[None]] = _keep_nothing
    on_timing: Callable[["Device", Timing], None] = _time_nothing
    faults: FaultPoint = no_faults
    push: PushRegistration | None = None  # None: nobody pushes; tokens are made up
    line: Line | None = None  # to the MDM server, where several steps share one

    def of(self, device: "Device") -> "Surroundings":
        """The same as this device sees it: with its own clock, where that is wrong."""
        earliest, latest = self.behaviour.clock_skew_s
        if not earliest and not latest:
            return self
        chance = random.Random(f"clock skew of {device.hardware.serial_number}")
        clock = SkewedClock(self.clock, round(chance.uniform(earliest, latest), 3))
        return replace(self, clock=clock, door=self.door.seen_by(clock))

    def timing_for(self, device: "Device") -> Callable[[Timing], None]:
        """The hook that the device's HTTP sessions report to."""

        def report(timing: Timing) -> None:
            self.on_timing(device, timing)

        return report


@contextmanager
def peer_errors(step: str) -> Iterator[None]:
    """Turn what our clients raise about a peer into the device's own error, naming the step."""
    try:
        yield
    except TransportError as error:
        if error.timeout_s is not None:
            raise StepTimeout(step, error.timeout_s) from error
        raise PeerRefused(step, str(error)) from error
    except CertsError as error:
        raise PeerRefused(step, str(error)) from error
