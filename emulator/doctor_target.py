"""What may stand between a fleet and the server that it shall enroll with: looked at once, before a run.

Name, TCP, TLS and time come first, each only when the one before it is in order; then a simulated device made for the
occasion introduces itself twice, signed under our root and under one that nobody knows, and offers its attestation where the
profile asks for one. Each finding says what to do.
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from certs import names
from certs.clock import Clock
from certs.errors import CertsError, ForbiddenHost, MalformedMessage, TransportError
from certs.hosts import Destination, HostMap
from certs.identity import Identity
from certs.keys import generate
from certs.transport import HttpResponse
from emulator.apple.pki import SimPKI
from emulator.config import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.device import Device
from emulator.device.keychain import FactoryIdentity
from emulator.device.machine_info import signed_machine_info
from emulator.device.profile_checks import decode_profile
from emulator.device.surroundings import Behaviour
from emulator.device.typed_errors import refusal
from emulator.doctor import Finding
from emulator.doctor_attestation import attestation_finding
from emulator.hardware import Hardware
from emulator.http import HttpDoor, HttpSession, TrustSet
from emulator.http.request import OutgoingRequest
from emulator.http.tls import TlsContexts, date_problem, tls_reason

STEP: Final = "doctor"
SIGNED: Final = "application/pkcs7-signature"
CLOCK_TOLERANCE: Final = timedelta(seconds=60)
SOON: Final = timedelta(days=14)
PERSONA: Final = ("iPhone14,5", "18.1")
WRONG_NAME: Final = 62  # X509_V_ERR_HOSTNAME_MISMATCH
WRONG_ADDRESS: Final = 64  # X509_V_ERR_IP_ADDRESS_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server to look at, and what the run would bring along."""

    url: str
    hosts: HostMap
    trust: TrustSet
    state: Path  # whose simulated PKI signs
    clock: Clock


async def target_findings(target: Target) -> list[Finding]:
    """Look at everything that can be looked at; what depends on a step that failed is left out."""
    try:
        destination = target.hosts.resolve(target.url)
        host = OutgoingRequest(method="POST", url=target.url, headers={}, body=b"").origin.host
    except (MalformedMessage, ForbiddenHost) as error:
        return [_bad("target", str(error))]
    found: list[Finding] = []
    steps: tuple[Callable[[], Awaitable[Finding]], ...] = (
        lambda: _name(destination),
        lambda: _tcp(destination),
        lambda: _tls(target, destination, host),
    )
    for step in steps:
        found.append(await step())
        if not found[-1].good:
            return found
    return [*found, *await _introductions(target)]


# --- the way to the server


async def _name(destination: Destination) -> Finding:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            answers = await loop.getaddrinfo(
                destination.host, destination.port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError, TimeoutError) as error:
        return _bad(
            "name",
            f"{destination.host} has no address ({_words(error)}): correct the URL, or say where it is "
            f"with --map {destination.host}=HOST:PORT",
        )
    addresses = sorted({str(answer[4][0]) for answer in answers})
    return _good("name", f"{destination.host} is {', '.join(addresses)}")


async def _tcp(destination: Destination) -> Finding:
    where = f"{destination.host}:{destination.port}"
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(destination.host, destination.port)
    except (OSError, TimeoutError) as error:
        return _bad(
            "tcp",
            f"no connection to {where} ({_words(error)}): start the server, open the port, or correct --map",
        )
    writer.close()
    return _good("tcp", f"connected to {where}")


