"""Certificates, requests, revocation lists and keys in words."""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import attestation, crl, csr, der, names, trust
from certs.algorithms import ECDSA_SIGNATURES, RSA_SIGNATURES, RSASSA_PSS
from certs.certificate_profile import SIMULATED_OID
from certs.cms import load_certificate
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.inspection.report import Report, blob, moment, secret

MIN_RSA_BITS: Final = 2048
MAX_ENTRIES: Final = 20
PERMANENT_IDENTIFIER: Final = "1.3.6.1.5.5.7.8.3"
APPLE: Final = {
    attestation.SERIAL_NUMBER: "attested serial number",
    attestation.UDID: "attested UDID",
    attestation.SOFTWARE_UPDATE_DEVICE_ID: "attested software update device id",
    attestation.OS_VERSION: "attested OS version",
    attestation.SEP_OS_VERSION: "attested sepOS version",
    attestation.LLB_VERSION: "attested LLB version",
    attestation.FRESHNESS: "attested freshness",
}


def certificate(report: Report, der_bytes: bytes, *, alone: bool = False) -> None:
    """One certificate, DER; `alone`: whether it leads to a given root is told, too. Raises MalformedMessage."""
    one = load_certificate(der_bytes)
    report.say("certificate", trust.name_of(one) or "(empty subject)")
    with report:
        _facts(report, one)
        if alone and report.context.roots:
            trusted(report, one, [other for other in report.beside if other != one])


def _facts(report: Report, one: x509.Certificate) -> None:
    said = trust.name_of(one) or "(empty subject)"
    report.say("issuer", _guarded(lambda: names.text(one.issuer)) or "(unreadable)")
    if _guarded(lambda: names.text(one.issuer)) == _guarded(lambda: names.text(one.subject)):
        report.say("self-signed")
    report.say("serial number", f"{one.serial_number:x}")
    try:
        report.say(
            "valid", f"{moment(one.not_valid_before_utc)} to {moment(one.not_valid_after_utc)}"
        )
        trust.check_dates(one, report.context.at)
    except UntrustedCertificate as error:
        report.wrong(str(error))
    except trust.UNREADABLE as error:
        report.wrong(f"certificate {said}: unreadable dates: {error}")
    public_key(report, _guarded(one.public_key), said)
    signature_algorithm(report, one.signature_algorithm_oid.dotted_string, said)
    report.say("SHA-256", one.fingerprint(hashes.SHA256()).hex())
    try:
        for extension in one.extensions:
            _extension(report, extension)
        _attested(report, one)
    except trust.UNREADABLE as error:
        report.wrong(f"certificate {said}: unreadable extensions: {error}")
    except MalformedMessage as error:
        report.wrong(str(error))


def chain(report: Report, certificates: list[x509.Certificate]) -> None:
    """Several certificates of one message, and whether the first leads to a root that was given."""
    for one in certificates:
        report.say("certificate", trust.name_of(one) or "(empty subject)")
        with report:
            _facts(report, one)
    if certificates and report.context.roots:
        trusted(report, certificates[0], certificates[1:])


def links(report: Report, certificates: list[x509.Certificate]) -> None:
    """Whether each certificate of a chain is signed by the next."""
    for one, issuer in pairwise(certificates):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, *trust.UNREADABLE):
            report.wrong(f"certificate {trust.name_of(one)}: not signed by the one after it")


def trusted(report: Report, leaf: x509.Certificate, others: list[x509.Certificate]) -> None:
    """Whether a certificate leads to one of the roots that were named."""
    try:
        path = trust.verify_chain(leaf, others, report.context.roots, at=report.context.at)
        report.say("trusted", f"leads to {trust.name_of(path[-1])}")
    except UntrustedCertificate as error:
        report.wrong(f"not trusted: {error}")


def public_key(report: Report, key: object, whose: str) -> None:
    """Which kind and size of key; sizes that current servers refuse are a problem."""
    match key:
        case rsa.RSAPublicKey():
            report.say("key", f"RSA, {key.key_size} bits")
            if key.key_size < MIN_RSA_BITS:
                report.wrong(f"{whose}: an RSA key of {key.key_size} bits is too small today")
        case ec.EllipticCurvePublicKey():
            report.say("key", f"EC, {key.curve.name}")
        case None:
            report.wrong(f"{whose}: a key that cannot be read")
        case _:
            report.say("key", type(key).__name__.removesuffix("PublicKey"))


def signature_algorithm(report: Report, dotted: str, whose: str) -> None:
    known = RSA_SIGNATURES.get(dotted) or ECDSA_SIGNATURES.get(dotted)
    kind = "RSA" if dotted in RSA_SIGNATURES else "ECDSA"
    text = f"{kind} with {known}" if known else dotted
    report.say("signature", "RSASSA-PSS" if dotted == RSASSA_PSS else text)
    if known == "sha1":
        report.wrong(f"{whose}: signed with SHA-1, which many programs refuse")


def _extension(report: Report, extension: x509.Extension[x509.ExtensionType]) -> None:
    critical = ", critical" if extension.critical else ""
    match extension.value:
        case x509.BasicConstraints() as value:
            limit = "" if value.path_length is None else f", path length {value.path_length}"
            report.say(f"{'CA' if value.ca else 'not a CA'}{limit}{critical}")
        case x509.KeyUsage() as value:
            report.say(f"key usage{critical}", ", ".join(_usages(value)) or "none")
        case x509.ExtendedKeyUsage() as value:
            report.say(f"extended key usage{critical}", ", ".join(_purpose(p) for p in value))
        case x509.SubjectAlternativeName() as value:
            report.say(f"alternative names{critical}", _general_names(list(value)))
        case x509.CRLDistributionPoints() as value:
            for point in value:
                report.say("revocation list", _general_names(list(point.full_name or ())))
        case x509.UnrecognizedExtension() as value if extension.oid in APPLE:
            raw = value.value
            text = blob(raw) if extension.oid == attestation.FRESHNESS else _ascii(raw)
            report.say(APPLE[extension.oid], text if raw else "blank")
        case x509.UnrecognizedExtension() if extension.oid == SIMULATED_OID:
            report.say("marked as simulated: of no authority but a test's")
        case x509.UnrecognizedExtension() as value:
            report.say(f"extension {extension.oid.dotted_string}{critical}", blob(value.value))


