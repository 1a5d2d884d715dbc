"""What an update of the enrollment profile may change, and who may sign it (mdm.md 2.6)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from certs import cms, names
from certs.identity import Identity
from certs.keys import generate
from emulator.device.device import Device, Enrollment
from emulator.device.profile_checks import (
    check_enrollment,
    check_update,
    read_profile,
)
from emulator.device.profiles import InstalledProfile
from emulator.errors import ProfileRefused
from emulator.wire import profile
from tests.emulator.device.enrollment_profiles import (
    enrollment_profile,
    root_payload,
    scep_profile,
)
from tests.emulator.device.world import PROFILE_IDENTIFIER, TOPIC, make_device, mdm_authority

URL = "https://mdm.example.com"
PROFILE, PAYLOAD, INSTALLATION, MDM = (
    "MCProfileErrorDomain",
    "MCPayloadErrorDomain",
    "MCInstallationErrorDomain",
    "MCMDMErrorDomain",
)
FAILED = (INSTALLATION, 4001)

Chain = list[tuple[str, int]]


def _codes(error: ProfileRefused) -> Chain:
    return [(domain, code) for domain, code, _ in error.chain]


def _mdm(**changes: Any) -> bytes:
    return profile.encode(scep_profile(URL, **changes))


def _signed(data: bytes, damage: Callable[[bytes], bytes] = lambda data: data) -> bytes:
    return damage(cms.sign(data, mdm_authority()[1]))


def _enrolled(data: bytes | None = None) -> Device:
    device = make_device()
    installed = read_profile(data or _mdm(), device)
    device.profiles.install(InstalledProfile.of(installed, managed=False, enrollment=True))
    device.enrollment = Enrollment(
        profile_identifier=PROFILE_IDENTIFIER,
        identity_uuid="IDENTITY-UUID",
        identity_kind="scep",
        topic=TOPIC,
        server_url=f"{URL}/mdm",
        check_in_url=f"{URL}/checkin",
        access_rights=4095,
    )
    return device


def test_only_a_profile_with_an_mdm_payload_enrolls_and_only_once() -> None:
    device = make_device()
    with pytest.raises(ProfileRefused) as caught:
        check_enrollment(enrollment_profile(root_payload()), device)
    assert _codes(caught.value) == [(INSTALLATION, 4022)]
    enrolling = read_profile(_mdm(), device)
    assert check_enrollment(enrolling, device) is enrolling.mdm
    with pytest.raises(ProfileRefused) as caught:
        check_enrollment(enrolling, _enrolled())
    assert _codes(caught.value) == [FAILED, (MDM, 12001)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"topic": TOPIC + "1"}, "Topic changed"),
        ({"server_url": "https://other.example.com/mdm"}, "ServerURL changed"),
        ({"check_in_url": "https://other.example.com/checkin"}, "CheckInURL changed"),
        ({"check_in_url": None}, "CheckInURL changed"),
        ({"access_rights": 8191}, "AccessRights added"),
        ({"server_capabilities": ("com.apple.mdm.per-user-connections",)}, "toggled"),
    ],
)
def test_an_update_may_not_change_what_binds_the_device(
    changes: dict[str, Any], words: str
) -> None:
    update = read_profile(_mdm(**{"access_rights": 4095, **changes}), make_device())
    with pytest.raises(ProfileRefused, match=words) as caught:
        check_update(update, _enrolled())
    assert _codes(caught.value) == [FAILED, (MDM, 12012)]


def test_an_update_may_take_rights_away_and_change_the_rest() -> None:
    update = read_profile(
        _mdm(access_rights=19, sign_message=False, check_out_when_removed=False), make_device()
    )
    check_update(update, _enrolled())


def test_an_update_without_the_mdm_payload_is_refused() -> None:
    with pytest.raises(ProfileRefused) as caught:
        check_update(enrollment_profile(root_payload()), _enrolled())
    assert _codes(caught.value) == [(INSTALLATION, 4015), (MDM, 12009)]


def test_a_second_enrollment_profile_is_refused() -> None:
    second = replace(read_profile(_mdm(), make_device()), identifier="com.example.second")
    with pytest.raises(ProfileRefused) as caught:
        check_update(second, _enrolled())
    assert _codes(caught.value) == [FAILED, (MDM, 12001)]


def test_a_profile_of_another_identifier_is_no_update() -> None:
    check_update(enrollment_profile(root_payload(), identifier="com.example.other"), _enrolled())


def test_a_signed_profile_is_only_updated_by_the_same_signer() -> None:
    device = _enrolled(_signed(_mdm()))
    ca, signer, _ = mdm_authority()
    unsigned = _mdm(access_rights=4095)
    check_update(read_profile(_signed(unsigned), device), device)
    renewed = Identity(
        signer.key, ca.issue(signer.key.public_key(), names.from_subject([[["CN", "renewed"]]]))
    )
    check_update(read_profile(cms.sign(unsigned, renewed), device), device)
    stranger = ca.issue_identity(generate("p256"), signer.certificate.subject)
    for data in (unsigned, cms.sign(unsigned, stranger)):
        with pytest.raises(ProfileRefused) as caught:
            check_update(read_profile(data, device), device)
        assert _codes(caught.value) == [FAILED, (MDM, 12012)]


def test_a_device_without_management_takes_no_profile_from_a_server() -> None:
    with pytest.raises(ProfileRefused) as caught:
        check_update(enrollment_profile(root_payload()), make_device())
    assert _codes(caught.value) == [FAILED, (MDM, 12079)]
