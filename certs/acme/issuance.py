"""From a finalize request to a certificate: which CSR may have one, and what a client downloads.

Follows RFC 8555, section 7.4. For a device, as the device-attest draft relaxes it: a CSR may leave the identifier out, but names
nobody else. For DNS names, the CSR names exactly those of the order.
"""

from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from certs import csr
from certs.acme.device_attest import permanent_identifier_name
from certs.acme.jws import Json, from_base64url
from certs.acme.problem import problem
from certs.acme.records import AuthorizationRecord, OrderRecord
from certs.csr import CertificateRequest
from certs.errors import InvalidSignature, MalformedMessage

MIN_RSA_BITS: Final = 2048
MAX_COMMON_NAME: Final = 64  # RFC 5280, appendix A.1
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")


def request_of(payload: Json) -> CertificateRequest:
    """The CSR of a finalize payload. Raises AcmeProblem badCSR, or MalformedMessage for a bad frame."""
    der = from_base64url(payload.get("csr"), "csr")
    try:
        return csr.decode(der)
    except (MalformedMessage, InvalidSignature) as error:
        raise problem("badCSR", str(error)) from error


def check(request: CertificateRequest, order: OrderRecord, *, checks_name: bool) -> None:
    """Raises AcmeProblem badCSR; the order stays ready, as another CSR may do better.

    `checks_name` is off where the host writes the subject of a device itself.
    """
    key = request.public_key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise problem("badCSR", f"an RSA key needs {MIN_RSA_BITS} bits, not {key.key_size}")
    elif key.curve.name not in CURVES:
        raise problem("badCSR", f"curve {key.curve.name} is not supported")
    if key == order.account.key:
        raise problem("badCSR", "the key is the account's own (RFC 8555, section 11.1)")
    usage = request.key_usage
    if usage is not None and (usage.key_cert_sign or usage.crl_sign):
        raise problem("badCSR", "a device's key may not sign certificates")
    if order.device is not None:
        _check_device(request, order.device, checks_name)
    else:
        _check_names(request, order)


def _check_device(
    request: CertificateRequest, device: AuthorizationRecord, checks_name: bool
) -> None:
    wanted = permanent_identifier_name(device.identifier.value)
    if any(name != wanted for name in request.alternative_names):
        raise problem("badCSR", "a subject alternative name is not the order's identifier")
    if not checks_name:
        return
    if not _named(request, NameOID.COMMON_NAME) <= set(device.names):
        raise problem("badCSR", "the common name is neither the identifier nor the device's")
    if not _named(request, NameOID.SERIAL_NUMBER) <= set(device.names):
        raise problem("badCSR", "the serial number in the subject is not the device's")


def _named(request: CertificateRequest, attribute: x509.ObjectIdentifier) -> set[str]:
    """All values: whoever reads the certificate may take the first, or the last."""
    values = request.subject.get_attributes_for_oid(attribute)
    return {str(one.value) for one in values} - {""}


def _check_names(request: CertificateRequest, order: OrderRecord) -> None:
    wanted = {identifier.value for identifier in order.identifiers}
    if not all(isinstance(name, x509.DNSName) for name in request.alternative_names):
        raise problem("badCSR", "a subject alternative name is no DNS name")
    asked = {str(name.value).lower() for name in request.alternative_names}
    common_name = request.common_name
    if asked | ({common_name.lower()} if common_name else set()) != wanted:
        raise problem("badCSR", "the names are not exactly those of the order")
    if len(common_name or "") > MAX_COMMON_NAME:
        raise problem("badCSR", f"a common name has at most {MAX_COMMON_NAME} characters")


def dns_subject(request: CertificateRequest) -> x509.Name:
    """Only the common name is taken over: nothing else in the request has been proved."""
    common_name = request.common_name
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name.lower())])


def dns_names(order: OrderRecord) -> list[x509.GeneralName]:
    return [x509.DNSName(identifier.value) for identifier in order.identifiers]


def named_in(certificate: x509.Certificate) -> list[str]:
    """The DNS names that a certificate is for, its common names among them; none where it has names of another kind, too."""
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return []
    assert isinstance(found.value, x509.SubjectAlternativeName)
    if not all(isinstance(name, x509.DNSName) for name in found.value):
        return []
    called = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [
        *found.value.get_values_for_type(x509.DNSName),
        *(str(one.value).lower() for one in called),
    ]


def pem_chain(certificates: Iterable[x509.Certificate]) -> bytes:
    """Leaf first, each ending in a line feed (RFC 8555, section 9.1)."""
    return b"".join(
        certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates
    )
