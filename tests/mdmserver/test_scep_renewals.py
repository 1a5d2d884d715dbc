"""RenewalReq at the server: the certificate that a device uses now asks for its successor, and nobody else does."""

from typing import Any

import pytest

from certs import csr, names
from certs.errors import ScepFailure
from certs.identity import Identity
from certs.keys import FreshKeys
from certs.scep.client import ScepClient
from emulator.wire.profile import ScepPayload
from tests.mdmserver.harness import RawDevice, fingerprint, old_device, world
from tests.support import rsa_key

DAY = 86400.0


def payload_of(device: RawDevice) -> ScepPayload:
    assert device.profile is not None
    mdm = device.profile.mdm
    assert mdm is not None
    payload = device.profile.payload(mdm.identity_certificate_uuid)
    assert isinstance(payload, ScepPayload)
    return payload


async def renew(
    device: RawDevice, current: Identity | None = None, *, subject: Any = None, key: int = 5
) -> Identity:
    """A RenewalReq signed by `current`, without any challenge."""
    payload = payload_of(device)
    signer = current or device.identity
    assert signer is not None
    private = rsa_key(key)
    request = csr.build(private, subject or signer.certificate.subject)
    async with device._session(None) as session:
        client = ScepClient(
            session, payload.url, clock=device.world.clock, keys=FreshKeys(), signer="same-key"
        )
        leaf, *chain = await client.renew(signer, private, request)
    return Identity(private, leaf, tuple(chain))


async def test_the_successor_counts_from_its_first_use_on() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        first = device.identity
        assert first is not None
        second = await renew(device)
        assert second.certificate.subject == first.certificate.subject
        assert (await device.shown())["certificate_sha256"] == fingerprint(first)
        assert (await device.idle()).status == 200  # the first is good until the second is used
        device.identity = second
        assert (await device.idle()).status == 200
        assert (await device.shown())["certificate_sha256"] == fingerprint(second)
        answer = await device.idle(tls=first, sign=first)
        assert (answer.status, b"replaced by a later one" in answer.body) == (400, True)
        third = await renew(device, key=6)
        assert third.certificate != second.certificate


async def test_a_successor_is_revoked_together_with_the_one_that_asked_for_it() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        second = await renew(device)
        assert device.identity is not None
        w.server.authority.scep.revoke(device.identity.certificate)
        answer = await device.idle(tls=second, sign=second)
        assert (answer.status, b"with it this later one" in answer.body) == (400, True)


async def test_a_successor_does_not_lift_the_mark_to_unenroll() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        device.identity = await renew(device)
        await w.admin("POST", f"/v1/devices/{device.udid}/unenroll")
        answer = await device.check_in(device.authenticate())
        assert answer.status in (401, 403)
        assert (await device.shown())["unenroll"] is True


async def test_the_server_offers_renewal() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        async with device._session(None) as session:
            url = payload_of(device).url
            client = ScepClient(session, url, clock=w.clock, keys=FreshKeys())
            capabilities = await client.get_ca_caps()
        assert capabilities.supports("Renewal")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("replaced", "is not the one of"),
        ("revoked", "is revoked"),
        ("ended", "ended at"),
        ("other subject", "the subject is not that of the signer"),
        ("other CA", "no certificate of this CA"),
        ("checked out", "is no longer enrolled"),
        ("unenroll", "is no longer enrolled"),
    ],
)
async def test_nobody_else_gets_a_successor(trouble: str, words: str) -> None:
    async with world(identity_days=30) as w:
        device = w.device(**old_device())
        await device.enroll()
        first = device.identity
        assert first is not None
        current, subject = first, None
        match trouble:
            case "replaced":
                device.identity = await renew(device)
                assert (await device.idle()).status == 200
            case "revoked":
                w.server.authority.scep.revoke(first.certificate)
            case "ended":
                await w.clock.advance(31 * DAY)
            case "other subject":
                subject = names.from_subject([[["CN", "another"]]])
            case "other CA":
                key = rsa_key(7)
                certificate = w.server.authority.acme.issue(
                    key.public_key(), first.certificate.subject
                )
                current = Identity(key, certificate)
            case "checked out":
                await w.server.store.end(device.udid, w.clock.now())
            case "unenroll":
                await w.admin("POST", f"/v1/devices/{device.udid}/unenroll")
        before = await w.server.store.device(device.udid)
        with pytest.raises(ScepFailure, match=words):
            await renew(device, current, subject=subject, key=8)
        assert await w.server.store.device(device.udid) == before


async def test_a_certificate_below_the_ca_that_was_issued_to_nobody_renews_nothing() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        key = rsa_key(7)
        subject = names.from_subject([[["CN", "nobody"]]])
        stray = Identity(key, w.server.authority.scep.issue(key.public_key(), subject))
        with pytest.raises(ScepFailure, match="issued to no device"):
            await renew(device, stray)
