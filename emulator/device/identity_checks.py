"""What SCEP and ACME payloads may ask for, checked before any network (certificates.md 1.8 and 2.1)."""

from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from certs import names
from certs.errors import MalformedMessage
from emulator.device.error_chains import invalid_payload
from emulator.errors import ProfileRefused
from emulator.wire.fields import Fields
from emulator.wire.identity_payloads import Subject
from emulator.wire.profile import AcmePayload, ScepPayload

SCEP_SIZES: Final = (1024, 2048, 4096)
FINGERPRINT_SIZES: Final = (16, 20, 32)  # MD5, SHA-1, SHA-256
EC_SIZES: Final = (192, 256, 384, 521)
HARDWARE_SIZES: Final = (256, 384)


def check_scep(payload: ScepPayload) -> None:
    """Raises ProfileRefused: 4000 > 1000 > 2004 for a value that SCEP or the device does not know."""
    if payload.key_type != "RSA":
        raise _unsupported("Key Type", payload.key_type)
    if payload.keysize not in SCEP_SIZES:
        raise _unsupported("Keysize", payload.keysize)
    if _scheme(payload.url) not in ("http", "https"):
        raise _unsupported("URL", f"scheme “{_scheme(payload.url)}”")
    if payload.ca_fingerprint is not None and len(payload.ca_fingerprint) not in FINGERPRINT_SIZES:
        raise _unsupported("CAFingerprint", f"{len(payload.ca_fingerprint)} bytes")
    _check_names(payload.subject, payload.subject_alt_name)


def check_acme(payload: AcmePayload) -> None:
    """Raises ProfileRefused: 4000 > 1000 > 2004 for values that do not go together."""
    size = payload.key_size
    if _scheme(payload.directory_url) != "https":
        raise _unsupported("DirectoryURL", f"scheme “{_scheme(payload.directory_url)}”")
    if payload.key_type == "RSA":
        if size % 8 or not 1024 <= size <= 4096:
            raise _unsupported("KeySize", size)
        if payload.hardware_bound:
            raise _unsupported("HardwareBound", "true with RSA")
    elif payload.key_type == "ECSECPrimeRandom":
        if size not in EC_SIZES:
            raise _unsupported("KeySize", size)
        if payload.hardware_bound and size not in HARDWARE_SIZES:
            raise _unsupported("KeySize", f"{size} with HardwareBound")
    else:
        raise _unsupported("KeyType", payload.key_type)
    if payload.attest and not payload.hardware_bound:
        raise _unsupported("Attest", "true without HardwareBound")
    for purpose in payload.extended_key_usage:
        try:
            x509.ObjectIdentifier(purpose)
        except ValueError as error:
            raise _unsupported("ExtendedKeyUsage", purpose) from error
    _check_names(payload.subject, payload.subject_alt_name)


def _check_names(subject: Subject, alternative: Fields) -> None:
    try:
        names.from_subject(subject)
        names.alternative_names(alternative)
    except MalformedMessage as error:
        raise _unsupported(error.field, error.expected) from error


def _unsupported(key: str, value: object) -> ProfileRefused:
    return invalid_payload(2004, f"The field “{key}” has an unsupported value ({value}).")


def _scheme(url: str) -> str:
    try:
        parts = urlsplit(url)
        return parts.scheme if parts.hostname else ""
    except ValueError:
        return ""
