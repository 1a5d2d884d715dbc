"""The checks of an activation request that need no session: A4 to A8 of apple-services.md 9.1, each with its own refusal."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certs import attestation, csr, trust
from certs.clock import Clock
from certs.csr import CertificateRequest
from certs.errors import CertsError, MalformedMessage, UntrustedCertificate
from certs.keys import spki_der
from emulator.apple.activation_session import Session
from emulator.apple.answer import Refusal
from emulator.apple.device_envelope import ECDSA_SHA256
from emulator.apple.pki import SimPKI
from emulator.apple.records import DeviceRecord, HardwareFacts
from emulator.apple.registry import Registry
from emulator.wire import activation, activation_info, buddyml
from emulator.wire.activation import ActivationInfo, ActivationRequest, SessionProof
from emulator.wire.activation_record import BUDDYML_CONTENT_TYPE

DEVICE_UNKNOWN: Final = "Device Unknown"
MIN_RSA_BITS: Final = 1024
PKCS1: Final = padding.PKCS1v15()


class ActivationChecks:
    """Who signed a request, according to the registry."""

    def __init__(self, pki: SimPKI, registry: Registry, clock: Clock, *, check_dates: bool) -> None:
        self._pki = pki
        self._registry = registry
        self._clock = clock
        self._check_dates = check_dates

    def factory_signer(self, message: ActivationRequest) -> DeviceRecord:
        """A4 and A5: the registered factory key, certified by our device CA, signed the XML as received."""
        device_ca = self._pki.device_ca.certificate
        try:
            chain = [
                x509.load_der_x509_certificate(der)
                for der in activation.split_certificates(message.fair_play_cert_chain)
            ]
            if len(chain) != 2:
                raise MalformedMessage("FairPlayCertChain", "two certificates", len(chain))
            if chain[1].public_key() != device_ca.public_key():
                raise UntrustedCertificate("FairPlayCertChain[1]", "is not Sim iPhone Device CA")
            chain[0].verify_directly_issued_by(device_ca)
            if self._check_dates:
                trust.check_dates(chain[0], self._clock.now())
        except (CertsError, ValueError, TypeError, InvalidSignature) as error:
            raise _bad_signature("A4", str(error) or "FC is not signed by its issuer") from error
        key = chain[0].public_key()
        device = self._registry.by_key(spki_der(key)) if isinstance(key, rsa.RSAPublicKey) else None
        if device is None or not isinstance(key, rsa.RSAPublicKey):
            raise _bad_signature("A4", "the key of FC is not registered")
        try:
            key.verify(
                message.fair_play_signature, message.activation_info_xml, PKCS1, hashes.SHA256()
            )
        except InvalidSignature as error:
            raise _bad_signature("A5", "FairPlaySignature does not fit the XML") from error
        return device

    def attested(
        self,
        message: ActivationRequest,
        proof: SessionProof,
        device: DeviceRecord,
        info: ActivationInfo,
    ) -> x509.Certificate:
        """A6: the device's own attestation key vouches for the XML and the session."""
        try:
            certificate = x509.load_der_x509_certificate(proof.rk_certification)
            certificate.verify_directly_issued_by(self._pki.attestation.sub_ca)
            said = attestation.parse(certificate)
        except (CertsError, ValueError, TypeError, InvalidSignature) as error:
            reason = str(error) or "RKCertification is not signed by the attestation sub CA"
            raise _bad_signature("A6", reason) from error
        key = said.public_key
        if (
            not isinstance(key, ec.EllipticCurvePublicKey)
            or self._registry.by_key(spki_der(key)) is not device
        ):
            raise _bad_signature("A6", "the key of RKCertification is not this device's")
        if (said.serial_number, said.udid) != (info.serial_number, info.udid):
            raise _bad_signature("A6", "RKCertification was issued for another device")
        signed = activation.tbs_request(
            message.activation_info_xml, kp=proof.server_kp, act_request=proof.sign_act_request
        )
        try:
            key.verify(proof.rk_signature, signed, ECDSA_SHA256)
        except InvalidSignature as error:
            raise _bad_signature("A6", "RKSignature is wrong") from error
        return certificate


def read(message: ActivationRequest) -> ActivationInfo:
    """The XML, once its signature is known to be the device's."""
    try:
        return activation_info.decode(message.activation_info_xml)
    except MalformedMessage as error:
        raise Refusal("A2", 400, "MALFORMED", str(error)) from error


def check_identity(info: ActivationInfo, device: DeviceRecord, session: Session | None) -> None:
    """A7: the XML names the device that signed it, and the one that opened the session."""
    hardware = device.hardware
    if hardware is None or _identifiers(info) != _registered(hardware):
        raise device_unknown("A7", "the XML differs from the registry")
    if session is not None and (session.serial_number, session.udid, _plain(session.imei)) != (
        info.serial_number,
        info.udid,
        _plain(info.imei),
    ):
        raise device_unknown("A7", "the XML differs from the session")


def _identifiers(info: ActivationInfo) -> tuple[str | None, ...]:
    return info.serial_number, info.udid, _plain(info.imei), _plain(info.meid)


def _registered(hardware: HardwareFacts) -> tuple[str | None, ...]:
    return hardware.serial_number, hardware.udid, _plain(hardware.imei), _plain(hardware.meid)


def _plain(number: str | None) -> str | None:
    """An IMEI or MEID without the blanks of its printed form."""
    return number.replace(" ", "").upper() if number else None


def certificate_request(info: ActivationInfo) -> CertificateRequest:
    """A8."""
    try:
        if not info.device_cert_request.lstrip().startswith(b"-----BEGIN"):
            raise MalformedMessage("DeviceCertRequest", "PEM")
        request = csr.decode(info.device_cert_request)
        key = request.public_key
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_BITS:
            raise MalformedMessage("DeviceCertRequest", f"an RSA key of {MIN_RSA_BITS} bits")
    except CertsError as error:
        raise Refusal("A8", 400, "MALFORMED", str(error)) from error
    return request


def device_unknown(check: str, reason: str) -> Refusal:
    """The page whose title is a fatal error; HTTP status 200, as the real service."""
    return Refusal(
        check,
        200,
        DEVICE_UNKNOWN,
        reason,
        page=buddyml.encode_error(DEVICE_UNKNOWN),
        content_type=BUDDYML_CONTENT_TYPE,
    )


def _bad_signature(check: str, reason: str) -> Refusal:
    return Refusal(check, 401, "BAD_SIGNATURE", reason)