async def _tls(target: Target, destination: Destination, host: str) -> Finding:
    if not destination.tls:
        return _good("tls", "none: the URL or --map leads to plain HTTP")
    context = TlsContexts().for_connection(target.trust, None).context
    try:
        certificate, problem = await _verified(destination, host, context, target.clock.now())
    except ssl.SSLCertVerificationError as error:
        return _bad("tls", await _untrusted(error, destination, host))
    except ssl.SSLError as error:
        return _bad("tls", f"{tls_reason(error)}: use a port where the server speaks TLS")
    except (OSError, TimeoutError) as error:
        return _bad("tls", f"the handshake broke off ({_words(error)})")
    if problem is not None:
        return _bad("tls", f"{problem}: renew it, devices refuse it")
    left = certificate.not_valid_after_utc - target.clock.now()
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    advice = f", in {left.days} days: renew it soon" if left < SOON else ""
    issuer = names.text(certificate.issuer)
    return _good("tls", f"{host}: trusted, issued by {issuer}, valid until {until}{advice}")


async def _connected(
    destination: Destination, host: str, context: ssl.SSLContext
) -> asyncio.StreamWriter:
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, writer = await asyncio.open_connection(
            destination.host, destination.port, ssl=context, server_hostname=host
        )
    return writer


def _certificate(writer: asyncio.StreamWriter) -> x509.Certificate:
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der)


async def _verified(
    destination: Destination, host: str, context: ssl.SSLContext, now: datetime
) -> tuple[x509.Certificate, str | None]:
    """The server's certificate, and what is wrong with its dates or those of its issuers."""
    writer = await _connected(destination, host, context)
    try:
        return _certificate(writer), date_problem(writer.get_extra_info("ssl_object"), now)
    finally:
        writer.transport.abort()


