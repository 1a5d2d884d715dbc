"""Who may speak for a device: every refusal is 400 with its reason, and nothing changes (mdm.md 4.3, 4.4)."""

import base64
from typing import Any

import pytest
from cryptography import x509

from certs import cms
from certs.ca import CertificateAuthority
from certs.errors import TransportError
from certs.identity import Identity
from certs.keys import generate
from certs.transport import HttpResponse
from emulator.wire import checkin
from emulator.wire.command import CONTENT_TYPE, Response, Status, encode_response
from tests.mdmserver.harness import Channel, RawDevice, old_device, world

CHANNELS: list[Channel] = ["mtls", "signature", "both"]
SECOND = {"udid": "00008110-000000000000001E", "serial": "SIM0000002"}


def refused(answer: HttpResponse, reason: str) -> None:
    assert answer.status == 400, (answer.status, answer.body)
    assert reason in answer.body.decode()


async def unchanged(device: RawDevice, before: dict[str, Any]) -> None:
    assert await device.shown() == before


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("kind", ["acme", "scep"])
async def test_mutual_tls_and_the_signature_header_each_suffice(
    channel: Channel, kind: str
) -> None:
    async with world() as w:
        facts = old_device() if kind == "scep" else {}
        device = w.device(channel=channel, **facts)
        await device.enroll(awaiting=True)
        assert (await device.session())[-1] == "DeviceConfigured"
        assert (await device.shown())["state"] == "enrolled"


async def test_no_certificate_at_all_is_refused() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        before = await device.shown()
        answer = await device.check_in(device.check_out(), tls=None, sign=None)
        refused(answer, "client certificate: none came, neither by TLS nor as Mdm-Signature")
        await unchanged(device, before)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_another_devices_certificate_is_refused(channel: Channel) -> None:
    async with world() as w:
        device, thief = w.device(), w.device(channel=channel, **SECOND)
        await device.enroll()
        await thief.enroll()
        before = await device.shown()
        thief.udid = device.udid  # says to be the other one, shows its own certificate
        reason = f"was issued to {SECOND['udid']}, the message says {device.udid}"
        refused(await thief.check_in(thief.check_out()), reason)
        refused(await thief.check_in(thief.authenticate()), reason)
        refused(await thief.check_in(thief.token_update(token=b"mine")), reason)
        refused(await thief.idle(), reason)
        await unchanged(device, before)


async def test_two_different_certificates_in_one_request_are_refused() -> None:
    async with world() as w:
        device, other = w.device(), w.device(**SECOND)
        await device.enroll()
        await other.enroll()
        answer = await device.idle(tls=other.identity)
        refused(answer, "both must be the same")


async def test_a_body_changed_under_the_signature_is_refused() -> None:
    async with world() as w:
        device = w.device(channel="signature")
        await device.enroll()
        before = await device.shown()
        sent = checkin.encode(device.token_update(token=b"\x02" * 32))
        signed = checkin.encode(device.token_update(token=b"\x01" * 32))
        answer = await device.send(
            "PUT", "/checkin", sent, checkin.CONTENT_TYPE, signed_body=signed
        )
        assert answer.status == 400
        assert b"signature is not valid" in answer.body or b"messageDigest" in answer.body
        await unchanged(device, before)


async def test_a_bad_signature_is_refused_though_tls_shows_the_right_certificate() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await device.idle(sign=None, headers={"Mdm-Signature": "not base64!"})
        refused(answer, "Mdm-Signature: expected base64 of a CMS signature")


async def test_an_attached_signature_counts_for_the_body_that_was_sent() -> None:
    async with world() as w:
        device = w.device(channel="signature")
        await device.enroll()
        assert device.identity is not None
        idle = encode_response(Response(udid=device.udid, status=Status.IDLE))
        other = encode_response(
            Response(udid=device.udid, status=Status.ACKNOWLEDGED, command_uuid="x")
        )
        header = base64.b64encode(cms.sign(other, device.identity)).decode()
        answer = await device.send(
            "PUT", "/mdm", idle, CONTENT_TYPE, sign=None, headers={"Mdm-Signature": header}
        )
        assert answer.status == 400


