"""POST /ade: who gets a profile, what stands in it, and for how long (mdm.md 1a, 2; rules 9, 116)."""

import uuid
from datetime import UTC, datetime

import pytest
from cryptography import x509

from certs import cms
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.errors import ScepFailure
from certs.identity import Identity
from certs.keys import generate
from emulator.wire import machineinfo, profile
from emulator.wire.machineinfo import Form
from emulator.wire.profile import AcmePayload, CertificatePayload, ScepPayload
from mdmserver.app import MdmServer
from tests.mdmserver.harness import MINUTE, Apple, RawDevice, World, old_device, world
from tests.support import openssl

ROOT = "com.apple.security.root"


@pytest.mark.parametrize("form", list(machineinfo.FORMS))
async def test_every_form_of_signed_machine_info_is_read(form: Form) -> None:
    async with world() as w:
        device = w.device()
        body = machineinfo.sign(device.machine_info(), device.signer, form=form)
        answer = await device.ask_for_profile(body)
        assert answer.status == 200
        assert answer.content_type == "application/x-apple-aspen-config"


async def test_unsigned_machine_info_gets_400_and_opens_no_window() -> None:
    async with world() as w:
        device = w.device()
        answer = await device.ask_for_profile(machineinfo.encode(device.machine_info()))
        assert answer.status == 400
        assert b"expected" in answer.body
        assert await w.server.store.reset_windows(device.udid) == 0


async def test_machine_info_whose_signature_is_damaged_gets_400() -> None:
    async with world() as w:
        device = w.device()
        body = bytearray(machineinfo.sign(device.machine_info(), device.signer, form="der"))
        body[-5] ^= 1
        answer = await device.ask_for_profile(bytes(body))
        assert answer.status == 400
        assert b"signature is not valid" in answer.body


async def test_machine_info_changed_after_signing_gets_400() -> None:
    async with world() as w:
        device = w.device()
        body = machineinfo.sign(device.machine_info(), device.signer, form="der")
        answer = await device.ask_for_profile(body.replace(b"SIM0000001", b"SIM0000009"))
        assert answer.status == 400


async def test_a_signer_of_another_hierarchy_gets_403() -> None:
    async with world() as w:
        device = w.device()
        stranger = CertificateAuthority.create(
            "Sim Device CA", clock=w.clock, organization="Sim Apple Inc."
        )
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
        signer = stranger.issue_identity(generate("p256"), name)
        answer = await device.ask_for_profile(machineinfo.sign(device.machine_info(), signer))
        assert answer.status == 403
        assert b"the signer of MachineInfo is not trusted" in answer.body


async def test_dates_of_the_device_chain_are_left_aside() -> None:
    long_ago = SimulatedClock(datetime(2008, 1, 1, tzinfo=UTC))
    async with world(apple=Apple.create(long_ago)) as w:
        device = w.device()
        for certificate in (device.signer.certificate, w.apple.device_ca.certificate):
            assert certificate.not_valid_after_utc < w.clock.now()
        assert (await device.ask_for_profile()).status == 200


async def test_another_content_type_gets_400() -> None:
    async with world() as w:
        device = w.device()
        body = machineinfo.sign(device.machine_info(), device.signer)
        answer = await device.ask_for_profile(body, content_type="application/xml")
        assert answer.status == 400
        assert answer.body == (
            b"Content-Type: expected application/pkcs7-signature, got 'application/xml'"
        )


@pytest.mark.parametrize(("key", "field"), [("udid", b"UDID"), ("serial", b"SERIAL")])
async def test_machine_info_without_identity_gets_400(key: str, field: bytes) -> None:
    async with world() as w:
        device = w.device()
        body = machineinfo.sign(device.machine_info(**{key: None}), device.signer)
        answer = await device.ask_for_profile(body)
        assert (answer.status, answer.body) == (
            400,
            b"MachineInfo." + field + b": expected a string",
        )


async def test_a_server_without_roots_trusts_no_machine_info() -> None:
    clock = SimulatedClock()
    async with MdmServer(clock=clock) as bare:
        w = World(clock=clock, apple=Apple.create(clock), server=bare)
        answer = await w.device().ask_for_profile()
        assert answer.status == 403
        assert b"machine_info_roots" in answer.body


CHOICE = [
    ("iPhone10,3", "15.8", "19H370", "scep"),  # A11, one release too old
    ("iPhone10,3", "16.0", "20A362", "acme"),
    ("iPhone9,1", "15.8", "19H370", "scep"),  # A10
    ("iPad13,18", "15.8", "19H370", "scep"),
    ("iPad13,18", "16.0", "20A362", "scep"),  # iPadOS 16.0 was never public
    ("iPad13,18", "16.1", "20B82", "acme"),
    ("iPad7,11", "17.5", "21F79", "scep"),  # A10 on iPadOS 17: the chip decides
    ("iPhone99,1", "18.1", "22B83", "acme"),  # newer than our table
]


@pytest.mark.ade(9)
@pytest.mark.parametrize(("product", "version", "build", "kind"), CHOICE)
async def test_system_and_chip_decide_between_acme_and_scep(
    product: str, version: str, build: str, kind: str
) -> None:
    async with world() as w:
        told = version if int(version.split(".")[0]) >= 17 else None  # below 17.0 only the build
        device = w.device(product=product, build=build, os_version=told)
        enrollment = await device.fetch_profile()
        identity = [p for p in enrollment.payloads if isinstance(p, AcmePayload | ScepPayload)]
        assert [type(p).__name__ for p in identity] == [
            "AcmePayload" if kind == "acme" else "ScepPayload"
        ]


