"""Attestation leaves: their exact shape, the tolerant parser, and what verification refuses."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import attestation
from certs.attestation import AttestationAuthority, parse, verify
from certs.ca import CertificateAuthority
from certs.certificate_profile import SIMULATED
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage, UntrustedCertificate
from certs.keys import generate, spki_der
from tests.support import VECTORS, needs_vectors, openssl

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = SimulatedClock(NOW)
AUTHORITY = AttestationAuthority.create(CLOCK)
KEY = generate("p384").public_key()
SIGNER = CertificateAuthority.create("any signer", clock=CLOCK)
APPLE = "1.2.840.113635.100.8"


def attest(**changed: object) -> tuple[x509.Certificate, x509.Certificate]:
    facts = {
        "serial_number": "SIM0000001",
        "udid": "00008120-000000000000001E",
        "freshness": bytes(range(32)),
        "os_version": "18.5",
        "software_update_device_id": "J514sAP",
    }
    return AUTHORITY.issue(KEY, **{**facts, **changed})  # type: ignore[arg-type]


def leaf_with(*extensions: tuple[str, bytes]) -> x509.Certificate:
    """Any leaf with these raw extensions."""
    return SIGNER.issue(
        KEY,
        x509.Name([]),
        extensions=[
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
            for oid, value in extensions
        ],
    )


def ders(*certificates: x509.Certificate) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


def test_a_leaf_has_the_extensions_of_a_genuine_one_in_their_order() -> None:
    leaf, _ = attest()
    assert [(e.oid.dotted_string, e.critical) for e in leaf.extensions] == [
        ("2.5.29.19", True),
        ("2.5.29.15", True),
        (f"{APPLE}.10.2", False),
        (f"{APPLE}.10.3", False),
        (f"{APPLE}.10.1", False),
        (f"{APPLE}.9.4", False),
        (f"{APPLE}.9.1", False),
        (f"{APPLE}.9.2", False),
        (f"{APPLE}.11.1", False),
        ("1.3.6.1.4.1.32473.1.1", False),
    ]


def test_values_are_raw_bytes_without_der_around_them() -> None:
    leaf, _ = attest()
    raw = {
        e.oid.dotted_string: e.value.value
        for e in leaf.extensions
        if isinstance(e.value, x509.UnrecognizedExtension)
    }
    assert raw[f"{APPLE}.9.1"] == b"SIM0000001"
    assert raw[f"{APPLE}.9.2"] == b"00008120-000000000000001E"
    assert raw[f"{APPLE}.9.4"] == b"J514sAP"
    assert raw[f"{APPLE}.10.1"] == raw[f"{APPLE}.10.2"] == raw[f"{APPLE}.10.3"] == b"18.5"
    assert raw[f"{APPLE}.11.1"] == bytes(range(32))


def test_key_usage_is_written_as_03_02_04_f0() -> None:
    leaf, _ = attest()
    assert (
        leaf.extensions.get_extension_for_class(x509.KeyUsage).value.public_bytes().hex()
        == "030204f0"
    )


def test_subject_issuer_dates_and_signature_follow_the_genuine_leaf() -> None:
    leaf, sub_ca = attest()
    common_name = hashlib.sha256(spki_der(KEY)).hexdigest()
    assert [(a.rfc4514_attribute_name, a.value) for a in leaf.subject] == [
        ("CN", common_name),
        ("OU", "AAA Certification"),
        ("O", "Sim Apple Inc."),
        ("ST", "California"),
    ]
    assert [a.value for a in leaf.issuer] == [
        "Simulated Enterprise Attestation Sub CA 1",
        "Sim Apple Inc.",
        "US",
    ]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=91)
    assert leaf.signature_algorithm_oid.dotted_string == "1.2.840.10045.4.3.3"  # ECDSA-SHA384
    assert 5 <= (leaf.serial_number.bit_length() + 7) // 8 <= 6
    for ca in sub_ca, AUTHORITY.root:
        key = ca.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
        assert SIMULATED in [extension.value for extension in ca.extensions]


def test_serial_numbers_never_repeat() -> None:
    serials = [attest()[0].serial_number for _ in range(30)]
    assert serials == sorted(set(serials))


def test_parsing_gives_back_what_was_attested() -> None:
    found = parse(attest()[0])
    assert (found.serial_number, found.udid) == ("SIM0000001", "00008120-000000000000001E")
    assert found.os_version == found.sep_os_version == found.llb_version == "18.5"
    assert found.software_update_device_id == "J514sAP"
    assert found.freshness == bytes(range(32))
    assert spki_der(found.public_key) == spki_der(KEY)


def test_user_enrollment_leaves_the_identifiers_out() -> None:
    leaf, _ = attest(serial_number=None, udid=None)
    assert f"{APPLE}.9.1" not in [e.oid.dotted_string for e in leaf.extensions]
    found = parse(leaf)
    assert (found.serial_number, found.udid) == (None, None)


def test_a_blank_value_counts_as_absent() -> None:
    leaf, _ = attest(serial_number="", freshness=b"")
    assert f"{APPLE}.9.1" in [e.oid.dotted_string for e in leaf.extensions]
    found = parse(leaf)
    assert (found.serial_number, found.freshness) == (None, None)


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_freshness_code_is_taken_as_it_stands(value: bytes) -> None:
    """Guessing DER would cut nonces short, except for exactly one OCTET STRING of 32 bytes."""
    found = parse(leaf_with((f"{APPLE}.11.1", value)))
    wrapped = len(value) == 34 and value[:2] == b"\x04\x20"
    assert found.freshness == (value[2:] if wrapped else value)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"\x04\x20" + bytes(32), bytes(32)),
        (b"\x04\x1e" + bytes(30), b"\x04\x1e" + bytes(30)),  # 32 bytes that look like DER
        (b"\x04\x20" + bytes(33), b"\x04\x20" + bytes(33)),
        (bytes.fromhex("5912") + bytes(30), bytes.fromhex("5912") + bytes(30)),
    ],
)
def test_only_one_whole_octet_string_of_32_bytes_is_unwrapped(value: bytes, read: bytes) -> None:
    assert parse(leaf_with((f"{APPLE}.11.1", value))).freshness == read


def test_a_leaf_for_a_key_that_no_device_has_is_malformed() -> None:
    odd = ed25519.Ed25519PrivateKey.generate()
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(odd.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(odd, None)
    )
    with pytest.raises(MalformedMessage, match="an EC or RSA key, got 'Ed25519PublicKey'"):
        parse(leaf)


def test_a_serial_number_that_is_no_text_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match=rf"{APPLE}.9.1: expected text"):
        parse(leaf_with((f"{APPLE}.9.1", b"\xff\xfe")))


@needs_vectors
def test_a_genuine_leaf_is_read() -> None:
    """vectors/acme/INDEX.md: a Mac of 2025; its intermediate is not published, so no signature check."""
    leaf = x509.load_pem_x509_certificate((VECTORS / "acme/mda-leaf-genuine.pem").read_bytes())
    found = parse(leaf)
    assert found.serial_number == "TMWFWWWP67"
    assert found.udid == "00006030-000651690A84001C"
    assert found.os_version == found.sep_os_version == found.llb_version == "15.5"
    assert found.software_update_device_id == "J514sAP"
    assert found.freshness is not None
    assert (
        found.freshness.hex() == "9ff219c2831313c8190b63e9dd8f80aa0a4a9737a58daa931da8abde2f2d5d62"
    )


@needs_vectors
def test_our_leaf_has_the_shape_of_the_genuine_one() -> None:
    genuine = x509.load_pem_x509_certificate((VECTORS / "acme/mda-leaf-genuine.pem").read_bytes())
    leaf, _ = attest()
    ours = [e.oid for e in leaf.extensions if e.value != SIMULATED]
    macs_only = f"{APPLE}.13."
    theirs = [e.oid for e in genuine.extensions if not e.oid.dotted_string.startswith(macs_only)]
    assert ours == theirs
    assert [a.oid for a in leaf.subject] == [a.oid for a in genuine.subject]
    assert leaf.signature_algorithm_oid == genuine.signature_algorithm_oid
    usage = [c.extensions.get_extension_for_class(x509.KeyUsage) for c in (leaf, genuine)]
    assert usage[0] == usage[1]


# Verification


def test_a_good_chain_is_verified() -> None:
    leaf, sub_ca = attest()
    assert verify(ders(leaf, sub_ca), [AUTHORITY.root], at=NOW).serial_number == "SIM0000001"


def test_a_foreign_authority_is_refused() -> None:
    """Same names, other keys."""
    foreign = AttestationAuthority.create(CLOCK)
    leaf, sub_ca = foreign.issue(KEY, serial_number="S", udid="U", freshness=bytes(32))
    with pytest.raises(UntrustedCertificate, match="is not signed by the .*Root CA,.* we know"):
        verify(ders(leaf, sub_ca), [AUTHORITY.root], at=NOW)


def test_a_missing_intermediate_is_refused() -> None:
    with pytest.raises(UntrustedCertificate, match="Sub CA 1,O=.* is not known"):
        verify(ders(attest()[0]), [AUTHORITY.root], at=NOW)


def test_an_expired_leaf_is_refused_at_its_time() -> None:
    leaf, sub_ca = attest(days=1)
    chain, later = ders(leaf, sub_ca), NOW + timedelta(days=2)
    with pytest.raises(UntrustedCertificate, match="expired on"):
        verify(chain, [AUTHORITY.root], at=later)
    assert verify(chain, [AUTHORITY.root], at=None)


def test_the_sub_ca_itself_is_no_leaf() -> None:
    with pytest.raises(UntrustedCertificate, match="is a CA certificate, not an attestation leaf"):
        verify(ders(attest()[1]), [AUTHORITY.root], at=NOW)


@pytest.mark.parametrize(
    "chain",
    [[], [b""], [b"\x30\x03\x02\x01\x00"], [b"x" * 70_000]],
    ids=["none", "empty", "der", "huge"],
)
def test_what_is_no_certificate_is_malformed(chain: list[bytes]) -> None:
    with pytest.raises(MalformedMessage, match="attestation chain"):
        verify(chain, [AUTHORITY.root], at=NOW)


def test_every_flipped_byte_of_what_is_signed_is_noticed() -> None:
    certificate, issuer = attest()
    leaf, sub_ca = ders(certificate, issuer)
    start = leaf.index(certificate.tbs_certificate_bytes)
    for position in range(start, start + len(certificate.tbs_certificate_bytes)):
        damaged = bytearray(leaf)
        damaged[position] ^= 0x01
        with pytest.raises((MalformedMessage, UntrustedCertificate)):
            verify([bytes(damaged), sub_ca], [AUTHORITY.root], at=NOW)


def test_a_device_identity_is_long_lived_and_names_the_device() -> None:
    """AC of apple-services.md, section 9: no freshness, keyUsage digitalSignature, ten years."""
    certificate = AUTHORITY.issue_device_identity(
        generate("p256").public_key(), serial_number="SIM0000001", udid="UDID-1"
    )
    found = parse(certificate)
    assert (found.serial_number, found.udid, found.freshness) == ("SIM0000001", "UDID-1", None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.public_bytes().hex() == "03020780"
    assert certificate.not_valid_after_utc > NOW + timedelta(days=3650)
    assert verify(ders(certificate, AUTHORITY.sub_ca), [AUTHORITY.root], at=NOW)


def test_a_folder_brings_the_same_authority_back(tmp_path: Path) -> None:
    first = AttestationAuthority.open(tmp_path, CLOCK)
    again = AttestationAuthority.open(tmp_path, CLOCK)
    assert (again.root, again.sub_ca) == (first.root, first.sub_ca)
    leaf, sub_ca = again.issue(KEY, serial_number="S", udid="U", freshness=bytes(32))
    assert verify(ders(leaf, sub_ca), [first.root], at=NOW)


@pytest.mark.peer
def test_openssl_verifies_the_chain_and_shows_each_property(tmp_path: Path) -> None:
    leaf, sub_ca = attest()
    for name, certificate in ("root", AUTHORITY.root), ("sub", sub_ca), ("leaf", leaf):
        (tmp_path / name).write_bytes(certificate.public_bytes(Encoding.PEM))
    arguments = ["verify", "-attime", str(int(NOW.timestamp())), "-CAfile", str(tmp_path / "root")]
    arguments += ["-untrusted", str(tmp_path / "sub"), str(tmp_path / "leaf")]
    assert openssl(*arguments).strip().endswith(b"OK")
    shown = openssl("x509", "-in", str(tmp_path / "leaf"), "-noout", "-text").decode()
    for oid in "9.1", "9.2", "9.4", "10.1", "10.2", "10.3", "11.1":
        assert f"{APPLE}.{oid}" in shown
    assert "SIM0000001" in shown
    assert (
        attestation.ROOT_NAME
        in openssl("x509", "-in", str(tmp_path / "root"), "-noout", "-subject").decode()
    )
