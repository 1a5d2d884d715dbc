"""Installing what a profile brings, in the order of mdm.md 2.6: certificates, then identities, then everything else.

Whatever fails, the device has afterwards what it had before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog

from emulator.device.device import Device, Enrollment
from emulator.device.identities import obtain
from emulator.device.keychain import InstalledCertificate, InstalledIdentity
from emulator.device.profile_checks import (
    ACME_SINCE,
    check_dates,
    check_update,
    read_profile,
)
from emulator.device.profiles import InstalledProfile
from emulator.device.surroundings import Surroundings
from emulator.wire.profile import (
    AcmePayload,
    CertificatePayload,
    MdmPayload,
    Pkcs12Payload,
    Profile,
    ScepPayload,
)

log = structlog.get_logger()

PINNING_SINCE = "13.4"
USER_ENROLLMENT = "BYOD"


@contextmanager
def unchanged_on_failure(device: Device) -> Iterator[None]:
    """Put keychain, profiles and enrollment back when the block fails, whatever the reason."""
    keychain, profiles = device.keychain.copy(), device.profiles.copy()
    enrollment = device.enrollment
    try:
        yield
    except BaseException:
        device.keychain, device.profiles, device.enrollment = keychain, profiles, enrollment
        raise


async def install_payloads(device: Device, surroundings: Surroundings, profile: Profile) -> None:
    """Certificates first, so that they are trusted when the identities are asked for."""
    for payload in profile.payloads:
        if isinstance(payload, CertificatePayload):
            device.keychain.add(
                InstalledCertificate(
                    profile_identifier=profile.identifier,
                    payload_uuid=payload.uuid,
                    payload_type=payload.payload_type,
                    certificate=payload.certificate(),
                )
            )
    for payload in profile.payloads:
        if isinstance(payload, AcmePayload) and not device.runs(ACME_SINCE):
            log.info("payload_ignored", payload_type=payload.payload_type, **device.facts())
        elif isinstance(payload, ScepPayload | AcmePayload | Pkcs12Payload):
            installed = await obtain(
                device,
                surroundings,
                profile.identifier,
                payload,
                anonymous=is_user_enrollment(profile)
                or (device.enrollment is not None and device.enrollment.user_enrollment),
            )
            device.keychain.add(installed)
            log.info(
                "identity_installed",
                kind=installed.kind,
                sha256=installed.identity.sha256.hex(),
                **device.facts(),
            )


def enrollment_of(
    device: Device, profile: Profile, mdm: MdmPayload, *, automated: bool
) -> Enrollment:
    """The facts of the MDM payload, once its identity is in the keychain."""
    identity = _identity_of(device, profile, mdm)
    pins = device.runs(PINNING_SINCE)
    return Enrollment(
        profile_identifier=profile.identifier,
        identity_uuid=identity.payload_uuid,
        identity_kind=identity.kind,
        topic=mdm.topic,
        server_url=mdm.server_url,
        check_in_url=mdm.check_in_url or mdm.server_url,
        access_rights=mdm.access_rights or 0,
        sign_message=mdm.sign_message,
        check_out_when_removed=mdm.check_out_when_removed,
        server_capabilities=mdm.server_capabilities,
        server_url_pins=mdm.server_url_pinning_certificate_uuids if pins else (),
        check_in_url_pins=mdm.check_in_url_pinning_certificate_uuids if pins else (),
        automated=automated,
        user_enrollment=is_user_enrollment(profile),
    )


def is_user_enrollment(profile: Profile) -> bool:
    """Whether the MDM payload says that the device stays its user's own (mdm.md 2.2, EnrollmentMode)."""
    return profile.mdm is not None and profile.mdm.enrollment_mode == USER_ENROLLMENT


def _identity_of(device: Device, profile: Profile, mdm: MdmPayload) -> InstalledIdentity:
    return device.keychain.identities[profile.identifier, mdm.identity_certificate_uuid]


async def install_managed_profile(device: Device, surroundings: Surroundings, data: bytes) -> None:
    """What InstallProfile does: a new profile, a newer version of one, or an update of the enrollment itself.

    Raises ProfileRefused, PeerRefused or StepTimeout, and changes nothing then.
    """
    profile = read_profile(data, device)
    check_dates(profile, surroundings.clock.now())
    check_update(profile, device)
    with unchanged_on_failure(device):
        await install_payloads(device, surroundings, profile)
        _drop_superseded(device, profile)
        if profile.mdm is not None and device.enrollment is not None:
            device.enrollment = _updated(device, device.enrollment, profile, profile.mdm)
        device.profiles.install(
            InstalledProfile.of(
                profile,
                managed=profile.mdm is None,
                enrollment=profile.mdm is not None,
            )
        )
    log.info("profile_installed", profile=profile.identifier, **device.facts())


def _drop_superseded(device: Device, profile: Profile) -> None:
    """What the profile's old version brought, and the new one does not have, goes."""
    uuids = {payload.uuid for payload in profile.payloads}
    for items in (device.keychain.certificates, device.keychain.identities):
        for identifier, uuid in list(items):
            if identifier == profile.identifier and uuid not in uuids:
                del items[identifier, uuid]


def _updated(device: Device, old: Enrollment, profile: Profile, mdm: MdmPayload) -> Enrollment:
    """The new payload's facts with the push address and the way in of the enrollment that goes on."""
    return replace(
        enrollment_of(device, profile, mdm, automated=old.automated),
        push_token=old.push_token,
        push_magic=old.push_magic,
        unlock_token=old.unlock_token,
        awaiting_configuration=old.awaiting_configuration,
    )
