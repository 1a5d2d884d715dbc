"""Reading and verifying SignedData (RFC 5652, section 5), over bytes as received.

With or without signed attributes, attached or detached, DER or BER. Who a signer is allowed to be is the caller's
business (`certs.trust`).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from certs import algorithms, certificate_parts, der
from certs.algorithms import DIGESTS, UnsupportedAlgorithm
from certs.certificate_parts import issuer_and_serial, public_key, subject_key_identifier
from certs.der import Node
from certs.errors import InvalidSignature, MalformedMessage

SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
SIGNING_TIME: Final = "1.2.840.113549.1.9.5"
SINGLE_VALUED: Final = (CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME)
SIGNED: Final = "SignedData"


class SignerInfo(msgspec.Struct, frozen=True, eq=False):
    """One signature and what it says about itself."""

    issuer_der: bytes | None  # None when the signer is named by key identifier
    serial_number: int | None
    subject_key_identifier: bytes | None
    digest: str  # "sha1" to "sha512"; an unknown algorithm's dotted OID
    attributes: Mapping[str, Node] | None  # first value by OID; None without signed attributes
    raw_attributes: bytes  # as they are signed: a SET OF; empty without
    signature_algorithm: Node
    signature: bytes

    @property
    def signing_time(self) -> datetime | None:
        """The moment the signer claims; None without a readable one."""
        node = (self.attributes or {}).get(SIGNING_TIME)
        return None if node is None else node.as_time()


class SignedData(msgspec.Struct, frozen=True, eq=False):
    """A decoded SignedData, nothing of it verified yet."""

    content: bytes | None  # None: detached, or degenerate
    content_type: str
    certificates: tuple[x509.Certificate, ...]
    signers: tuple[SignerInfo, ...]


def decode_signed(data: bytes) -> SignedData:
    """Read a ContentInfo with SignedData; raises only MalformedMessage."""
    content_type, *content = der.read(data, SIGNED).items(der.SEQUENCE, 2)
    if content_type.as_oid() != SIGNED_DATA:
        raise MalformedMessage(SIGNED, "content type signedData", content_type.as_oid())
    fields = content[0].items(0xA0, 1)[0].items(der.SEQUENCE, 4)
    encapsulated = fields[2].items(der.SEQUENCE, 1, "encapContentInfo")
    inner: bytes | None = None
    if len(encapsulated) > 1:
        inner = _inner_content(encapsulated[1].items(0xA0, 1, "eContent")[0])
    certificates: tuple[x509.Certificate, ...] = ()
    if fields[3].tag == 0xA0:
        certificates = tuple(
            load_certificate(node.raw)
            for node in fields[3].children()
            if node.tag == der.SEQUENCE  # other tags are attribute certificates
        )
    return SignedData(
        content=inner,
        content_type=encapsulated[0].as_oid(),
        certificates=certificates,
        signers=tuple(
            _signer(node) for node in fields[-1].expect(der.SET, field="signerInfos").children()
        ),
    )


def load_certificate(data: bytes, field: str = "certificate") -> x509.Certificate:
    """One DER certificate; raises MalformedMessage."""
    try:
        return certificate_parts.load(data)
    except (ValueError, TypeError, x509.InvalidVersion, CryptographyDeprecationWarning) as error:
        # The warning, an exception where warnings are errors, is for serial numbers that are not positive.
        raise MalformedMessage(field, "a DER certificate", str(error)) from error


def _inner_content(node: Node) -> bytes:
    """The eContent octets; PKCS#7 1.5 encoders put any element there, which is taken by its content."""
    if node.tag in (der.OCTET_STRING, der.OCTET_STRING | der.CONSTRUCTED):
        return node.octets()
    return node.content


def _signer(node: Node) -> SignerInfo:
    fields = node.items(der.SEQUENCE, 5, "SignerInfo")
    issuer, serial, key_identifier = _signer_identifier(fields[1])
    digest_oid = algorithms.oid_of(fields[2].expect(der.SEQUENCE, field="digestAlgorithm"))
    attributes: Mapping[str, Node] | None = None
    raw_attributes = b""
    if fields[3].tag == 0xA0:
        attributes = _attributes(fields[3])
        # The signature covers the DER SET OF, not the implicit [0] it travels as (RFC 5652, section 5.4).
        raw_attributes = der.tlv(der.SET, fields[3].content)
        del fields[3]
        if len(fields) < 5:
            raise MalformedMessage("SignerInfo", "a signature")
    return SignerInfo(
        issuer_der=issuer,
        serial_number=serial,
        subject_key_identifier=key_identifier,
        digest=DIGESTS.get(digest_oid, digest_oid),
        attributes=attributes,
        raw_attributes=raw_attributes,
        signature_algorithm=fields[3].expect(der.SEQUENCE, field="signatureAlgorithm"),
        signature=fields[4].expect(der.OCTET_STRING, 0x24, field="signature").octets(),
    )


