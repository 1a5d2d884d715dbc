"""The road from power-on to the home screen, over real TLS against the stand-ins and a scripted MDM server."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.device.session import check_in
from emulator.device.setup_assistant import (
    AutomatedEnrollment,
    ProfileEnrollment,
    UrlEnrollment,
    set_up,
)
from emulator.device.snapshot import thaw
from emulator.device.state import State
from emulator.device.surroundings import Behaviour
from emulator.errors import PeerRefused
from emulator.hardware import Hardware
from emulator.wire import machineinfo, profile
from emulator.wire.checkin import TokenUpdate
from tests.emulator.device.enrollment_profiles import acme_profile, profile_keys, scep_profile
from tests.emulator.device.world import (
    Memory,
    ScriptedMdm,
    apple_services,
    grant,
    make_device,
    mdm_authority,
    pki,
    scripted_mdm,
    surroundings,
    with_command,
)


def _serve(mdm: ScriptedMdm, served: profile.Profile) -> None:
    mdm.profile_answer = (200, profile.encode(served), profile.CONTENT_TYPE)


async def test_an_assigned_device_reaches_home_supervised_and_locked_by_attested_acme() -> None:
    device, memory = make_device(), Memory()
    async with (
        scripted_mdm() as mdm,
        apple_services(device, profile_keys=profile_keys(mdm.url)) as apple,
    ):
        mdm.devices.devices["one-time-code"] = grant(device)
        _serve(mdm, acme_profile(mdm.url))
        mdm.commands.append(with_command("DeviceConfigured"))
        await set_up(device, surroundings(memory, apple=apple), AutomatedEnrollment())
    assert device.state is State.ENROLLED
    assert (device.supervised, device.locked, device.name) == (True, True, "iPhone")
    assert device.enrollment is not None
    assert device.enrollment.identity_kind == "acme"
    assert [type(item.message).__name__ for item in mdm.received] == [
        "Authenticate",
        "TokenUpdate",
        "Response",
        "Response",
        "TokenUpdate",
    ]
    first, last = mdm.received[1].message, mdm.received[-1].message
    assert isinstance(first, TokenUpdate)
    assert isinstance(last, TokenUpdate)
    assert (first.awaiting_configuration, last.awaiting_configuration) == (True, False)
    assert (len(first.token), first.push_magic) == (32, first.push_magic.upper())
    assert first.unlock_token == last.unlock_token is not None
    assert [*dict.fromkeys(memory.steps)] == [
        "drm_handshake",
        "device_activation",
        "cloud_configuration",
        "enrollment_profile",
        "directory",
        "new_nonce",
        "new_account",
        "new_order",
        "authorization",
        "attestation",
        "challenge",
        "order",
        "finalize",
        "certificate",
        "authenticate",
        "token_update",
        "idle",
        "command",
    ]


async def test_a_user_enrolls_a_device_with_a_profile_file_by_scep() -> None:
    device, memory = make_device(1, os_version="12.5.5", product_type="iPhone8,1"), Memory()
    async with scripted_mdm() as mdm:
        await set_up(
            device, surroundings(memory), ProfileEnrollment(profile.encode(scep_profile(mdm.url)))
        )
        await check_in(device, surroundings(memory))
    assert device.state is State.ENROLLED
    assert (device.supervised, device.locked) == (False, False)
    assert device.enrollment is not None
    assert device.enrollment.identity_kind == "scep"
    assert mdm.names_of() == ["Authenticate", "TokenUpdate"]
    authenticate, token_update, idle = (item.message for item in mdm.received)
    assert token_update.awaiting_configuration is False
    assert authenticate.serial_number == device.hardware.serial_number
    assert {item.certificate for item in mdm.received} == {mdm.challenges.issued_to[0]}
    assert {item.headers["user-agent"] for item in mdm.received} == {"MDM/1.0"}
    assert idle.status.value == "Idle"
    assert all("mdm-signature" in item.headers for item in mdm.received)


async def test_the_mdm_identity_goes_along_without_a_signature_header_when_none_is_wanted() -> None:
    device = make_device(1, os_version="15.1")
    async with scripted_mdm() as mdm:
        data = profile.encode(scep_profile(mdm.url, sign_message=False))
        await set_up(device, surroundings(), ProfileEnrollment(data))
    assert [item.certificate for item in mdm.received] == mdm.challenges.issued_to * 2
    assert not any("mdm-signature" in item.headers for item in mdm.received)


@pytest.mark.parametrize("activation", ["full", "lite"])
@pytest.mark.parametrize("device_key", ["factory", "new"])
async def test_each_form_of_activation_gives_a_new_device_certificate(
    activation: str, device_key: str
) -> None:
    device = make_device()
    behaviour = Behaviour(activation=activation, device_key=device_key)  # type: ignore[arg-type]
    async with apple_services(device) as apple:
        await set_up(device, surroundings(apple=apple, behaviour=behaviour), AutomatedEnrollment())
        first = device.keychain.device
        device.erase()
        await set_up(device, surroundings(apple=apple, behaviour=behaviour), AutomatedEnrollment())
    second = device.keychain.device
    assert first is not None
    assert second is not None
    assert first.certificate != second.certificate
    assert (first.key is device.factory.factory.key) is (device_key == "factory")
    assert device.state is State.HOME_UNMANAGED


async def test_a_device_of_nobody_and_one_without_a_profile_go_home_unmanaged() -> None:
    device = make_device(2)
    async with apple_services(device) as apple:
        memory = Memory()
        await set_up(device, surroundings(memory, apple=apple), AutomatedEnrollment())
    assert device.state is State.HOME_UNMANAGED
    assert device.cloud_configuration is None
    assert memory.steps == ["drm_handshake", "device_activation", "cloud_configuration"]


async def test_a_device_below_13_keeps_the_supervision_it_was_given_and_drops_what_needs_it() -> (
    None
):
    device = make_device(3, os_version="12.5.5", product_type="iPhone8,1")
    async with scripted_mdm() as mdm:
        keys = profile_keys(mdm.url, is_supervised=False, is_mandatory=False, is_mdm_removable=True)
        async with apple_services(device, profile_keys=keys) as apple:
            _serve(mdm, scep_profile(mdm.url))
            await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
    assert device.state is State.ENROLLED  # no waiting: await_device_configured needs supervision
    assert (device.supervised, device.locked) == (False, False)
    assert mdm.names_of() == ["Authenticate", "TokenUpdate"]


async def test_a_device_on_13_is_supervised_whatever_the_cloud_configuration_says() -> None:
    device = make_device(3, os_version="13.5.1", product_type="iPhone11,8")
    async with scripted_mdm() as mdm:
        keys = profile_keys(mdm.url, is_supervised=False, is_mandatory=False, is_mdm_removable=True)
        async with apple_services(
            device, profile_keys={**keys, "await_device_configured": False}
        ) as apple:
            _serve(mdm, scep_profile(mdm.url))
            await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
    assert device.cloud_configuration is not None
    assert device.cloud_configuration.is_mandatory
    assert (device.supervised, device.locked) == (True, False)


@pytest.mark.parametrize(
    ("product_type", "os_version", "keys"),
    [
        ("iPad6,11", "12.5.5", {"LANGUAGE", "PRODUCT", "SERIAL", "UDID", "VERSION"}),
        (
            "iPhone14,5",
            "17.0",
            {
                "IMEI",
                "LANGUAGE",
                "MDM_CAN_REQUEST_SOFTWARE_UPDATE",
                "OS_VERSION",
                "PRODUCT",
                "SERIAL",
                "UDID",
                "VERSION",
            },
        ),
        (
            "iPhone14,5",
            "18.1",
            {
                "IMEI",
                "LANGUAGE",
                "MDM_CAN_REQUEST_SOFTWARE_UPDATE",
                "OS_VERSION",
                "PRODUCT",
                "SERIAL",
                "SOFTWARE_UPDATE_DEVICE_ID",
                "UDID",
                "VERSION",
            },
        ),
    ],
)
async def test_the_enrollment_url_gets_signed_machine_info_with_the_keys_of_the_release(
    product_type: str, os_version: str, keys: set[str]
) -> None:
    build = "16H62" if os_version == "12.5.5" else None
    device = make_device()
    hardware = Hardware.from_seed(
        5, 0, product_type=product_type, os_version=os_version, build=build
    )
    device.hardware = hardware
    async with scripted_mdm() as mdm:
        _serve(mdm, scep_profile(mdm.url))
        await set_up(device, surroundings(), UrlEnrollment(f"{mdm.url}/enroll"))
    signed = machineinfo.verify(mdm.machine_infos[0])
    assert set(signed.info.to_fields()) == keys
    assert signed.info.version == hardware.build
    assert device.keychain.device is not None
    assert signed.signer == device.keychain.device.certificate
    assert mdm.profile_requests[0]["content-type"] == "application/pkcs7-signature"
    assert mdm.profile_requests[0]["user-agent"].startswith("profiled/1.0 CFNetwork/")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            (200, b"<html>sign in</html>", "text/html"),
            "enrollment_profile: Invalid Profile: .*text/html",
        ),
        (
            (
                403,
                b'{"code":"com.apple.softwareupdate.required","message":"Please update first.",'
                b'"details":{"OSVersion":"18.2"}}',
                "application/json",
            ),
            "enrollment_profile: HTTP 403: com.apple.softwareupdate.required: Please update first.: "
            "OS version 18.2 is required",
        ),
        (
            (
                403,
                b'<plist version="1.0"><dict><key>code</key><string>com.apple.unrecognized.device'
                b"</string></dict></plist>",
                "application/xml",
            ),
            "HTTP 403: com.apple.unrecognized.device",
        ),
        ((403, b"no", "text/html"), "enrollment_profile: HTTP 403: refused"),
        ((404, b"not here\nmore", "text/plain"), "HTTP 404: not here"),
        ((401, b"", "text/plain"), "HTTP 401: the server asks for a login"),
        ((500, b"", "text/plain"), "HTTP 500: refused"),
    ],
)
async def test_an_enrollment_url_that_refuses_is_named_with_its_own_words(
    answer: tuple[int, bytes, str], error: str
) -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        mdm.profile_answer = answer
        with pytest.raises(PeerRefused, match=error):
            await set_up(device, surroundings(), UrlEnrollment(f"{mdm.url}/enroll"))
        assert device.state.name == "FAILED"
        assert device.failure is not None
        assert device.failure.step == "enrollment_profile"
        _serve(mdm, scep_profile(mdm.url))
        await set_up(device, surroundings(), UrlEnrollment(f"{mdm.url}/enroll"))
    assert device.state is State.ENROLLED
    assert device.failure is None


async def test_with_anchor_certs_only_those_are_trusted_for_the_profile() -> None:
    device = make_device()
    good = b64encode(mdm_authority()[0].certificate.public_bytes(Encoding.DER)).decode()
    wrong = b64encode(pki().root.public_bytes(Encoding.DER)).decode()
    async with scripted_mdm() as mdm:
        _serve(mdm, acme_profile(mdm.url))
        mdm.devices.devices["one-time-code"] = grant(device)
        mdm.commands.append(with_command("DeviceConfigured"))
        async with apple_services(
            device, profile_keys=profile_keys(mdm.url, anchor_certs=[wrong])
        ) as apple:
            with pytest.raises(PeerRefused, match="enrollment_profile.*server certificate refused"):
                await set_up(device, surroundings(apple=apple), AutomatedEnrollment())
        # Trusted by nothing else: neither by the surroundings nor, yet, by a profile.
        device.erase()
        async with apple_services(
            device, profile_keys=profile_keys(mdm.url, anchor_certs=[good])
        ) as apple:
            await set_up(device, surroundings(apple=apple, trusted=False), AutomatedEnrollment())
    assert device.state is State.ENROLLED


@pytest.mark.parametrize(
    ("message", "status", "step", "sent"),
    [
        ("Authenticate", 400, "authenticate", ["Authenticate"]),
        ("Authenticate", 401, "authenticate", ["Authenticate"]),
        ("Authenticate", 500, "authenticate", ["Authenticate"]),
        ("TokenUpdate", 403, "token_update", ["Authenticate", "TokenUpdate"]),
    ],
)
async def test_a_refused_check_in_takes_everything_back(
    message: str, status: int, step: str, sent: list[str]
) -> None:
    device, memory = make_device(), Memory()
    async with scripted_mdm() as mdm:
        mdm.statuses[message] = (status, b"we do not like you", "text/plain")
        data = profile.encode(scep_profile(mdm.url))
        with pytest.raises(PeerRefused, match=f"{step}: HTTP {status}: we do not like you"):
            await set_up(device, surroundings(memory), ProfileEnrollment(data))
    assert mdm.names_of() == sent
    thawed = thaw(memory.snapshots[-1])
    for one in (device, thawed):
        assert one.state is State.FAILED
        assert one.failure is not None
        assert (one.failure.step, one.enrollment, one.pending) == (step, None, None)
        assert not one.keychain.identities
        assert not one.keychain.certificates
        assert not one.profiles.all()


async def test_a_wrong_challenge_fails_at_scep_and_leaves_nothing() -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        mdm.challenges.password = "something else"
        with pytest.raises(PeerRefused, match="scep: SCEP failure") as caught:
            await set_up(
                device, surroundings(), ProfileEnrollment(profile.encode(scep_profile(mdm.url)))
            )
    assert caught.value.step == "scep"
    assert device.state is State.FAILED
    assert not device.keychain.certificates
    assert mdm.received == []


async def test_an_unknown_client_identifier_fails_at_acme() -> None:
    device = make_device()
    async with scripted_mdm() as mdm, apple_services(device) as apple:
        with pytest.raises(PeerRefused, match="acme: rejectedIdentifier"):
            await set_up(
                device,
                surroundings(apple=apple),
                ProfileEnrollment(profile.encode(acme_profile(mdm.url))),
            )
    assert device.state is State.FAILED
    assert mdm.received == []


async def test_a_server_that_nothing_trusts_is_refused_by_name() -> None:
    device = make_device()
    async with scripted_mdm() as mdm:
        served = scep_profile(mdm.url)
        without_root = profile.encode(
            profile.Profile(
                identifier=served.identifier, uuid=served.uuid, payloads=served.payloads[1:]
            )
        )
        with pytest.raises(PeerRefused, match="server certificate refused"):
            await set_up(device, surroundings(trusted=False), ProfileEnrollment(without_root))
        # The same profile with its root certificate brings the trust along.
        await set_up(device, surroundings(trusted=False), ProfileEnrollment(profile.encode(served)))
    assert device.state is State.ENROLLED
