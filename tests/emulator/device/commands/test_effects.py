"""Commands that change the device: Settings, DeviceConfigured, RemoveProfile, restart and erase (mdm.md 5.4 to 5.8)."""

from typing import Any

import pytest

from emulator.device.commands.power import restart
from emulator.device.device import After, App
from emulator.device.profiles import InstalledProfile
from emulator.device.state import State
from tests.emulator.device.managed import answer, chain, managed_device
from tests.emulator.device.world import PROFILE_IDENTIFIER, make_device

MDM, SETTINGS = "MCMDMErrorDomain", "MCSettingsErrorDomain"


async def test_settings_names_a_supervised_device() -> None:
    device = managed_device()
    outcome = await answer(
        device, "Settings", Settings=[{"Item": "DeviceName", "DeviceName": "Ward 3 iPad"}]
    )
    assert device.name == "Ward 3 iPad"
    assert outcome.fields == {"Settings": [{"Item": "DeviceName", "Status": "Acknowledged"}]}


async def test_each_item_has_its_own_result_in_the_same_order() -> None:
    device = managed_device()
    items: list[dict[str, Any]] = [
        {"Item": "Karaoke", "Enabled": True},
        {"Item": "DeviceName", "DeviceName": ""},
        {"Item": "DeviceName"},
        {"Item": "DeviceName", "DeviceName": "x"},
    ]
    outcome = await answer(device, "Settings", Settings=items)
    assert outcome.status.value == "Acknowledged"
    results = outcome.fields["Settings"]
    assert [(result["Item"], result["Status"]) for result in results] == [
        ("Karaoke", "Error"),
        ("DeviceName", "Error"),
        ("DeviceName", "Error"),
        ("DeviceName", "Acknowledged"),
    ]
    text = "“Karaoke” is not a valid settings item."
    assert results[0]["ErrorChain"] == [
        {
            "ErrorCode": 28000,
            "ErrorDomain": SETTINGS,
            "LocalizedDescription": text,
            "USEnglishDescription": text,
        }
    ]
    assert results[1]["ErrorChain"][0]["ErrorCode"] == 12008
    assert device.name == "x"


async def test_an_unsupervised_device_keeps_its_name() -> None:
    device = managed_device(supervised=False)
    outcome = await answer(device, "Settings", Settings=[{"Item": "DeviceName", "DeviceName": "x"}])
    (result,) = outcome.fields["Settings"]
    assert [(item["ErrorDomain"], item["ErrorCode"]) for item in result["ErrorChain"]] == [
        (SETTINGS, 28002),
        ("MCChaperoneErrorDomain", 29000),
    ]
    assert device.name == "iPhone"


async def test_device_configured_ends_the_waiting_and_only_that() -> None:
    device = managed_device()
    device.state = State.AWAITING_CONFIGURATION
    assert (await answer(device, "DeviceConfigured")).fields == {}
    assert device.state.name == "ENROLLED"
    text = "The device is not awaiting configuration."
    assert chain(await answer(device, "DeviceConfigured")) == [(MDM, 12008, text)]


async def test_remove_profile_removes_a_managed_profile_and_its_certificates() -> None:
    device = managed_device(supervised=False)
    device.profiles.install(InstalledProfile(identifier="com.example.wifi", uuid="U", managed=True))
    outcome = await answer(device, "RemoveProfile", Identifier="com.example.wifi")
    assert outcome.after is After.NOTHING
    assert device.profiles.find("com.example.wifi") is None


@pytest.mark.parametrize(
    ("identifier", "code", "text"),
    [
        ("com.example.own", 12013, "The profile “com.example.own” is not managed by MDM."),
        ("com.example.none", 12075, "The profile “com.example.none” is not installed."),
    ],
)
async def test_remove_profile_refuses_what_is_not_its_own(
    identifier: str, code: int, text: str
) -> None:
    device = managed_device(supervised=False)
    device.profiles.install(InstalledProfile(identifier="com.example.own", uuid="U"))
    refused = await answer(device, "RemoveProfile", Identifier=identifier)
    assert chain(refused) == [(MDM, code, text)]
    assert device.profiles.find("com.example.own") is not None


async def test_on_a_supervised_device_any_profile_may_be_removed() -> None:
    device = managed_device()
    device.profiles.install(InstalledProfile(identifier="com.example.own", uuid="U"))
    await answer(device, "RemoveProfile", Identifier="com.example.own")
    assert device.profiles.find("com.example.own") is None


async def test_removing_the_enrollment_profile_comes_after_the_reply() -> None:
    device = managed_device()
    outcome = await answer(device, "RemoveProfile", Identifier=PROFILE_IDENTIFIER)
    assert (outcome.status.value, outcome.after) == ("Acknowledged", After.UNENROLL)
    assert device.managed


async def test_a_restarted_device_with_a_passcode_comes_up_locked() -> None:
    device = managed_device()
    assert (await answer(device, "RestartDevice")).after is After.RESTART
    restart(device)
    assert (device.settings.restarts, device.settings.locked) == (1, False)
    device.change(passcode_present=True)
    restart(device)
    assert (device.settings.restarts, device.settings.locked) == (2, True)


async def test_an_erased_device_is_as_new_but_for_its_factory_identity() -> None:
    device = managed_device()
    device.name = "Ward 3"
    device.apps = [App(identifier="a", name="a", version="1", short_version="1")]
    device.change(passcode_present=True)
    assert (await answer(device, "EraseDevice", PreserveDataPlan=True)).after is After.ERASE
    assert device.managed  # nothing happens before the reply
    device.erase()
    assert device == make_device()
    assert device.state is State.UNACTIVATED


def test_an_ipad_is_called_ipad_again() -> None:
    device = managed_device(hardware={"product_type": "iPad13,18"})
    device.name = "Ward 3"
    device.erase()
    assert device.name == "iPad"


def test_forgetting_management_takes_what_the_server_brought_and_leaves_the_rest() -> None:
    device = managed_device()
    device.profiles.install(InstalledProfile(identifier="com.example.own", uuid="U"))
    device.profiles.install(InstalledProfile(identifier="com.example.wifi", uuid="W", managed=True))
    device.apps = [
        App(
            identifier=name,
            name=name,
            version="1",
            short_version="1",
            managed=managed,
            management_flags=flags,
        )
        for name, managed, flags in (("a", True, 1), ("b", True, 4), ("c", False, 1))
    ]
    device.forget_management()
    assert [profile.identifier for profile in device.profiles.all()] == ["com.example.own"]
    assert [app.identifier for app in device.apps] == ["b", "c"]
    assert (device.enrollment, device.identity, device.answered) == (None, None, {})
    assert not device.keychain.certificates
    assert device.supervised  # until it is erased
    assert not device.locked
