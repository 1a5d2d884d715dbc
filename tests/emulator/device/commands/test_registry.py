"""Who may send which command, and how every refusal looks on the wire (mdm.md 4.1, 5)."""

import re
from dataclasses import replace
from typing import Any

import pytest

from emulator.device.commands.registry import RULES, run
from emulator.device.profiles import InstalledProfile
from emulator.wire import plist
from emulator.wire.command import Response, Status, encode_response
from tests.emulator.device.managed import answer, chain, managed_device
from tests.emulator.device.world import surroundings, with_command
from tests.support import VECTORS, needs_vectors

MDM = "MCMDMErrorDomain"

GOOD: dict[str, dict[str, Any]] = {
    "DeviceInformation": {"Queries": ["UDID"]},
    "SecurityInfo": {},
    "CertificateList": {},
    "InstalledApplicationList": {},
    "ProfileList": {},
    "RemoveProfile": {"Identifier": "com.example.enroll"},
    "Settings": {"Settings": [{"Item": "DeviceName", "DeviceName": "x"}]},
    "RestartDevice": {},
    "EraseDevice": {},
}


@pytest.mark.parametrize("request_type", sorted(GOOD))
async def test_a_known_command_is_acknowledged(request_type: str) -> None:
    outcome = await answer(managed_device(), request_type, **GOOD[request_type])
    assert outcome.status is Status.ACKNOWLEDGED


@pytest.mark.parametrize("request_type", ["FooBar", "OSUpdateStatus", "", "deviceinformation"])
async def test_an_unknown_command_has_the_captured_chain(request_type: str) -> None:
    text = f"“{request_type}” is not a valid request type."
    assert chain(await answer(managed_device(), request_type)) == [(MDM, 12021, text)]


async def test_a_command_newer_than_the_system_is_unknown() -> None:
    device = managed_device(hardware={"product_type": "iPhone8,1", "os_version": "12.5.5"})
    assert (await answer(device, "RestartDevice")).status is Status.ACKNOWLEDGED
    device.hardware = replace(device.hardware, os_version="10.2")
    assert chain(await answer(device, "RestartDevice"))[0][1] == 12021


@pytest.mark.parametrize(
    "request_type", [name for name, rule in RULES.items() if rule.access_rights]
)
async def test_a_command_without_its_access_right_is_refused(request_type: str) -> None:
    rights = 8191 & ~RULES[request_type].access_rights
    device = managed_device(rights=rights)
    text = "The MDM server is not authorized to send this command."
    fields = GOOD.get(request_type, {})
    assert chain(await answer(device, request_type, **fields)) == [(MDM, 12007, text)]


async def test_restart_needs_supervision() -> None:
    refused = await answer(managed_device(supervised=False), "RestartDevice")
    assert chain(refused) == [("MCChaperoneErrorDomain", 29000, "The device is not supervised.")]


@pytest.mark.parametrize(
    ("request_type", "fields", "words"),
    [
        ("RemoveProfile", {}, "Identifier: expected string"),
        ("RemoveProfile", {"Identifier": 5}, "Identifier: expected string, got 'integer'"),
        ("InstallProfile", {}, "Payload: expected data"),
        ("InstallProfile", {"Payload": "text"}, "Payload: expected data, got 'string'"),
        ("Settings", {}, "Settings: expected array"),
        ("Settings", {"Settings": ["DeviceName"]}, r"Settings\[0\]: expected dictionary"),
        ("Settings", {"Settings": [{}]}, r"Settings\[0\]\.Item: expected string"),
        ("DeviceInformation", {"Queries": "UDID"}, "Queries: expected array"),
        ("InstalledApplicationList", {"Identifiers": [1]}, r"Identifiers\[0\]: expected string"),
        ("EraseDevice", {"PreserveDataPlan": 1}, "PreserveDataPlan: expected boolean"),
        ("ProfileList", {"ManagedOnly": "yes"}, "ManagedOnly: expected boolean"),
    ],
)
async def test_a_missing_or_mistyped_parameter_is_12008(
    request_type: str, fields: dict[str, Any], words: str
) -> None:
    ((domain, code, text),) = chain(await answer(managed_device(), request_type, **fields))
    assert (domain, code) == (MDM, 12008)
    assert re.search(words, text)


async def test_a_command_that_needs_a_tethered_network_is_refused_without_one() -> None:
    device = managed_device()
    tethered = replace(with_command("SecurityInfo"), requires_network_tether=True)
    refused = await run(device, tethered, surroundings())
    assert chain(refused) == [(MDM, 12081, "The device is not tethered to a network.")]
    device.change(network_tethered=True)
    assert (await run(device, tethered, surroundings())).status is Status.ACKNOWLEDGED


@pytest.mark.parametrize(
    ("request_type", "waits"),
    [
        ("InstallProfile", True),
        ("RemoveProfile", True),
        ("Settings", True),
        ("SecurityInfo", False),
        ("DeviceInformation", False),
        ("ProfileList", False),
        ("CertificateList", False),
        ("EraseDevice", False),
    ],
)
async def test_a_locked_device_puts_off_what_needs_its_data(request_type: str, waits: bool) -> None:
    device = managed_device()
    device.change(locked=True)
    fields = GOOD.get(request_type, {"Payload": b""})
    outcome = await answer(device, request_type, **fields)
    assert (outcome.status is Status.NOT_NOW) is waits


@needs_vectors
@pytest.mark.parametrize(
    ("name", "request_type", "fields"),
    [
        ("Errors-commandment-error_invalid_request_type", "OSUpdateStatus", {}),
        (
            "Errors-commandment-iOS-11.3.1-RemoveProfile-Unmanaged",
            "RemoveProfile",
            {"Identifier": "com.example.own"},
        ),
    ],
)
async def test_refusals_have_the_shape_of_captured_ones(
    name: str, request_type: str, fields: dict[str, Any]
) -> None:
    captured = plist.loads((VECTORS / "responses" / f"{name}.plist").read_bytes())
    device = managed_device(supervised=False)
    device.profiles.install(InstalledProfile(identifier="com.example.own", uuid="U"))
    outcome = await answer(device, request_type, **fields)
    ours = plist.loads(
        encode_response(
            Response(
                udid="x",
                command_uuid="y",
                status=outcome.status,
                fields=outcome.fields,
                error_chain=outcome.error_chain,
            )
        )
    )
    assert set(ours) == set(captured)
    (own_item,), (captured_item,) = ours["ErrorChain"], captured["ErrorChain"]
    assert set(own_item) == set(captured_item)
    for key in ("ErrorCode", "ErrorDomain"):
        assert own_item[key] == captured_item[key]
    for key in ("LocalizedDescription", "USEnglishDescription"):
        assert _frame(own_item[key]) == _frame(captured_item[key])


def _frame(text: str) -> tuple[str, str]:
    """What stands around the quoted name; one capture has the quotes' bytes spelled out."""
    text = text.replace(r"\xe2\x80\x9c", "“").replace(r"\xe2\x80\x9d", "”")
    before, _, rest = text.partition("“")
    return before, rest.partition("”")[2]
