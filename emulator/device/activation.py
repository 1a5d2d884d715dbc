"""Activation, the device's side: handshake, request, and every check on what comes back (apple-services.md 9.1).

`full` makes both exchanges, `lite` only the second in its legacy form, `off` takes the DeviceCertificate that the device
was made with. Whatever is wrong with an answer, the device stays unactivated.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlencode

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
from emulator.errors import IllegalTransition, PeerRefused
from emulator.http import HttpSession
from emulator.wire import account_token, activation
from emulator.wire import activation_info as info_codec
from emulator.wire.activation import (
    Acknowledgement,
    ActivationInfo,
    ActivationRecord,
    ActivationRefused,
    ActivationRequest,
    CredentialForm,
    HandshakeReply,
    HandshakeRequest,
    SessionProof,
)

HANDSHAKE: Final = "drm_handshake"
ACTIVATION: Final = "device_activation"


class ActivationLocked(PeerRefused):
    """The service wants the owner's credentials, or the bypass code; `alert`: those that were given are wrong."""

    def __init__(self, form: CredentialForm, title: str) -> None:
        self.form = form
        self.alert = form.alert
        super().__init__(ACTIVATION, f"activation lock: {form.alert or form.description or title}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What somebody types into the lock's page; a bypass code is a password without a login (2.6)."""

    login: str = ""
    password: str = field(repr=False)

    @classmethod
    def bypass(cls, code: str) -> Self:
        return cls(password=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was sent, and its answer."""

    info: ActivationInfo
    key: PrivateKey
    session: HandshakeReply | None
    answer: ActivationRecord | Acknowledgement | ActivationRefused

    def identity(self, device: Device, record: ActivationRecord) -> Identity:
        with peer_errors(ACTIVATION):
            return check_record(
                device, record, self.info, self.key, needs_ucrt=self.session is not None
            )


async def activate(
    device: Device, surroundings: Surroundings, credentials: Credentials | None = None
) -> None:
    """From unactivated or locked out to activated; `credentials` are for the page of a lock.

    Raises ActivationLocked, PeerRefused or StepTimeout.
    """
    if surroundings.behaviour.activation == "off" or surroundings.apple is None:
        device.keychain.device = device.factory.device or device.factory.factory
        device.apply(Event.ACTIVATION_RECORD_RECEIVED)
        return
    asked = await _ask_service(device, surroundings, credentials)
    match asked.answer:
        case ActivationRecord() as record:
            device.keychain.device = asked.identity(device, record)
            device.apply(Event.ACTIVATION_RECORD_RECEIVED)
        case Acknowledgement():
            # A device that holds no record cannot be activated already.
            raise PeerRefused(ACTIVATION, "acknowledged without an activation record")
        case ActivationRefused(form=form) if form is not None and form.is_auth_required:
            device.apply(Event.ACTIVATION_LOCK_MET)
            raise ActivationLocked(form, asked.answer.title)
        case ActivationRefused():
            raise PeerRefused(ACTIVATION, asked.answer.title)


async def ask_again(device: Device, surroundings: Surroundings) -> bool:
    """Ask while activated; True when a new record came in place of the old. Raises ActivationLocked or PeerRefused."""
    if device.keychain.device is None or surroundings.apple is None:
        raise IllegalTransition("only an activated device can be activated again")
    asked = await _ask_service(device, surroundings, None, state=info_codec.ACTIVATED)
    match asked.answer:
        case ActivationRecord() as record:
            device.keychain.device = asked.identity(device, record)
            return True
        case Acknowledgement():
            return False
        case ActivationRefused(form=form) if form is not None and form.is_auth_required:
            raise ActivationLocked(form, asked.answer.title)
        case ActivationRefused():
            raise PeerRefused(ACTIVATION, asked.answer.title)


async def _ask_service(
    device: Device,
    surroundings: Surroundings,
    credentials: Credentials | None,
    *,
    state: info_codec.State = info_codec.UNACTIVATED,
) -> Asked:
    """Handshake where the mode has one, request, and the page of a lock where there are credentials for it."""
    async with open_service(device, surroundings, user_agent.ACTIVATION) as service:
        session = None
        if surroundings.behaviour.activation == "full":
            session = await _handshake(device, surroundings, service)
        key = await _certificate_key(device, surroundings)
        info = activation_info(
            device, device_cert_request(key), sections=session is not None, state=state
        )
        body = activation.encode_form(_request(device, info, session))
        answer = await _post(surroundings, service, body)
        if credentials is not None and isinstance(answer, ActivationRefused) and answer.form:
            body = urlencode(_filled_in(answer.form, credentials)).encode("ascii")
            answer = await _post(surroundings, service, body)
    return Asked(info=info, key=key, session=session, answer=answer)


def _filled_in(form: CredentialForm, credentials: Credentials) -> dict[str, str]:
    """The rows' values, and what the page wants posted back as it came."""
    rows = {row.id: credentials.password if row.secure else credentials.login for row in form.rows}
    return {**rows, **form.server_info}


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


async def _post(
    surroundings: Surroundings, service: HttpSession, body: bytes
) -> ActivationRecord | Acknowledgement | ActivationRefused:
    assert surroundings.apple is not None
    with peer_errors(ACTIVATION):
        response = await service.request(
            "POST",
            service_url(surroundings.apple.activation_url, activation.ACTIVATION_PATH, ACTIVATION),
            step=ACTIVATION,
            headers={"Content-Type": activation.FORM_CONTENT_TYPE, "Accept": "*/*"},
            body=body,
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
