"""Activation, the device's side: handshake, request, and every check on what comes back (apple-services.md 9.1).

`full` makes both exchanges, `lite` only the second in its legacy form, `off` takes the DeviceCertificate that the device
was made with. Whatever is wrong with an answer, the device stays unactivated.
"""

import hashlib
import secrets
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.errors import MalformedMessage
from certs.identity import Identity
from certs.keys import PrivateKey, PublicKey, spki_der
from certs.transport import HttpResponse
from certs.trust import verify_chain
from emulator.config import REQUEST_TIMEOUT_S
from emulator.device import user_agent
from emulator.device.activation_messages import (
    activation_info,
    device_cert_request,
    fair_play_signature,
    ingest_body,
)
from emulator.device.apple_services import open_service, service_url
from emulator.device.device import Device
from emulator.device.envelope import ecdsa
from emulator.device.state import Event
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.errors import PeerRefused
from emulator.http import HttpSession
from emulator.wire import account_token, activation
from emulator.wire import activation_info as info_codec
from emulator.wire.activation import (
    Acknowledgement,
    ActivationInfo,
    ActivationRecord,
    ActivationRefused,
    ActivationRequest,
    HandshakeReply,
    HandshakeRequest,
    SessionProof,
)

HANDSHAKE: Final = "drm_handshake"
ACTIVATION: Final = "device_activation"


async def activate(device: Device, surroundings: Surroundings) -> None:
    """From unactivated to activated. Raises PeerRefused (also for an activation lock) or StepTimeout."""
    mode = surroundings.behaviour.activation
    if mode == "off" or surroundings.apple is None:
        device.keychain.device = device.factory.device or device.factory.factory
        device.apply(Event.ACTIVATION_RECORD_RECEIVED)
        return
    async with open_service(device, surroundings, user_agent.ACTIVATION) as service:
        session = None
        if mode == "full":
            session = await _handshake(device, surroundings, service)
        key = await _certificate_key(device, surroundings)
        info = activation_info(device, device_cert_request(key), sections=session is not None)
        request = _request(device, info, session)
        answer = await _ask(surroundings, service, request)
    match answer:
        case ActivationRecord():
            with peer_errors(ACTIVATION):
                device.keychain.device = check_record(
                    device, answer, info, key, needs_ucrt=session is not None
                )
            device.apply(Event.ACTIVATION_RECORD_RECEIVED)
        case Acknowledgement():
            # A device that holds no record cannot be activated already.
            raise PeerRefused(ACTIVATION, "acknowledged without an activation record")
        case ActivationRefused(form=form) if form is not None and form.is_auth_required:
            device.apply(Event.ACTIVATION_LOCK_MET)
            raise PeerRefused(ACTIVATION, f"activation lock: {form.description or answer.title}")
        case ActivationRefused():
            raise PeerRefused(ACTIVATION, answer.title)


async def _handshake(
    device: Device, surroundings: Surroundings, service: HttpSession
) -> HandshakeReply:
    """Open a session; the reply must be signed by the service's pinned key."""
    assert surroundings.apple is not None
    body = ingest_body(device)
    key = device.factory.attestation.key
    message = activation.handshake_request_message(
        surroundings.clock.now(), secrets.token_bytes(16)
    )
    request = HandshakeRequest(
        udid=device.hardware.udid,
        ingest_body=body,
        sig_key=key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        signature=ecdsa(key, body),
        handshake_request_message=message,
    )
    with peer_errors(HANDSHAKE):
        response = await service.request(
            "POST",
            service_url(surroundings.apple.activation_url, activation.HANDSHAKE_PATH, HANDSHAKE),
            step=HANDSHAKE,
            headers={"Content-Type": "application/xml", "Accept": "application/xml"},
            body=activation.encode_handshake_request(request),
            timeout_s=REQUEST_TIMEOUT_S,
        )
        if response.status != 200:
            raise _refused(HANDSHAKE, response)
        reply = activation.decode_handshake_reply(response.body)
    check_handshake(device, reply, message)
    return reply


def check_handshake(device: Device, reply: HandshakeReply, request_message: bytes) -> None:
    """The four checks of 9.1 item 2 in their order. Raises PeerRefused: invalid session response."""
    try:
        signature = activation.handshake_signature(reply.handshake_response_message)
        key = device.factory.anchors.load_activation_service_key()
        key.verify(signature, reply.tbs(request_message), ec.ECDSA(hashes.SHA256()))
    except MalformedMessage as error:
        raise PeerRefused(HANDSHAKE, f"Invalid session response ({error})") from error
    except WrongSignature:
        raise PeerRefused(
            HANDSHAKE, "Invalid session response (not signed by the activation service)"
        ) from None


