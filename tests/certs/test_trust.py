"""Chain checks: what leads to a root, what does not, and the exact reason."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs import der, trust
from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.certificate_profile import key_usage
from certs.clock import SimulatedClock
from certs.errors import UntrustedCertificate
from certs.keys import PrivateKey, generate
from certs.trust import MAX_CANDIDATES, MAX_CHAIN, MAX_SIGNATURE_CHECKS, check_dates, verify_chain
from tests.support import VECTORS, needs_vectors, openssl, rsa_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = SimulatedClock(NOW)
KEY = generate("p256")


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def authority(
    common_name: str,
    parent: CertificateAuthority | None = None,
    *,
    key: PrivateKey | None = None,
    days: float = 3650,
) -> CertificateAuthority:
    return CertificateAuthority.create(
        common_name,
        key=key,
        clock=CLOCK,
        parent=parent,
        lifetime_days=days,
        subject=named(common_name),
    )


def below(
    parent: CertificateAuthority, common_name: str, *extensions: x509.ExtensionType, ca: bool = True
) -> CertificateAuthority:
    """An issuing certificate with something odd about it."""
    key = generate("p256")
    certificate = parent.issue(
        key.public_key(),
        named(common_name),
        days=1000,
        ca=ca,
        extended_key_usage=(),
        extensions=[(extension, True) for extension in extensions],
    )
    identity = parent.issue_identity(key, named(common_name))
    return CertificateAuthority(
        type(identity)(key, certificate), clock=CLOCK, parents=(parent.certificate, *parent.parents)
    )


def leaf_of(ca: CertificateAuthority, *extensions: x509.ExtensionType) -> x509.Certificate:
    return ca.issue(
        KEY.public_key(), named("leaf"), extensions=[(extension, True) for extension in extensions]
    )


def refusal(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    at: datetime | None = NOW,
) -> tuple[str, str]:
    with pytest.raises(UntrustedCertificate) as caught:
        verify_chain(leaf, intermediates, roots, at=at)
    return caught.value.subject, caught.value.reason


ROOT = authority("Root")
SUB = authority("Sub", ROOT)
LEAF = leaf_of(SUB)


def test_the_path_runs_from_leaf_to_root() -> None:
    path = verify_chain(LEAF, [SUB.certificate], [ROOT.certificate], at=NOW)
    assert path == [LEAF, SUB.certificate, ROOT.certificate]


def test_order_and_superfluous_certificates_do_not_matter() -> None:
    deep = authority("Deep", SUB)
    leaf = leaf_of(deep)
    others = [authority("Other").certificate, ROOT.certificate, SUB.certificate, deep.certificate]
    path = verify_chain(
        leaf, [*others, leaf], [authority("X").certificate, ROOT.certificate], at=NOW
    )
    assert path == [leaf, deep.certificate, SUB.certificate, ROOT.certificate]


def test_an_intermediate_may_be_the_anchor() -> None:
    assert verify_chain(LEAF, [], [SUB.certificate], at=NOW) == [LEAF, SUB.certificate]


def test_a_pinned_leaf_is_its_own_path() -> None:
    assert verify_chain(LEAF, [], [LEAF], at=NOW) == [LEAF]


def test_apple_shaped_leaves_without_san_aki_and_eku_are_accepted() -> None:
    attestation = AttestationAuthority.create(CLOCK)
    leaf, sub_ca = attestation.issue(
        KEY.public_key(), serial_number="S", udid="U", freshness=bytes(32)
    )
    assert verify_chain(leaf, [sub_ca], [attestation.root], at=NOW)[-1] == attestation.root


def test_a_missing_intermediate_is_named() -> None:
    assert refusal(LEAF, [], [ROOT.certificate]) == ("CN=leaf", "its issuer CN=Sub is not known")


def test_no_roots_trust_nobody() -> None:
    assert refusal(LEAF, [SUB.certificate], []) == ("CN=Sub", "its issuer CN=Root is not known")


def test_a_foreign_root_is_not_trusted_because_it_comes_along() -> None:
    foreign = authority("Foreign")
    leaf = leaf_of(foreign)
    assert refusal(leaf, [foreign.certificate], [ROOT.certificate]) == (
        "CN=Foreign",
        "is self-signed and not a trusted root",
    )


def test_a_namesake_of_the_root_did_not_sign() -> None:
    assert refusal(LEAF, [SUB.certificate], [authority("Root").certificate]) == (
        "CN=Sub",
        "is not signed by the CN=Root we know",
    )


def test_a_changed_certificate_is_not_signed() -> None:
    raw = bytearray(LEAF.public_bytes(Encoding.DER))
    at = raw.index(b"leaf")
    raw[at : at + 4] = b"thie"
    forged = x509.load_der_x509_certificate(bytes(raw))
    assert refusal(forged, [SUB.certificate], [ROOT.certificate]) == (
        "CN=thie",
        "is not signed by the CN=Sub we know",
    )


def test_the_right_namesake_is_found_among_several() -> None:
    wrong = [authority("Sub", ROOT).certificate for _ in range(3)]
    assert (
        verify_chain(LEAF, [*wrong, SUB.certificate], [ROOT.certificate], at=NOW)[1]
        == SUB.certificate
    )


def test_a_leaf_may_not_issue() -> None:
    fake = below(ROOT, "a device", ca=False)
    assert refusal(leaf_of(fake), [fake.certificate], [ROOT.certificate]) == (
        "CN=a device",
        "is not a CA certificate",
    )


def test_an_issuer_needs_the_right_to_sign() -> None:
    fake = below(ROOT, "a signer", key_usage("digital_signature", "crl_sign"))
    assert refusal(leaf_of(fake), [fake.certificate], [ROOT.certificate]) == (
        "CN=a signer",
        "may not sign certificates (key usage)",
    )


def test_path_length_is_enforced() -> None:
    short = below(ROOT, "Short", x509.BasicConstraints(ca=True, path_length=0))
    assert verify_chain(leaf_of(short), [short.certificate], [ROOT.certificate], at=NOW)
    deep = authority("Deep", short)
    assert refusal(leaf_of(deep), [deep.certificate, short.certificate], [ROOT.certificate]) == (
        "CN=Short",
        "allows 0 CA certificates below it, not 1",
    )


def test_unknown_critical_extensions_stop_it() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
    reason = "has the unknown critical extension 1.3.6.1.4.1.32473.9"
    assert refusal(leaf_of(ROOT, odd), [], [ROOT.certificate]) == ("CN=leaf", reason)
    strange = below(ROOT, "Strange", odd)
    assert refusal(leaf_of(strange), [strange.certificate], [ROOT.certificate]) == (
        "CN=Strange",
        reason,
    )


def test_dates_of_every_certificate_count() -> None:
    brief = authority("Brief", ROOT, days=5)
    leaf = brief.issue(
        KEY.public_key(), named("leaf"), days=100, not_before=NOW - timedelta(days=1)
    )
    chain = [brief.certificate]
    assert verify_chain(leaf, chain, [ROOT.certificate], at=NOW)
    late, early = NOW + timedelta(days=6), NOW - timedelta(days=2)
    assert refusal(leaf, chain, [ROOT.certificate], late) == (
        "CN=Brief",
        "expired on 2026-01-06T00:00:00Z",
    )
    assert refusal(leaf, chain, [ROOT.certificate], early) == (
        "CN=leaf",
        "is not valid before 2025-12-31T00:00:00Z",
    )


def test_without_a_time_dates_are_left_aside() -> None:
    old = ROOT.issue(KEY.public_key(), named("old"), days=1, not_before=NOW - timedelta(days=900))
    assert verify_chain(old, [], [ROOT.certificate], at=None) == [old, ROOT.certificate]
    assert refusal(old, [], [ROOT.certificate]) == ("CN=old", "expired on 2023-07-17T00:00:00Z")


def test_an_expired_cross_certificate_does_not_hide_the_good_path() -> None:
    key = generate("p256")
    old = ROOT.issue(
        key.public_key(), named("Cross"), ca=True, days=1, not_before=NOW - timedelta(days=9)
    )
    good = ROOT.issue(key.public_key(), named("Cross"), ca=True)
    issuer = CertificateAuthority(
        type(ROOT.identity)(key, good), clock=CLOCK, parents=(ROOT.certificate,)
    )
    leaf = leaf_of(issuer)
    assert verify_chain(leaf, [old, good], [ROOT.certificate], at=NOW)[1] == good


def test_a_loop_of_cross_certificates_ends() -> None:
    keys = generate("p256"), generate("p256")
    names = named("One"), named("Two")
    one, two = (
        CertificateAuthority.create("", key=key, clock=CLOCK, subject=name)
        for key, name in zip(keys, names, strict=True)
    )
    one_by_two = two.issue(keys[0].public_key(), names[0], ca=True)
    two_by_one = one.issue(keys[1].public_key(), names[1], ca=True)
    subject, reason = refusal(leaf_of(one), [one_by_two, two_by_one], [ROOT.certificate])
    assert subject in ("CN=One", "CN=Two")
    assert reason.endswith(("is not known", "we know"))


def test_a_chain_too_long_is_refused() -> None:
    cas = [authority("0")]
    for number in range(1, MAX_CHAIN):
        cas.append(authority(str(number), cas[-1]))
    roots = [cas[0].certificate]
    fits, long = leaf_of(cas[MAX_CHAIN - 2]), leaf_of(cas[MAX_CHAIN - 1])
    everybody = [ca.certificate for ca in cas]
    assert len(verify_chain(fits, everybody, roots, at=NOW)) == MAX_CHAIN
    assert refusal(long, everybody, roots) == ("CN=leaf", "chain is longer than 8 certificates")


def test_a_flood_of_certificates_is_refused_unread() -> None:
    flood = [SUB.certificate] * (MAX_CANDIDATES + 1)
    assert refusal(LEAF, flood, [ROOT.certificate]) == (
        "CN=leaf",
        "came with more than 32 other certificates",
    )


def test_a_flood_of_namesakes_costs_a_bounded_number_of_signature_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight levels of four namesakes each, all with one key, would make 4^8 paths."""
    key = generate("p256")
    top = CertificateAuthority.create("", key=key, clock=CLOCK, subject=named("Loop"))
    namesakes = [top.issue(key.public_key(), named("Loop"), ca=True) for _ in range(30)]
    checks: list[None] = []
    honest = trust._signature_is_valid

    def counted(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        checks.append(None)
        return honest(certificate, issuer)

    monkeypatch.setattr(trust, "_signature_is_valid", counted)
    trust._remembered_signature.cache_clear()
    refusal(leaf_of(top), namesakes, [ROOT.certificate])
    assert len(checks) <= MAX_SIGNATURE_CHECKS


def test_a_leaf_with_an_unreadable_extension_is_refused() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\xff\xff")
    leaf = ROOT.issue(KEY.public_key(), named("leaf"), extensions=[(broken, False)])
    subject, reason = refusal(leaf, [], [ROOT.certificate])
    assert (subject, reason[:31]) == ("CN=leaf", "has an unreadable extension: er")


def test_old_hierarchies_signed_with_sha1_are_verified() -> None:
    """As Apple's device CAs are; cryptography refuses such certificates (certificates.md 0.7)."""
    root = authority("Old Root", key=rsa_key())
    leaf = with_sha1(leaf_of(root), rsa_key())
    assert leaf.signature_algorithm_oid.dotted_string == "1.2.840.113549.1.1.5"
    assert verify_chain(leaf, [], [root.certificate], at=NOW) == [leaf, root.certificate]
    forged = with_sha1(leaf_of(root), rsa_key(1))
    assert refusal(forged, [], [root.certificate]) == (
        "CN=leaf",
        "is not signed by the CN=Old Root we know",
    )


def with_sha1(certificate: x509.Certificate, key: PrivateKey) -> x509.Certificate:
    sha256, sha1 = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))
    signed = certificate.tbs_certificate_bytes.replace(sha256, sha1)
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA1())  # type: ignore[call-arg, arg-type]
    return x509.load_der_x509_certificate(
        der.sequence(signed, der.sequence(sha1, der.null()), der.bit_string(signature))
    )


