"""Activation: every check of the device on what comes back, one damage each (apple-services.md 9.1)."""

import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certs import csr, names
from certs.ca import CertificateAuthority
from certs.errors import CertsError
from certs.identity import Identity
from certs.keys import generate
from emulator.apple.records import ActivationLock
from emulator.device.activation import check_handshake, check_record
from emulator.device.activation_messages import activation_info, device_cert_request
from emulator.device.device import Device
from emulator.device.setup_assistant import AutomatedEnrollment, set_up
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import EmulatorError, PeerRefused
from emulator.wire import account_token
from emulator.wire.account_token import AccountToken
from emulator.wire.activation import (
    ActivationInfo,
    ActivationRecord,
    HandshakeReply,
    handshake_request_message,
    handshake_response_message,
    server_kp,
)
from tests.emulator.device.world import (
    CLOCK,
    Memory,
    apple_services,
    make_device,
    pki,
    surroundings,
)
from tests.support import rsa_key

PEM = serialization.Encoding.PEM
REQUEST_MESSAGE = handshake_request_message(CLOCK.now(), bytes(16))


def _reply(key: ec.EllipticCurvePrivateKey | None = None) -> HandshakeReply:
    unsigned = HandshakeReply(
        server_kp=server_kp(bytes(16), bytes(68)),
        fdr_blob=bytes(32),
        su_info=bytes(366),
        handshake_response_message=b"",
    )
    signature = (key or pki().activation_service_key).sign(
        unsigned.tbs(REQUEST_MESSAGE), ec.ECDSA(hashes.SHA256())
    )
    return replace(unsigned, handshake_response_message=handshake_response_message(signature))


def _with_message(change: Callable[[bytes], bytes]) -> HandshakeReply:
    reply = _reply()
    return replace(reply, handshake_response_message=change(reply.handshake_response_message))


def test_a_handshake_reply_of_the_pinned_service_is_accepted() -> None:
    check_handshake(make_device(), _reply(), REQUEST_MESSAGE)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda: _with_message(lambda message: message[:-1]), "508 bytes"),
        (lambda: _with_message(lambda message: b"SIM2" + message[4:]), "SIM1"),
        (lambda: _with_message(lambda message: message[:4] + b"\x00\x07" + message[6:]), "8 to 72"),
        (lambda: _with_message(lambda message: message[:4] + b"\x00\x49" + message[6:]), "8 to 72"),
        (lambda: _with_message(lambda message: message[:-1] + b"\x01"), "zero bytes"),
        (lambda: replace(_reply(), fdr_blob=b"\x01" + bytes(31)), "not signed by"),
        (lambda: replace(_reply(), su_info=b""), "not signed by"),
        (lambda: replace(_reply(), server_kp=b"\x01" + bytes(83) + b"\x01"), "not signed by"),
        (lambda: _reply(ec.generate_private_key(ec.SECP256R1())), "not signed by"),
    ],
)
def test_any_other_handshake_reply_is_an_invalid_session_response(
    damage: Callable[[], HandshakeReply], words: str
) -> None:
    with pytest.raises(PeerRefused, match=f"drm_handshake: Invalid session response.*{words}"):
        check_handshake(make_device(), damage(), REQUEST_MESSAGE)


def test_a_handshake_reply_to_another_request_is_refused() -> None:
    other = handshake_request_message(CLOCK.now(), secrets.token_bytes(16))
    with pytest.raises(PeerRefused, match="Invalid session response"):
        check_handshake(make_device(), _reply(), other)


# --- the record


class _Record:
    """A good record for a device, and ways to spoil it."""

    def __init__(self) -> None:
        self.device: Device = make_device()
        self.key = self.device.factory.factory.key
        self.info: ActivationInfo = activation_info(
            self.device, device_cert_request(self.key), sections=True
        )
        sim = pki()
        self.token = AccountToken(
            serial_number=self.info.serial_number,
            udid=self.info.udid,
            activation_randomness=self.info.activation_randomness,
            product_type=self.info.device_info.product_type,
        )
        request = csr.decode(self.info.device_cert_request)
        certificate = sim.issue_device_certificate(request.public_key, request.subject)
        attestation = self.device.factory.attestation
        self.record = self.signed(
            ActivationRecord(
                account_token=account_token.encode(self.token),
                account_token_certificate=sim.activation_signer.certificate.public_bytes(PEM),
                account_token_signature=b"",
                device_certificate=certificate.public_bytes(PEM),
                unique_device_certificate=attestation.certificate.public_bytes(PEM)
                + attestation.chain[0].public_bytes(PEM),
            )
        )

    def signed(self, record: ActivationRecord, signer: Identity | None = None) -> ActivationRecord:
        key = (signer or pki().activation_signer).key
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(record.account_token, padding.PKCS1v15(), hashes.SHA256())
        return replace(record, account_token_signature=signature)

    def with_token(self, **changes: str) -> ActivationRecord:
        token = account_token.encode(replace(self.token, **changes))  # type: ignore[arg-type]
        return self.signed(replace(self.record, account_token=token))

    def with_certificate(self, pem: bytes) -> ActivationRecord:
        return replace(self.record, device_certificate=pem)

    def foreign_signer(self) -> ActivationRecord:
        sim = pki()
        key = rsa_key(11)
        # A namesake of the root, which no device pins.
        foreign = CertificateAuthority.create("Sim Apple Root CA", clock=CLOCK)
        identity = foreign.issue_identity(key, sim.activation_signer.certificate.subject)
        changed = replace(
            self.record, account_token_certificate=identity.certificate.public_bytes(PEM)
        )
        return self.signed(changed, identity)

    def other_key(self) -> ActivationRecord:
        certificate = pki().issue_device_certificate(rsa_key(12).public_key())
        return self.with_certificate(certificate.public_bytes(PEM))

    def foreign_device_ca(self) -> ActivationRecord:
        foreign = CertificateAuthority.create("Sim iPhone Device CA", clock=CLOCK)
        certificate = foreign.issue(
            self.key.public_key(), names.from_subject([[["CN", "somebody"]]])
        )
        return self.with_certificate(certificate.public_bytes(PEM))

    def other_ucrt(self) -> ActivationRecord:
        other = pki().attestation.issue_device_identity(
            generate("p256").public_key(), serial_number="OTHER", udid="OTHER"
        )
        return replace(self.record, unique_device_certificate=other.public_bytes(PEM))


