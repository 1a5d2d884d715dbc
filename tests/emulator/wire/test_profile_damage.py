"""Broken profiles: one key changed, one exact error that names payload, type and key."""

import pytest

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.profile import (
    MalformedPayload,
    decode,
)
from tests.emulator.wire.profiles import golden

ABSENT = object()


def broken(index: int, path: str, value: object, name: str = "enrollment-acme") -> bytes:
    """The golden with one key of one payload changed or left out; index -1 is the profile itself."""
    fields = plist.loads(golden(f"{name}.mobileconfig"))
    target = fields if index < 0 else fields["PayloadContent"][index]
    *parents, key = path.split("/")
    for parent in parents:
        target = target[parent]
    if value is ABSENT:
        del target[key]
    else:
        target[key] = value
    return plist.dumps(fields)


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (broken(-1, "PayloadType", ABSENT), "PayloadType: expected string"),
        (
            broken(-1, "PayloadType", "Profile Service"),
            "PayloadType: expected Configuration, got 'Profile Service'",
        ),
        (broken(-1, "PayloadIdentifier", ABSENT), "PayloadIdentifier: expected string"),
        (broken(-1, "PayloadUUID", 1), "PayloadUUID: expected string, got 'integer'"),
        (broken(-1, "PayloadVersion", ABSENT), "PayloadVersion: expected integer"),
        (broken(-1, "PayloadVersion", 1.5), "PayloadVersion: expected integer, got 'real'"),
        (broken(-1, "PayloadContent", ABSENT), "PayloadContent: expected array"),
        (broken(-1, "PayloadContent", {}), "PayloadContent: expected array, got 'dictionary'"),
        (
            broken(-1, "PayloadContent", [{}, "text"]),
            "PayloadContent[1]: expected dictionary, got 'string'",
        ),
        (
            broken(-1, "PayloadRemovalDisallowed", "yes"),
            "PayloadRemovalDisallowed: expected boolean, got 'string'",
        ),
    ],
)
def test_a_broken_profile_names_its_key(wire: bytes, sentence: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(wire)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("index", "path", "value", "field", "got"),
    [
        (0, "PayloadContent", ABSENT, "PayloadContent", None),
        (0, "PayloadContent", "text", "PayloadContent", "string"),
        (0, "PayloadUUID", ABSENT, "PayloadUUID", None),
        (1, "DirectoryURL", ABSENT, "DirectoryURL", None),
        (1, "ClientIdentifier", 5, "ClientIdentifier", "integer"),
        (1, "KeySize", "384", "KeySize", "string"),
        (1, "KeyType", ABSENT, "KeyType", None),
        (1, "HardwareBound", 1, "HardwareBound", "integer"),
        (1, "Attest", "true", "Attest", "string"),
        (1, "Subject", ABSENT, "Subject", None),
        (1, "Subject", [["CN", "x"]], "Subject[0][0]", "string"),
        (1, "Subject", [[["CN"]]], "Subject[0][0]", "array"),
        (1, "Subject", ["CN"], "Subject[0]", "string"),
        (1, "SubjectAltName", {"dNSName": 5}, "SubjectAltName.dNSName", "integer"),
        (1, "ExtendedKeyUsage", [1], "ExtendedKeyUsage[0]", "integer"),
        (1, "UsageFlags", True, "UsageFlags", "boolean"),
        (2, "ServerURL", ABSENT, "ServerURL", None),
        (2, "ServerURL", 5, "ServerURL", "integer"),
        (2, "IdentityCertificateUUID", ABSENT, "IdentityCertificateUUID", None),
        (2, "Topic", b"x", "Topic", "data"),
        (2, "CheckInURL", [], "CheckInURL", "array"),
        (2, "SignMessage", "yes", "SignMessage", "string"),
        (2, "AccessRights", "8191", "AccessRights", "string"),
        (2, "ServerCapabilities", "x", "ServerCapabilities", "string"),
        (2, "ServerCapabilities", ["a", 2], "ServerCapabilities[1]", "integer"),
        (2, "RequiredAppIDForMDM", 1.5, "RequiredAppIDForMDM", "real"),
    ],
)
def test_a_broken_payload_names_its_place_type_and_key(
    index: int, path: str, value: object, field: str, got: str | None
) -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(index, path, value))
    error = caught.value
    kind = ("com.apple.security.root", "com.apple.security.acme", "com.apple.mdm")[index]
    assert error.field == f"PayloadContent[{index}].{field}"
    assert (error.index, error.payload_type, error.got) == (index, kind, got)
    assert kind in str(error)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("PayloadContent", ABSENT, "PayloadContent"),
        ("PayloadContent/URL", ABSENT, "PayloadContent.URL"),
        ("PayloadContent/Keysize", "2048", "PayloadContent.Keysize"),
        ("PayloadContent/Key Usage", "5", "PayloadContent.Key Usage"),
        ("PayloadContent/Key Type", 1, "PayloadContent.Key Type"),
        ("PayloadContent/Challenge", b"x", "PayloadContent.Challenge"),
        ("PayloadContent/CAFingerprint", "00ff", "PayloadContent.CAFingerprint"),
        ("PayloadContent/Retries", "3", "PayloadContent.Retries"),
        ("PayloadContent/RetryDelay", [], "PayloadContent.RetryDelay"),
        ("PayloadContent/Subject", [[["CN", 5]]], "PayloadContent.Subject[0][0]"),
        (
            "PayloadContent/SubjectAltName",
            {"dNSName": ["a", 1]},
            "PayloadContent.SubjectAltName.dNSName[1]",
        ),
        ("PayloadContent/GetCACaps", ["a", 1], "PayloadContent.GetCACaps[1]"),
    ],
)
def test_a_broken_scep_payload_names_the_key_inside(path: str, value: object, field: str) -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(0, path, value, "scep-payload"))
    assert caught.value.field == f"PayloadContent[0].{field}"


def test_a_payload_without_a_type_is_named_by_its_place() -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(1, "PayloadType", ABSENT))
    assert caught.value.field == "PayloadContent[1].PayloadType"


def test_a_wrong_challenge_is_not_quoted() -> None:
    with pytest.raises(MalformedPayload) as caught:
        decode(broken(0, "PayloadContent/Challenge", ["hush"], "scep-payload"))
    assert "hush" not in str(caught.value)
