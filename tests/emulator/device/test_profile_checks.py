"""What a device refuses to install, each with its exact ErrorChain (mdm.md 2.6), and what it installs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, names
from emulator.device.keychain import InstalledIdentity
from emulator.device.profile_checks import (
    check_dates,
    read_profile,
)
from emulator.errors import ProfileRefused
from emulator.wire import plist, profile
from emulator.wire.fields import Fields
from emulator.wire.profile import CertificatePayload, OtherPayload, Pkcs12Payload
from tests.emulator.device.enrollment_profiles import (
    acme_payload,
    enrollment_profile,
    mdm_payload,
    root_payload,
    scep_payload,
    scep_profile,
)
from tests.emulator.device.world import CLOCK, PROFILE_IDENTIFIER, make_device, mdm_authority
from tests.support import VECTORS, needs_vectors, rsa_key

URL = "https://mdm.example.com"
PROFILE, PAYLOAD, INSTALLATION, MDM = (
    "MCProfileErrorDomain",
    "MCPayloadErrorDomain",
    "MCInstallationErrorDomain",
    "MCMDMErrorDomain",
)
INVALID = (INSTALLATION, 4000)
FAILED = (INSTALLATION, 4001)
MALFORMED = (PROFILE, 1000)

Chain = list[tuple[str, int]]


def _codes(error: ProfileRefused) -> Chain:
    return [(domain, code) for domain, code, _ in error.chain]


def _fields() -> Fields:
    return scep_profile(URL).to_fields()


def _changed(change: Callable[[Fields], object]) -> bytes:
    fields = _fields()
    change(fields)
    return plist.dumps(fields)


def _payload(index: int, **changes: Any) -> bytes:
    """The good profile with keys of one payload set, or removed where the value is None."""
    fields = _fields()
    for key, value in changes.items():
        if value is None:
            del fields["PayloadContent"][index][key]
        else:
            fields["PayloadContent"][index][key] = value
    return plist.dumps(fields)


def _scep(**changes: Any) -> bytes:
    return profile.encode(
        enrollment_profile(root_payload(), scep_payload(URL, **changes), mdm_payload(URL))
    )


def _acme(**changes: Any) -> bytes:
    return profile.encode(
        enrollment_profile(root_payload(), acme_payload(URL, **changes), mdm_payload(URL))
    )


def _mdm(**changes: Any) -> bytes:
    return profile.encode(scep_profile(URL, **changes))


def _signed(data: bytes, damage: Callable[[bytes], bytes] = lambda data: data) -> bytes:
    return damage(cms.sign(data, mdm_authority()[1]))


def _spoil(data: bytes) -> bytes:
    """A signed message whose content was changed afterwards."""
    return data.replace(b"<string>Enrollment</string>", b"<string>Enrollmint</string>")


TOP_LEVEL: list[tuple[str, Callable[[], bytes], Chain]] = [
    ("no property list", lambda: b"hello", [INVALID]),
    ("a web page", lambda: b"<html></html>", [INVALID]),
    ("an empty file", lambda: b"", [INVALID]),
    ("a damaged CMS", lambda: b"\x30\x82\x00\x01", [(INSTALLATION, 4007)]),
    (
        "a CMS around something else",
        lambda: cms.sign(b"hello", mdm_authority()[1]),
        [INVALID],
    ),
    (
        "a broken signature",
        lambda: _signed(_mdm(), _spoil),
        [INVALID, (PROFILE, 1004)],
    ),
    (
        "no identifier",
        lambda: _changed(lambda fields: fields.pop("PayloadIdentifier")),
        [INVALID, (PROFILE, 1002)],
    ),
    (
        "no content",
        lambda: _changed(lambda fields: fields.pop("PayloadContent")),
        [INVALID, (PROFILE, 1002)],
    ),
    (
        "an identifier of the wrong type",
        lambda: _changed(lambda fields: fields.update(PayloadIdentifier=7)),
        [INVALID, (PROFILE, 1003)],
    ),
    (
        "a content of the wrong type",
        lambda: _changed(lambda fields: fields.update(PayloadContent={})),
        [INVALID, (PROFILE, 1003)],
    ),
    (
        "another type",
        lambda: _changed(lambda fields: fields.update(PayloadType="Profile Service")),
        [INVALID, (PROFILE, 1010)],
    ),
    (
        "version 2",
        lambda: _changed(lambda fields: fields.update(PayloadVersion=2)),
        [INVALID, (PROFILE, 1001)],
    ),
    (
        "a profile for Macs",
        lambda: _changed(lambda fields: fields.update(TargetDeviceType=5)),
        [(INSTALLATION, 4023)],
    ),
    (
        "an encrypted profile for someone else",
        lambda: _changed(
            lambda fields: fields.update(IsEncrypted=True, EncryptedPayloadContent=b"\x30\x00")
        ),
        [INVALID, (PROFILE, 1006)],
    ),
]
PAYLOADS: list[tuple[str, Callable[[], bytes], Chain]] = [
    (
        "a payload without UUID",
        lambda: _payload(1, PayloadUUID=None),
        [INVALID, MALFORMED, (PAYLOAD, 2002)],
    ),
    (
        "an MDM payload without topic",
        lambda: _payload(2, Topic=None),
        [INVALID, MALFORMED, (PAYLOAD, 2002)],
    ),
    (
        "a mistyped AccessRights",
        lambda: _payload(2, AccessRights="8191"),
        [INVALID, MALFORMED, (PAYLOAD, 2003)],
    ),
    (
        "a payload of version 2",
        lambda: _payload(1, PayloadVersion=2),
        [INVALID, MALFORMED, (PAYLOAD, 2001)],
    ),
    (
        "a UUID twice",
        lambda: _payload(0, PayloadUUID="MDM-UUID"),
        [INVALID, (PROFILE, 1007)],
    ),
    (
        "an identifier twice",
        lambda: _payload(0, PayloadIdentifier=f"{PROFILE_IDENTIFIER}.mdm"),
        [INVALID, (PROFILE, 1008)],
    ),
    (
        "a certificate that is none",
        lambda: _payload(0, PayloadContent=b"none"),
        [FAILED, ("MCCertificateErrorDomain", 9005)],
    ),
]
VALUE = [INVALID, MALFORMED, (PAYLOAD, 2004)]
VALUES: list[tuple[str, Callable[[], bytes], Chain]] = [
    ("SCEP over ftp", lambda: _scep(url="ftp://host/scep"), VALUE),
    ("SCEP without host", lambda: _scep(url="https:///scep"), VALUE),
    ("a SCEP key of 1536 bits", lambda: _scep(keysize=1536), VALUE),
    ("a SCEP key of another type", lambda: _scep(key_type="EC"), VALUE),
    ("a fingerprint of 8 bytes", lambda: _scep(ca_fingerprint=bytes(8)), VALUE),
    ("an unknown name attribute", lambda: _scep(subject=((("XX", "a"),),)), VALUE),
    ("ACME over http", lambda: _acme(directory_url="http://host/"), VALUE),
    ("a hardware-bound RSA key", lambda: _acme(key_type="RSA", key_size=2048), VALUE),
    (
        "an RSA key of 2047 bits",
        lambda: _acme(key_type="RSA", key_size=2047, hardware_bound=False, attest=False),
        VALUE,
    ),
    ("an EC key of 512 bits", lambda: _acme(key_size=512), VALUE),
    ("a hardware-bound EC key of 521 bits", lambda: _acme(key_size=521), VALUE),
    ("attestation of a soft key", lambda: _acme(hardware_bound=False), VALUE),
    ("a purpose that is no OID", lambda: _acme(extended_key_usage=("clientAuth",)), VALUE),
    ("another kind of key", lambda: _acme(key_type="Ed25519"), VALUE),
]
MDM_PAYLOAD: list[tuple[str, Callable[[], bytes], Chain]] = [
    ("no rights", lambda: _mdm(access_rights=0), [FAILED, (MDM, 12000)]),
    ("rights left out", lambda: _mdm(access_rights=None), [FAILED, (MDM, 12000)]),
    ("right 2 without 1", lambda: _mdm(access_rights=2), [FAILED, (MDM, 12000)]),
    ("right 128 without 64", lambda: _mdm(access_rights=128), [FAILED, (MDM, 12000)]),
    ("another topic", lambda: _mdm(topic="com.example.push"), [FAILED, (MDM, 12022)]),
    ("a plain ServerURL", lambda: _mdm(server_url="http://h/"), [FAILED, (MDM, 12034)]),
    ("a plain CheckInURL", lambda: _mdm(check_in_url="http://h/"), [FAILED, (MDM, 12034)]),
    (
        "an identity that is not there",
        lambda: _mdm(identity_certificate_uuid="NOWHERE"),
        [FAILED, (MDM, 12005)],
    ),
    (
        "an identity that is a root certificate",
        lambda: _mdm(identity_certificate_uuid="ROOT-UUID"),
        [FAILED, (MDM, 12016)],
    ),
    (
        "two MDM payloads",
        lambda: profile.encode(
            enrollment_profile(
                scep_payload(URL),
                mdm_payload(URL),
                mdm_payload(URL, uuid="MDM-2", identifier="com.example.second"),
            )
        ),
        [FAILED, (MDM, 12001)],
    ),
]
REFUSED = TOP_LEVEL + PAYLOADS + VALUES + MDM_PAYLOAD


@pytest.mark.parametrize(
    ("make", "chain"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_profile_with_one_thing_wrong_is_refused(make: Callable[[], bytes], chain: Chain) -> None:
    with pytest.raises(ProfileRefused) as caught:
        read_profile(make(), make_device())
    assert _codes(caught.value) == chain
    assert all(text for _, _, text in caught.value.chain)


def test_good_profiles_are_read_signed_and_unsigned() -> None:
    device = make_device()
    plain = read_profile(_mdm(), device)
    signed = read_profile(_signed(_mdm()), device)
    assert plain == signed
    assert (plain.is_signed, signed.is_signed) == (False, True)
    assert read_profile(_acme(), device).mdm is not None


def test_acme_does_not_exist_for_a_device_below_16() -> None:
    old = make_device(os_version="15.1")
    with pytest.raises(ProfileRefused) as caught:
        read_profile(_acme(key_size=512), old)  # an ignored payload is not even checked
    assert _codes(caught.value) == [FAILED, (MDM, 12005)]


def test_a_profile_whose_removal_date_has_passed_is_refused() -> None:
    now = CLOCK.now()
    check_dates(enrollment_profile(removal_date=now + timedelta(days=1)), now)
    with pytest.raises(ProfileRefused) as caught:
        check_dates(enrollment_profile(removal_date=now), now)
    assert _codes(caught.value) == [(INSTALLATION, 4006)]


def test_a_profile_encrypted_to_an_identity_of_the_device_is_opened() -> None:
    device = make_device()
    ca, _, _ = mdm_authority()
    identity = ca.issue_identity(rsa_key(3), names.from_subject([[["CN", "device"]]]))
    device.keychain.add(
        InstalledIdentity(profile_identifier="p", payload_uuid="u", kind="scep", identity=identity)
    )
    payload = OtherPayload(
        identifier="com.example.wifi",
        uuid="WIFI",
        payload_type="com.apple.wifi.managed",
        fields={"SSID_STR": "ward"},
    )
    document = plist.dumps({"X": [payload.to_fields()]})
    start, end = document.index(b"<array>"), document.index(b"</array>") + len(b"</array>")
    content = b'<plist version="1.0">' + document[start:end] + b"</plist>"
    encrypted = enrollment_profile(
        is_encrypted=True,
        encrypted_payload_content=cms.encrypt(content, [identity.certificate]),
    )
    assert read_profile(profile.encode(encrypted), device).payloads == (payload,)


# --- profiles of others


@needs_vectors
@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in (VECTORS / "profiles").glob("*.mobileconfig"))
    if VECTORS.is_dir()
    else [],
)
def test_profiles_of_other_projects_pass_every_check_of_form(name: str) -> None:
    read = read_profile((VECTORS / "profiles" / name).read_bytes(), make_device())
    assert read.is_signed is name.endswith(".signed.mobileconfig")
    assert (read.mdm is not None) is (name == "enroll-nanomdm.mobileconfig")


def test_a_payload_of_an_unknown_type_is_ignored() -> None:
    other = OtherPayload(
        identifier="com.example.x", uuid="X", payload_type="com.example.x", fields={}
    )
    assert read_profile(profile.encode(enrollment_profile(other)), make_device()).payloads == (
        other,
    )


def test_certificates_in_pem_are_installed_too() -> None:
    certificate = mdm_authority()[0].certificate
    pem = CertificatePayload(
        identifier="com.example.pem",
        uuid="PEM",
        payload_type="com.apple.security.pem",
        content=certificate.public_bytes(Encoding.PEM),
    )
    read = read_profile(profile.encode(enrollment_profile(pem)), make_device())
    assert isinstance(read.payloads[0], CertificatePayload)
    assert read.payloads[0].certificate() == certificate


def test_an_identity_may_come_ready_made() -> None:
    identity = Pkcs12Payload(identifier="com.example.p12", uuid="IDENTITY-UUID", content=b"")
    data = profile.encode(enrollment_profile(identity, mdm_payload(URL)))
    assert read_profile(data, make_device()).payload("IDENTITY-UUID") == identity