def test_a_good_record_gives_the_identity_of_this_activation() -> None:
    good = _Record()
    identity = check_record(good.device, good.record, good.info, good.key, needs_ucrt=True)
    assert identity.certificate.public_bytes(PEM) == good.record.device_certificate
    assert identity.chain == (pki().device_ca.certificate,)
    assert identity.key is good.key


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda good: good.foreign_signer(), "Sim iPhone Activation.*"),
        (
            lambda good: replace(good.record, account_token=good.record.account_token + b"\n"),
            "signature is not valid",
        ),
        (
            lambda good: replace(good.record, account_token_signature=bytes(256)),
            "signature is not valid",
        ),
        (lambda good: good.with_token(serial_number="X"), "another SerialNumber"),
        (lambda good: good.with_token(udid="X"), "another UniqueDeviceID"),
        (lambda good: good.with_token(activation_randomness="X"), "another ActivationRandomness"),
        (lambda good: good.other_key(), "for another key"),
        (lambda good: good.foreign_device_ca(), "somebody"),
        (lambda good: good.with_certificate(b"no certificate"), "DeviceCertificate: expected"),
        (lambda good: good.other_ucrt(), "another device's"),
        (
            lambda good: replace(good.record, unique_device_certificate=None),
            "UniqueDeviceCertificate: expected",
        ),
        (
            lambda good: replace(good.record, account_token_certificate=b""),
            "AccountTokenCertificate: expected",
        ),
    ],
)
def test_a_record_with_one_thing_wrong_is_refused(
    damage: Callable[[_Record], ActivationRecord], words: str
) -> None:
    good = _Record()
    with pytest.raises((CertsError, EmulatorError), match=words):
        check_record(good.device, damage(good), good.info, good.key, needs_ucrt=True)


# --- over the wire


async def test_a_device_that_the_service_does_not_know_stays_unactivated() -> None:
    device, memory = make_device(), Memory()
    async with apple_services() as apple:
        with pytest.raises(PeerRefused, match="drm_handshake: HTTP 403: UNKNOWN_DEVICE"):
            await set_up(device, surroundings(memory, apple=apple), AutomatedEnrollment())
    assert device.state is State.FAILED
    assert device.keychain.device is None
    assert device.failure is not None
    assert device.failure.step == "drm_handshake"


async def test_an_unknown_device_gets_its_buddyml_title_in_lite_mode() -> None:
    device = make_device()
    behaviour = Behaviour(activation="lite")
    async with apple_services(device) as apple:
        record = apple.registry.get(device.hardware.serial_number)
        assert record is not None
        assert record.hardware is not None
        record.hardware = replace(record.hardware, imei="356454209142073")
        with pytest.raises(PeerRefused, match="device_activation: Device Unknown"):
            await set_up(
                device, surroundings(apple=apple, behaviour=behaviour), AutomatedEnrollment()
            )


async def test_an_activation_lock_keeps_the_device_locked_out_until_it_is_lifted() -> None:
    device, memory = make_device(), Memory()
    async with apple_services(device) as apple:
        record = apple.registry.get(device.hardware.serial_number)
        assert record is not None
        record.activation_lock = ActivationLock(account=("owner@example.com", "secret"))
        around = surroundings(memory, apple=apple)
        with pytest.raises(PeerRefused, match="device_activation: activation lock"):
            await set_up(device, around, AutomatedEnrollment())
        assert device.state.name == "LOCKED_OUT"
        with pytest.raises(PeerRefused, match="activation lock"):
            await set_up(device, around, AutomatedEnrollment())
        record.activation_lock = None
        await set_up(device, around, AutomatedEnrollment())
    assert device.state is State.HOME_UNMANAGED


async def test_activation_off_needs_no_service_and_uses_the_identity_of_the_factory() -> None:
    device = make_device()
    certificate = pki().issue_device_certificate(device.factory.factory.key.public_key())
    own = Identity(device.factory.factory.key, certificate, device.factory.factory.chain)
    device.factory = replace(device.factory, device=own)
    memory = Memory()
    async with apple_services(device) as apple:
        behaviour = Behaviour(activation="off")
        await set_up(
            device, surroundings(memory, apple=apple, behaviour=behaviour), AutomatedEnrollment()
        )
    assert memory.steps == ["cloud_configuration"]
    assert device.keychain.device is own


def test_the_certificate_request_names_the_simulated_organization() -> None:
    request = csr.decode(device_cert_request(rsa_key(0)))
    assert names.text(request.subject).count("Sim Apple Inc.") == 1
    assert request.common_name is not None
    assert request.common_name == request.common_name.upper()
    assert len(request.common_name) == 36
