"""The activation record: what an accepted device takes away (apple-services.md 2.5 and 9.1, item 5)."""

import base64
import secrets
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from certs.csr import CertificateRequest
from emulator.apple.pki import SimPKI
from emulator.apple.records import DeviceRecord
from emulator.wire import account_token
from emulator.wire.activation import AccountToken, ActivationInfo, ActivationRecord

TICKET_BYTES: Final = 687  # 916 characters of base64, as in the captured token
CONTAINER_BYTES: Final = 1152  # 1594 bytes with base64 and frame
REGULATORY_INFO: Final = b'{"elabel":{"bis":{"regulatory":""}}}'


class RecordIssuer:
    """Signs account tokens and issues a new DeviceCertificate for every activation."""

    def __init__(self, pki: SimPKI, url: Callable[[], str]) -> None:
        self._pki = pki
        self._url = url  # of this stand-in, for the URLs in the token
        key = pki.activation_signer.key
        assert isinstance(key, rsa.RSAPrivateKey)
        self._token_key = key
        self._token_certificate = _pem(pki.activation_signer.certificate)
        self._sub_ca = _pem(pki.attestation.sub_ca)

    def issue(
        self,
        device: DeviceRecord,
        info: ActivationInfo,
        request: CertificateRequest,
        attestation_certificate: x509.Certificate | None,
    ) -> ActivationRecord:
        """The record for one device; lite activations show no attestation certificate and get none back."""
        token = account_token.encode(self._token(device, info))
        certificate = self._pki.issue_device_certificate(request.public_key, request.subject)
        return ActivationRecord(
            account_token=token,
            account_token_certificate=self._token_certificate,
            account_token_signature=self._token_key.sign(
                token, padding.PKCS1v15(), hashes.SHA256()
            ),
            device_certificate=_pem(certificate),
            unique_device_certificate=(
                _pem(attestation_certificate) + self._sub_ca if attestation_certificate else None
            ),
            fair_play_key_data=_container(secrets.token_bytes(CONTAINER_BYTES)),
            regulatory_info=REGULATORY_INFO,
            device_configuration_flags="1" if device.profile else "0",
        )

    def _token(self, device: DeviceRecord, info: ActivationInfo) -> AccountToken:
        hardware = device.hardware
        assert hardware is not None  # the checks found it by its key
        services = f"{self._url()}/deviceservices"
        return AccountToken(
            serial_number=hardware.serial_number,
            udid=hardware.udid,
            activation_randomness=info.activation_randomness,
            product_type=hardware.product_type,
            wildcard_ticket=base64.b64encode(secrets.token_bytes(TICKET_BYTES)).decode(),
            imei=hardware.imei,
            meid=hardware.meid,
            phone_number_notification_url=f"{services}/phoneHome",
            activity_url=f"{services}/activity",
        )


def _container(content: bytes) -> bytes:
    text = base64.encodebytes(content)
    return b"-----BEGIN CONTAINER-----\n" + text + b"-----END CONTAINER-----\n"


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