def _attested(report: Report, one: x509.Certificate) -> None:
    """What a leaf of device attestation lacks."""
    if not {extension.oid for extension in one.extensions} & set(APPLE):
        return
    found = attestation.parse(one)
    if found.freshness is None:
        report.say("no freshness: proves a device, not a moment")
    if found.serial_number is None and found.udid is None:
        report.say("names no device, as in User Enrollment")


def _usages(usage: x509.KeyUsage) -> list[str]:
    bits = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    ]
    return [bit.replace("_", " ") for bit in bits if getattr(usage, bit)]


def _purpose(oid: x509.ObjectIdentifier) -> str:
    name = oid._name
    return oid.dotted_string if name == "Unknown OID" else name


def _general_names(values: list[x509.GeneralName]) -> str:
    return ", ".join(_general_name(value) for value in values) or "none"


def _general_name(value: x509.GeneralName) -> str:
    match value:
        case x509.OtherName():
            dotted = value.type_id.dotted_string
            if dotted == PERMANENT_IDENTIFIER:
                return f"permanent identifier {_first_text(value.value)}"
            return f"other name {dotted} {_first_text(value.value)}"
        case x509.DirectoryName():
            return names.text(value.value)
        case _:
            return str(value.value)


def _first_text(data: bytes) -> str:
    try:
        node = der.read(data)
        if node.tag == der.SEQUENCE:
            node = node.items(der.SEQUENCE, 1)[0]
        return node.as_text()
    except MalformedMessage:
        return blob(data)


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return blob(data)


def request(report: Report, data: bytes) -> None:
    """One PKCS#10 request, DER. Raises MalformedMessage, InvalidSignature."""
    asked = csr.decode(data)
    report.say("certificate request", names.text(asked.subject) or "(empty subject)")
    with report:
        public_key(report, asked.public_key, "the request")
        algorithm = der.read(data).items(der.SEQUENCE, 3)[1].items(der.SEQUENCE, 1)[0]
        signature_algorithm(report, algorithm.as_oid(), "the request")
        report.say("signature is valid: the asker holds the key")
        _encoding_of(report, data)
        if asked.challenge_password is not None:
            report.say("challenge password", secret(asked.challenge_password))
        if asked.alternative_names:
            report.say("alternative names", _general_names(list(asked.alternative_names)))
        if asked.key_usage is not None:
            report.say("key usage", ", ".join(_usages(asked.key_usage)) or "none")
        if asked.extended_key_usage:
            purposes = ", ".join(_purpose(p) for p in asked.extended_key_usage)
            report.say("extended key usage", purposes)
        if not asked.subject.rdns and not asked.alternative_names:
            report.wrong("the request names nobody: neither subject nor alternative names")


def _encoding_of(report: Report, data: bytes) -> None:
    """What our reader lets pass and stricter ones do not (certificates.md 3.4)."""
    fields = der.read(data).children()[0].children()
    if version := fields[0].as_int():
        report.wrong(f"the request has version {version}: strict readers take 0 alone")
    attributes = [one.raw for one in fields[3].children()] if len(fields) > 3 else []
    if attributes != sorted(attributes):
        report.wrong("the attributes are not in the order of DER: strict readers refuse that")


def revocation_list(report: Report, data: bytes) -> None:
    """One CRL, DER. Raises MalformedMessage."""
    found = crl.read(data)
    report.say("revocation list of", names.text(found.issuer))
    with report:
        end = found.next_update_utc
        report.say("made", moment(found.last_update_utc) if found.last_update_utc else "no date")
        report.say("next", moment(end) if end else "not said")
        dotted = found.signature_algorithm_oid.dotted_string
        signature_algorithm(report, dotted, "the revocation list")
        report.say("revoked certificates", len(found))
        for entry, _ in zip(found, range(MAX_ENTRIES), strict=False):
            report.say(
                f"{entry.serial_number:x}",
                f"since {moment(entry.revocation_date_utc)}{_why(entry)}",
            )
        if len(found) > MAX_ENTRIES:
            report.say(f"and {len(found) - MAX_ENTRIES} more")
    if end is not None and end < report.context.at:
        report.wrong(f"the revocation list ended on {moment(end)}")
    issuers = [root for root in report.context.roots if root.subject == found.issuer]
    if issuers and not any(_signed_by(found, issuer) for issuer in issuers):
        report.wrong(f"the revocation list is not signed by the {names.text(found.issuer)} given")
    elif issuers:
        report.say("signature is valid")


def _why(entry: x509.RevokedCertificate) -> str:
    try:
        return f", {entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value}"
    except (x509.ExtensionNotFound, *trust.UNREADABLE):
        return ""


def _signed_by(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except trust.UNREADABLE:
        return False


def _guarded(read: Callable[[], object]) -> object:
    """A part of a certificate that may turn out unreadable; None then."""
    try:
        return read()
    except Exception:  # a bad point, a bad modulus, a bad name: half a dozen types
        return None