async def test_a_certificate_of_a_foreign_ca_is_a_tls_alert() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        foreign = CertificateAuthority.create("MDM ACME CA", clock=w.clock)
        assert device.identity is not None
        stolen_name = device.identity.certificate.subject
        stranger = foreign.issue_identity(generate("p256"), stolen_name)
        with pytest.raises(TransportError, match="(?i)unknown.ca"):
            await device.idle(tls=stranger, sign=None)
        # As Mdm-Signature there is no TLS to say no, so the answer does.
        answer = await device.idle(tls=None, sign=stranger)
        refused(answer, "not one of this server's")


async def test_a_certificate_of_ours_that_was_issued_to_no_device_is_refused() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert device.identity is not None
        forged = w.server.authority.acme.issue_identity(
            generate("p256"), device.identity.certificate.subject
        )
        refused(await device.idle(tls=forged, sign=forged), "was issued to no device")


@pytest.mark.parametrize("channel", CHANNELS)
async def test_an_expired_identity_gets_an_answer_with_the_reason(channel: Channel) -> None:
    async with world(identity_days=30) as w:
        device = w.device(channel=channel)
        await device.enroll()
        await w.clock.advance(30 * 86400)
        assert (await device.idle()).status == 200
        await w.clock.advance(1)
        refused(await device.idle(), "expired on 2026-01-31T00:00:00Z")


async def test_a_revoked_identity_is_refused() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert device.identity is not None
        w.server.authority.acme.revoke(device.identity.certificate)
        refused(await device.idle(), f"that of {device.udid} is revoked")


async def test_an_identity_is_no_longer_good_once_a_later_enrollment_authenticated() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        first = device.identity
        await device.enroll()
        assert device.identity != first
        answer = await device.idle(tls=first, sign=first)
        refused(answer, "was replaced by a later one")
        refused(await device.check_in(device.authenticate(), tls=first, sign=first), "was replaced")
        assert (await device.idle()).status == 200


async def test_a_new_certificate_counts_only_from_its_authenticate_on() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        old = device.identity
        await device.fetch_profile()
        new = await device.get_identity()
        refused(await device.idle(tls=new, sign=new), "has not sent Authenticate with this one")
        assert (await device.idle(tls=old, sign=old)).status == 200


async def test_authenticate_must_carry_serial_and_topic_of_the_enrollment() -> None:
    async with world() as w:
        device = w.device()
        await device.fetch_profile()
        device.identity = await device.get_identity()
        answer = await device.check_in(device.authenticate(serial_number="SIM0000009"))
        refused(answer, "was issued to serial number SIM0000001, Authenticate says SIM0000009")
        answer = await device.check_in(device.authenticate(topic="com.apple.mgmt.other"))
        refused(answer, "Topic: expected com.apple.mgmt.External.")
        assert await w.server.store.device(device.udid) is None
        # Authenticate without right 16 says neither.
        bare = device.authenticate(
            serial_number=None, product_name=None, build_version=None, os_version=None
        )
        assert (await device.check_in(bare)).status == 200
        shown = await device.shown()
        assert (shown["serial"], shown["model"], shown["os_version"]) == (
            "SIM0000001",
            "iPhone14,5",
            "18.1",
        )


async def test_messages_before_their_time_are_refused() -> None:
    async with world() as w:
        device = w.device()
        await device.fetch_profile()
        device.identity = await device.get_identity()
        refused(await device.check_in(device.token_update()), "has not sent Authenticate")
        refused(await device.idle(), "has not sent Authenticate")
        await device.check_in(device.authenticate())
        refused(await device.idle(), "has not sent TokenUpdate yet")
        await device.check_in(device.token_update())
        assert (await device.idle()).status == 200
        await device.check_in(device.check_out())
        refused(await device.idle(), "has checked out")
        refused(await device.check_in(device.token_update()), "has checked out")


async def test_an_attested_identity_of_another_key_is_not_this_device() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        assert device.identity is not None
        fake = Identity(generate("p384"), device.identity.certificate, device.identity.chain)
        answer = await device.idle(tls=None, sign=fake)
        assert answer.status == 400
        assert b"signature is not valid" in answer.body


def test_certificates_of_a_device_name_it_and_nothing_else() -> None:
    from mdmserver.authority import device_name

    name = device_name("UDID", "SERIAL")
    assert [(a.oid, a.value) for a in name] == [
        (x509.NameOID.COMMON_NAME, "UDID"),
        (x509.NameOID.SERIAL_NUMBER, "SERIAL"),
    ]
