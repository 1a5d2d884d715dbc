"""`mdm-certs inspect` on configuration profiles, whole and with one thing wrong."""

import plistlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms
from tests.certs.inspection.told import CA, RA, has, tell


def profile(**changes: Any) -> dict[str, Any]:
    scep = {
        "PayloadType": "com.apple.security.scep",
        "PayloadIdentifier": "p.scep",
        "PayloadUUID": "SCEP",
        "PayloadVersion": 1,
        "PayloadContent": {"URL": "https://h/scep", "Challenge": "hush", "Keysize": 2048},
    }
    mdm = {
        "PayloadType": "com.apple.mdm",
        "PayloadIdentifier": "p.mdm",
        "PayloadUUID": "MDM",
        "PayloadVersion": 1,
        "IdentityCertificateUUID": "SCEP",
        "ServerURL": "https://h/mdm",
        "CheckInURL": "https://h/checkin",
        "Topic": "com.apple.mgmt.x",
        "AccessRights": 8191,
    }
    for key, value in changes.pop("mdm", {}).items():
        mdm[key] = value
    for key, value in changes.pop("scep", {}).items():
        scep[key] = value
    content = {
        "PayloadType": "Configuration",
        "PayloadIdentifier": "p",
        "PayloadUUID": "P",
        "PayloadVersion": 1,
        "PayloadDisplayName": "Enrollment",
        "PayloadContent": [scep, {k: v for k, v in mdm.items() if v is not None}],
    }
    return {k: v for k, v in {**content, **changes}.items() if v is not None}


@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_a_sound_profile_has_nothing_wrong(form: Any) -> None:
    report = tell(plistlib.dumps(profile(), fmt=form))
    assert report.problems == []
    has(report, "configuration profile: Enrollment", "Challenge: hidden, 4 characters")
    assert "hush" not in "".join(report.lines)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"PayloadUUID": None}, "the profile has no PayloadUUID"),
        ({"PayloadContent": {}}, "PayloadContent is not a list"),
        ({"PayloadContent": ["x"]}, "a payload is not a dictionary"),
        ({"mdm": {"Topic": "x"}}, "Topic x does not start with com.apple.mgmt."),
        ({"mdm": {"Topic": None}}, "payload com.apple.mdm has no Topic"),
        ({"mdm": {"ServerURL": "http://h"}}, "ServerURL is not https"),
        ({"mdm": {"IdentityCertificateUUID": "X"}}, "X names no payload of the profile"),
        ({"mdm": {"IdentityCertificateUUID": "MDM"}}, "MDM names a payload that is no identity"),
        ({"mdm": {"PayloadUUID": "SCEP"}}, "PayloadUUID SCEP stands in 2 payloads"),
        ({"scep": {"PayloadType": "com.apple.mdm"}}, "more than one com.apple.mdm payload"),
        ({"scep": {"PayloadContent": {"URL": "ftp://h"}}}, "neither http nor https"),
        ({"scep": {"PayloadContent": {}}}, "neither http nor https"),
        ({"scep": {"PayloadContent": 5}}, "the SCEP payload has no PayloadContent dictionary"),
    ],
)
def test_one_thing_wrong_with_a_profile_is_told(changes: dict[str, Any], problem: str) -> None:
    report = tell(plistlib.dumps(profile(**changes)))
    assert any(problem in said for said in report.problems), report.problems


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Keysize": 512}, "SCEP Keysize is 512: devices know 1024, 2048 and 4096"),
        ({"Keysize": 3072}, "SCEP Keysize is 3072: devices know"),
        ({"Keysize": "2048"}, "Keysize of the SCEP payload is not an integer"),
        ({"Keysize": True}, "Keysize of the SCEP payload is not an integer"),
        ({"KeyUsage": 5}, "KeyUsage of the SCEP payload is spelt Key Usage"),
        ({"Key Usage": 2}, "SCEP Key Usage is 2: 1 is signing"),
        ({"Key Type": "EC"}, "SCEP Key Type is EC"),
        ({"CAFingerprint": bytes(19)}, "CAFingerprint has 19 bytes"),
        ({"CAFingerprint": "abcd"}, "CAFingerprint of the SCEP payload is not data"),
        ({"Retries": -1}, "SCEP Retries is -1"),
        ({"RetryDelay": -5}, "SCEP RetryDelay is -5"),
        ({"Challenge": 5}, "Challenge of the SCEP payload is not a string"),
        ({"URL": 5}, "URL of the SCEP payload is not a string"),
        ({"URL": "h/scep"}, "neither http nor https"),
        ({"Subject": ["CN", "x"]}, "Subject[0]: expected an array of [type, value] pairs"),
        ({"Subject": [["CN", "x"]]}, "Subject[0]: expected pairs of two strings"),
        ({"Subject": [[["CM", "x"]]]}, "Subject[0]: expected a valid value for CM"),
        ({"Subject": [[["C", "USA"]]]}, "Subject[0]: expected a valid value for C"),
        ({"SubjectAltName": {"dNSName": 5}}, "SubjectAltName.dNSName"),
        ({"SubjectAltName": {"dNSName": "ü"}}, "SubjectAltName.dNSName: expected ASCII"),
    ],
)
def test_one_thing_wrong_with_a_scep_payload_is_told(changes: dict[str, Any], problem: str) -> None:
    inner = {"URL": "https://h/scep", "Challenge": "hush", "Keysize": 2048, **changes}
    report = tell(plistlib.dumps(profile(scep={"PayloadContent": inner})))
    assert any(problem in said for said in report.problems), report.problems


