"""SecurityInfo and the lists: certificates, apps, profiles (mdm.md 5.2, 5.3)."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.device.device import App, Device
from emulator.device.keychain import InstalledCertificate
from emulator.device.profiles import InstalledPayload, InstalledProfile
from emulator.wire import plist
from emulator.wire.fields import Fields
from tests.emulator.device.managed import answer, managed_device
from tests.emulator.device.world import PROFILE_IDENTIFIER, mdm_authority, pki
from tests.support import VECTORS, needs_vectors

OLD = {"product_type": "iPad6,11", "os_version": "12.1"}


def _captured(name: str) -> Fields:
    return plist.loads((VECTORS / "responses" / name).read_bytes())


async def _fields(device: Device, request_type: str, **fields: Any) -> Any:
    outcome = await answer(device, request_type, **fields)
    assert outcome.status.value == "Acknowledged"
    (value,) = outcome.fields.values()
    return value


@needs_vectors
@pytest.mark.parametrize(
    ("name", "hardware"),
    [
        ("SecurityInfo-commandment-IOS-9.x.plist", OLD),
        ("security_info_ios-zentral.plist", {}),
    ],
)
async def test_security_info_has_the_keys_of_captured_ones(
    name: str, hardware: dict[str, Any]
) -> None:
    info = await _fields(managed_device(hardware=hardware), "SecurityInfo")
    captured = _captured(name)["SecurityInfo"]
    assert set(info) == set(captured)
    assert info.get("ManagementStatus") == captured.get("ManagementStatus")


async def test_security_info_tells_of_a_passcode() -> None:
    device = managed_device()
    assert (await _fields(device, "SecurityInfo"))["PasscodePresent"] is False
    device.change(passcode_present=True)
    info = await _fields(device, "SecurityInfo")
    assert info["PasscodePresent"] is True
    assert (info["PasscodeCompliant"], info["PasscodeCompliantWithProfiles"]) == (True, True)


async def test_the_certificate_list_has_roots_and_identities() -> None:
    device = managed_device()
    items = await _fields(device, "CertificateList")
    assert device.identity is not None
    assert [(item["CommonName"], item["IsIdentity"]) for item in items] == [
        ("Test MDM CA", False),
        ("device identity", True),
    ]
    assert items[1]["Data"] == device.identity.der
    assert all(set(item) == {"CommonName", "Data", "IsIdentity"} for item in items)


@pytest.mark.parametrize(("hardware", "left"), [({}, 2), (OLD, 3)])
async def test_managed_only_leaves_out_what_a_user_installed_from_13_on(
    hardware: dict[str, Any], left: int
) -> None:
    device = managed_device(hardware=hardware)
    device.profiles.install(InstalledProfile(identifier="com.example.own", uuid="U"))
    device.keychain.add(
        InstalledCertificate(
            profile_identifier="com.example.own",
            payload_uuid="C",
            payload_type="com.apple.security.root",
            certificate=pki().root,
        )
    )
    assert len(await _fields(device, "CertificateList")) == 3
    assert len(await _fields(device, "CertificateList", ManagedOnly=True)) == left


# --- apps

WARD = App(identifier="com.example.ward", name="Ward", version="3410", short_version="3.4.1")
CHAT = App(
    identifier="com.example.chat",
    name="Chat",
    version="7",
    short_version="7.0",
    managed=True,
    device_licensed=True,
)


def _with_apps(**hardware: Any) -> Device:
    device = managed_device(hardware=hardware)
    device.apps = [WARD, CHAT]
    return device


@needs_vectors
async def test_an_app_has_the_fourteen_captured_keys() -> None:
    name = "InstalledApplicationList-commandment-iOS-11.3.1.plist"
    captured = _captured(name)["InstalledApplicationList"]
    listed = await _fields(_with_apps(), "InstalledApplicationList")
    for item in listed:
        assert set(item) == set(captured[0])
        assert {key: type(value) for key, value in item.items()} == {
            key: type(value) for key, value in captured[0].items()
        }


@pytest.mark.parametrize(
    ("fields", "identifiers"),
    [
        ({}, ["com.example.ward", "com.example.chat"]),
        ({"ManagedAppsOnly": True}, ["com.example.chat"]),
        ({"ManagedAppsOnly": False}, ["com.example.ward", "com.example.chat"]),
        ({"Identifiers": ["com.example.ward", "com.example.none"]}, ["com.example.ward"]),
        ({"Identifiers": []}, []),
        ({"Identifiers": ["com.example.ward"], "ManagedAppsOnly": True}, []),
    ],
)
async def test_identifiers_and_managed_apps_only_choose_apps(
    fields: dict[str, Any], identifiers: list[str]
) -> None:
    listed = await _fields(_with_apps(), "InstalledApplicationList", **fields)
    assert [item["Identifier"] for item in listed] == identifiers


async def test_items_choose_the_keys_and_the_identifier_always_comes() -> None:
    items = ["Name", "IsAppClip", "Source"]
    listed = await _fields(_with_apps(), "InstalledApplicationList", Items=items)
    assert listed[0] == {"Identifier": "com.example.ward", "Name": "Ward", "IsAppClip": False}
    old = await _fields(_with_apps(**OLD), "InstalledApplicationList", Items=items)
    assert len(old[0]) == 14


async def test_a_device_licensed_app_cannot_be_sold_by_the_store() -> None:
    ward, chat = await _fields(_with_apps(), "InstalledApplicationList")
    assert (ward["AppStoreVendable"], ward["DeviceBasedVPP"]) == (True, False)
    assert (chat["AppStoreVendable"], chat["DeviceBasedVPP"]) == (False, True)


# --- profiles


@needs_vectors
async def test_the_enrollment_profile_of_an_unsupervised_device_looks_like_the_captured_one() -> (
    None
):
    captured = _captured("ProfileList-commandment-iOS-11.3.1.plist")["ProfileList"][0]
    device = managed_device(supervised=False, hardware=OLD)
    enrollment = device.profiles.enrollment
    assert enrollment is not None
    described = {"description": "d", "display_name": "n", "organization": "o"}
    payloads = [{key: value for key, value in described.items() if key != "organization"}]
    device.profiles.install(
        replace(
            enrollment,
            **described,  # type: ignore[arg-type]
            payloads=tuple(replace(p, **payloads[0]) for p in enrollment.payloads),  # type: ignore[arg-type]
        )
    )
    (listed,) = await _fields(device, "ProfileList")
    assert set(listed) == set(captured)
    for key in ("HasRemovalPasscode", "IsEncrypted", "IsManaged", "PayloadRemovalDisallowed"):
        assert listed[key] is captured[key] is False
    assert {frozenset(item) for item in listed["PayloadContent"]} == {
        frozenset(item) for item in captured["PayloadContent"]
    }


async def test_a_locked_device_lists_its_enrollment_profile_as_not_removable() -> None:
    (locked,) = await _fields(managed_device(), "ProfileList")
    assert locked["PayloadRemovalDisallowed"] is True
    assert "IsManaged" not in locked  # omitted on supervised devices
    assert [item["PayloadUUID"] for item in locked["PayloadContent"]] == [
        "ROOT-UUID",
        "IDENTITY-UUID",
        "MDM-UUID",
    ]
    (free,) = await _fields(managed_device(unremovable=False), "ProfileList")
    assert free["PayloadRemovalDisallowed"] is False


async def test_the_profiles_own_flag_locks_a_supervised_device_too() -> None:
    device = managed_device(unremovable=False)
    enrollment = device.profiles.enrollment
    assert enrollment is not None
    device.profiles.install(replace(enrollment, removal_disallowed=True))
    assert device.locked
    (listed,) = await _fields(device, "ProfileList")
    assert listed["PayloadRemovalDisallowed"] is True


async def test_an_unsupervised_device_is_never_locked() -> None:
    device = managed_device(supervised=False)
    enrollment = device.profiles.enrollment
    assert enrollment is not None
    device.profiles.install(replace(enrollment, removal_disallowed=True))
    assert not device.locked
    (listed,) = await _fields(device, "ProfileList")
    assert listed["PayloadRemovalDisallowed"] is False


async def test_signers_and_payload_settings_are_listed_and_left_out() -> None:
    device = managed_device(supervised=False)
    signer = mdm_authority()[0].certificate.public_bytes(Encoding.DER)
    payload = InstalledPayload(
        payload_type="com.apple.wifi.managed", identifier="w", uuid="W", version=1
    )
    device.profiles.install(
        InstalledProfile(
            identifier="com.example.wifi",
            uuid="U",
            managed=True,
            signer_certificates=(signer,),
            payloads=(payload,),
        )
    )
    device.profiles.install(
        InstalledProfile(
            identifier="com.example.secret",
            uuid="S",
            managed=True,
            is_encrypted=True,
            payloads=(payload,),
        )
    )
    enrollment, wifi, secret = await _fields(device, "ProfileList")
    assert enrollment["PayloadIdentifier"] == PROFILE_IDENTIFIER
    assert (wifi["IsManaged"], wifi["SignerCertificates"]) == (True, [signer])
    assert set(wifi["PayloadContent"][0]) == {
        "PayloadIdentifier",
        "PayloadType",
        "PayloadUUID",
        "PayloadVersion",
    }
    assert "PayloadContent" not in secret
    managed = await _fields(device, "ProfileList", ManagedOnly=True)
    assert [item["PayloadIdentifier"] for item in managed] == [
        "com.example.wifi",
        "com.example.secret",
    ]
