"""The SCEP payload of a profile: what keeps a device from taking it, and what servers stumble over (certificates.md 1.8)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from certs import names
from certs.errors import MalformedMessage
from certs.inspection.report import Report
from certs.scep.ca_certificates import FINGERPRINTS

TYPES: Final[dict[str, type]] = {
    "URL": str,
    "Name": str,
    "Challenge": str,
    "Keysize": int,
    "Key Type": str,
    "Key Usage": int,
    "CAFingerprint": bytes,
    "Retries": int,
    "RetryDelay": int,
    "Subject": list,
    "SubjectAltName": dict,
    "KeyIsExtractable": bool,
    "AllowAllAppsAccess": bool,
    "GetCACaps": list,
}
WORDS: Final = {
    str: "a string",
    int: "an integer",
    bytes: "data",
    list: "an array",
    dict: "a dictionary",
    bool: "true or false",
}
SPELT: Final = {"KeyType": "Key Type", "KeyUsage": "Key Usage", "KeySize": "Keysize"}
SIZES: Final = (1024, 2048, 4096)
USAGES: Final = (0, 1, 4, 5)


def describe(report: Report, content: object) -> None:
    """The inner PayloadContent, whose entries are told already."""
    if not isinstance(content, dict):
        report.wrong("the SCEP payload has no PayloadContent dictionary")
        return
    for wrong, right in SPELT.items():
        if wrong in content:
            report.wrong(f"{wrong} of the SCEP payload is spelt {right}")
    known = {key: value for key, value in content.items() if _is_typed(report, key, value)}
    if "URL" in known or "URL" not in content:
        url = known.get("URL", "")
        if scheme(url) not in ("http", "https"):
            report.wrong("URL of the SCEP payload is neither http nor https")
    _numbers(report, known)
    if (kind := known.get("Key Type", "RSA")) != "RSA":
        report.wrong(f"SCEP Key Type is {kind}: devices know RSA alone")
    fingerprint = known.get("CAFingerprint")
    if fingerprint is not None and len(fingerprint) not in FINGERPRINTS:
        report.wrong(
            f"CAFingerprint has {len(fingerprint)} bytes: MD5, SHA-1 and SHA-256 have others"
        )
    naming(report, known)


def _is_typed(report: Report, key: str, value: object) -> bool:
    wanted = TYPES.get(key)
    if wanted is None or type(value) is wanted:
        return True
    report.wrong(f"{key} of the SCEP payload is not {WORDS[wanted]}")
    return False


def _numbers(report: Report, content: Mapping[str, Any]) -> None:
    size, usage = content.get("Keysize", 1024), content.get("Key Usage", 0)
    if size < 2048:
        report.wrong(f"SCEP Keysize is {size}: many servers refuse less than 2048")
    if size not in SIZES:
        report.wrong(f"SCEP Keysize is {size}: devices know 1024, 2048 and 4096")
    if usage not in USAGES:
        report.wrong(f"SCEP Key Usage is {usage}: 1 is signing, 4 encryption, 5 both")
    for key in ("Retries", "RetryDelay"):
        if content.get(key, 0) < 0:
            report.wrong(f"SCEP {key} is {content[key]}")


def naming(report: Report, content: Mapping[str, Any]) -> None:
    """Subject and SubjectAltName, alike in SCEP and ACME. iOS refuses a profile with wrong nesting."""
    alternative = content.get("SubjectAltName")
    try:
        if "Subject" in content:
            names.from_subject(content["Subject"])
        if isinstance(alternative, dict):
            names.alternative_names(alternative)
    except MalformedMessage as error:
        report.wrong(str(error))


def scheme(url: object) -> str:
    try:
        return urlsplit(str(url)).scheme
    except ValueError:
        return ""