def _signer_identifier(node: Node) -> tuple[bytes | None, int | None, bytes | None]:
    """(issuer, serial, None) or (None, None, key identifier)."""
    if node.tag in (0x80, 0xA0):
        return None, None, node.octets()
    issuer, serial = node.items(der.SEQUENCE, 2, "issuerAndSerialNumber")[:2]
    return issuer.raw, serial.as_int(), None


def _attributes(node: Node) -> Mapping[str, Node]:
    """The first value of each attribute. One that occurs twice could mean two things to two readers: refused."""
    values: dict[str, Node] = {}
    node.field = "signed attributes"
    for attribute in node.children():
        dotted, members = attribute.items(der.SEQUENCE, 2)[:2]
        name = dotted.as_oid()
        nodes = members.items(der.SET, 1, f"signed attribute {name}")
        if name in values:
            raise MalformedMessage(f"signed attribute {name}", "it once", "a second one")
        if len(nodes) > 1 and name in SINGLE_VALUED:
            raise MalformedMessage(f"signed attribute {name}", "one value", len(nodes))
        values[name] = nodes[0]
    return MappingProxyType(values)


def verify_signed(
    signed: SignedData,
    *,
    content: bytes | None = None,
    candidates: Iterable[x509.Certificate] = (),
) -> x509.Certificate:
    """Check the one signature and return its certificate (RFC 5652, section 5.4, 5.6).

    `content` is the body of a detached signature; `candidates` are certificates known beforehand, preferred over those
    in the message. Raises MalformedMessage or InvalidSignature. Dates and trust are not looked at.
    """
    if len(signed.signers) != 1:
        raise MalformedMessage("signerInfos", "exactly one signer", len(signed.signers))
    signer = signed.signers[0]
    body = signed.content if signed.content is not None else content
    if signed.content is not None and content is not None and signed.content != content:
        raise InvalidSignature("attached content")
    certificate = _certificate_of(signer, (*candidates, *signed.certificates))
    if signer.digest not in algorithms.HASHES:
        raise UnsupportedAlgorithm("digestAlgorithm", "SHA-1 or SHA-2", signer.digest)
    if signer.attributes is None:
        if body is None:
            raise MalformedMessage(SIGNED, "content")
        signed_bytes = body
    else:
        _check_attributes(signer, signed.content_type, body or b"")
        signed_bytes = signer.raw_attributes
    algorithms.verify(
        public_key(certificate),
        signer.signature_algorithm,
        signer.signature,
        signed_bytes,
        what=SIGNED,
        digest_name=signer.digest,
    )
    return certificate


def _certificate_of(
    signer: SignerInfo, certificates: Sequence[x509.Certificate]
) -> x509.Certificate:
    if signer.issuer_der is not None and signer.serial_number is not None:
        wanted = der.sequence(signer.issuer_der, der.integer(signer.serial_number))
        for certificate in certificates:
            if issuer_and_serial(certificate) == wanted:
                return certificate
    else:
        for certificate in certificates:
            if subject_key_identifier(certificate) == signer.subject_key_identifier:
                return certificate
    raise MalformedMessage(
        "certificates", "the signer's certificate", f"{len(certificates)} others"
    )


def _check_attributes(signer: SignerInfo, content_type: str, body: bytes) -> None:
    attributes = signer.attributes or {}
    for dotted, name in ((CONTENT_TYPE, "contentType"), (MESSAGE_DIGEST, "messageDigest")):
        if dotted not in attributes:
            raise MalformedMessage("signed attributes", name, "none")
    if attributes[CONTENT_TYPE].as_oid() != content_type:
        raise InvalidSignature("contentType attribute")
    digest = attributes[MESSAGE_DIGEST].expect(der.OCTET_STRING, field="messageDigest").content
    if digest != algorithms.digest(signer.digest, body):
        raise InvalidSignature("messageDigest attribute")


def decode_certs_only(data: bytes) -> list[x509.Certificate]:
    """The certificates of a degenerate (or any) SignedData; raises only MalformedMessage."""
    return list(decode_signed(data).certificates)
