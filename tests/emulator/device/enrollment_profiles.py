"""Enrollment profiles for the scripted server: a root, an identity by SCEP or ACME, and the MDM payload."""

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from emulator.wire import profile
from emulator.wire.fields import Fields
from emulator.wire.profile import AcmePayload, CertificatePayload, MdmPayload, ScepPayload
from tests.emulator.device.world import CHALLENGE, PROFILE_IDENTIFIER, TOPIC, mdm_authority


def scep_payload(base: str, **changes: Any) -> ScepPayload:
    """An identity by SCEP at the scripted server."""
    values: dict[str, Any] = {
        "identifier": f"{PROFILE_IDENTIFIER}.identity",
        "uuid": "IDENTITY-UUID",
        "url": f"{base}/scep",
        "subject": ((("O", "Example"),), (("CN", "device"),)),
        "challenge": CHALLENGE,
        "keysize": 2048,
    }
    return ScepPayload(**{**values, **changes})


def acme_payload(base: str, **changes: Any) -> AcmePayload:
    """An attested identity by ACME at the scripted server."""
    values: dict[str, Any] = {
        "identifier": f"{PROFILE_IDENTIFIER}.identity",
        "uuid": "IDENTITY-UUID",
        "directory_url": f"{base}/acme/directory",
        "client_identifier": "one-time-code",
        "key_type": "ECSECPrimeRandom",
        "key_size": 384,
        "hardware_bound": True,
        "subject": ((("CN", "one-time-code"),),),
        "attest": True,
        "extended_key_usage": ("1.3.6.1.5.5.7.3.2",),
    }
    return AcmePayload(**{**values, **changes})


def mdm_payload(base: str, **changes: Any) -> MdmPayload:
    values: dict[str, Any] = {
        "identifier": f"{PROFILE_IDENTIFIER}.mdm",
        "uuid": "MDM-UUID",
        "identity_certificate_uuid": "IDENTITY-UUID",
        "topic": TOPIC,
        "server_url": f"{base}/mdm",
        "check_in_url": f"{base}/checkin",
        "access_rights": 8191,
        "sign_message": True,
        "check_out_when_removed": True,
    }
    return MdmPayload(**{**values, **changes})


def root_payload() -> CertificatePayload:
    return CertificatePayload(
        identifier=f"{PROFILE_IDENTIFIER}.root",
        uuid="ROOT-UUID",
        payload_type="com.apple.security.root",
        content=mdm_authority()[0].certificate.public_bytes(Encoding.DER),
    )


def enrollment_profile(*payloads: Any, **changes: Any) -> profile.Profile:
    """An enrollment profile of these payloads."""
    values: dict[str, Any] = {
        "identifier": PROFILE_IDENTIFIER,
        "uuid": "PROFILE-UUID",
        "display_name": "Enrollment",
        "payloads": payloads,
    }
    return profile.Profile(**{**values, **changes})


def scep_profile(url: str, **mdm: Any) -> profile.Profile:
    """Root, SCEP identity and MDM payload."""
    return enrollment_profile(root_payload(), scep_payload(url), mdm_payload(url, **mdm))


def acme_profile(url: str, **mdm: Any) -> profile.Profile:
    """Root, ACME identity and MDM payload."""
    return enrollment_profile(root_payload(), acme_payload(url), mdm_payload(url, **mdm))


def profile_keys(url: str, **changes: Any) -> Fields:
    """An assignment profile whose ADE URL is the scripted server."""
    values: Fields = {
        "profile_name": "Test",
        "url": f"{url}/enroll",
        "is_supervised": True,
        "is_mandatory": True,
        "is_mdm_removable": False,
        "await_device_configured": True,
    }
    return {**values, **changes}
