"""PKCS#10 certificate requests (RFC 2986) with a challengePassword, as devices write them and as peers bend them.

The reader is our own because cryptography refuses what real clients send: attributes that are not in DER order
(strongSwan), a version field other than 0 (Apple), SHA-1 signatures. The signature is checked over the bytes received.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import algorithms, der, names
from certs.errors import MalformedMessage
from certs.keys import PrivateKey, PublicKey, load_spki, spki_der

CHALLENGE_PASSWORD: Final = "1.2.840.113549.1.9.7"
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
EXTENSION_REQUESTS: Final = frozenset(
    {
        EXTENSION_REQUEST,
        "2.16.840.1.113733.1.9.8",  # VeriSign's, of the early SCEP drafts
        "1.3.6.1.4.1.311.2.1.14",  # Microsoft's
    }
)
MAX_CHALLENGE: Final = (
    4096  # characters; X.520 says 255, validators of cloud MDMs pass whole tokens
)
FIELD: Final = "certificate request"
_VERSION_0: Final = der.integer(0)
_NO_BITS: Final = der.bit_string(b"")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose signature proved possession of the key."""

    der: bytes = field(repr=False)
    information: bytes = field(
        repr=False
    )  # certificationRequestInfo: all that the signature covers
    subject: x509.Name
    subject_der: bytes = field(repr=False)  # as it stands in the request
    public_key: PublicKey
    spki: bytes = field(repr=False)  # the key as it stands there
    challenge_password: str | None = field(repr=False)  # a secret: kept out of logs
    alternative_names: tuple[x509.GeneralName, ...] = ()
    key_usage: x509.KeyUsage | None = None
    extended_key_usage: tuple[x509.ObjectIdentifier, ...] = ()

    @property
    def common_name(self) -> str | None:
        return names.common_name(self.subject)


def build(
    key: PrivateKey,
    subject: x509.Name,
    *,
    challenge: str | None = None,
    key_usage: x509.KeyUsage | None = None,
    alternative_names: Sequence[x509.GeneralName] = (),
    extended_key_usage: Sequence[x509.ObjectIdentifier] = (),
    digest: str = "sha256",
    version: int = 0,
    in_order: bool = True,
) -> bytes:
    """A DER request signed by `key`. Apple's client writes version 2, strongSwan attributes that are not in DER's order."""
    extensions: list[x509.Extension[x509.ExtensionType]] = []
    if key_usage is not None:
        extensions.append(_extension(key_usage, critical=True))
    if alternative_names:
        extensions.append(_extension(x509.SubjectAlternativeName(alternative_names), False))
    if extended_key_usage:
        extensions.append(_extension(x509.ExtendedKeyUsage(extended_key_usage), False))
    attributes = []
    if extensions:
        attributes.append(_attribute(EXTENSION_REQUEST, _encode_extensions(extensions)))
    if challenge is not None:
        text = der.printable if der.is_printable(challenge) else der.utf8
        attributes.append(_attribute(CHALLENGE_PASSWORD, text(challenge)))
    information = der.sequence(
        der.integer(version),
        subject.public_bytes(),
        spki_der(key.public_key()),
        der.context(0, *sorted(attributes, reverse=not in_order)),
    )
    return _signed(information, key, digest)


def signed_again(request: bytes, key: PrivateKey, digest: str) -> bytes:
    """The same request by the same key, with another digest."""
    information = der.read(request, FIELD).items(der.SEQUENCE, 3)[0]
    return _signed(information.raw, key, digest)


def _signed(information: bytes, key: PrivateKey, digest: str) -> bytes:
    return der.sequence(
        information,
        algorithms.signature_identifier(
            "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ec", digest
        ),
        der.bit_string(algorithms.sign(key, information, digest)),
    )


