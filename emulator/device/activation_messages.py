"""What a device says of itself when it asks to be activated: the handshake's IngestBody and ActivationInfo (apple-services.md 2.3, 2.4)."""

import base64
import uuid
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from certs import csr, names
from certs.keys import PrivateKey
from emulator.device.device import Device
from emulator.wire.activation_info import (
    UNACTIVATED,
    ActivationInfo,
    BasebandRequestInfo,
    DeviceInfo,
    State,
    UIKCertification,
)
from emulator.wire.handshake import IngestBody

SIM_READY: Final = "kCTSIMSupportSIMStatusReady"
TEST_NETWORK: Final = "00101"  # MCC and MNC of 3GPP's test network
ORGANIZATION: Final = "Sim Apple Inc."


def ingest_body(device: Device) -> bytes:
    """The JSON that AK signs in the handshake."""
    hardware = device.hardware
    return IngestBody(
        serial_number=hardware.serial_number,
        udid=hardware.udid,
        product_type=hardware.model.product_type,
        os_version=hardware.os_version,
        os_build=hardware.build,
        imei=hardware.imei,
        imei2=hardware.imei2,
        meid=hardware.meid,
    ).encode()


def device_cert_request(key: PrivateKey) -> bytes:
    """PEM PKCS#10 for the certificate that will sign MachineInfo; the name is a fresh UUID."""
    subject = [
        [["C", "US"]],
        [["ST", "CA"]],
        [["L", "Cupertino"]],
        [["O", ORGANIZATION]],
        [["OU", "iPhone"]],
        [["CN", str(uuid.uuid4()).upper()]],
    ]
    text = base64.b64encode(csr.build(key, names.from_subject(subject))).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n".encode()


def activation_info(
    device: Device, request: bytes, *, sections: bool, state: State = UNACTIVATED
) -> ActivationInfo:
    """All sections for a session; the flat legacy form leaves out what it has no place for."""
    hardware = device.hardware
    return ActivationInfo(
        activation_randomness=str(uuid.uuid4()).upper(),
        activation_state=state,
        serial_number=hardware.serial_number,
        udid=hardware.udid,
        device_cert_request=request,
        device_info=_device_info(device) if sections else _short_device_info(device),
        baseband=_baseband(device),
        uik=_uik(device) if sections else None,
    )


def _short_device_info(device: Device) -> DeviceInfo:
    hardware = device.hardware
    return DeviceInfo(
        build_version=hardware.build,
        device_class=hardware.device_class,
        product_type=hardware.model.product_type,
        product_version=hardware.os_version,
    )


def _device_info(device: Device) -> DeviceInfo:
    hardware = device.hardware
    return DeviceInfo(
        build_version=hardware.build,
        device_class=hardware.device_class,
        product_type=hardware.model.product_type,
        product_version=hardware.os_version,
        device_variant="A",
        model_number=hardware.model_number,
        os_type="iPhone OS",
        region_code=hardware.region_info.partition("/")[0],
        region_info=hardware.region_info,
        regulatory_model_number=hardware.regulatory_model,
        signing_fuse=True,
        unique_chip_id=hardware.ecid,
    )


def _baseband(device: Device) -> BasebandRequestInfo | None:
    """With the SIM card that every cellular device here has; Wi-Fi models leave the section out."""
    hardware = device.hardware
    if hardware.imei is None:
        return None
    noise = sha256(f"baseband/{hardware.udid}".encode())
    return BasebandRequestInfo(
        imei=hardware.imei,
        imei2=hardware.imei2,
        meid=hardware.meid,
        chip_id=7282913,
        master_key_hash=noise.hexdigest().upper(),
        serial_number=noise.digest()[:12],
        sim_status=SIM_READY,
        postponement_pri_version="0.1.186",
        iccid=hardware.iccid,
        imsi=TEST_NETWORK + f"{int.from_bytes(noise.digest()[:6]) % 10**10:010d}",
        imsi_override=False,
        phone_number=hardware.phone_number,
        gid1="ff",
        gid2="ff",
        sim_gid1=b"\xff",
        sim_gid2=b"\xff",
        pri_version=(1, 0, 0),
    )


def _uik(device: Device) -> UIKCertification:
    hardware = device.hardware
    return UIKCertification(
        board_id=sha256(hardware.model.board.encode()).digest()[0],
        chip_id=int(hardware.model.chip_id, 16),
        wifi_address=hardware.wifi_mac,
        bluetooth_address=hardware.bluetooth_mac,
        ethernet_mac_address=hardware.ethernet_mac,
    )


def fair_play_signature(key: PrivateKey, data: bytes) -> bytes:
    """RSA PKCS#1 v1.5 with SHA-256 by the factory key, in place of FairPlay (apple-services.md 9.1)."""
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the factory key is an RSA key")
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
