"""One-time codes: each entitles one device to one certificate, once, in time (rule 116; certificates.md 2.7)."""

from datetime import timedelta

import pytest

from certs.authorize import Grant
from certs.errors import AcmeProblem, ChallengeRefused, ScepFailure
from certs.scep.message import FailInfo
from emulator.wire.profile import AcmePayload, ScepPayload
from mdmserver.authority import ScepChallenges, hash_secret
from tests.mdmserver.harness import MINUTE, RawDevice, old_device, world


async def scep_payload(device: RawDevice) -> ScepPayload:
    payload = (await device.fetch_profile()).payloads[1]
    assert isinstance(payload, ScepPayload)
    return payload


async def acme_payload(device: RawDevice) -> AcmePayload:
    payload = (await device.fetch_profile()).payloads[1]
    assert isinstance(payload, AcmePayload)
    return payload


async def scep_refused(device: RawDevice, payload: ScepPayload, key: int, **changes: object) -> str:
    with pytest.raises(ScepFailure) as caught:
        await device.scep(payload, key, **changes)
    assert caught.value.fail_info == FailInfo.BAD_REQUEST
    return caught.value.text


async def test_a_wrong_challenge_is_refused_without_telling_the_right_one() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        text = await scep_refused(device, payload, 1, challenge="guess")
        assert text.startswith("the challenge password (5 characters, SHA-256 ")
        assert "guess" not in text
        assert "no challenge password" in await scep_refused(device, payload, 2, challenge=None)
        await device.scep(payload)  # the right one is still good


async def test_a_challenge_is_used_up_by_its_certificate() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        await device.scep(payload)
        assert "was used at 2026-01-01T00:00:00Z" in await scep_refused(device, payload, 1)


async def test_a_challenge_ends_with_its_deadline() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        await w.clock.advance(15 * MINUTE)
        await device.scep(payload)
        late = await scep_payload(w.device(**old_device(udid="c" * 40)))
        await w.clock.advance(15 * MINUTE + 1)
        assert "ended at" in await scep_refused(device, late, 1)


async def test_a_new_download_ends_the_challenge_before_it() -> None:
    async with world() as w:
        device = w.device(**old_device())
        first = await scep_payload(device)
        second = await scep_payload(device)
        assert "is not one that is good now" in await scep_refused(device, first, 1)
        await device.scep(second)


async def test_a_leaked_challenge_entitles_to_its_own_device_only() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        for subject in (
            ((("CN", "d" * 40),), (("2.5.4.5", device.serial),)),
            ((("CN", device.udid),), (("2.5.4.5", "SIM000000009"),)),
            ((("CN", device.udid),),),
            ((("O", "More"),), *payload.subject),
        ):
            text = await scep_refused(device, payload, 1, subject=subject)
            assert f"the challenge is for CN={device.udid}" in text


async def test_a_scep_challenge_is_no_acme_identifier() -> None:
    async with world() as w:
        device = w.device()
        payload = await acme_payload(device)
        verifier = ScepChallenges(w.server.store, w.clock)
        with pytest.raises(ChallengeRefused, match="is not one that is good now"):
            await verifier._find(payload.client_identifier)


async def test_an_acme_identifier_is_used_up_by_its_certificate() -> None:
    async with world() as w:
        device = w.device()
        payload = await acme_payload(device)
        await device.acme(payload)
        with pytest.raises(AcmeProblem) as caught:
            await device.acme(payload)
        assert caught.value.type == "rejectedIdentifier"
        assert "was used at" in caught.value.detail


async def test_the_attestation_of_another_device_is_refused() -> None:
    async with world() as w:
        device = w.device()
        payload = await acme_payload(device)
        with pytest.raises(AcmeProblem) as caught:
            await device.acme(payload, serial_number="SIM0000009", udid="other")
        assert caught.value.type == "badAttestationStatement"


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_chip_that_cannot_attest_gets_a_certificate_where_that_is_allowed(
    allowed: bool,
) -> None:
    async with world(allow_unattested=allowed) as w:
        device = w.device()
        payload = await acme_payload(device)
        if not allowed:
            with pytest.raises(AcmeProblem, match="an attestation is required"):
                await device.acme(payload, attests=False)
            return
        device.identity = await device.acme(payload, attests=False)
        for message in device.authenticate(), device.token_update():
            assert (await device.check_in(message)).status == 200


async def test_the_certificate_names_the_device_whatever_the_request_said() -> None:
    async with world() as w:
        device = w.device()
        payload = await acme_payload(device)
        identity = await device.acme(payload)
        assert identity.certificate.subject.rfc4514_string().endswith(f"CN={device.udid}")
        assert payload.client_identifier not in identity.certificate.subject.rfc4514_string()


async def test_of_two_requests_at_once_only_one_gets_the_challenge() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        identity = await device.scep(payload)
        verifier = ScepChallenges(w.server.store, w.clock)
        grant = Grant(reference=hash_secret(payload.challenge or "").hex())
        with pytest.raises(ChallengeRefused, match="used or ended meanwhile"):
            await verifier.issued(grant, identity.certificate)


async def test_issuing_after_the_deadline_is_refused_too() -> None:
    async with world() as w:
        device = w.device(**old_device())
        payload = await scep_payload(device)
        donor = w.device(**old_device(udid="e" * 40))
        identity = await donor.scep(await scep_payload(donor))
        await w.clock.advance(timedelta(minutes=16).total_seconds())
        verifier = ScepChallenges(w.server.store, w.clock)
        grant = Grant(reference=hash_secret(payload.challenge or "").hex())
        with pytest.raises(ChallengeRefused, match="used or ended meanwhile"):
            await verifier.issued(grant, identity.certificate)
