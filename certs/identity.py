"""Who one end of a connection is: a private key, its certificate, and the issuers that others need to see.

Comes from a CA (`CertificateAuthority.issue_identity`), from our own PEM, or from somebody's PKCS#12; goes into TLS
(`certs.tls`), into CMS signatures and into snapshots.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from certs import der
from certs.errors import MalformedMessage
from certs.keys import PrivateKey, _not_on_the_loop, spki_der, to_der, to_pem
from certs.pkcs12_work import READABLE, check_work

PFX: Final = "a PKCS#12 file"
PFX_CONTENTS: Final = (
    "1.2.840.113549.1.7.1",
    "1.2.840.113549.1.7.2",
)  # under a password, or signed


@dataclass(frozen=True, slots=True)
class Identity:
    """A key, the certificate for it, and the certificates between that one and the root."""

    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()  # issuers, nearest first, usually without the root
    # Stores, signatures and connections ask for the encodings again and again: each is made once.
    _encodings: dict[str, bytes] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        if "der" not in self._encodings:
            self._encodings["der"] = self.certificate.public_bytes(serialization.Encoding.DER)
        return self._encodings["der"]

    @property
    def key_der(self) -> bytes:
        """The key as PKCS#8 DER, unencrypted."""
        if "key" not in self._encodings:
            self._encodings["key"] = to_der(self.key)
        return self._encodings["key"]

    @property
    def sha256(self) -> bytes:
        """The fingerprint by which stores know this certificate."""
        return self.certificate.fingerprint(hashes.SHA256())

    def to_pem(self) -> bytes:
        """Key, certificate, chain: the order that OpenSSL reads from one file."""
        if "pem" not in self._encodings:
            self._encodings["pem"] = to_pem(self.key) + self.certificates_pem()
        return self._encodings["pem"]

    def certificates_pem(self) -> bytes:
        """Certificate and chain without the key."""
        return b"".join(
            certificate.public_bytes(serialization.Encoding.PEM)
            for certificate in (self.certificate, *self.chain)
        )

    @classmethod
    def from_own_pem(cls, data: bytes) -> Self:
        """Read what `to_pem` wrote. The key is ours, so it is not validated again (34 ms for RSA)."""
        try:
            key = serialization.load_pem_private_key(
                data, None, unsafe_skip_rsa_key_validation=True
            )
            certificates = x509.load_pem_x509_certificates(data)
        except (ValueError, TypeError) as error:
            raise MalformedMessage(
                "identity PEM", "a key and its certificate", str(error)
            ) from error
        return cls(*_matching(key, certificates[0], "identity PEM"), tuple(certificates[1:]))

    @classmethod
    def from_pkcs12(cls, data: bytes, password: str | None) -> Self:
        """Read a foreign PKCS#12 with full validation; only off the event loop.

        Raises MalformedMessage: expected PFX for what is no such file at all, at most so many iterations for one that would take
        minutes to open, otherwise alike for a wrong password and for damage.
        """
        _not_on_the_loop("loading a PKCS#12")
        if not is_pkcs12(data):
            raise MalformedMessage("PKCS#12", PFX)
        if password is not None and "\0" in password:  # OpenSSL's binding panics, beyond Exception
            raise MalformedMessage("PKCS#12", READABLE)
        check_work(data)
        try:
            store = pkcs12.load_pkcs12(data, None if password is None else password.encode())
        except (ValueError, TypeError) as error:
            raise MalformedMessage("PKCS#12", READABLE) from error
        if store.key is None or store.cert is None:
            raise MalformedMessage("PKCS#12", "a private key and its certificate")
        key, certificate = _matching(store.key, store.cert.certificate, "PKCS#12")
        return cls(key, certificate, tuple(extra.certificate for extra in store.additional_certs))

    def to_pkcs12(self, password: str, name: str = "identity") -> bytes:
        """As PKCS#12 with PBES2/AES, encrypted under `password`."""
        return pkcs12.serialize_key_and_certificates(
            name.encode(),
            self.key,
            self.certificate,
            self.chain or None,
            serialization.BestAvailableEncryption(password.encode()),
        )


def is_pkcs12(data: bytes) -> bool:
    """Whether this is a PFX of version 3 with its content, whatever that is (RFC 7292, section 4)."""
    try:
        version, content = der.read(data, "PKCS#12").items(der.SEQUENCE, 2)[:2]
        return version.as_int() == 3 and content.items(der.SEQUENCE, 2)[0].as_oid() in PFX_CONTENTS
    except MalformedMessage:
        return False


def _matching(
    key: object, certificate: x509.Certificate, field: str
) -> tuple[PrivateKey, x509.Certificate]:
    """The pair, once it is known to be one."""
    if not isinstance(key, PrivateKey):
        raise MalformedMessage(field, "an RSA or EC key", type(key).__name__)
    if spki_der(key.public_key()) != certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ):
        raise MalformedMessage(field, "a certificate for this key")
    return key, certificate
