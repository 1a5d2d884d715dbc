"""SecurityInfo and CertificateList (mdm.md 5.2, 5.3)."""

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import names
from emulator.device.commands.outcome import Outcome
from emulator.device.device import Device
from emulator.wire.command import Command
from emulator.wire.fields import Fields, optional

BLOCK_AND_FILE_ENCRYPTION: Final = 3


def security_info(device: Device, command: Command, now: datetime) -> Outcome:
    """How safe the device is; no passcode policy exists, so whatever passcode there is complies."""
    info: Fields = {
        "HardwareEncryptionCaps": BLOCK_AND_FILE_ENCRYPTION,
        "PasscodeCompliant": True,
        "PasscodeCompliantWithProfiles": True,
        "PasscodeLockGracePeriod": 0,
        "PasscodeLockGracePeriodEnforced": 0,
        "PasscodePresent": device.settings.passcode_present,
    }
    if device.runs("13.0"):
        info["ManagementStatus"] = {"IsUserEnrollment": False}
    return Outcome(fields={"SecurityInfo": info})


def certificate_list(device: Device, command: Command, now: datetime) -> Outcome:
    """The certificates and identities that profiles brought, the MDM identity among them."""
    managed_only = optional(command.fields, "ManagedOnly", bool) and device.runs("13.0")
    managed = {
        profile.identifier
        for profile in device.profiles.all()
        if profile.managed or profile.enrollment
    }
    items = [
        _item(item.certificate, is_identity=False)
        for item in device.keychain.certificates.values()
        if not managed_only or item.profile_identifier in managed
    ]
    items += [
        _item(item.identity.certificate, is_identity=True)
        for item in device.keychain.identities.values()
        if not managed_only or item.profile_identifier in managed
    ]
    return Outcome(fields={"CertificateList": items})


def _item(certificate: x509.Certificate, *, is_identity: bool) -> Fields:
    return {
        "CommonName": names.common_name(certificate.subject) or "",
        "Data": certificate.public_bytes(Encoding.DER),
        "IsIdentity": is_identity,
    }
