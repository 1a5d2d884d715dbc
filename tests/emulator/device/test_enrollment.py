"""What check-in messages carry, and where identities come from (mdm.md 2.5, 3.1, 3.2)."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import SubjectAlternativeName

from certs import names
from certs.acme.device_attest import permanent_identifier_name
from emulator.device.device import Device
from emulator.device.enrollment import authenticate_message, token_update_message
from emulator.device.install_errors import chain_of
from emulator.device.session import check_in
from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import EmulatorError, PeerRefused, ProfileRefused, StepTimeout
from emulator.wire import checkin, plist, profile
from emulator.wire.fields import present
from emulator.wire.profile import Pkcs12Payload
from tests.emulator.device.enrollment_profiles import (
    acme_payload,
    enrollment_profile,
    mdm_payload,
    root_payload,
    scep_payload,
    scep_profile,
)
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import (
    Memory,
    grant,
    make_device,
    mdm_authority,
    scripted_mdm,
    surroundings,
    with_command,
)
from tests.support import rsa_key


def _keys(message: checkin.Message) -> set[str]:
    return set(plist.loads(checkin.encode(message)))


PLAIN = {"MessageType", "Topic", "UDID"}
INFORMED = {*PLAIN, "BuildVersion", "OSVersion", "ProductName", "SerialNumber"}


@pytest.mark.parametrize(
    ("hardware", "rights", "keys"),
    [
        ({"product_type": "iPad6,11", "os_version": "12.1"}, 8191, INFORMED),
        ({"product_type": "iPad6,11", "os_version": "12.1"}, 8191 & ~16, PLAIN),
        ({"product_type": "iPhone14,5", "os_version": "18.1"}, 8191, {*INFORMED, "IMEI"}),
        ({"product_type": "iPhone14,5", "os_version": "18.1"}, 1, PLAIN),
        ({"product_type": "iPhone10,1", "os_version": "12.1"}, 8191, {*INFORMED, "IMEI", "MEID"}),
    ],
)
def test_authenticate_has_the_captured_keys_of_each_kind_of_device(
    hardware: dict[str, Any], rights: int, keys: set[str]
) -> None:
    device = managed_device(hardware=hardware, rights=rights)
    assert _keys(authenticate_message(device)) == keys


def test_the_imei_goes_along_in_groups() -> None:
    device = managed_device()
    imei = authenticate_message(device).imei
    assert imei is not None
    assert imei.replace(" ", "") == device.hardware.imei
    assert [len(group) for group in imei.split(" ")] == [2, 6, 6, 1]


@pytest.mark.parametrize(("rights", "escrows"), [(8191, True), (8191 & ~4, False)])
async def test_the_unlock_token_needs_its_right(rights: int, escrows: bool) -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        data = profile.encode(scep_profile(mdm.url, access_rights=rights))
        await set_up(device, surroundings(), ProfileEnrollment(data))
    update = mdm.received[-1].message
    assert isinstance(update, checkin.TokenUpdate)
    assert (update.unlock_token is not None) is escrows
    assert _keys(update) - {"UnlockToken"} == {
        *PLAIN,
        "AwaitingConfiguration",
        "PushMagic",
        "Token",
    }
    assert token_update_message(device) == update


async def _enroll_with(payload: Any, password: str | None = None) -> Device:
    device = make_device()
    async with scripted_mdm() as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        served = enrollment_profile(root_payload(), payload(mdm.url), mdm_payload(mdm.url))
        await set_up(device, surroundings(), ProfileEnrollment(profile.encode(served)))
        assert {item.certificate for item in mdm.received} == {
            device.identity.certificate if device.identity else None
        }
    assert device.enrollment is not None
    return device


@pytest.mark.parametrize("passphrase", ["secret", "wrong"])
async def test_a_profile_may_bring_a_ready_made_identity(passphrase: str) -> None:
    identity = mdm_authority()[0].issue_identity(
        rsa_key(2), names.from_subject([[["CN", "ready made"]]])
    )
    content = await asyncio.to_thread(identity.to_pkcs12, "secret")

    def payload(url: str) -> Pkcs12Payload:
        return Pkcs12Payload(
            identifier="p12", uuid="IDENTITY-UUID", content=content, password=passphrase
        )

    if passphrase == "wrong":
        with pytest.raises(ProfileRefused) as caught:
            await _enroll_with(payload)
        assert [entry[:2] for entry in caught.value.chain] == [
            ("MCInstallationErrorDomain", 4001),
            ("MCCertificateErrorDomain", 9000),
        ]
        return
    device = await _enroll_with(payload)
    assert device.enrollment is not None
    assert device.enrollment.identity_kind == "pkcs12"
    assert device.identity is not None
    assert device.identity.certificate == identity.certificate


async def test_a_scep_payload_that_knows_the_capabilities_saves_the_question() -> None:
    device, memory = make_device(), Memory()
    async with scripted_mdm() as mdm:
        payload = scep_payload(mdm.url, get_ca_caps=("POSTPKIOperation", "SHA-256", "AES"))
        served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
        await set_up(device, surroundings(memory), ProfileEnrollment(profile.encode(served)))
    assert memory.steps[:2] == ["get_ca_cert", "pki_operation"]


@pytest.mark.parametrize(
    ("key_type", "size"), [("ECSECPrimeRandom", 256), ("ECSECPrimeRandom", 521), ("RSA", 2048)]
)
async def test_an_older_chip_ignores_attest_and_the_server_refuses_what_is_not_attested(
    key_type: str, size: int
) -> None:
    device, memory = make_device(product_type="iPad7,11", os_version="17.5.1"), Memory()
    bound = size == 256
    async with scripted_mdm() as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        payload = acme_payload(
            mdm.url, key_type=key_type, key_size=size, hardware_bound=bound, attest=bound
        )
        served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
        with pytest.raises(PeerRefused, match="acme: badAttestationStatement"):
            await set_up(device, surroundings(memory), ProfileEnrollment(profile.encode(served)))
    assert "attestation" not in memory.steps
    assert device.state is State.FAILED


@pytest.mark.parametrize(
    ("key_type", "size"),
    [
        ("ECSECPrimeRandom", 256),
        ("ECSECPrimeRandom", 384),
        ("ECSECPrimeRandom", 521),
        ("RSA", 2048),
        ("RSA", 2056),
    ],
)
async def test_a_key_of_each_kind_that_acme_payloads_name_serves_as_identity(
    key_type: str, size: int
) -> None:
    device = make_device(product_type="iPad7,11", os_version="17.5.1")
    async with scripted_mdm(acme_allows_unattested=True) as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        payload = acme_payload(
            mdm.url, key_type=key_type, key_size=size, hardware_bound=False, attest=False
        )
        served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
        await set_up(device, surroundings(), ProfileEnrollment(profile.encode(served)))
        mdm.commands.append(with_command("SecurityInfo"))
        await check_in(device, surroundings())
    assert device.identity is not None
    assert device.identity.key.key_size == size
    assert [item.status.value for item in mdm.results] == ["Acknowledged"]


@pytest.mark.parametrize("named", [False, True])
async def test_the_request_of_acme_names_the_client_identifier_where_that_is_wanted(
    named: bool,
) -> None:
    """Whether Apple's devices do is not known (certificates.md 2.6)."""
    device = make_device(product_type="iPad7,11", os_version="17.5.1")
    behaviour = Behaviour(csr_names_identifier=named)
    async with scripted_mdm(acme_allows_unattested=True) as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        payload = acme_payload(mdm.url, hardware_bound=False, attest=False)
        served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
        around = surroundings(behaviour=behaviour)
        await set_up(device, around, ProfileEnrollment(profile.encode(served)))
        (leaf,) = mdm.devices.issued_to
    found = [e.value for e in leaf.extensions if isinstance(e.value, SubjectAlternativeName)]
    wanted = [permanent_identifier_name("one-time-code")] if named else []
    assert [name for value in found for name in value] == wanted


