"""The simulated PKI: every trust anchor that stands in for one of Apple's (apple-services.md, section 9).

Kept in a folder (keys 0600) or in memory. Servers under test and devices get the public halves, by `export` or `anchors`;
the keys never leave this process. All certificates have O=`Sim Apple Inc.` and the SIMULATED extension.
"""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.attestation import ORGANIZATION, AttestationAuthority
from certs.ca import SERVER_AUTH, CertificateAuthority
from certs.certificate_profile import Extensions, host_name, key_usage
from certs.clock import Clock
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.identity import Identity
from certs.keys import KeySpec, PublicKey, generate, load_own, spki_der, to_der
from certs.trust import verify_chain
from certs.whole_file import write_once
from emulator.wire.factory import Anchors

ROOT_DAYS: Final = 9131  # 25 years
INTERMEDIATE_DAYS: Final = 7305
FACTORY_DAYS: Final = 3652
TLS_DAYS: Final = 398
PUSH_DAYS: Final = 365
DEVICE_CERTIFICATE_DAYS: Final = 1096  # 3 years, apple-services.md 2.5

# What a DeviceCertificate carries beyond the usual, after apple-services.md 2.5: value NULL, meaning not published.
DEVICE_MARK: Final = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("1.2.840.113635.100.6.10.2"), b"\x05\x00"
)
BOTH_USES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimPKI:
    """All keys of Apple's side. `open` makes RSA keys on first use, so it runs off the event loop."""

    root_ca: CertificateAuthority
    device_ca: CertificateAuthority  # factory certificates and DeviceCertificates
    activation_signer: Identity  # TC with key TK: signs account tokens
    activation_service_key: ec.EllipticCurvePrivateKey  # SK: signs handshake replies
    attestation: AttestationAuthority
    tls_ca: CertificateAuthority
    push_ca: CertificateAuthority  # push certificates of MDM servers

    @classmethod
    def open(cls, folder: Path | None, clock: Clock) -> Self:
        """The PKI of `folder`, made there on first use; None: a new one that lives in memory.

        Raises MalformedMessage or UntrustedCertificate for a folder that holds something else or parts of two PKIs.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        root = _authority(folder, "root", "Sim Apple Root CA", "rsa2048", clock, days=ROOT_DAYS)
        return cls(
            root_ca=root,
            device_ca=_authority(
                folder, "device-ca", "Sim iPhone Device CA", "rsa2048", clock, parent=root
            ),
            activation_signer=_activation_signer(folder, root),
            activation_service_key=_activation_service_key(folder),
            attestation=(
                AttestationAuthority.create(clock)
                if folder is None
                else AttestationAuthority.open(folder / "attestation", clock)
            ),
            tls_ca=_authority(folder, "tls-ca", "Sim TLS CA", "p256", clock, days=ROOT_DAYS),
            push_ca=_authority(folder, "push-ca", "Sim APNs CA", "p256", clock, days=ROOT_DAYS),
        )

    @property
    def root(self) -> x509.Certificate:
        """What a server under test trusts in place of Apple Root CA."""
        return self.root_ca.certificate

    def anchors(self) -> Anchors:
        """The public halves that a device has pinned from the factory on."""
        return Anchors(
            sim_apple_root=self.root,
            attestation_root=self.attestation.root,
            activation_service_key=spki_der(self.activation_service_key.public_key()),
            tls_root=self.tls_ca.certificate,
        )

    def pems(self) -> dict[str, str]:
        """Every anchor as PEM, by the file name that `export` gives it."""
        service_key = self.activation_service_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "sim-apple-root-ca.pem": _pem(self.root),
            "sim-iphone-device-ca.pem": _pem(self.device_ca.certificate),
            "sim-attestation-root-ca.pem": _pem(self.attestation.root),
            "sim-attestation-sub-ca.pem": _pem(self.attestation.sub_ca),
            "sim-tls-ca.pem": _pem(self.tls_ca.certificate),
            "sim-apns-ca.pem": _pem(self.push_ca.certificate),
            "sim-activation-service-key.pem": service_key.decode(),
        }

    def export(self, folder: Path) -> list[Path]:
        """Write each anchor as a PEM file into `folder`, for servers under test; no private key is among them."""
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, pem in self.pems().items():
            path = folder / name
            temporary = path.with_name(f".{name}.{os.getpid()}")
            temporary.write_text(pem)
            temporary.replace(path)
            written.append(path)
        return written

    def issue_factory_certificate(self, public_key: PublicKey, udid: str) -> x509.Certificate:
        """FC: who a device is before any activation."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, udid),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "iPhone"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            ]
        )
        return self.device_ca.issue(public_key, subject, days=FACTORY_DAYS)

    def issue_device_certificate(
        self, public_key: PublicKey, subject: x509.Name | None = None
    ) -> x509.Certificate:
        """The DeviceCertificate of one activation; without a CSR's subject one is made with a fresh UUID."""
        return self.device_ca.issue(
            public_key,
            subject or device_certificate_subject(),
            days=DEVICE_CERTIFICATE_DAYS,
            key_usage=key_usage("digital_signature", "key_encipherment"),
            extensions=((BOTH_USES, True), (DEVICE_MARK, False)),
        )

    def issue_push_certificate(
        self,
        public_key: PublicKey,
        topic: str,
        *,
        days: float = PUSH_DAYS,
        extensions: Extensions = (),
    ) -> x509.Certificate:
        """An MDM push certificate: its UID is the topic (apple-services.md 6.1)."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.USER_ID, topic),
                x509.NameAttribute(NameOID.COMMON_NAME, f"APSP:{uuid.uuid4()}"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            ]
        )
        return self.push_ca.issue(public_key, subject, days=days, extensions=extensions)

    def issue_tls_identity(self, hosts: list[str]) -> Identity:
        """A TLS server identity of the stand-ins for these names and addresses."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64]),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            ]
        )
        return self.tls_ca.issue_identity(
            generate("p256"),
            subject,
            days=TLS_DAYS,
            extended_key_usage=(SERVER_AUTH,),
            alternative_names=[host_name(host) for host in hosts],
        )


