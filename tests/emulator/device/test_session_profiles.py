"""Profiles from the server: installed, replaced, updating the enrollment, refused with their chain (mdm.md 5.4)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from emulator.device.device import Device
from emulator.device.session import check_in
from emulator.wire import profile
from emulator.wire.command import Command
from tests.emulator.device.enrollment_profiles import root_payload, scep_payload, scep_profile
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    PROFILE_IDENTIFIER,
    ScriptedMdm,
    apple_services,
    scripted_mdm,
    surroundings,
    with_command,
)


@pytest_asyncio.fixture
async def mdm() -> AsyncIterator[ScriptedMdm]:
    async with scripted_mdm() as server:
        yield server


def _device(mdm: ScriptedMdm, **changes: Any) -> Device:
    return managed_device(url=mdm.url, **changes)


async def test_install_profile_installs_replaces_and_refuses(mdm: ScriptedMdm) -> None:
    device = _device(mdm)

    def install(uuid: str, data: bytes) -> Command:
        return with_command("InstallProfile", uuid, Payload=data)

    def wifi(version: str) -> bytes:
        return profile.encode(
            profile.Profile(
                identifier="com.example.wifi",
                uuid=version,
                payloads=(
                    profile.OtherPayload(
                        identifier="w",
                        uuid=f"W{version}",
                        payload_type="com.apple.wifi.managed",
                        fields={},
                    ),
                ),
            )
        )

    mdm.commands += [install("1", wifi("A")), install("2", wifi("B")), install("3", b"<html>")]
    await check_in(device, surroundings())
    assert [item.status.value for item in mdm.results] == ["Acknowledged", "Acknowledged", "Error"]
    assert [(item.domain, item.code) for item in mdm.results[2].error_chain] == [
        ("MCInstallationErrorDomain", 4000)
    ]
    installed = device.profiles.find("com.example.wifi")
    assert installed is not None
    assert (installed.uuid, installed.managed) == ("B", True)
    assert [item.identifier for item in device.profiles.all()] == [
        PROFILE_IDENTIFIER,
        "com.example.wifi",
    ]


async def test_an_update_of_the_enrollment_brings_a_new_identity_used_at_once(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    old = device.identity
    update = scep_profile(mdm.url, sign_message=False, access_rights=4095)
    mdm.commands += [
        with_command("InstallProfile", "I", Payload=profile.encode(update)),
        with_command("SecurityInfo", "S"),
    ]
    await check_in(device, surroundings())
    assert [item.status.value for item in mdm.results] == ["Acknowledged", "Acknowledged"]
    assert device.enrollment is not None
    assert device.enrollment.identity_kind == "scep"
    assert (device.enrollment.push_magic, device.enrollment.access_rights) == ("MAGIC", 4095)
    assert old is not None
    assert device.identity is not None
    certificates = [item.certificate for item in mdm.received]
    assert certificates == [old.certificate, *mdm.challenges.issued_to * 2]
    assert device.identity.certificate == mdm.challenges.issued_to[0]
    assert "mdm-signature" in mdm.received[0].headers
    assert "mdm-signature" not in mdm.received[1].headers


async def test_an_update_whose_identity_is_refused_changes_nothing(mdm: ScriptedMdm) -> None:
    device = _device(mdm)
    before = (
        device.enrollment,
        device.profiles.copy(),
        device.keychain.copy(),
    )
    mdm.challenges.password = "used up"
    payload = profile.encode(scep_profile(mdm.url))
    mdm.commands.append(with_command("InstallProfile", "I", Payload=payload))
    await check_in(device, surroundings())
    (refused,) = mdm.results
    assert [(item.domain, item.code) for item in refused.error_chain] == [
        ("MCInstallationErrorDomain", 4001),
        ("MCSCEPErrorDomain", 22013),
    ]
    assert (device.enrollment, device.profiles, device.keychain) == before


async def test_a_scep_server_that_cannot_be_reached_is_22005_and_an_untrusted_one_23002(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)

    def identity(url: str) -> bytes:
        return profile.encode(
            profile.Profile(identifier="i", uuid="I", payloads=(scep_payload(url),))
        )

    async with apple_services() as other:  # its TLS root is none of this device's
        mdm.commands += [
            with_command("InstallProfile", "1", Payload=identity("http://127.0.0.1:1")),
            with_command("InstallProfile", "2", Payload=identity(other.url)),
        ]
        await check_in(device, surroundings())
    assert [[(item.domain, item.code) for item in one.error_chain] for one in mdm.results] == [
        [("MCInstallationErrorDomain", 4001), ("MCSCEPErrorDomain", 22005)],
        [("MCInstallationErrorDomain", 4001), ("MCHTTPTransactionErrorDomain", 23002)],
    ]


async def test_a_profile_brings_an_identity_by_scep_and_its_removal_takes_it(
    mdm: ScriptedMdm,
) -> None:
    device = _device(mdm)
    served = profile.Profile(
        identifier="com.example.vpn",
        uuid="V",
        payloads=(root_payload(), scep_payload(mdm.url)),
    )
    mdm.commands += [
        with_command("InstallProfile", "I", Payload=profile.encode(served)),
        with_command("CertificateList", "L"),
        with_command("RemoveProfile", "R", Identifier="com.example.vpn"),
        with_command("CertificateList", "M"),
    ]
    await check_in(device, surroundings())
    assert {item.status.value for item in mdm.results} == {"Acknowledged"}
    assert len(mdm.results[1].fields["CertificateList"]) == 4
    assert len(mdm.results[3].fields["CertificateList"]) == 2


async def test_what_a_newer_version_of_a_profile_no_longer_has_goes(mdm: ScriptedMdm) -> None:
    device = _device(mdm)

    def version(uuid: str, *payloads: profile.Payload) -> Command:
        served = profile.Profile(identifier="com.example.vpn", uuid=uuid, payloads=payloads)
        return with_command("InstallProfile", uuid, Payload=profile.encode(served))

    mdm.commands += [
        version("1", root_payload(), scep_payload(mdm.url, uuid="OLD")),
        version("2", scep_payload(mdm.url, uuid="NEW")),
    ]
    await check_in(device, surroundings())
    mine = [key for key in device.keychain.identities if key[0] == "com.example.vpn"]
    assert mine == [("com.example.vpn", "NEW")]
    assert not [key for key in device.keychain.certificates if key[0] == "com.example.vpn"]
    assert device.identity is not None
