"""What a device demands of a profile before it installs anything: mdm.md 2.6, with Apple's error chains.

Bytes come in, a Profile that is worth installing goes out, or ProfileRefused with the exact chain.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from certs import cms
from certs.errors import CannotDecrypt, InvalidSignature, MalformedMessage
from certs.keys import spki_der
from emulator.device.device import Device, Enrollment
from emulator.device.error_chains import (
    CERTIFICATE,
    INSTALLATION,
    MDM,
    PROFILE,
    installation_failed,
    invalid_payload,
    invalid_profile,
)
from emulator.device.identity_checks import check_acme, check_scep
from emulator.errors import ProfileRefused
from emulator.wire import plist
from emulator.wire.profile import (
    AcmePayload,
    CertificatePayload,
    MalformedPayload,
    MdmPayload,
    Pkcs12Payload,
    Profile,
    ScepPayload,
    decode,
    payloads,
)

TOPIC_PREFIX: Final = "com.apple.mgmt."
PER_USER_CONNECTIONS: Final = "com.apple.mdm.per-user-connections"
IPHONE_AND_IPAD: Final = (None, 0, 1)  # TargetDeviceType: any, or iPhone and iPad
ACME_SINCE: Final = "16.0"
IdentityPayload = ScepPayload | AcmePayload | Pkcs12Payload


def read_profile(data: bytes, device: Device) -> Profile:
    """Decode, decrypt when it is encrypted to one of the device's identities, and check everything that needs no state."""
    profile = _decrypted(_decoded(data), device)
    _check_form(profile)
    for payload in profile.payloads:
        match payload:
            case ScepPayload():
                check_scep(payload)
            case AcmePayload() if device.runs(ACME_SINCE):
                check_acme(payload)
            case CertificatePayload():
                _check_certificate(payload)
    if profile.mdm is not None:
        _check_mdm(profile, profile.mdm, device)
    return profile


def check_dates(profile: Profile, now: datetime) -> None:
    """A profile whose removal date has passed is not installed."""
    if profile.removal_date is not None and profile.removal_date <= now:
        raise ProfileRefused([(INSTALLATION, 4006, "The profile’s removal date is in the past.")])


def check_enrollment(profile: Profile, device: Device) -> MdmPayload:
    """A profile that is to enroll the device: it carries an MDM payload, and the device has none yet."""
    if profile.mdm is None:
        raise ProfileRefused([(INSTALLATION, 4022, "The profile must contain an MDM payload.")])
    if device.profiles.enrollment is not None:
        raise installation_failed(MDM, 12001, "The device is already managed by an MDM server.")
    return profile.mdm


def check_update(profile: Profile, device: Device) -> None:
    """A profile from the MDM server, against the enrollment: what an update may not change (mdm.md 2.6, last rows)."""
    enrollment, installed = device.enrollment, device.profiles.enrollment
    if enrollment is None or installed is None:
        raise installation_failed(MDM, 12079, "The device is not managed by an MDM server.")
    mdm = profile.mdm
    if profile.identifier != installed.identifier:
        if mdm is not None:
            raise installation_failed(MDM, 12001, "The device is already managed by an MDM server.")
        return
    if mdm is None:
        raise ProfileRefused(
            [
                (INSTALLATION, 4015, "The replacement profile lacks the MDM payload."),
                (MDM, 12009, "The MDM payload cannot be removed by a replacement."),
            ]
        )
    problem = _mismatch(mdm, enrollment) or _signer_mismatch(profile, installed.signer_certificates)
    if problem:
        text = f"The replacement does not match the installed MDM payload: {problem}."
        raise installation_failed(MDM, 12012, text)


def _mismatch(mdm: MdmPayload, enrollment: Enrollment) -> str | None:
    rights = mdm.access_rights or 0
    toggled = (PER_USER_CONNECTIONS in mdm.server_capabilities) is not (
        PER_USER_CONNECTIONS in enrollment.server_capabilities
    )
    findings: Iterable[tuple[bool, str]] = (
        (mdm.topic != enrollment.topic, "Topic changed"),
        (mdm.server_url != enrollment.server_url, "ServerURL changed"),
        ((mdm.check_in_url or mdm.server_url) != enrollment.check_in_url, "CheckInURL changed"),
        (bool(rights & ~enrollment.access_rights), "AccessRights added"),
        (toggled, f"{PER_USER_CONNECTIONS} toggled"),
    )
    return next((text for is_so, text in findings if is_so), None)


def _signer_mismatch(profile: Profile, installed: tuple[bytes, ...]) -> str | None:
    """A signed profile is only updated by one of the same signer; a new certificate for the same key is the same signer."""
    if not installed:
        return None
    if not profile.signer_certificates:
        return "it is not signed"
    old = x509.load_der_x509_certificate(installed[0])
    if _spki(old) != _spki(profile.signer_certificates[0]):
        return "it is signed by someone else"
    return None


def _spki(certificate: x509.Certificate) -> bytes:
    return spki_der(certificate.public_key())  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def decode_profile(data: bytes) -> Profile:
    """`wire.profile.decode`, done once for the bytes that one step checks and the next installs."""
    return decode(data)


