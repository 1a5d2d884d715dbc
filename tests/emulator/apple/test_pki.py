"""The simulated PKI: marked everywhere, kept in its folder, exported without a private key."""

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certs.certificate_profile import SIMULATED_OID
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.keys import KeyWorkOnEventLoop, spki_der, to_der
from certs.trust import verify_chain
from emulator.apple.pki import SimPKI, device_certificate_subject
from tests.emulator.apple.support import ec_key, pki
from tests.support import openssl, rsa_key


def test_keys_are_those_of_the_table() -> None:
    own = pki()
    for certificate in (own.root, own.device_ca.certificate, own.activation_signer.certificate):
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 2048
    for certificate in (own.attestation.root, own.attestation.sub_ca):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp384r1"
    assert own.activation_service_key.curve.name == "secp256r1"


def test_intermediates_lead_to_their_roots() -> None:
    own = pki()
    now = SimulatedClock().now()
    for certificate in (own.device_ca.certificate, own.activation_signer.certificate):
        verify_chain(certificate, (), [own.root], at=now)
    verify_chain(own.attestation.sub_ca, (), [own.attestation.root], at=now)
    constraints = own.activation_signer.certificate.extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert constraints.value.ca is False


def test_every_certificate_says_that_it_is_simulated() -> None:
    own = pki()
    key = rsa_key(1).public_key()
    for certificate in (
        own.root,
        own.device_ca.certificate,
        own.activation_signer.certificate,
        own.attestation.root,
        own.attestation.sub_ca,
        own.tls_ca.certificate,
        own.issue_factory_certificate(key, "00008110-0000000000000001"),
        own.issue_device_certificate(key),
        own.issue_tls_identity(["localhost"]).certificate,
        own.attestation.issue_device_identity(
            ec_key(1).public_key(), serial_number="SIM0000001", udid="U"
        ),
    ):
        mark = certificate.extensions.get_extension_for_oid(SIMULATED_OID)
        assert (mark.critical, mark.value.public_bytes()) == (False, b"\x0c\x09SIMULATED")
        organization = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert [name.value for name in organization] == ["Sim Apple Inc."]


def test_a_factory_certificate_names_the_device() -> None:
    certificate = pki().issue_factory_certificate(rsa_key(1).public_key(), "UDID-1")
    names = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert names[NameOID.COMMON_NAME] == "UDID-1"
    assert names[NameOID.ORGANIZATIONAL_UNIT_NAME] == "iPhone"
    verify_chain(certificate, [pki().device_ca.certificate], [pki().root], at=None)


def test_a_device_certificate_gets_a_fresh_uuid_when_no_csr_names_one() -> None:
    first, second = device_certificate_subject(), device_certificate_subject()
    assert first != second


def test_a_folder_opened_twice_gives_the_same_pki(tmp_path: Path) -> None:
    folder = tmp_path / "apple"
    first = SimPKI.open(folder, SimulatedClock())
    second = SimPKI.open(folder, SimulatedClock())
    assert first.pems() == second.pems()
    assert first.activation_signer.certificate == second.activation_signer.certificate
    assert to_der(first.activation_signer.key) == to_der(second.activation_signer.key)
    assert to_der(first.activation_service_key) == to_der(second.activation_service_key)
    # A device made by the first run is the second run's, too.
    leaf = first.issue_factory_certificate(rsa_key(1).public_key(), "UDID-1")
    verify_chain(leaf, [second.device_ca.certificate], [second.root], at=None)


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    SimPKI.open(tmp_path / "apple", SimulatedClock())
    secret = [path for path in (tmp_path / "apple").rglob("*") if b"PRIVATE" in _read(path)]
    secret.append(tmp_path / "apple" / "activation-service-key.der")
    assert len(secret) == 8
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_a_start_that_was_killed_half_way_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "apple"
    first = SimPKI.open(folder, SimulatedClock())
    (folder / "activation-signer.pem").unlink()
    (folder / "device-ca" / "certificate.pem").unlink()
    second = SimPKI.open(folder, SimulatedClock())
    assert second.root == first.root
    for certificate in (second.device_ca.certificate, second.activation_signer.certificate):
        verify_chain(certificate, (), [second.root], at=None)
    assert spki_der(second.device_ca.identity.key.public_key()) == spki_der(
        first.device_ca.identity.key.public_key()
    )


def test_parts_of_two_pkis_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    SimPKI.open(one, SimulatedClock())
    SimPKI.open(two, SimulatedClock())
    (two / "activation-signer.pem").replace(one / "activation-signer.pem")
    with pytest.raises(UntrustedCertificate, match="activation-signer.pem"):
        SimPKI.open(one, SimulatedClock())


@pytest.mark.parametrize("content", [b"", b"garbage", to_der(ec_key(1))[:-1]])
def test_a_damaged_service_key_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "apple"
    SimPKI.open(folder, SimulatedClock())
    (folder / "activation-service-key.der").write_bytes(content)
    with pytest.raises(MalformedMessage, match="activation-service-key.der"):
        SimPKI.open(folder, SimulatedClock())


async def test_opening_on_the_event_loop_is_our_own_mistake() -> None:
    with pytest.raises(KeyWorkOnEventLoop):
        SimPKI.open(None, SimulatedClock())


def test_export_writes_every_anchor_and_no_private_key(tmp_path: Path) -> None:
    written = pki().export(tmp_path / "anchors")
    assert {path.name for path in written} == {
        "sim-apple-root-ca.pem",
        "sim-iphone-device-ca.pem",
        "sim-attestation-root-ca.pem",
        "sim-attestation-sub-ca.pem",
        "sim-tls-ca.pem",
        "sim-apns-ca.pem",
        "sim-activation-service-key.pem",
    }
    assert sorted(os.listdir(tmp_path / "anchors")) == sorted(path.name for path in written)
    assert all(b"PRIVATE" not in path.read_bytes() for path in written)
    key = serialization.load_pem_public_key(
        (tmp_path / "anchors" / "sim-activation-service-key.pem").read_bytes()
    )
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert spki_der(key) == pki().anchors().activation_service_key


@pytest.mark.peer
def test_openssl_accepts_the_chains(tmp_path: Path) -> None:
    pki().export(tmp_path)
    for root, leaf in (
        ("sim-apple-root-ca.pem", "sim-iphone-device-ca.pem"),
        ("sim-attestation-root-ca.pem", "sim-attestation-sub-ca.pem"),
    ):
        words = openssl(
            "verify", "-no_check_time", "-CAfile", str(tmp_path / root), str(tmp_path / leaf)
        )
        assert words.endswith(b"OK\n")
