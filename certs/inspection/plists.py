"""Property lists in words: configuration profiles, check-in messages, commands and their results, MachineInfo.

plistlib reads them behind one careful function. Whether a device would take a profile is not judged in full: only what
keeps it from being read, and what stops an enrollment most often.
"""

import plistlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from certs.errors import MalformedMessage
from certs.inspection import scep_payload
from certs.inspection.report import Inside, Report, blob, secret
from certs.inspection.scep_payload import scheme

MAX_PLIST_BYTES: Final = 4 * 1024 * 1024
MAX_SHOWN: Final = 40  # entries of one dictionary
SECRETS: Final = frozenset(
    {"Challenge", "Password", "Token", "PushMagic", "UnlockToken", "ClientIdentifier", "HMACKey"}
    | {"PIN", "BootstrapToken", "access_secret", "consumer_secret", "Passcode", "UserPassword"}
)
EC_SIZES: Final = (192, 256, 384, 521)
NEEDED: Final = {  # by payload type: what a device refuses the profile without
    "com.apple.mdm": ("IdentityCertificateUUID", "ServerURL", "Topic", "AccessRights"),
    "com.apple.security.acme": (
        "DirectoryURL",
        "ClientIdentifier",
        "KeyType",
        "KeySize",
        "HardwareBound",
        "Subject",
    ),
}
IDENTITIES: Final = (
    "com.apple.security.scep",
    "com.apple.security.acme",
    "com.apple.security.pkcs12",
)
CERTIFICATES: Final = (
    "com.apple.security.root",
    "com.apple.security.pem",
    "com.apple.security.pkcs1",
)
START: Final = (b"<?xml", b"<!DOCTYPE plist", b"<plist", b"bplist00")


def looks_like(data: bytes) -> bool:
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].startswith(START)


def load(data: bytes) -> Any:
    """The value of a property list. Raises MalformedMessage, whatever plistlib raises on damaged input."""
    if len(data) > MAX_PLIST_BYTES:
        raise MalformedMessage("property list", f"at most {MAX_PLIST_BYTES} bytes", len(data))
    try:
        return plistlib.loads(data.lstrip(b" \t\r\n"))
    except Exception as error:  # expat's, struct's, ValueError, OverflowError, RecursionError, …
        raise MalformedMessage("property list", "XML or binary", str(error)) from error


def describe(report: Report, data: bytes, inside: Inside) -> None:
    """Any property list. Raises MalformedMessage."""
    content = load(data)
    if not isinstance(content, dict):
        report.say("property list", f"a {type(content).__name__}, where devices send dictionaries")
        return
    if content.get("PayloadType") == "Configuration" or "PayloadContent" in content:
        profile(report, content, inside)
        return
    report.say(_kind(content))
    with report:
        _entries(report, content)
        match content:
            case {"Command": {"RequestType": "InstallProfile", "Payload": bytes(payload)}}:
                inside(report, payload, "profile of the command")


def _kind(content: Mapping[str, Any]) -> str:
    match content:
        case {"MessageType": str(name)}:
            return f"check-in message {name}"
        case {"Command": {"RequestType": str(name)}}:
            return f"command {name}"
        case {"Status": str(status), "CommandUUID": str()}:
            return f"result of a command: {status}"
        case {"Status": str(status)}:
            return f"message on the command channel: {status}"
        case {"PRODUCT": str(), "VERSION": str()}:
            return "MachineInfo, what a device says of itself when it asks for its profile"
        case {"ActivationRecord": _} | {"ActivationInfoXML": _}:
            return "activation message"
    return "property list"


def _entries(report: Report, content: Mapping[Any, Any]) -> None:
    for number, (key, value) in enumerate(content.items()):
        if number == MAX_SHOWN:
            report.say(f"and {len(content) - MAX_SHOWN} more")
            return
        report.say(str(key), _short(str(key), value))


def _short(key: str, value: Any) -> str:
    if key in SECRETS and isinstance(value, str | bytes):
        return secret(value)
    match value:
        case bytes():
            return blob(value)
        case dict():
            return f"a dictionary of {len(value)}: {', '.join(map(str, list(value)[:8]))}"
        case list():
            return f"a list of {len(value)}"
        case _:
            return str(value)


# Configuration profiles