def _extension(value: x509.ExtensionType, critical: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _encode_extensions(extensions: Sequence[x509.Extension[x509.ExtensionType]]) -> bytes:
    return der.sequence(
        *(
            der.sequence(
                der.oid(extension.oid.dotted_string),
                der.boolean(True) if extension.critical else b"",
                der.octet_string(extension.value.public_bytes()),
            )
            for extension in extensions
        )
    )


def _attribute(dotted: str, value: bytes) -> bytes:
    return der.sequence(der.oid(dotted), der.tlv(der.SET, value))


def decode(data: bytes) -> CertificateRequest:
    """Read and check a request, DER or PEM. Raises MalformedMessage or InvalidSignature."""
    outer = der.read(_from_pem(data), FIELD)
    information, algorithm, signature = outer.items(der.SEQUENCE, 3)[:3]
    fields = information.items(der.SEQUENCE, 3)
    fields[0].as_int()  # the version: 0 by the standard, 2 from Apple's client
    challenge, extensions = _attributes(fields[3]) if len(fields) > 3 else (None, [])
    parsed = _parse(fields[1].raw, fields[2].raw, extensions, algorithm.raw)
    public_key = _public_key(fields[2].raw)
    algorithms.verify(
        public_key, algorithm, signature.bits(), information.raw, what="certificate request"
    )
    return CertificateRequest(
        outer.raw,
        information.raw,
        _subject(parsed),
        fields[1].raw,
        public_key,
        fields[2].raw,
        challenge,
        *_requested_extensions(parsed),
    )


def _from_pem(data: bytes) -> bytes:
    """The DER inside a PEM block; anything else unchanged."""
    text = data.lstrip()
    if not text.startswith(b"-----BEGIN"):
        return data
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith(b"-----END")), None)
    if end is None:
        raise MalformedMessage(FIELD, "the end of the PEM block")
    try:
        return base64.b64decode(b"".join(lines[1:end]), validate=False)
    except binascii.Error as error:
        raise MalformedMessage(FIELD, "base64 in the PEM block", str(error)) from error


def _attributes(node: der.Node) -> tuple[str | None, list[der.Node]]:
    """The challenge password and the requested extensions, from attributes in any order."""
    challenge: str | None = None
    extensions: list[der.Node] = []
    for attribute in node.expect(0xA0, field="attributes").children():
        dotted, values = attribute.items(der.SEQUENCE, 2)[:2]
        name = dotted.as_oid()
        if name == CHALLENGE_PASSWORD:
            if challenge is not None:
                raise MalformedMessage("challengePassword", "it once", "a second one")
            value = values.items(der.SET, 1, "challengePassword")[0]
            if len(value.content) > MAX_CHALLENGE:
                raise MalformedMessage(
                    "challengePassword", f"at most {MAX_CHALLENGE} bytes", len(value.content)
                )
            challenge = value.as_text()
        elif name in EXTENSION_REQUESTS:
            for value in values.items(der.SET, 1, "extensionRequest"):
                extensions += value.items(der.SEQUENCE, 0)
    return challenge, extensions


WANTED_EXTENSIONS: Final = frozenset({"2.5.29.15", "2.5.29.17", "2.5.29.37"})


def _parse(
    subject: bytes, spki: bytes, extensions: list[der.Node], algorithm: bytes
) -> x509.CertificateSigningRequest:
    """The request as cryptography likes it, so that it reads name, key and extensions for us.

    The copy has version 0, the extensions we care for, and no real signature.
    """
    wanted = [
        extension.raw
        for extension in extensions
        if extension.items(der.SEQUENCE, 2, "requested extension")[0].as_oid() in WANTED_EXTENSIONS
    ]
    request = _attribute(EXTENSION_REQUEST, der.sequence(*wanted)) if wanted else b""
    information = der.sequence(_VERSION_0, subject, spki, der.context(0, request))
    copy = der.sequence(information, algorithm, _NO_BITS)
    try:
        return x509.load_der_x509_csr(copy)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise MalformedMessage(FIELD, "a PKCS#10 request", str(error)) from error


def _public_key(spki: bytes) -> PublicKey:
    try:
        key = load_spki(spki)
    except Exception as error:  # a bad point, a bad modulus, an unknown algorithm
        raise MalformedMessage("public key", "an RSA or EC key", str(error)) from error
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return key
    raise MalformedMessage("public key", "an RSA or EC key", type(key).__name__)


def _subject(parsed: x509.CertificateSigningRequest) -> x509.Name:
    try:
        return parsed.subject
    except (ValueError, TypeError) as error:
        raise MalformedMessage("subject", "an X.500 name", str(error)) from error


def _requested_extensions(
    parsed: x509.CertificateSigningRequest,
) -> tuple[tuple[x509.GeneralName, ...], x509.KeyUsage | None, tuple[x509.ObjectIdentifier, ...]]:
    names_: tuple[x509.GeneralName, ...] = ()
    usage: x509.KeyUsage | None = None
    purposes: tuple[x509.ObjectIdentifier, ...] = ()
    try:
        for extension in parsed.extensions:
            match extension.value:
                case x509.SubjectAlternativeName() as value:
                    names_ = tuple(value)
                case x509.KeyUsage() as value:
                    usage = value
                case x509.ExtendedKeyUsage() as value:
                    purposes = tuple(value)
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise MalformedMessage("requested extensions", "readable extensions", str(e)) from e
    return names_, usage, purposes
