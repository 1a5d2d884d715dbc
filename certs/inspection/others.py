"""Attestation objects, PKCS#12 files, private keys and JSON in words."""

import json
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding

from certs import attestation, cms, der
from certs.acme.device_attest import AttestationObject
from certs.acme.jws import from_base64url
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.identity import Identity
from certs.inspection import x509_objects
from certs.inspection.report import Report, blob, secret
from certs.keys import load_checked

MAX_SHOWN: Final = 40
SECRETS: Final = frozenset(
    {"consumer_secret", "access_secret", "access_token", "auth_session_token", "token", "password"}
    | {"d", "p", "q", "dp", "dq", "qi", "k", "unlock_token", "push_magic", "UnlockToken"}
)


def attestation_object(report: Report, data: bytes) -> None:
    """A WebAuthn frame. Raises MalformedMessage."""
    found = AttestationObject.decode(data)
    report.say("attestation object", f"format {found.format}")
    with report:
        if found.format == "none":
            report.say("the device does not attest")
            return
        if found.format != "apple":
            report.wrong(f"format {found.format}: devices of Apple send apple")
        if not found.certificates:
            report.wrong("no certificates (x5c)")
            return
        report.say("certificates", f"{len(found.certificates)}, leaf first")
        chain = [cms.load_certificate(one) for one in found.certificates]
        for one in found.certificates:
            x509_objects.certificate(report, one)
        x509_objects.links(report, chain)
        said = attestation.parse(chain[0])
        if said.freshness is None:
            report.wrong("the leaf has no freshness: not made for an ACME challenge")
        elif len(said.freshness) != attestation.FRESHNESS_BYTES:
            size = len(said.freshness)
            report.wrong(f"freshness of {size} bytes: an ACME challenge wants the 32 of a SHA-256")
        if report.context.roots:
            try:
                attestation.verify(found.certificates, report.context.roots, at=report.context.at)
                report.say("trusted: the chain leads to a given root")
            except (UntrustedCertificate, MalformedMessage) as error:
                report.wrong(f"not trusted: {error}")


def pkcs12(report: Report, data: bytes) -> None:
    """A PFX; opened when its password is known. Raises MalformedMessage."""
    content = der.read(data, "PKCS#12").items(der.SEQUENCE, 2)
    report.say("PKCS#12 file")
    with report:
        report.say("protected by a MAC" if len(content) > 2 else "without a MAC")
        for password in dict.fromkeys((report.context.password, None)):
            try:
                identity = Identity.from_pkcs12(data, password)
            except MalformedMessage as error:
                if error.expected.startswith("a private key"):
                    report.wrong("holds no private key with its certificate")
                    return
                continue
            report.say("opened", "with the password" if password else "it has no password")
            _key(report, identity.key)
            x509_objects.chain(report, [identity.certificate, *identity.chain])
            return
        if report.context.password is None:
            report.say("closed: name its password with --password-file")
        else:
            report.wrong("the password is not the file's, or the file is damaged")


def private_key(report: Report, data: bytes) -> None:
    """A private key, PEM or DER. Raises MalformedMessage."""
    password = report.context.password
    refused = MalformedMessage("private key", "an RSA or EC key, PEM or DER")
    for candidate in dict.fromkeys((None, password.encode() if password else None)):
        try:
            key = load_checked(data, candidate)
        except MalformedMessage as error:
            refused = error
            continue
        except UnsupportedAlgorithm as error:
            raise MalformedMessage("private key", "a known algorithm", str(error)) from error
        report.say("private key", "unencrypted" if candidate is None else "encrypted")
        with report:
            _key(report, key)
        return
    if data.lstrip().startswith(b"-----") and b"ENCRYPTED" in data:
        report.say("private key, encrypted: name its password with --password-file")
        return
    raise refused


def _key(report: Report, key: Any) -> None:
    x509_objects.public_key(report, key.public_key(), "the private key")
    spki = key.public_key().public_bytes(
        Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    report.say("its public key", secret(spki).replace("hidden, ", ""))


def public_key(report: Report, data: bytes) -> None:
    """A SubjectPublicKeyInfo, PEM or DER. Raises MalformedMessage."""
    load = (
        serialization.load_pem_public_key
        if data.lstrip().startswith(b"-----")
        else serialization.load_der_public_key
    )
    try:
        key = load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedMessage("public key", "SubjectPublicKeyInfo", str(error)) from error
    report.say("public key")
    with report:
        x509_objects.public_key(report, key, "the public key")


def json_text(report: Report, data: bytes) -> None:
    """JSON: a JWS of ACME, a problem document, or whatever keys there are. Raises MalformedMessage."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("JSON", "a JSON text", str(error)) from error
    if not isinstance(content, dict):
        report.say("JSON", f"a {type(content).__name__}")
        return
    match content:
        case {"protected": str(header), "payload": str(payload), "signature": str()}:
            report.say("JSON Web Signature, a request of ACME")
            with report:
                _jws_part(report, "header", header)
                if payload:
                    _jws_part(report, "payload", payload)
                else:
                    report.say("payload", "empty: POST-as-GET")
        case {"type": str(kind)} if kind.startswith("urn:ietf:params:acme:error:"):
            report.say("problem document", kind)
            report.say("detail", content.get("detail", "none"))
        case {"attObj": str(value)}:
            report.say("response to a device-attest-01 challenge")
            with report:
                attestation_object(report, from_base64url(value, "attObj"))
        case {"consumer_key": str(), "access_token_expiry": str(end)}:
            report.say("server token of automated device enrollment")
            with report:
                _members(report, content)
            _server_token(report, content, end)
        case _:
            report.say("JSON object")
            with report:
                _members(report, content)


def _server_token(report: Report, content: dict[str, Any], end: str) -> None:
    for key in "consumer_secret", "access_token", "access_secret":
        if not isinstance(content.get(key), str):
            report.wrong(f"the server token has no {key}")
    try:
        if datetime.fromisoformat(end) <= report.context.at:
            report.wrong(f"the server token expired on {end}")
    except (ValueError, TypeError):  # the latter for a time without zone
        report.wrong("access_token_expiry is no time of RFC 3339")


def _jws_part(report: Report, name: str, text: str) -> None:
    try:
        content = json.loads(from_base64url(text, name))
    except (MalformedMessage, ValueError, RecursionError) as error:
        report.wrong(f"{name} of the JWS: {error}")
        return
    report.say(name)
    with report:
        if isinstance(content, dict):
            _members(report, content)


def _members(report: Report, content: dict[str, Any]) -> None:
    for number, (key, value) in enumerate(content.items()):
        if number == MAX_SHOWN:
            report.say(f"and {len(content) - MAX_SHOWN} more")
            return
        if key in SECRETS and isinstance(value, str):
            report.say(key, secret(value))
        elif isinstance(value, dict):
            report.say(key, f"an object of {len(value)}")
        elif isinstance(value, list):
            report.say(key, f"a list of {len(value)}")
        else:
            report.say(key, value)


def unknown(report: Report, data: bytes) -> None:
    """Nothing that this reader knows."""
    report.say("not recognised", blob(data))
    report.wrong("no file of a kind that is known here")
