"""The CA behind certificates with Apple's names, kept as harmless as a CA can be.

It may sign the mapped names alone (name constraints, critical), no address, nothing below itself; it lives 30 days, is renewed
before they end, and its key never leaves a 0600 file. Trust it per process (`SSL_CERT_FILE`), never system-wide.
"""

import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.attestation import ORGANIZATION
from certs.ca import SERVER_AUTH, CertificateAuthority
from certs.ca_certificate import ca_name
from certs.certificate_profile import (
    SIMULATED,
    host_name,
    key_usage,
    random_serial,
    signature_hash,
)
from certs.clock import Clock
from certs.errors import CertsError
from certs.identity import Identity
from certs.keys import PrivateKey, generate
from certs.whole_file import write_whole

DAYS: Final = 30
RENEW_BEFORE: Final = timedelta(days=2)
SKEW: Final = timedelta(hours=1)
KEY_FILE: Final = "proxy-ca.pem"  # key and certificate, 0600
PUBLIC_FILE: Final = "proxy-ca-certificate.pem"  # what a server under test trusts
NAME: Final = "Sim Proxy CA"


class ProxyAuthority:
    """Issues the one server identity that the stand-ins present under Apple's names."""

    def __init__(self, identity: Identity, names: Sequence[str], clock: Clock) -> None:
        self.certificate = identity.certificate
        self.names = tuple(names)
        self._authority = CertificateAuthority(identity, clock=clock)

    @classmethod
    def open(cls, folder: Path | None, names: Sequence[str], clock: Clock) -> Self:
        """The CA of `folder` while it is good for these names and young enough; else a new one."""
        if folder is None:
            return cls(_new(generate("p256"), names, clock), names, clock)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / KEY_FILE
        kept = _kept(path)
        if kept is None or not _serves(kept.certificate, names, clock):
            kept = _new(generate("p256"), names, clock)
            write_whole(path, kept.to_pem())
        path.chmod(0o600)
        write_whole(folder / PUBLIC_FILE, kept.certificate.public_bytes(Encoding.PEM), 0o644)
        return cls(kept, names, clock)

    def pem(self) -> str:
        """The certificate, for `SSL_CERT_FILE`."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def identity(self) -> Identity:
        """A fresh key and certificate for all the names."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, self.names[0]),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            ]
        )
        return self._authority.issue_identity(
            generate("p256"),
            subject,
            days=DAYS,
            extended_key_usage=(SERVER_AUTH,),
            alternative_names=[host_name(name) for name in self.names],
        )


def _new(key: PrivateKey, names: Sequence[str], clock: Clock) -> Identity:
    now = clock.now()
    subject = ca_name(NAME, ORGANIZATION)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(random_serial())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign"), critical=True)
        .add_extension(_constraints(names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(SIMULATED, critical=False)
    )
    return Identity(key, builder.sign(key, signature_hash(key)))


def _constraints(names: Sequence[str]) -> x509.NameConstraints:
    """These DNS names; and, as a kind of name that is not listed would be free, no address at all."""
    return x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(name) for name in names],
        excluded_subtrees=[
            x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
            x509.IPAddress(ipaddress.ip_network("::/0")),
        ],
    )


def _kept(path: Path) -> Identity | None:
    try:
        return Identity.from_own_pem(path.read_bytes())
    except (OSError, CertsError, ValueError):
        return None


def _serves(certificate: x509.Certificate, names: Sequence[str], clock: Clock) -> bool:
    now = clock.now()
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE:
        return False
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    return found == _constraints(names)