async def test_the_acme_profile_says_what_a_device_needs() -> None:
    async with world(organization="Ward 3") as w:
        device = w.device()
        enrollment = await device.fetch_profile()
        root, acme, mdm = enrollment.payloads
        assert enrollment.organization == "Ward 3"
        assert enrollment.removal_disallowed is True
        assert isinstance(root, CertificatePayload)
        assert root.payload_type == ROOT
        assert root.certificate() == w.server.tls_roots[0]
        assert isinstance(acme, AcmePayload)
        assert (acme.key_type, acme.key_size) == ("ECSECPrimeRandom", 384)
        assert (acme.hardware_bound, acme.attest) == (True, True)
        assert "/" not in acme.client_identifier
        assert acme.subject == ((("CN", acme.client_identifier),),)
        assert acme.directory_url == w.server.url + "/acme/directory"
        assert enrollment.mdm is mdm
        assert enrollment.mdm.identity_certificate_uuid == acme.uuid
        assert enrollment.mdm.topic.startswith("com.apple.mgmt.External.")
        assert enrollment.mdm.server_url == w.server.url + "/mdm"
        assert enrollment.mdm.check_in_url == w.server.url + "/checkin"
        assert enrollment.mdm.access_rights == 8191
        assert enrollment.mdm.sign_message is True
        assert enrollment.mdm.check_out_when_removed is True


async def test_the_scep_profile_says_what_a_device_needs() -> None:
    async with world(locked=False) as w:
        device = w.device(**old_device())
        enrollment = await device.fetch_profile()
        scep = enrollment.payloads[1]
        assert enrollment.removal_disallowed is False
        assert isinstance(scep, ScepPayload)
        assert (scep.keysize, scep.key_usage, scep.key_type) == (2048, 5, "RSA")
        assert scep.subject == ((("CN", device.udid),), (("2.5.4.5", device.serial),))
        assert scep.url == w.server.url + "/scep"
        assert scep.challenge


async def test_a_profile_keeps_its_identifiers_and_changes_its_code() -> None:
    async with world() as w:
        device = w.device()
        first, second = await device.fetch_profile(), await device.fetch_profile()
        assert first.identifier == second.identifier
        assert [p.uuid for p in first.payloads] == [p.uuid for p in second.payloads]
        assert len({p.uuid for p in first.payloads}) == 3
        assert all(uuid.UUID(p.uuid) for p in first.payloads)
        codes = [e.payloads[1].client_identifier for e in (first, second)]  # type: ignore[union-attr]
        assert codes[0] != codes[1]
        assert first.signer_certificates == second.signer_certificates


@pytest.mark.peer
async def test_openssl_agrees_with_the_profile_signature() -> None:
    async with world() as w:
        answer = await w.device().ask_for_profile()
        content = openssl(
            "cms", "-verify", "-inform", "DER", "-noverify", "-binary", stdin=answer.body
        )
        assert content == cms.decode_signed(answer.body).content
        assert profile.decode(content).mdm is not None


# -- rule 116 ---------------------------------------------------------------------------------------------------------


async def _refused(device: RawDevice) -> bytes:
    answer = await device.ask_for_profile()
    assert answer.status == 403
    assert answer.content_type == "text/plain"
    return answer.body


@pytest.mark.ade(116)
async def test_a_retry_within_fifteen_minutes_works_and_afterwards_only_a_new_activation() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.fetch_profile()
        await w.clock.advance(14 * MINUTE)
        await device.get_identity(await device.fetch_profile())

        # The second download did not move the deadline, neither the window's nor its challenge's.
        late = await device.fetch_profile()
        await w.clock.advance(2 * MINUTE)
        with pytest.raises(ScepFailure, match="ended at 2026-01-01T00:15:00Z"):
            await device.get_identity(late, key=1)
        body = await _refused(device)
        assert b"ended at 2026-01-01T00:15:00Z" in body
        assert b"erase the device and activate it again" in body
        assert f"POST /v1/devices/{device.udid}/reset-window".encode() in body

        device.signer = w.apple.activate()  # erased: the next activation has a new certificate
        await device.get_identity(await device.fetch_profile(), key=2)


@pytest.mark.ade(116)
async def test_a_device_whose_signer_never_changes_needs_an_admin() -> None:
    async with world() as w:
        device = w.device()
        await device.fetch_profile()
        await w.clock.advance(16 * MINUTE)
        await _refused(device)
        answer = await w.admin("POST", f"/v1/devices/{device.udid}/reset-window")
        assert (answer.status, answer.body) == (
            200,
            f'{{"udid": "{device.udid}", "windows_reset": 1}}'.encode(),
        )
        await device.enroll()


async def test_the_window_is_as_long_as_the_settings_say() -> None:
    async with world(challenge_minutes=1) as w:
        device = w.device()
        await device.fetch_profile()
        await w.clock.advance(MINUTE)
        await device.fetch_profile()
        await w.clock.advance(1)
        assert b"the 1 minutes" in await _refused(device)


async def test_a_signer_speaks_for_one_device_only() -> None:
    async with world() as w:
        device = w.device()
        await device.fetch_profile()
        other = RawDevice(world=w, signer=device.signer, serial="SIM0000002", udid="b" * 40)
        assert b"belongs to SIM0000001" in await _refused(other)


async def test_a_signer_needs_its_own_key() -> None:
    async with world() as w:
        device = w.device()
        device.signer = Identity(generate("p256"), device.signer.certificate, device.signer.chain)
        answer = await device.ask_for_profile()
        assert answer.status == 400
        assert b"signature is not valid" in answer.body