def test_every_key_of_a_scep_payload_is_known() -> None:
    inner = {
        "URL": "https://h/scep",
        "Name": "CA",
        "Challenge": "hush",
        "Keysize": 4096,
        "Key Type": "RSA",
        "Key Usage": 5,
        "CAFingerprint": bytes(20),
        "Retries": 0,
        "RetryDelay": 0,
        "Subject": [[["C", "US"], ["CN", "x"]], [["2.5.4.5", "SIM1"]]],
        "SubjectAltName": {"dNSName": ["a.example"], "ntPrincipalName": "a@example"},
        "KeyIsExtractable": False,
        "AllowAllAppsAccess": False,
        "GetCACaps": ["AES"],
    }
    assert tell(plistlib.dumps(profile(scep={"PayloadContent": inner}))).problems == []


def test_a_signed_profile_is_read_through_its_signature() -> None:
    report = tell(cms.sign(plistlib.dumps(profile()), RA), roots=[CA.certificate])
    has(
        report,
        "signature is valid, by: CN=RA",
        "trusted: leads to O=Simulated MDM,CN=Test CA",
        "com.apple.mdm",
    )
    assert report.problems == []


def test_a_certificate_payload_is_read_too() -> None:
    payload = {
        "PayloadType": "com.apple.security.root",
        "PayloadIdentifier": "r",
        "PayloadUUID": "R",
        "PayloadVersion": 1,
        "PayloadContent": CA.certificate.public_bytes(Encoding.DER),
    }
    has(
        tell(plistlib.dumps(profile(PayloadContent=[payload]))),
        "certificate: O=Simulated MDM,CN=Test CA",
    )


def acme(**changes: Any) -> dict[str, Any]:
    """A profile whose identity comes by ACME."""
    payload = {
        "PayloadType": "com.apple.security.acme",
        "PayloadIdentifier": "p.acme",
        "PayloadUUID": "ACME",
        "PayloadVersion": 1,
        "DirectoryURL": "https://h/acme/directory",
        "ClientIdentifier": "hush",
        "KeyType": "ECSECPrimeRandom",
        "KeySize": 384,
        "HardwareBound": True,
        "Attest": True,
        "Subject": [[["CN", "x"]]],
    }
    content = profile(mdm={"IdentityCertificateUUID": "ACME"})
    content["PayloadContent"][0] = {**payload, **changes}
    return content


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"KeyType": "RSA", "KeySize": 2048, "HardwareBound": False, "Attest": False},
        {"KeySize": 521, "HardwareBound": False, "Attest": False},
        {"KeySize": 256, "Attest": False},
    ],
)
def test_an_acme_payload_whose_values_go_together_has_nothing_wrong(
    changes: dict[str, Any],
) -> None:
    report = tell(plistlib.dumps(acme(**changes)))
    assert report.problems == []
    has(report, "payload: com.apple.security.acme", "ClientIdentifier: hidden, 4 characters")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"DirectoryURL": "http://h"}, "DirectoryURL of the ACME payload is not https"),
        ({"KeyType": "RSA"}, "HardwareBound needs KeyType ECSECPrimeRandom"),
        ({"KeyType": "RSA", "KeySize": 2047, "HardwareBound": False}, "KeySize 2047 of RSA"),
        ({"KeySize": 512}, "KeySize 512 of ECSECPrimeRandom is none of"),
        ({"KeySize": 521}, "HardwareBound with KeySize 521"),
        ({"KeyType": "Ed25519"}, "KeyType Ed25519 is neither"),
        ({"HardwareBound": False}, "Attest needs HardwareBound"),
        ({"ClientIdentifier": "a/b"}, "ClientIdentifier has a slash"),
        ({"Subject": [["CN", "x"]]}, "Subject[0]: expected pairs of two strings"),
    ],
)
def test_values_of_an_acme_payload_that_do_not_go_together_are_told(
    changes: dict[str, Any], problem: str
) -> None:
    problems = tell(plistlib.dumps(acme(**changes))).problems
    assert any(problem in said for said in problems), problems