def device_certificate_subject() -> x509.Name:
    """Subject of a DeviceCertificate, in the order of apple-services.md 2.5, with a fresh UUID as its name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, str(uuid.uuid4()).upper()),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Cupertino"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "iPhone"),
        ]
    )


def _authority(
    folder: Path | None,
    place: str,
    common_name: str,
    spec: KeySpec,
    clock: Clock,
    *,
    parent: CertificateAuthority | None = None,
    days: float = INTERMEDIATE_DAYS,
) -> CertificateAuthority:
    if folder is None:
        return CertificateAuthority.create(
            common_name,
            key=generate(spec),
            clock=clock,
            parent=parent,
            organization=ORGANIZATION,
            lifetime_days=days,
            simulated=True,
        )
    return CertificateAuthority.open(
        folder / place,
        common_name,
        clock=clock,
        spec=spec,
        parent=parent,
        organization=ORGANIZATION,
        lifetime_days=days,
        simulated=True,
    )


def _activation_signer(folder: Path | None, root: CertificateAuthority) -> Identity:
    """TC and TK, below the root; not a CA."""
    path = None if folder is None else folder / "activation-signer.pem"
    if path is not None and path.exists():
        return _below(Identity.from_own_pem(path.read_bytes()), root, path)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "Sim iPhone Activation"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Sim iPhone"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )
    identity = root.issue_identity(
        generate("rsa2048"),
        subject,
        days=INTERMEDIATE_DAYS,
        key_usage=key_usage("digital_signature"),
        extended_key_usage=(),
    )
    if path is None:
        return identity
    return _below(Identity.from_own_pem(write_once(path, identity.to_pem())), root, path)


def _below(identity: Identity, root: CertificateAuthority, path: Path) -> Identity:
    """The identity, once it is known to come from this root. Raises UntrustedCertificate."""
    try:
        verify_chain(identity.certificate, (), (root.certificate,), at=None)
    except UntrustedCertificate as error:
        raise UntrustedCertificate(str(path), error.reason) from error
    return identity


def _activation_service_key(folder: Path | None) -> ec.EllipticCurvePrivateKey:
    """SK, a bare key."""
    key = generate("p256")
    if folder is not None:
        path = folder / "activation-service-key.der"
        stored = path.read_bytes() if path.exists() else write_once(path, to_der(key))
        try:
            key = load_own(stored)
        except ValueError as error:
            raise MalformedMessage(str(path), "a PKCS#8 key in DER", str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise MalformedMessage("activation service key", "a P-256 key", type(key).__name__)
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
