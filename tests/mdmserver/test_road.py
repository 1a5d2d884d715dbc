"""The way in, over real TLS: profile, identity, Authenticate, TokenUpdate, first session, DeviceConfigured."""

from tests.mdmserver.harness import fingerprint, old_device, world


async def test_an_acme_device_enrolls_is_named_and_released() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll(awaiting=True)
        assert (await device.shown())["state"] == "awaiting_configuration"

        assert await device.session() == [
            "DeviceInformation",
            "ProfileList",
            "Settings",
            "DeviceInformation",
            "DeviceConfigured",
        ]
        shown = await device.shown()
        assert shown["state"] == "enrolled"
        assert shown["identity"] == "acme"
        assert shown["issuer"] == "MDM ACME CA"
        assert device.identity is not None
        assert shown["certificate_sha256"] == fingerprint(device.identity)
        assert (shown["supervised"], shown["locked"]) == (True, True)
        assert shown["name"] == shown["expected_name"] == device.name == "iPhone-SIM0000001"


async def test_a_scep_device_enrolls() -> None:
    async with world() as w:
        device = w.device(**old_device())
        await device.enroll()
        assert await device.session() == [
            "DeviceInformation",
            "ProfileList",
            "Settings",
            "DeviceInformation",
        ]
        shown = await device.shown()
        assert (shown["state"], shown["identity"], shown["issuer"]) == (
            "enrolled",
            "scep",
            "MDM SCEP CA",
        )