async def _untrusted(
    error: ssl.SSLCertVerificationError, destination: Destination, host: str
) -> str:
    """Why the certificate is refused, with a look at it."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        writer = await _connected(destination, host, anybody)
    except (OSError, TimeoutError):
        return tls_reason(error)
    certificate = _certificate(writer)
    writer.transport.abort()
    if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
        return (
            f"the certificate is for {_names_of(certificate)}, not for {host}: use one of those names in the "
            f"URL, with --map NAME={destination.host}:{destination.port} where it has no address"
        )
    issuer = names.text(certificate.issuer)
    return f"{tls_reason(error)} (issued by {issuer}): give that authority's certificate with --ca FILE"


def _names_of(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "no name (it has no subjectAltName)"
    return ", ".join(str(name.value) for name in extension.value) or "no name"


# --- what the server makes of a simulated device


async def _introductions(target: Target) -> list[Finding]:
    """A device introduces itself, signed under our root and under a root that nobody knows."""
    try:
        ours = await asyncio.to_thread(SimPKI.open, target.state / "apple", target.clock)
    except (CertsError, OSError) as error:
        return [_bad("anchors", f"the simulated PKI of {target.state} cannot be opened: {error}")]
    nobody = await asyncio.to_thread(SimPKI.open, None, target.clock)
    found: list[Finding] = []
    device = await asyncio.to_thread(_throw_away_device, ours)
    try:
        answer = await _introduce(target, device)
        found.append(_time(target, answer))
        accepted, words = _judge(answer)
        if not accepted:
            return [*found, _refused(target, ours, answer, words)]
        root = names.text(ours.root.subject)
        found.append(_good("anchors", f"accepts MachineInfo signed under {root}: {words}"))
        found += await _attestation(target, device, ours, answer)
        unknown = await asyncio.to_thread(_throw_away_device, nobody)
        stranger, _ = _judge(await _introduce(target, unknown))
    except TransportError as error:
        return [*found, _bad("http", f"no answer: {error}")]
    if stranger:
        found.append(
            _bad(
                "signer",
                "accepts MachineInfo of a root that nobody knows, too: it does not check the signer, so anybody may "
                "ask it for a profile; set its anchors for MachineInfo",
            )
        )
    else:
        found.append(_good("signer", "refuses MachineInfo of a root that it does not know"))
    return found


async def _introduce(target: Target, device: Device) -> HttpResponse:
    body = signed_machine_info(device, Behaviour(), target.clock.now())
    async with _session(target, device) as session:
        return await session.request(
            "POST",
            target.url,
            step=STEP,
            headers={"Content-Type": SIGNED},
            body=body,
            timeout_s=REQUEST_TIMEOUT_S,
        )


def _session(target: Target, device: Device) -> HttpSession:
    door = HttpDoor(clock=target.clock, hosts=target.hosts)
    return door.session(trust=target.trust, user_agent=user_agent.profiled(device))


async def _attestation(
    target: Target, device: Device, ours: SimPKI, answer: HttpResponse
) -> list[Finding]:
    """The other anchor, where the server sent a profile that asks for an attestation."""
    if answer.status != 200:
        return []
    profile = decode_profile(answer.body)
    async with _session(target, device) as session:
        finding = await attestation_finding(profile, device, ours, session, target.clock)
    return [] if finding is None else [finding]


def _throw_away_device(pki: SimPKI) -> Device:
    """A new device with its DeviceCertificate; no fleet has it, no registry hears of it."""
    product_type, os_version = PERSONA
    hardware = Hardware.from_seed(
        secrets.randbits(62), 0, product_type=product_type, os_version=os_version
    )
    key, attestation_key = generate("rsa2048"), generate("p256")
    issuers = (pki.device_ca.certificate,)
    factory = pki.issue_factory_certificate(key.public_key(), hardware.udid)
    attestation = pki.attestation.issue_device_identity(
        attestation_key.public_key(), serial_number=hardware.serial_number, udid=hardware.udid
    )
    device = Device.manufacture(
        hardware,
        FactoryIdentity(
            factory=Identity(key, factory, issuers),
            attestation=Identity(attestation_key, attestation, (pki.attestation.sub_ca,)),
            anchors=pki.anchors(),
        ),
    )
    certificate = pki.issue_device_certificate(key.public_key())
    device.keychain.device = Identity(key, certificate, issuers)
    return device


def _judge(answer: HttpResponse) -> tuple[bool, str]:
    """Whether the server took the introduction, and what it said."""
    if answer.status == 401:
        challenge = (answer.header("www-authenticate") or "").partition(" ")[0]
        if challenge:
            return True, f"it asks for a login ({challenge})"
    if answer.status != 200:
        return False, str(refusal(STEP, answer)).removeprefix(f"{STEP}: ")
    try:
        decode_profile(answer.body)
    except CertsError as error:
        kind = answer.content_type or "no Content-Type"
        return False, f"HTTP 200, but no profile ({kind}): {error}"
    return True, f"a profile of {len(answer.body)} bytes came"


def _refused(target: Target, pki: SimPKI, answer: HttpResponse, words: str) -> Finding:
    if answer.status == 200:
        return _bad("anchors", f"{words}: is this the server's URL for automated enrollment?")
    if answer.status in (404, 405):
        return _bad("anchors", f"{words}: give the URL to which devices POST their MachineInfo")
    if answer.status >= 500:
        return _bad("anchors", f"{words}: the server's log says more")
    file = target.state / "apple" / "root" / "certificate.pem"
    return _bad(
        "anchors",
        f"{words}: if it does not trust {names.text(pki.root.subject)}, give it that root ({file})",
    )


def _time(target: Target, answer: HttpResponse) -> Finding:
    text = answer.header("date")
    try:
        said = parsedate_to_datetime(text or "")
    except ValueError:
        return _good("clock", "the server sends no Date to compare with")
    if said.tzinfo is None:
        return _good("clock", f"the server's Date has no zone: {text}")
    difference = said - target.clock.now()
    seconds = round(difference.total_seconds())
    if abs(difference) > CLOCK_TOLERANCE:
        side = "ahead" if seconds > 0 else "behind"
        return _bad(
            "clock",
            f"the server is {abs(seconds)} s {side}: set both clocks by NTP, or signatures and certificates seem "
            "to be of another time",
        )
    return _good("clock", f"differs by {abs(seconds)} s at most")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _good(subject: str, text: str) -> Finding:
    return Finding(subject=subject, good=True, text=text)


def _bad(subject: str, text: str) -> Finding:
    return Finding(subject=subject, good=False, text=text)