def profile(report: Report, content: Mapping[str, Any], inside: Inside) -> None:
    """A configuration profile, payload by payload."""
    report.say("configuration profile", content.get("PayloadDisplayName") or "without a name")
    with report:
        for key in ("PayloadIdentifier", "PayloadUUID", "PayloadOrganization"):
            if key in content:
                report.say(key, _short(key, content[key]))
        for key in ("PayloadIdentifier", "PayloadUUID", "PayloadVersion", "PayloadType"):
            if key not in content:
                report.wrong(f"the profile has no {key}")
        if content.get("PayloadRemovalDisallowed") is True:
            report.say("may not be removed, where the device is supervised")
        if content.get("IsEncrypted") is True or "EncryptedPayloadContent" in content:
            encrypted = content.get("EncryptedPayloadContent")
            size = len(encrypted) if isinstance(encrypted, bytes) else 0
            report.say("payloads", f"encrypted, {size} bytes")
            return
        payloads = content.get("PayloadContent")
        if not isinstance(payloads, list):
            report.wrong("PayloadContent is not a list")
            return
        known = [payload for payload in payloads if isinstance(payload, dict)]
        if len(known) < len(payloads):
            report.wrong("a payload is not a dictionary")
        for payload in known:
            _payload(report, payload, inside)
        _together(report, known)


def _payload(report: Report, payload: Mapping[str, Any], inside: Inside) -> None:
    kind = str(payload.get("PayloadType"))
    report.say("payload", kind)
    with report:
        own = {k: v for k, v in payload.items() if not k.startswith("Payload")}
        content = payload.get("PayloadContent")
        if isinstance(content, bytes) and kind in CERTIFICATES:
            inside(report, content, f"content of {kind}")
        elif isinstance(content, bytes):
            report.say("content", blob(content))
        elif isinstance(content, dict):
            own |= content
        _entries(report, own)
    for key in ("PayloadIdentifier", "PayloadUUID", "PayloadType", "PayloadVersion"):
        if key not in payload:
            report.wrong(f"payload {kind} has no {key}")
    for key in NEEDED.get(kind, ()):
        if key not in payload:
            report.wrong(f"payload {kind} has no {key}")
    if kind == "com.apple.security.scep":
        scep_payload.describe(report, content)
    if kind == "com.apple.mdm":
        _mdm(report, payload)
    if kind == "com.apple.security.acme":
        _acme(report, payload)


def _acme(report: Report, payload: Mapping[str, Any]) -> None:
    """What Apple's schema lets go together (certificates.md 2.1)."""
    if scheme(payload.get("DirectoryURL")) != "https":
        report.wrong("DirectoryURL of the ACME payload is not https")
    kind, size = payload.get("KeyType"), payload.get("KeySize")
    bound = payload.get("HardwareBound") is True
    match kind:
        case "RSA" if bound:
            report.wrong("HardwareBound needs KeyType ECSECPrimeRandom")
        case "RSA" if not isinstance(size, int) or size % 8 or not 1024 <= size <= 4096:
            report.wrong(f"KeySize {size} of RSA: a multiple of 8 from 1024 to 4096 is needed")
        case "ECSECPrimeRandom" if size not in EC_SIZES:
            report.wrong(f"KeySize {size} of ECSECPrimeRandom is none of 192, 256, 384, 521")
        case "ECSECPrimeRandom" if bound and size not in (256, 384):
            report.wrong(f"HardwareBound with KeySize {size}: only 256 and 384 can be")
        case "RSA" | "ECSECPrimeRandom":
            pass
        case _:
            report.wrong(f"KeyType {kind} is neither RSA nor ECSECPrimeRandom")
    if payload.get("Attest") is True and not bound:
        report.wrong("Attest needs HardwareBound")
    scep_payload.naming(report, payload)
    if "/" in str(payload.get("ClientIdentifier", "")):
        report.wrong("ClientIdentifier has a slash, which current ACME servers refuse or misread")


def _mdm(report: Report, payload: Mapping[str, Any]) -> None:
    topic = payload.get("Topic")
    if isinstance(topic, str) and not topic.startswith("com.apple.mgmt."):
        report.wrong(f"Topic {topic} does not start with com.apple.mgmt.")
    for key in ("ServerURL", "CheckInURL"):
        if key in payload and scheme(payload[key]) != "https":
            report.wrong(f"{key} is not https")


def _together(report: Report, payloads: list[dict[str, Any]]) -> None:
    """What holds between payloads."""
    for key in ("PayloadUUID", "PayloadIdentifier"):
        values = Counter(str(payload[key]) for payload in payloads if key in payload)
        for value, times in values.items():
            if times > 1:
                report.wrong(f"{key} {value} stands in {times} payloads")
    management = [p for p in payloads if p.get("PayloadType") == "com.apple.mdm"]
    if len(management) > 1:
        report.wrong("more than one com.apple.mdm payload")
    for payload in management:
        wanted = payload.get("IdentityCertificateUUID")
        named = [p for p in payloads if p.get("PayloadUUID") == wanted]
        if wanted is not None and not named:
            report.wrong(f"IdentityCertificateUUID {wanted} names no payload of the profile")
        elif named and named[0].get("PayloadType") not in IDENTITIES:
            report.wrong(f"IdentityCertificateUUID {wanted} names a payload that is no identity")
