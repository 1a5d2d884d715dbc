"""A device as the stand-ins see it: its keys, and each request that it can make, honest unless a test changes something."""

import base64
import hashlib
import io
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certs import csr
from certs.clock import SimulatedClock
from certs.keys import spki_der
from certs.tls import client_context
from emulator.apple.app import AppleServices
from emulator.apple.pki import SimPKI, device_certificate_subject
from emulator.wire import activation, activation_info, attestation, cloudconfig, envelope, factory
from emulator.wire.activation import (
    ActivationInfo,
    ActivationRequest,
    HandshakeReply,
    HandshakeRequest,
    IngestBody,
    SessionProof,
)
from emulator.wire.activation_info import BasebandRequestInfo, DeviceInfo
from emulator.wire.factory import FactoryReply, FactoryRequest
from tests.support import rsa_key

USER_AGENT = "iOS Device Activator (MobileActivation-592.103.2)"
ECDSA = ec.ECDSA(hashes.SHA256())


@cache
def pki() -> SimPKI:
    """One simulated PKI for all tests of a process: its RSA keys take a tenth of a second."""
    return SimPKI.open(None, SimulatedClock())


@cache
def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read whole."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def content_type(self) -> str | None:
        """As it came, with any parameters."""
        return self.headers.get("Content-Type")

    @property
    def refusal(self) -> tuple[int, str, str | None]:
        return self.status, self.body.decode(), self.content_type

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """HTTP to both ports of running stand-ins."""

    services: AppleServices
    http: aiohttp.ClientSession

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str = "application/xml",
        user_agent: str = USER_AGENT,
    ) -> Reply:
        headers = {"Content-Type": content_type, "User-Agent": user_agent}
        context = client_context([self.services.pki.tls_ca.certificate])
        return await self._request(
            "POST", self.services.url + path, data=body, headers=headers, ssl=context
        )

    async def admin(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
    ) -> Reply:
        """`token` None sends none, "" the right one."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.services.token}"
        return await self._request(
            method, self.services.admin_url + path, data=io.BytesIO(body), headers=sent
        )

    async def _request(self, method: str, url: str, **arguments: Any) -> Reply:
        async with self.http.request(method, url, **arguments) as response:
            return Reply(response.status, await response.read(), dict(response.headers))

    async def provision(self, *devices: "Device", activated: bool = False) -> Reply:
        """Factory provisioning; each device remembers its certificates."""
        path = "/registry/devices" + ("?activated=true" if activated else "")
        body = factory.encode_requests([device.factory_request() for device in devices])
        reply = await self.admin("POST", path, body)
        if reply.status == 200:
            for device, own in zip(devices, factory.decode_replies(reply.body), strict=True):
                device.certificates = own
        return reply

    async def handshake(self, request: HandshakeRequest) -> Reply:
        return await self.post(
            activation.HANDSHAKE_PATH, activation.encode_handshake_request(request)
        )

    async def session(self, device: "Device") -> HandshakeReply:
        reply = await self.handshake(device.handshake_request())
        assert reply.status == 200, reply.body
        return activation.decode_handshake_reply(reply.body)

    async def activate(self, request: ActivationRequest, **changes: Any) -> Reply:
        return await self.post(
            changes.pop("path", activation.ACTIVATION_PATH),
            activation.encode_form(request),
            content_type=activation.FORM_CONTENT_TYPE,
            **changes,
        )

    async def configuration(self, message: envelope.Envelope) -> Reply:
        return await self.post(
            cloudconfig.PATH,
            envelope.encode(message),
            content_type="application/x-www-form-urlencoded",
            user_agent="ConfigClient/1.0 (iPhone; iPhone OS; 22H374; 22H374)",
        )

    async def attestation(self, message: envelope.Envelope) -> Reply:
        return await self.post(attestation.PATH, envelope.encode(message))


@dataclass
class Device:
    """One virtual device; `number` picks its keys and identifiers."""

    number: int
    clock: SimulatedClock
    product_type: str = "iPhone14,5"
    serial_number: str = ""
    udid: str = ""
    imei: str | None = "353918051234561"
    meid: str | None = None
    certificates: FactoryReply = field(init=False)

    def __post_init__(self) -> None:
        self.serial_number = self.serial_number or f"SIM{self.number:07d}"
        self.udid = self.udid or f"00008110-{self.number:016X}"

    @property
    def factory_key(self) -> rsa.RSAPrivateKey:
        return rsa_key(self.number)

    @property
    def attestation_key(self) -> ec.EllipticCurvePrivateKey:
        return ec_key(self.number)

    def factory_request(self) -> FactoryRequest:
        return FactoryRequest(
            serial_number=self.serial_number,
            udid=self.udid,
            product_type=self.product_type,
            os_version="18.1",
            build="22B83",
            imei=self.imei,
            meid=self.meid,
            factory_public_key=spki_der(self.factory_key.public_key()),
            attestation_public_key=spki_der(self.attestation_key.public_key()),
        )

    def ingest_body(self, **changes: Any) -> bytes:
        facts: dict[str, Any] = {
            "serial_number": self.serial_number,
            "udid": self.udid,
            "product_type": self.product_type,
            "os_version": "18.1",
            "os_build": "22B83",
            "imei": self.imei,
        }
        return IngestBody(**{**facts, **changes}).encode()

    def handshake_request(self, **changes: Any) -> HandshakeRequest:
        body = changes.pop("ingest_body", self.ingest_body())
        key = changes.pop("key", self.attestation_key)
        made: datetime = changes.pop("made", self.clock.now())
        facts: dict[str, Any] = {
            "udid": self.udid,
            "ingest_body": body,
            "sig_key": key.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            ),
            "signature": key.sign(body, ECDSA),
            "handshake_request_message": activation.handshake_request_message(
                made, secrets.token_bytes(16)
            ),
        }
        return HandshakeRequest(**{**facts, **changes})

    def info(self, **changes: Any) -> ActivationInfo:
        baseband = BasebandRequestInfo(imei=self.imei, meid=self.meid) if self.imei else None
        facts: dict[str, Any] = {
            "activation_randomness": str(uuid.uuid4()).upper(),
            "serial_number": self.serial_number,
            "udid": self.udid,
            "device_cert_request": self.certificate_request(),
            "device_info": DeviceInfo(
                build_version="22B83",
                device_class="iPhone",
                product_type=self.product_type,
                product_version="18.1",
            ),
            "baseband": baseband,
        }
        return ActivationInfo(**{**facts, **changes})

    def certificate_request(self, key: Any = None) -> bytes:
        request = csr.build(key or self.factory_key, device_certificate_subject())
        return (
            b"-----BEGIN CERTIFICATE REQUEST-----\n"
            + base64.encodebytes(request)
            + b"-----END CERTIFICATE REQUEST-----\n"
        )

    def activation_request(
        self, session: HandshakeReply | None, info: ActivationInfo | None = None
    ) -> ActivationRequest:
        """Full with a session, lite without."""
        xml = activation_info.encode(info or self.info(), flat=session is None)
        return ActivationRequest(
            activation_info_xml=xml,
            fair_play_cert_chain=der(self.certificates.factory_certificate)
            + der(self.certificates.device_ca_certificate),
            fair_play_signature=self.factory_key.sign(xml, padding.PKCS1v15(), hashes.SHA256()),
            session=self.proof(xml, session) if session else None,
        )

    def proof(self, xml: bytes, session: HandshakeReply) -> SessionProof:
        act_request = hashlib.sha256(session.handshake_response_message).digest()[:16]
        signed = activation.tbs_request(xml, kp=session.server_kp, act_request=act_request)
        return SessionProof(
            rk_certification=der(self.certificates.attestation_certificate),
            rk_signature=self.attestation_key.sign(signed, ECDSA),
            server_kp=session.server_kp,
            sign_act_request=act_request,
        )

    def envelope(self, payload: bytes, **changes: Any) -> envelope.Envelope:
        facts: dict[str, Any] = {
            "payload": payload,
            "payload_signature": self.attestation_key.sign(payload, ECDSA),
            "sign_cert": der(self.certificates.attestation_certificate),
            "intermediate_cert": der(self.certificates.attestation_sub_ca),
        }
        return envelope.Envelope(**{**facts, **changes})

    def configuration_request(self, **changes: Any) -> bytes:
        facts: dict[str, Any] = {"serial_number": self.serial_number, "udid": self.udid}
        return cloudconfig.encode_request(cloudconfig.DeviceRequest(**{**facts, **changes}))

    def attestation_request(self, **changes: Any) -> bytes:
        facts: dict[str, Any] = {
            "serial_number": self.serial_number,
            "udid": self.udid,
            "public_key": spki_der(ec_key(900).public_key()),
            "freshness": bytes(range(32)),
            "os_version": "18.1",
        }
        return attestation.encode_request(attestation.AttestationRequest(**{**facts, **changes}))


def record_of(answer: Reply) -> activation.ActivationRecord:
    assert answer.status == 200, answer.body
    assert answer.content_type == "text/xml"
    record = activation.decode_answer("text/xml", answer.body)
    assert isinstance(record, activation.ActivationRecord)
    return record


def is_device_unknown(answer: Reply) -> bool:
    """The fatal page of BuddyML, not a form."""
    return (
        answer.status == 200
        and answer.content_type == "application/x-buddyml"
        and b'<navigationBar title="Device Unknown"/>' in answer.body
        and b"<page" not in answer.body
    )


async def full(client: Client, device: Device, **info: object) -> ActivationRequest:
    """A request with a session that was opened for it."""
    return device.activation_request(await client.session(device), device.info(**info))