def _decoded(data: bytes) -> Profile:
    try:
        return decode_profile(data)
    except InvalidSignature:
        raise invalid_profile((PROFILE, 1004, "The profile’s signature is not valid.")) from None
    except MalformedPayload as error:
        raise _bad_payload(error) from error
    except MalformedMessage as error:
        raise _bad_profile(error) from error


def _bad_profile(error: MalformedMessage) -> ProfileRefused:
    """Not a property list: 4000; not CMS: 4007; a key of the top level: 1002, 1003 or 1010."""
    if error.field == "profile":
        return invalid_profile()
    if not error.field.startswith(TOP_LEVEL_KEYS):
        return ProfileRefused([(INSTALLATION, 4007, "The file is of an unknown format.")])
    if error.expected == "Configuration":
        cause = (PROFILE, 1010, f"The field “{error.field}” has an unsupported value.")
    elif error.got is None:
        cause = (PROFILE, 1002, f"The profile is missing the required field “{error.field}”.")
    else:
        cause = (PROFILE, 1003, f"The field “{error.field}” has the wrong type.")
    return invalid_profile(cause)


TOP_LEVEL_KEYS: Final = (
    "Payload",
    "HasRemovalPasscode",
    "IsEncrypted",
    "EncryptedPayloadContent",
    "RemovalDate",
    "DurationUntilRemoval",
    "TargetDeviceType",
    "ConsentText",
)


def _bad_payload(error: MalformedPayload) -> ProfileRefused:
    if error.got is None:
        return invalid_payload(2002, f"The payload is missing the required field “{error.field}”.")
    return invalid_payload(2003, f"The field “{error.field}” has the wrong type.")


def _decrypted(profile: Profile, device: Device) -> Profile:
    if not profile.is_encrypted:
        return profile
    for item in device.keychain.identities.values():
        try:
            content = cms.decrypt(profile.encrypted_payload_content or b"", item.identity)
            return _with_payloads(profile, content)
        except CannotDecrypt:
            continue
        except MalformedPayload as error:
            raise _bad_payload(error) from error
        except MalformedMessage:
            break
    raise invalid_profile((PROFILE, 1006, "The profile cannot be decrypted."))


def _with_payloads(profile: Profile, content: bytes) -> Profile:
    """The decrypted content is an array; wrapped into a dictionary it is read like any other."""
    body = content[content.find(b"<array") : content.rfind(b"</array>") + len(b"</array>")]
    document = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict>'
        b"<key>PayloadContent</key>" + body + b"</dict></plist>"
    )
    return replace(profile, payloads=payloads(plist.loads(document, "PayloadContent")))


def _check_form(profile: Profile) -> None:
    if profile.version != 1:
        raise invalid_profile((PROFILE, 1001, f"Version {profile.version} is not supported."))
    for payload in profile.payloads:
        if payload.version != 1:
            raise invalid_payload(2001, f"Payload version {payload.version} is not supported.")
    for code, what, values in (
        (1007, "UUID", [payload.uuid for payload in profile.payloads]),
        (1008, "identifier", [payload.identifier for payload in profile.payloads]),
    ):
        twice = _repeated(values)
        if twice is not None:
            raise invalid_profile((PROFILE, code, f"The payload {what} “{twice}” is not unique."))
    if profile.target_device_type not in IPHONE_AND_IPAD:
        raise ProfileRefused([(INSTALLATION, 4023, "The profile is for another kind of device.")])


def _repeated(values: Iterable[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _check_certificate(payload: CertificatePayload) -> None:
    try:
        payload.certificate()
    except MalformedMessage:
        text = f"The certificate “{payload.identifier}” is malformed."
        raise installation_failed(CERTIFICATE, 9005, text) from None


def _check_mdm(profile: Profile, mdm: MdmPayload, device: Device) -> None:
    if sum(isinstance(payload, MdmPayload) for payload in profile.payloads) > 1:
        raise installation_failed(MDM, 12001, "The profile contains more than one MDM payload.")
    rights = mdm.access_rights or 0
    if rights <= 0 or (rights & 2 and not rights & 1) or (rights & 128 and not rights & 64):
        raise installation_failed(MDM, 12000, "The access rights are not valid.")
    if not mdm.topic.startswith(TOPIC_PREFIX):
        raise installation_failed(MDM, 12022, f"The topic “{mdm.topic}” is not valid.")
    for name, url in (("ServerURL", mdm.server_url), ("CheckInURL", mdm.check_in_url)):
        if url is not None and not _is_https(url):
            raise installation_failed(MDM, 12034, f"The {name} must use https.")
    identity = profile.payload(mdm.identity_certificate_uuid)
    if identity is None or (isinstance(identity, AcmePayload) and not device.runs(ACME_SINCE)):
        text = f"The identity certificate “{mdm.identity_certificate_uuid}” was not found."
        raise installation_failed(MDM, 12005, text)
    if not isinstance(identity, IdentityPayload):
        text = f"The payload “{identity.identifier}” is not an identity."
        raise installation_failed(MDM, 12016, text)


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        return False