async def _certificate_key(device: Device, surroundings: Surroundings) -> PrivateKey:
    if surroundings.behaviour.device_key == "factory":
        return device.factory.factory.key
    return await surroundings.keys.take("rsa2048")


def _request(
    device: Device, info: ActivationInfo, session: HandshakeReply | None
) -> ActivationRequest:
    factory, attestation = device.factory.factory, device.factory.attestation
    xml = info_codec.encode(info, flat=session is None)
    proof = None
    if session is not None:
        act_request = hashlib.sha256(session.handshake_response_message).digest()[:16]
        proof = SessionProof(
            rk_certification=attestation.der,
            rk_signature=ecdsa(
                attestation.key,
                activation.tbs_request(xml, kp=session.server_kp, act_request=act_request),
            ),
            server_kp=session.server_kp,
            sign_act_request=act_request,
        )
    chain = (factory.certificate, *factory.chain[:1])
    return ActivationRequest(
        activation_info_xml=xml,
        fair_play_cert_chain=b"".join(one.public_bytes(Encoding.DER) for one in chain),
        fair_play_signature=fair_play_signature(factory.key, xml),
        session=proof,
    )


async def _ask(
    surroundings: Surroundings, service: HttpSession, request: ActivationRequest
) -> ActivationRecord | Acknowledgement | ActivationRefused:
    assert surroundings.apple is not None
    with peer_errors(ACTIVATION):
        response = await service.request(
            "POST",
            service_url(surroundings.apple.activation_url, activation.ACTIVATION_PATH, ACTIVATION),
            step=ACTIVATION,
            headers={"Content-Type": activation.FORM_CONTENT_TYPE, "Accept": "*/*"},
            body=activation.encode_form(request),
            timeout_s=REQUEST_TIMEOUT_S,
        )
        if response.status != 200:
            raise _refused(ACTIVATION, response)
        return activation.decode_answer(response.content_type, response.body)


def check_record(
    device: Device,
    record: ActivationRecord,
    info: ActivationInfo,
    key: PrivateKey,
    *,
    needs_ucrt: bool,
    at: datetime | None = None,
) -> Identity:
    """The checks of 9.1 item 5; returns the identity of this activation.

    Dates are left aside, as real devices accept a token signer that expired in 2014. Raises a CertsError or PeerRefused.
    """
    factory, root = device.factory.factory, device.factory.anchors.sim_apple_root
    signer = _pem("AccountTokenCertificate", record.account_token_certificate)[0]
    verify_chain(signer, (), [root], at=at)
    _verify_token(signer, record)
    token = account_token.decode(record.account_token)
    for name, got, sent in (
        ("SerialNumber", token.serial_number, info.serial_number),
        ("UniqueDeviceID", token.udid, info.udid),
        ("ActivationRandomness", token.activation_randomness, info.activation_randomness),
    ):
        if got != sent:
            raise PeerRefused(ACTIVATION, f"the account token has another {name}")
    certificate, *issuers = _pem("DeviceCertificate", record.device_certificate)
    public_key = certificate.public_key()
    if not isinstance(public_key, PublicKey) or spki_der(public_key) != spki_der(key.public_key()):
        raise PeerRefused(ACTIVATION, "the DeviceCertificate is for another key")
    path = verify_chain(certificate, (*issuers, *factory.chain), [root], at=at)
    if needs_ucrt:
        unique = _pem("UniqueDeviceCertificate", record.unique_device_certificate or b"")
        if unique[0] != device.factory.attestation.certificate:
            raise PeerRefused(ACTIVATION, "the UniqueDeviceCertificate is another device's")
    return Identity(key, certificate, tuple(path[1:-1]))


def _verify_token(signer: x509.Certificate, record: ActivationRecord) -> None:
    key = signer.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise PeerRefused(ACTIVATION, "the account token’s signer has no RSA key")
    try:
        key.verify(
            record.account_token_signature,
            record.account_token,
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
    except WrongSignature:
        raise PeerRefused(ACTIVATION, "the account token’s signature is not valid") from None


def _pem(name: str, data: bytes) -> list[x509.Certificate]:
    """Certificates by their markers, whatever stands between the blocks (apple-services.md 2.5)."""
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise MalformedMessage(name, "certificates in PEM", str(error)) from error


def _refused(step: str, response: HttpResponse) -> PeerRefused:
    """The stand-in says in one line of text which check failed."""
    text = response.body[:200].decode(errors="replace").strip()
    return PeerRefused(step, text or "refused", status=response.status)
