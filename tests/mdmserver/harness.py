"""A device by hand: raw requests against a real MdmServer over TLS, with each message and signature made in the open."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certs import cms, csr, names
from certs.acme.client import AcmeClient
from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.faults import FaultPoint, no_faults
from certs.identity import Identity
from certs.keys import FreshKeys, generate
from certs.scep.client import ScepClient
from certs.transport import HttpResponse
from emulator.http import HttpDoor, HttpSession, TrustSet
from emulator.wire import checkin, machineinfo, profile
from emulator.wire.checkin import Authenticate, CheckOut, Message, TokenUpdate
from emulator.wire.command import (
    CONTENT_TYPE,
    Command,
    Response,
    Status,
    decode_command,
    encode_response,
)
from emulator.wire.machineinfo import MachineInfo
from emulator.wire.profile import AcmePayload, Profile, ScepPayload
from mdmserver.app import MdmServer
from mdmserver.settings import Settings
from tests.support import rsa_key

MINUTE = 60  # seconds

Channel = Literal["mtls", "signature", "both"]


@dataclass(frozen=True)
class Apple:
    """The trust anchors that a test server is given."""

    clock: SimulatedClock
    device_ca: CertificateAuthority
    attestation: AttestationAuthority

    @classmethod
    def create(cls, clock: SimulatedClock) -> "Apple":
        return cls(
            clock=clock,
            device_ca=CertificateAuthority.create(
                "Sim Device CA", clock=clock, organization="Sim Apple Inc."
            ),
            attestation=AttestationAuthority.create(clock),
        )

    def activate(self) -> Identity:
        """A new activation: a new certificate for MachineInfo."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(uuid.uuid4()).upper())])
        return self.device_ca.issue_identity(generate("p256"), name)


@dataclass
class World:
    """One server, its clock, and the Apple that it trusts."""

    clock: SimulatedClock
    apple: Apple
    server: MdmServer

    def device(self, **facts: Any) -> "RawDevice":
        return RawDevice(world=self, signer=self.apple.activate(), **facts)

    async def admin(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        content_type: str = "application/json",
        token: str | None = None,
    ) -> HttpResponse:
        headers = {
            "Authorization": f"Bearer {self.server.token if token is None else token}",
            "Content-Type": content_type,
        }
        door = HttpDoor(clock=self.clock)
        async with door.session(trust=TrustSet()) as session:
            return await session.request(
                method, self.server.admin_url + path, step="admin", headers=headers, body=body
            )


@asynccontextmanager
async def world(
    *,
    state: Path | None = None,
    clock: SimulatedClock | None = None,
    apple: Apple | None = None,
    faults: FaultPoint = no_faults,
    **settings: Any,
) -> AsyncIterator[World]:
    """A running server with these settings."""
    clock = clock or SimulatedClock()
    apple = apple or Apple.create(clock)
    server = MdmServer(
        Settings(**settings),
        state=state,
        clock=clock,
        machine_info_roots=[apple.device_ca.certificate],
        attestation_roots=[apple.attestation.root],
        faults=faults,
    )
    async with server:
        yield World(clock=clock, apple=apple, server=server)