def test_old_hierarchies_of_elliptic_keys_are_verified_too() -> None:
    key = generate("p256")
    root = authority("Old EC Root", key=key)
    leaf = _with_ecdsa_sha1(leaf_of(root), key)
    assert leaf.signature_algorithm_oid.dotted_string == "1.2.840.10045.4.1"
    assert verify_chain(leaf, [], [root.certificate], at=NOW) == [leaf, root.certificate]
    forged = _with_ecdsa_sha1(leaf_of(root), generate("p256"))
    assert "is not signed by" in refusal(forged, [], [root.certificate])[1]


def _with_ecdsa_sha1(certificate: x509.Certificate, key: PrivateKey) -> x509.Certificate:
    sha256, sha1 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06072a8648ce3d0401")
    body = der.read(certificate.tbs_certificate_bytes).items(der.SEQUENCE, 5)
    parts = [der.sequence(sha1) if part.raw == der.sequence(sha256) else part.raw for part in body]
    signed = der.sequence(*parts)
    signature = key.sign(signed, ec.ECDSA(hashes.SHA1()))  # type: ignore[call-arg, arg-type]
    return x509.load_der_x509_certificate(
        der.sequence(signed, der.sequence(sha1), der.bit_string(signature))
    )


def plain(subject: str, issuer: str, key: Any, signer: Any, *, ca: bool) -> x509.Certificate:
    """With basicConstraints and nothing else."""
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )


