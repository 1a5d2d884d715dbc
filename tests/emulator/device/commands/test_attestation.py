"""DevicePropertiesAttestation over a device's life: its cache, its failures, and personal devices (certificates.md 2.9)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import attestation as certs_attestation
from certs import names
from certs.acme.policy import AcmePolicy
from certs.attestation import Attestation
from certs.authorize import Grant
from certs.clock import SimulatedClock
from certs.faults import Action
from certs.keys import generate, spki_der
from emulator.device.commands.information import ATTESTATION
from emulator.device.device import Device
from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.device.snapshot import freeze, thaw
from emulator.device.surroundings import Behaviour, Surroundings
from emulator.errors import PeerRefused
from emulator.wire import attestation, profile
from emulator.wire.attestation import AttestationAnswer
from tests.emulator.device.enrollment_profiles import acme_profile
from tests.emulator.device.managed import answer, managed_device
from tests.emulator.device.world import (
    CLOCK,
    apple_services,
    grant,
    make_device,
    pki,
    scripted_mdm,
    surroundings,
)

WEEK = timedelta(days=7)


def leaf(chain: list[bytes]) -> Attestation:
    return certs_attestation.verify(chain, [pki().attestation.root], at=CLOCK.now())


async def ask(
    device: Device, around: Surroundings, nonce: bytes | None = None
) -> list[bytes] | None:
    fields: dict[str, Any] = {} if nonce is None else {"DeviceAttestationNonce": nonce}
    outcome = await answer(device, "DeviceInformation", around, Queries=[ATTESTATION], **fields)
    assert outcome.status.value == "Acknowledged"
    found: list[bytes] | None = outcome.fields["QueryResponses"].get(ATTESTATION)
    return found


async def test_a_leaf_of_user_enrollment_names_no_device() -> None:
    device = managed_device(user_enrollment=True)
    async with apple_services(device) as apple:
        made = await ask(device, surroundings(apple=apple), b"nonce")
    assert made is not None
    said = leaf(made)
    assert (said.serial_number, said.udid, said.software_update_device_id) == (None, None, None)
    assert (said.os_version, said.freshness) == (device.hardware.os_version, b"nonce")
    certificate = x509.load_der_x509_certificate(made[0])
    written = {extension.oid for extension in certificate.extensions}
    # Left out, not blank: nothing of the device stands in the certificate.
    assert not written & {certs_attestation.SERIAL_NUMBER, certs_attestation.UDID}
    for secret in (device.hardware.serial_number, device.hardware.udid):
        assert secret.encode() not in made[0]


async def test_a_personal_enrollment_never_repeats_a_leaf_that_names_the_device() -> None:
    device = managed_device()
    assert device.enrollment is not None
    named, serial_number = device.enrollment, device.hardware.serial_number
    async with apple_services(device) as apple:
        around = surroundings(apple=apple)
        assert leaf(await ask(device, around, b"one") or []).serial_number == serial_number
        device.enrollment = replace(named, user_enrollment=True)
        hidden = await ask(thaw(freeze(device)), around, b"one")
        assert leaf(await ask(device, around, b"one") or []).serial_number is None
        device.enrollment = named
        assert leaf(await ask(device, around, b"one") or []).serial_number == serial_number
    assert serial_number.encode() not in (hidden or [serial_number.encode()])[0]


async def test_the_key_of_a_leaf_is_the_systems_and_new_each_time() -> None:
    device, clock = managed_device(), SimulatedClock(CLOCK.now())
    async with apple_services(device) as apple:
        around = surroundings(apple=apple, clock=clock)
        first = await ask(device, around, b"one")
        clock._now += WEEK
        second = await ask(device, around, b"two")
    assert first is not None
    assert second is not None
    assert device.identity is not None
    keys = [leaf(chain).public_key for chain in (first, second)]
    keys.append(device.identity.key.public_key())
    assert len({spki_der(key) for key in keys}) == 3


async def test_a_first_question_without_nonce_holds_back_a_nonce_for_a_week() -> None:
    device, clock = managed_device(), SimulatedClock(CLOCK.now())
    async with apple_services(device) as apple:
        around = surroundings(apple=apple, clock=clock)
        first = await ask(device, around)
        assert first is not None
        assert leaf(first).freshness is None
        clock._now += WEEK - timedelta(seconds=1)
        assert await ask(device, around, b"nonce") == first  # a mismatch is no proof of fraud
        clock._now += timedelta(seconds=1)
        second = await ask(device, around, b"nonce")
    assert second is not None
    assert leaf(second).freshness == b"nonce"


async def test_the_week_can_be_switched_off() -> None:
    device = managed_device()
    async with apple_services(device) as apple:
        around = surroundings(apple=apple, behaviour=Behaviour(attestation_interval_s=0))
        chains = [await ask(device, around, nonce) for nonce in (b"one", b"two", b"two")]
    assert [leaf(chain or []).freshness for chain in chains] == [b"one", b"two", b"two"]
    assert chains[1] == chains[2]


async def test_the_cache_outlives_sleep_and_ends_with_an_erasure() -> None:
    device = managed_device()
    async with apple_services(device) as apple:
        around = surroundings(apple=apple)
        first = await ask(device, around, b"one")
        woken = thaw(freeze(device))
        assert await ask(woken, around, b"two") == first
    woken.erase()
    assert woken.attestation is None


async def test_a_leaf_whose_key_cannot_be_read_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = managed_device()
    (leaf_, _) = pki().attestation.issue(
        generate("p384").public_key(), serial_number=None, udid=None, freshness=None
    )
    p384, unknown = bytes.fromhex("06052b81040022"), bytes.fromhex("06052b8104007f")
    der = leaf_.public_bytes(Encoding.DER).replace(p384, unknown, 1)
    answer_ = AttestationAnswer(x5c=(x509.load_der_x509_certificate(der),))
    async with apple_services(device) as apple:
        monkeypatch.setattr(attestation, "decode_answer", lambda data: answer_)
        assert await ask(device, surroundings(apple=apple)) is None
    assert device.attestation is None


async def test_a_service_that_gives_nothing_leaves_the_cache_as_it_was() -> None:
    device, clock = managed_device(), SimulatedClock(CLOCK.now())
    fails = False

    def sometimes(side: str, step: str, message: object, n: int) -> Action | None:
        if fails and side == "server" and step == "attestation":
            return Action(name="status", arguments={"status": 503})
        return None

    async with apple_services(device, faults=sometimes) as apple:
        around = surroundings(apple=apple, clock=clock)
        first = await ask(device, around, b"one")
        clock._now += WEEK
        fails = True
        assert await ask(device, around, b"two") is None
        assert await ask(device, around, b"one") == first
        fails = False
        second = await ask(device, around, b"two")
    assert second is not None
    assert leaf(second).freshness == b"two"


@pytest.mark.parametrize("length", [1, 31, 32])
async def test_a_nonce_of_up_to_32_bytes_is_the_freshness_as_it_stands(length: int) -> None:
    # 04 20 at the front would be an OCTET STRING to a reader that unwraps too eagerly.
    nonce = (b"\x04\x20" + bytes(30))[:length]
    device = managed_device()
    async with apple_services(device) as apple:
        made = await ask(device, surroundings(apple=apple), nonce)
    assert made is not None
    assert leaf(made).freshness == nonce


async def test_acme_attests_a_personal_device_without_naming_it_and_our_server_wants_a_name() -> (
    None
):
    device = make_device()
    async with scripted_mdm() as mdm, apple_services(device) as apple:
        mdm.devices.devices["one-time-code"] = grant(device)
        served = profile.encode(acme_profile(mdm.url, enrollment_mode="BYOD"))
        with pytest.raises(PeerRefused, match="attested device is not the one"):
            await set_up(device, surroundings(apple=apple), ProfileEnrollment(served))
        assert device.enrollment is None
        managed = make_device()
        served = profile.encode(acme_profile(mdm.url, enrollment_mode="ADDE"))
        await set_up(managed, surroundings(apple=apple), ProfileEnrollment(served))
    assert managed.enrollment is not None
    assert managed.enrollment.user_enrollment is False


async def test_acme_takes_a_personal_device_that_only_its_one_time_code_names() -> None:
    device = make_device()
    policy = AcmePolicy(user_enrollment=True)
    async with scripted_mdm(acme_policy=policy) as mdm, apple_services(device) as apple:
        mdm.devices.devices["one-time-code"] = Grant(reference="whoever has the code")
        served = profile.encode(acme_profile(mdm.url, enrollment_mode="BYOD"))
        await set_up(device, surroundings(apple=apple), ProfileEnrollment(served))
        (issued,) = mdm.devices.issued_to
    assert device.enrollment is not None
    assert device.enrollment.user_enrollment
    said = names.text(issued.subject)
    assert device.hardware.serial_number not in said
    assert device.hardware.udid not in said


async def test_an_enrollment_remembers_whose_the_device_is() -> None:
    device = managed_device(user_enrollment=True)
    again = thaw(freeze(device)).enrollment
    assert again is not None
    assert again.user_enrollment
    assert not replace(again, user_enrollment=False).user_enrollment
