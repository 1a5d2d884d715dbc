"""X.500 and alternative names as configuration profiles write them (certificates.md 1.8)."""

import re
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from certs import der
from certs.errors import MalformedMessage

SHORTCUTS: Final = {
    "C": NameOID.COUNTRY_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/@()-]*[A-Za-z0-9._:/@()-])?")
PRINTABLE: Final = frozenset(
    {
        NameOID.COUNTRY_NAME,
        NameOID.JURISDICTION_COUNTRY_NAME,
        NameOID.SERIAL_NUMBER,
        NameOID.DN_QUALIFIER,
    }
)
IA5: Final = frozenset({NameOID.EMAIL_ADDRESS, NameOID.DOMAIN_COMPONENT})
NT_PRINCIPAL_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
DIGITAL_SIGNATURE: Final = 0x01
KEY_ENCIPHERMENT: Final = 0x04


def from_subject(subject: object) -> x509.Name:
    """A profile's Subject: an array of RDNs, each an array of [type, value] pairs; type a shortcut or dotted OID.

    Wrong nesting is refused, as iOS refuses the profile. An empty array is the empty name.
    """
    if not isinstance(subject, list | tuple):
        raise MalformedMessage("Subject", "an array of RDNs", subject)
    return x509.Name([_rdn(rdn, index) for index, rdn in enumerate(subject)])


def _rdn(rdn: object, index: int) -> x509.RelativeDistinguishedName:
    field = f"Subject[{index}]"
    if not isinstance(rdn, list | tuple) or not rdn:
        raise MalformedMessage(field, "an array of [type, value] pairs", rdn)
    try:
        return x509.RelativeDistinguishedName([_pair(pair, field) for pair in rdn])
    except ValueError as error:  # the same pair twice
        raise MalformedMessage(field, "distinct attributes", str(error)) from error


def _pair(pair: object, field: str) -> x509.NameAttribute[str]:
    match pair:
        case [str(kind), str(value)]:
            pass
        case _:
            raise MalformedMessage(field, "pairs of two strings", pair)
    try:
        oid = SHORTCUTS.get(kind.upper()) or x509.ObjectIdentifier(kind)
        return attribute(oid, value)
    except ValueError as error:
        raise MalformedMessage(field, f"a valid value for {kind}", str(error)) from error


def attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    """With a string type that can hold the value. Raises ValueError for one that is too long or empty.

    cryptography picks the type by OID alone: C and serialNumber printable, e-mail IA5, the rest UTF-8. It writes what these
    cannot hold all the same, such as a literal %SerialNumber%, and no reader takes that.
    """
    holds = der.is_printable(value) if oid in PRINTABLE else value.isascii() or oid not in IA5
    return x509.NameAttribute(oid, value, None if holds else _ASN1Type.UTF8String)


def alternative_names(mapping: Mapping[str, object]) -> list[x509.GeneralName]:
    """A profile's SubjectAltName; each value a string or an array of strings. Unknown keys pass quietly."""
    names: list[x509.GeneralName] = []
    for key, value in mapping.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        for text in values:
            if not isinstance(text, str):
                raise MalformedMessage(f"SubjectAltName.{key}", "a string or strings", text)
            name = _general_name(key, text)
            if name is not None:
                names.append(name)
    return names


def _general_name(key: str, text: str) -> x509.GeneralName | None:
    try:
        match key:
            case "rfc822Name":
                return x509.RFC822Name(text)
            case "dNSName":
                return x509.DNSName(text)
            case "uniformResourceIdentifier":
                return x509.UniformResourceIdentifier(text)
            case "ntPrincipalName":
                return x509.OtherName(NT_PRINCIPAL_NAME, der.utf8(text))
    except ValueError as error:
        raise MalformedMessage(f"SubjectAltName.{key}", "ASCII text", str(error)) from error
    return None


def key_usage(bits: int) -> x509.KeyUsage | None:
    """A profile's `Key Usage`: 1 signing, 4 encryption, 5 both; None when it names neither."""
    if not bits & (DIGITAL_SIGNATURE | KEY_ENCIPHERMENT):
        return None
    return x509.KeyUsage(
        digital_signature=bool(bits & DIGITAL_SIGNATURE),
        content_commitment=False,
        key_encipherment=bool(bits & KEY_ENCIPHERMENT),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def common_name(name: x509.Name) -> str | None:
    """The last CN of a name; None without one."""
    for rdn in reversed(name.rdns):
        for attribute in reversed(list(rdn)):
            if attribute.oid == NameOID.COMMON_NAME:
                return str(attribute.value)
    return None


def text(name: x509.Name) -> str:
    """A name on one line, in the order it is encoded in, for logs and errors."""
    return ",".join([_rdn_text(rdn) for rdn in name.rdns])


def rfc4514(name: x509.Name) -> str:
    """A name as RFC 4514 writes it, its last RDN first."""
    return ",".join([_rdn_text(rdn) for rdn in reversed(name.rdns)])


def _rdn_text(rdn: x509.RelativeDistinguishedName) -> str:
    return "+".join([_attribute_text(attribute) for attribute in rdn])


def _attribute_text(attribute: x509.NameAttribute[str | bytes]) -> str:
    """Usual values need no escape, and cryptography asks eight times whether they do."""
    value = attribute.value
    if isinstance(value, str) and PLAIN_VALUE.fullmatch(value):
        return f"{attribute.rfc4514_attribute_name}={value}"
    return attribute.rfc4514_string()