def test_a_key_that_signs_no_sha1_did_not_sign() -> None:
    odd = ed25519.Ed25519PrivateKey.generate()
    root = plain("Odd Root", "Odd Root", odd, odd, ca=True)
    leaf = with_sha1(leaf_of(authority("Odd Root", key=rsa_key())), rsa_key())
    assert "is not signed by" in refusal(leaf, [], [root])[1]


def test_an_issuer_that_says_nothing_of_key_usage_may_sign() -> None:
    """As old roots do (RFC 5280, section 4.2.1.3, wants it of new ones)."""
    keys = [generate("p256") for _ in range(3)]
    root = plain("Root", "Root", keys[0], keys[0], ca=True)
    sub = plain("Sub", "Root", keys[1], keys[0], ca=True)
    leaf = plain("leaf", "Sub", keys[2], keys[1], ca=False)
    assert verify_chain(leaf, [sub], [root], at=NOW) == [leaf, sub, root]


def test_check_dates_includes_both_ends() -> None:
    check_dates(LEAF, LEAF.not_valid_before_utc)
    check_dates(LEAF, LEAF.not_valid_after_utc)
    for outside in (
        LEAF.not_valid_before_utc - timedelta(seconds=1),
        LEAF.not_valid_after_utc + timedelta(seconds=1),
    ):
        with pytest.raises(UntrustedCertificate):
            check_dates(LEAF, outside)