async def test_a_key_of_192_bits_is_made_as_the_payload_says_and_refused_by_our_server() -> None:
    """Apple's schema allows it (certificates.md 2.1); what becomes of it is for the CA to say."""
    device = make_device(product_type="iPad7,11", os_version="17.5.1")
    async with scripted_mdm(acme_allows_unattested=True) as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        payload = acme_payload(mdm.url, key_size=192, hardware_bound=False, attest=False)
        served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
        with pytest.raises(PeerRefused, match="acme: badCSR: curve secp192r1 is not supported"):
            await set_up(device, surroundings(), ProfileEnrollment(profile.encode(served)))
    assert device.state is State.FAILED


@pytest.mark.parametrize("form", ["none", "empty", "object", "error"])
@pytest.mark.parametrize("allowed", [False, True])
async def test_an_older_chip_says_in_each_form_that_it_cannot_attest(
    form: Any, allowed: bool
) -> None:
    """Which one is Apple's is not known (certificates.md 2.4)."""
    device = make_device(product_type="iPad7,11", os_version="17.5.1")
    around = surroundings(behaviour=Behaviour(unattested=form))
    async with scripted_mdm(acme_allows_unattested=allowed) as mdm:
        mdm.devices.devices["one-time-code"] = grant(device)
        served = enrollment_profile(
            root_payload(), acme_payload(mdm.url, key_size=256), mdm_payload(mdm.url)
        )
        way = ProfileEnrollment(profile.encode(served))
        if allowed:
            await set_up(device, around, way)
        else:
            with pytest.raises(PeerRefused, match="an attestation is required"):
                await set_up(device, around, way)
        assert len(mdm.devices.issued_to) == allowed
    assert device.state is (State.ENROLLED if allowed else State.FAILED)


async def test_a_redirect_is_followed_and_not_remembered() -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        await set_up(
            device, surroundings(), ProfileEnrollment(profile.encode(scep_profile(mdm.url)))
        )
        assert device.enrollment is not None
        device.enrollment = replace(device.enrollment, server_url=f"{mdm.url}/moved")
        mdm.commands.append(with_command("SecurityInfo"))
        await check_in(device, surroundings())
    # Idle and the result both start at the payload's URL.
    assert mdm.redirected == ["/moved", "/moved"]
    assert [item.status.value for item in mdm.results] == ["Acknowledged"]


@pytest.mark.parametrize(
    ("error", "codes"),
    [
        (PeerRefused("authenticate", "no", status=400), [4001, 12002]),
        (PeerRefused("token_update", "no", status=401), [4001, 12002, 12020]),
        (StepTimeout("authenticate", 60), [4001, 12002]),
        (StepTimeout("scep", 60), [4001, 22013]),
        (PeerRefused("acme", "rejectedIdentifier"), [4001, 4001]),
    ],
)
def test_errors_of_the_network_have_their_chain(error: EmulatorError, codes: list[int]) -> None:
    assert [code for _, code, _ in chain_of(error)] == codes


def test_check_in_messages_say_nothing_of_names() -> None:
    fields = present(authenticate_message(managed_device()).to_fields())
    assert not {"DeviceName", "Model", "ModelName", "Challenge"} & set(fields)