@dataclass
class RawDevice:
    """Says what it is told to; keeps only what a device cannot do without."""

    world: World
    signer: Identity
    udid: str = "00008110-001A34D90E38801E"
    serial: str = "SIM0000001"
    product: str = "iPhone14,5"
    build: str = "22B83"
    os_version: str | None = "18.1"
    identity: Identity | None = None
    channel: Channel = "both"
    name: str = "iPhone"
    supervised: bool = True
    removal_disallowed: bool = True
    lists_profile: bool = True
    profile: Profile | None = None
    seen: list[Command] = field(default_factory=list)

    # -- getting in ---------------------------------------------------------------------------------------------------

    def machine_info(self, **changes: Any) -> MachineInfo:
        facts = {
            "udid": self.udid,
            "serial": self.serial,
            "product": self.product,
            "version": self.build,
            "os_version": self.os_version,
            "language": "en",
        }
        return MachineInfo(**{**facts, **changes})

    async def ask_for_profile(
        self,
        body: bytes | None = None,
        content_type: str = "application/pkcs7-signature",
    ) -> HttpResponse:
        if body is None:
            body = machineinfo.sign(self.machine_info(), self.signer)
        return await self.send("POST", "/ade", body, content_type, tls=None, sign=None)

    async def fetch_profile(self) -> Profile:
        answer = await self.ask_for_profile()
        assert answer.status == 200, answer.body
        self.profile = profile.decode(answer.body)
        return self.profile

    async def get_identity(self, enrollment: Profile | None = None, key: int = 0) -> Identity:
        """By SCEP or ACME, as the profile says."""
        enrollment = enrollment or self.profile or await self.fetch_profile()
        mdm = enrollment.mdm
        assert mdm is not None
        payload = enrollment.payload(mdm.identity_certificate_uuid)
        match payload:
            case ScepPayload():
                return await self.scep(payload, key)
            case AcmePayload():
                return await self.acme(payload)
        raise AssertionError(payload)

    async def scep(self, payload: ScepPayload, key: int = 0, **changes: Any) -> Identity:
        private = rsa_key(key)
        request = csr.build(
            private,
            names.from_subject(changes.get("subject", payload.subject)),
            challenge=changes.get("challenge", payload.challenge),
        )
        async with self._session(None) as session:
            client = ScepClient(
                session,
                payload.url,
                clock=self.world.clock,
                keys=FreshKeys(),
                ca_fingerprint=payload.ca_fingerprint,
                signer="same-key",
            )
            leaf, *chain = await client.enroll(private, request)
        return Identity(private, leaf, tuple(chain))

    async def acme(self, payload: AcmePayload, *, attests: bool = True, **changes: Any) -> Identity:
        private = generate("p384" if payload.key_size == 384 else "p256")

        async def attest(freshness: bytes) -> list[bytes]:
            facts = {"serial_number": self.serial, "udid": self.udid, **changes}
            chain = self.world.apple.attestation.issue(
                private.public_key(), freshness=freshness, **facts
            )
            return [c.public_bytes(serialization.Encoding.DER) for c in chain]

        async with self._session(None) as session:
            client = AcmeClient(
                session, payload.directory_url, clock=self.world.clock, keys=FreshKeys()
            )
            leaf, *chain = await client.enroll(
                csr.build(private, names.from_subject(payload.subject)),
                identifier=payload.client_identifier,
                attest=attest if attests else None,
            )
        return Identity(private, leaf, tuple(chain))

    async def enroll(self, *, awaiting: bool = False, key: int = 0) -> None:
        """The whole way to TokenUpdate; every answer must be 200."""
        await self.fetch_profile()
        self.identity = await self.get_identity(key=key)
        for message in (self.authenticate(), self.token_update(awaiting=awaiting)):
            answer = await self.check_in(message)
            assert (answer.status, answer.body) == (200, b""), answer.body

    # -- talking ------------------------------------------------------------------------------------------------------

    @property
    def topic(self) -> str:
        assert self.profile is not None
        assert self.profile.mdm is not None
        return self.profile.mdm.topic

    def authenticate(self, **changes: Any) -> Authenticate:
        facts = {
            "udid": self.udid,
            "topic": self.topic,
            "serial_number": self.serial,
            "product_name": self.product,
            "build_version": self.build,
            "os_version": self.os_version,
        }
        return Authenticate(**{**facts, **changes})

    def token_update(self, *, awaiting: bool | None = False, **changes: Any) -> TokenUpdate:
        facts = {
            "udid": self.udid,
            "topic": self.topic,
            "token": b"\x01" * 32,
            "push_magic": "7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D",
            "unlock_token": b"unlock",
        }
        return TokenUpdate(**{**facts, "awaiting_configuration": awaiting, **changes})

    def check_out(self) -> CheckOut:
        return CheckOut(udid=self.udid, topic=self.topic)

    async def check_in(self, message: Message, **how: Any) -> HttpResponse:
        return await self.send(
            "PUT", "/checkin", checkin.encode(message), checkin.CONTENT_TYPE, **how
        )

    async def connect(self, response: Response, **how: Any) -> HttpResponse:
        return await self.send("PUT", "/mdm", encode_response(response), CONTENT_TYPE, **how)

    async def idle(self, **how: Any) -> HttpResponse:
        return await self.connect(Response(udid=self.udid, status=Status.IDLE), **how)

    async def answer(
        self, command: Command, status: Status = Status.ACKNOWLEDGED, **fields: Any
    ) -> HttpResponse:
        return await self.connect(
            Response(
                udid=self.udid, status=status, command_uuid=command.command_uuid, fields=fields
            )
        )

    async def session(self, **statuses: Status) -> list[str]:
        """One session to its end: answers each command as a device would, or with the status given for its type."""
        names_seen = []
        answer = await self.idle()
        while answer.body:
            assert answer.status == 200
            command = decode_command(answer.body)
            self.seen.append(command)
            names_seen.append(command.request_type)
            status = statuses.get(command.request_type, Status.ACKNOWLEDGED)
            fields = self.result(command) if status is Status.ACKNOWLEDGED else {}
            answer = await self.answer(command, status, **fields)
        assert answer.status == 200
        return names_seen

    def result(self, command: Command) -> dict[str, Any]:
        """The honest effect and answer of the commands that policy sends."""
        match command.request_type:
            case "DeviceInformation":
                said = {
                    "DeviceName": self.name,
                    "IsSupervised": self.supervised,
                    "OSVersion": self.os_version or "15.0",
                    "BuildVersion": self.build,
                }
                return {"QueryResponses": said}
            case "ProfileList":
                return {"ProfileList": self.profile_list()}
            case "Settings":
                for item in command.fields["Settings"]:
                    self.name = item["DeviceName"]
                return {"Settings": [{"Item": "DeviceName", "Status": "Acknowledged"}]}
            case "InstallProfile":
                self.profile = profile.decode(command.fields["Payload"])
                self.removal_disallowed = self.profile.removal_disallowed
        return {}

    def profile_list(self) -> list[dict[str, Any]]:
        if not self.lists_profile or self.profile is None:
            return []
        return [
            {
                "PayloadIdentifier": self.profile.identifier,
                "PayloadUUID": self.profile.uuid,
                "PayloadRemovalDisallowed": self.removal_disallowed,
                "PayloadContent": [],
            }
        ]

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        content_type: str,
        *,
        tls: Identity | Literal["own"] | None = "own",
        sign: Identity | Literal["own"] | None = "own",
        signed_body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """One request; `tls` and `sign` say whose identity is shown, `own` what this device's channel uses."""
        shown = self.identity if tls == "own" and self.channel != "signature" else tls
        signing = self.identity if sign == "own" and self.channel != "mtls" else sign
        everything = {"Content-Type": content_type, **(headers or {})}
        if isinstance(signing, Identity):
            signature = cms.sign(
                body if signed_body is None else signed_body, signing, detached=True
            )
            everything["Mdm-Signature"] = base64.b64encode(signature).decode()
        async with self._session(shown if isinstance(shown, Identity) else None) as session:
            return await session.request(
                method, self.world.server.url + path, step="raw", headers=everything, body=body
            )

    def _session(self, identity: Identity | None) -> HttpSession:
        door = HttpDoor(clock=self.world.clock)
        trust = TrustSet().with_roots(*self.world.server.tls_roots)
        return door.session(trust=trust, identity=identity)

    # -- asking the server --------------------------------------------------------------------------------------------

    async def shown(self) -> dict[str, Any]:
        """What the management API says about this device."""
        answer = await self.world.admin("GET", f"/v1/devices/{self.udid}")
        assert answer.status == 200, answer.body
        shown: dict[str, Any] = json.loads(answer.body)
        return shown

    async def enqueue(self, request_type: str, **fields: Any) -> str:
        answer = await self.world.admin(
            "POST",
            f"/v1/devices/{self.udid}/commands",
            body=json.dumps({"request_type": request_type, **fields}).encode(),
        )
        assert answer.status == 201, answer.body
        uuid_: str = json.loads(answer.body)["command_uuid"]
        return uuid_


def old_device(**facts: Any) -> dict[str, Any]:
    """Facts of a device that gets SCEP."""
    return {
        "udid": "a" * 40,
        "serial": "SIM000000002",
        "product": "iPhone9,1",
        "build": "19A346",
        "os_version": None,
        **facts,
    }


def fingerprint(identity: Identity) -> str:
    return identity.certificate.fingerprint(hashes.SHA256()).hex()