@needs_vectors
def test_a_genuine_app_attest_chain_verifies() -> None:
    """Its leaf was valid for three days in 2021, so dates are left aside."""
    statement = cbor2.loads((VECTORS / "acme/appattest-ios-14.4-attestation.cbor").read_bytes())
    leaf, sub_ca = map(x509.load_der_x509_certificate, statement["attStmt"]["x5c"])
    assert verify_chain(leaf, [], [sub_ca], at=None) == [leaf, sub_ca]
    assert refusal(leaf, [], [sub_ca])[1] == "expired on 2021-01-25T12:13:35Z"
    apple = x509.load_pem_x509_certificate((VECTORS / "acme/apple-att-ca.crt").read_bytes())
    assert refusal(leaf, [sub_ca], [apple], None)[1] == (
        "its issuer CN=Apple App Attestation Root CA,O=Apple Inc.,ST=California is not known"
    )


@pytest.mark.peer
@pytest.mark.parametrize("good", [True, False])
def test_openssl_agrees(tmp_path: Path, good: bool) -> None:
    root = ROOT if good else authority("Root")
    for name, certificate in (
        ("root", root.certificate),
        ("sub", SUB.certificate),
        ("leaf", LEAF),
    ):
        (tmp_path / name).write_bytes(certificate.public_bytes(Encoding.PEM))
    arguments = ["verify", "-attime", str(int(NOW.timestamp())), "-CAfile", str(tmp_path / "root")]
    arguments += ["-untrusted", str(tmp_path / "sub"), str(tmp_path / "leaf")]
    if good:
        assert openssl(*arguments).strip().endswith(b"OK")
    else:
        with pytest.raises(AssertionError, match="verification failed"):
            openssl(*arguments)
