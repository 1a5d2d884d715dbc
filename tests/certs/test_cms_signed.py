"""SignedData: what we sign others verify, what others sign we verify, and one change makes it fail."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import algorithms, cms, der, names
from certs.algorithms import UnsupportedAlgorithm
from certs.certificate_profile import key_usage
from certs.cms_signed import CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME
from certs.errors import CertsError, InvalidSignature, MalformedMessage
from certs.identity import Identity
from certs.keys import PrivateKey
from tests.support import VECTORS, needs_vectors, openssl, rsa_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGESTS = ("sha1", "sha256", "sha384", "sha512")
LENGTHS = (0, 1, 127, 128, 255, 256, 65535, 65536)


def self_signed(key: PrivateKey, common_name: str, serial_number: int = 7) -> Identity:
    name = names.from_subject([[["CN", common_name]]])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=36500))
        .add_extension(key_usage("digital_signature", "key_encipherment"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(key, certificate)


RSA = self_signed(rsa_key(1), "rsa")
EC = self_signed(ec.generate_private_key(ec.SECP256R1()), "ec")
IDENTITIES = pytest.mark.parametrize("identity", [RSA, EC], ids=["rsa", "ec"])
SKI = x509.SubjectKeyIdentifier.from_public_key(rsa_key(1).public_key()).digest


def attribute(dotted: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(dotted), der.tlv(der.SET, *values))


def good_attributes(content: bytes) -> list[bytes]:
    return [
        attribute(CONTENT_TYPE, der.oid(cms.DATA)),
        attribute(MESSAGE_DIGEST, der.octet_string(algorithms.digest("sha256", content))),
    ]


def by_hand(
    content: bytes,
    attributes: Sequence[bytes] | None,
    *,
    sid: bytes | None = None,
    digest_algorithm: bytes | None = None,
    signature_algorithm: bytes | None = None,
    certificates: Sequence[x509.Certificate] = (RSA.certificate,),
    signers: int = 1,
    content_type: str = cms.DATA,
    inner: bytes | None = None,
) -> bytes:
    """A message signed by RSA with any attributes in any order, bent as the arguments say."""
    body = b"".join(attributes or ())
    to_sign = content if attributes is None else der.tlv(der.SET, body)
    algorithm = digest_algorithm or algorithms.digest_identifier("sha256")
    signer = der.sequence(
        der.integer(1 if sid is None else 3),
        sid or cms.issuer_and_serial(RSA.certificate),
        algorithm,
        b"" if attributes is None else der.context(0, body),
        signature_algorithm or algorithms.signature_identifier("rsa", None),
        der.octet_string(algorithms.sign(RSA.key, to_sign, "sha256")),
    )
    encoded = [one.public_bytes(serialization.Encoding.DER) for one in certificates]
    return der.sequence(
        der.oid("1.2.840.113549.1.7.2"),
        der.context(
            0,
            der.sequence(
                der.integer(1),
                der.set_of(algorithm),
                der.sequence(
                    der.oid(content_type),
                    der.context(0, der.octet_string(content) if inner is None else inner),
                ),
                der.context(0, *encoded),
                der.tlv(der.SET, signer * signers),
            ),
        ),
    )


def verified(data: bytes, **options: Any) -> x509.Certificate:
    return cms.verify_signed(cms.decode_signed(data), **options)


@IDENTITIES
@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("signed_attributes", [True, False], ids=["attributes", "bare"])
@pytest.mark.parametrize("detached", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("ber", [True, False], ids=["ber", "der"])
def test_verifying_undoes_signing(
    identity: Identity, digest: str, signed_attributes: bool, detached: bool, ber: bool
) -> None:
    content = b"content of \x00 bytes\r\n"
    data = cms.sign(
        content,
        identity,
        digest=digest,
        signed_attributes=signed_attributes,
        detached=detached,
        signing_time=NOW,
        extra_attributes=[("1.2.3.4", der.printable("x"))],
        ber=ber,
    )
    signed = cms.decode_signed(data + b"\n")
    assert signed.content == (None if detached else content)
    (signer,) = signed.signers
    assert signer.digest == digest
    if signed_attributes:
        assert signer.attributes is not None
        assert signer.attributes["1.2.3.4"].as_text() == "x"
        assert signer.signing_time == NOW
    else:
        assert signer.attributes is None
        assert signer.signing_time is None
    assert cms.verify_signed(signed, content=content if detached else None) == identity.certificate
    wrong = content + b"x"
    with pytest.raises(InvalidSignature):
        cms.verify_signed(signed, content=wrong)


@given(st.binary(max_size=2000))
@settings(max_examples=20, deadline=None)
def test_any_content_comes_back(content: bytes) -> None:
    for ber in (False, True):
        signed = cms.decode_signed(cms.sign(content, EC, ber=ber))
        assert signed.content == content
        assert cms.verify_signed(signed) == EC.certificate


@pytest.mark.parametrize("length", LENGTHS)
def test_each_length_boundary_is_read_by_us_and_by_asn1crypto(length: int) -> None:
    content = b"x" * length
    for ber in (False, True):
        data = cms.sign(content, EC, ber=ber)
        assert verified(data) == EC.certificate
        native = asn1_cms.ContentInfo.load(data)["content"]
        assert native["encap_content_info"]["content"].native == content


@pytest.mark.peer
@IDENTITIES
@pytest.mark.parametrize("digest", DIGESTS)
def test_openssl_verifies_what_we_sign(identity: Identity, digest: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    for length in LENGTHS:
        content = b"x" * length
        body.write_bytes(content)
        choices: list[dict[str, Any]] = [{}, {"ber": True}, {"signed_attributes": False}]
        for options in choices:
            data = cms.sign(content, identity, digest=digest, signing_time=NOW, **options)
            arguments = ("-verify", "-inform", "DER", "-noverify", "-binary")
            assert openssl("cms", *arguments, stdin=data) == content
            detached = cms.sign(content, identity, digest=digest, detached=True, **options)
            assert openssl("cms", *arguments, "-content", str(body), stdin=detached) == content


@pytest.mark.peer
@IDENTITIES
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-nodetach", "-md", "sha1"),
        ("-nodetach", "-md", "sha512", "-noattr"),
        ("-nodetach", "-stream", "-indef"),
        ("-nodetach", "-keyid"),
        ("-nodetach", "-nocerts"),
        ("-nodetach", "-keyopt", "rsa_padding_mode:pss"),
        ("-nodetach", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:11"),
    ],
)
def test_we_verify_what_openssl_signs(
    identity: Identity, options: tuple[str, ...], tmp_path: Path
) -> None:
    if identity is EC and "-keyopt" in options:
        options = ("-nodetach",)
    pem = tmp_path / "identity.pem"
    pem.write_bytes(identity.to_pem())
    content = b"line\n" * 3000
    data = openssl(
        "cms", "-sign", "-binary", "-signer", str(pem), "-outform", "DER", *options, stdin=content
    )
    candidates = [identity.certificate] if "-nocerts" in options else []
    detached = None if "-nodetach" in options else content
    assert verified(data, content=detached, candidates=candidates) == identity.certificate
    with pytest.raises(InvalidSignature):
        verified(data, content=b"other", candidates=candidates)


def test_we_verify_what_cryptography_signs() -> None:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"data")
    builder = builder.add_signer(RSA.certificate, rsa_key(1), hashes.SHA256())
    data = builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    assert verified(data) == RSA.certificate


def test_the_attributes_we_sign_are_in_der_order() -> None:
    """A verifier that encodes them anew (RFC 5652, section 5.4) must come to the same bytes."""
    extra = [("2.5.4.3", der.utf8("long " * 9)), ("1.2.3", der.null()), ("1.2.4", der.null())]
    data = cms.sign(b"x", EC, signing_time=NOW, extra_attributes=extra)
    (signer,) = cms.decode_signed(data).signers
    members = [node.raw for node in der.read(signer.raw_attributes).children()]
    assert len(members) == 6
    assert members == sorted(members)
    assert verified(data) == EC.certificate


def test_attributes_out_of_order_are_verified_as_received() -> None:
    content = b"unsorted"
    attributes = sorted(good_attributes(content), reverse=True)
    assert verified(by_hand(content, attributes)) == RSA.certificate


def test_a_signer_may_be_named_by_key_identifier() -> None:
    for sid in (der.context(0, SKI, constructed=False), der.context(0, der.octet_string(SKI))):
        data = by_hand(
            b"x", good_attributes(b"x"), sid=sid, certificates=(EC.certificate, RSA.certificate)
        )
        assert verified(data) == RSA.certificate
    with pytest.raises(MalformedMessage, match="the signer's certificate"):
        verified(by_hand(b"x", None, sid=der.context(0, b"other", constructed=False)))


def test_a_message_without_certificates_is_verified_with_those_known_before() -> None:
    data = cms.sign(b"x", RSA, certificates=())
    assert verified(data, candidates=[EC.certificate, RSA.certificate]) == RSA.certificate
    with pytest.raises(MalformedMessage, match="the signer's certificate"):
        verified(data)


def test_the_signer_is_found_by_name_not_by_position() -> None:
    data = cms.sign(b"x", RSA, certificates=(EC.certificate, RSA.certificate))
    assert cms.decode_signed(data).certificates == (EC.certificate, RSA.certificate)
    assert verified(data) == RSA.certificate


def test_a_signature_by_another_key_under_the_same_name_is_invalid() -> None:
    impostor = self_signed(rsa_key(2), "rsa")
    with pytest.raises(InvalidSignature):
        verified(by_hand(b"x", None, certificates=(impostor.certificate,)))
    with pytest.raises(InvalidSignature):
        verified(by_hand(b"x", None), candidates=[impostor.certificate])


@pytest.mark.parametrize(
    ("attributes", "error", "expected"),
    [
        (good_attributes(b"x")[:1], MalformedMessage, "messageDigest"),
        (good_attributes(b"x")[1:], MalformedMessage, "contentType"),
        ([], MalformedMessage, "contentType"),
        ([*good_attributes(b"x"), good_attributes(b"x")[1]], MalformedMessage, "a second one"),
        (
            [
                attribute("1.2.3", der.null()),
                attribute("1.2.3", der.null()),
                *good_attributes(b"x"),
            ],
            MalformedMessage,
            "a second one",
        ),
        (good_attributes(b"y"), InvalidSignature, "messageDigest"),
        (
            [attribute(CONTENT_TYPE, der.oid("1.2.3")), good_attributes(b"x")[1]],
            InvalidSignature,
            "contentType",
        ),
        (
            [
                attribute(CONTENT_TYPE, der.oid(cms.DATA), der.oid("1.2.3")),
                good_attributes(b"x")[1],
            ],
            MalformedMessage,
            "one value",
        ),
        ([*good_attributes(b"x"), attribute("1.2.3")], MalformedMessage, "at least 1"),
        (
            [good_attributes(b"x")[0], attribute(MESSAGE_DIGEST, der.utf8("x"))],
            MalformedMessage,
            "messageDigest",
        ),
    ],
)
def test_each_wrong_set_of_attributes_has_its_own_error(
    attributes: list[bytes], error: type[CertsError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        verified(by_hand(b"x", attributes))


def test_content_of_length_zero_is_content() -> None:
    assert verified(by_hand(b"", good_attributes(b""))) == RSA.certificate
    assert verified(by_hand(b"", None)) == RSA.certificate


def test_a_detached_signature_needs_its_content() -> None:
    with pytest.raises(MalformedMessage, match="content"):
        verified(cms.sign(b"x", RSA, detached=True, signed_attributes=False))
    with pytest.raises(InvalidSignature):
        verified(cms.sign(b"x", RSA, detached=True))


@pytest.mark.parametrize("signers", [0, 2])
def test_exactly_one_signer_is_expected(signers: int) -> None:
    with pytest.raises(MalformedMessage, match=f"exactly one signer, got {signers}"):
        verified(by_hand(b"x", None, signers=signers))


def test_an_unknown_algorithm_is_told_apart_from_damage() -> None:
    md5 = der.sequence(der.oid("1.2.840.113549.2.5"), der.null())
    signed = cms.decode_signed(by_hand(b"x", None, digest_algorithm=md5))
    assert signed.signers[0].digest == "1.2.840.113549.2.5"
    with pytest.raises(UnsupportedAlgorithm, match="SHA-1 or SHA-2"):
        cms.verify_signed(signed)
    odd = der.sequence(der.oid("1.2.3.4"))
    with pytest.raises(UnsupportedAlgorithm, match="an RSA signature"):
        verified(by_hand(b"x", None, signature_algorithm=odd))


def test_the_digest_may_stand_in_the_signature_algorithm_too() -> None:
    named = algorithms.signature_identifier("rsa", "sha256")
    assert verified(by_hand(b"x", None, signature_algorithm=named)) == RSA.certificate


def test_a_flipped_bit_in_signer_attributes_or_signature_is_noticed() -> None:
    data = cms.sign(b"content", EC, signing_time=NOW, extra_attributes=[("1.2.3", der.utf8("x"))])
    fields = der.read(data).children()[1].children()[0].children()[-1].children()[0].children()
    for name, field in (("sid", fields[1]), ("attributes", fields[3]), ("signature", fields[5])):
        start = data.index(field.raw)
        for position in range(start, start + len(field.raw)):
            damaged = data[:position] + bytes((data[position] ^ 0x01,)) + data[position + 1 :]
            try:
                verified(damaged)
            except (MalformedMessage, InvalidSignature):
                continue
            pytest.fail(f"byte {position - start} of {name} is not covered")


def test_each_signed_attribute_is_covered_by_the_signature() -> None:
    data = cms.sign(b"content", RSA, signing_time=NOW, extra_attributes=[("1.2.3", der.utf8("x"))])
    for value in (
        der.utf8("x"),
        der.time(NOW),
        der.oid(cms.DATA),
        algorithms.digest("sha256", b"content"),
    ):
        position = data.rindex(value) + len(value) - 1
        damaged = data[:position] + bytes((data[position] ^ 0x01,)) + data[position + 1 :]
        with pytest.raises(InvalidSignature):
            verified(damaged)


def test_a_truncated_message_is_malformed_at_each_byte() -> None:
    for ber in (False, True):
        data = cms.sign(b"content", EC, ber=ber)
        for end in range(len(data)):
            with pytest.raises(MalformedMessage):
                cms.decode_signed(data[:end])


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_garbage_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        cms.decode_signed(data)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_damaged_message_raises_only_documented_errors(position: int, new: bytes) -> None:
    data = cms.sign(b"content", EC, signing_time=NOW)
    position %= len(data)
    damaged = data[:position] + new + data[position + len(new) :]
    try:
        verified(damaged)
    except (MalformedMessage, InvalidSignature):
        return


def test_certificates_alone_come_back_and_cryptography_agrees() -> None:
    for certificates in ([], [RSA.certificate], [RSA.certificate, EC.certificate]):
        data = cms.certs_only(certificates)
        assert set(cms.decode_certs_only(data)) == set(certificates)
        if certificates:
            assert set(pkcs7.load_der_pkcs7_certificates(data)) == set(certificates)
            theirs = pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)
            assert set(cms.decode_certs_only(theirs)) == set(certificates)


@pytest.mark.peer
def test_openssl_prints_the_certificates() -> None:
    data = cms.certs_only([RSA.certificate, EC.certificate])
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", stdin=data)
    assert b"CN = rsa" in printed
    assert b"CN = ec" in printed


def test_a_certificate_that_is_none_is_malformed() -> None:
    broken = der.sequence(der.sequence(der.integer(1)), der.sequence(), der.bit_string(b""))
    good = RSA.certificate.public_bytes(serialization.Encoding.DER)
    data = cms.certs_only([RSA.certificate]).replace(good, broken.ljust(len(good), b"\0"))
    with pytest.raises(MalformedMessage, match="certificate"):
        cms.decode_certs_only(data)


def vector(path: str) -> bytes:
    return (VECTORS / path).read_bytes()


@pytest.mark.vectors
@needs_vectors
def test_the_mdm_signature_of_a_real_device_matches_its_facts() -> None:
    signed = cms.decode_signed(vector("checkin/mdm-signature/header2.der"))
    (signer,) = signed.signers
    assert (signer.digest, signer.attributes, signed.content) == ("sha1", None, None)
    assert signer.serial_number == 0x22
    body = vector("checkin/mdm-signature/header2-body.plist")
    assert cms.verify_signed(signed, content=body).serial_number == 0x22
    with pytest.raises(InvalidSignature):
        cms.verify_signed(signed, content=body + b"\n")


@pytest.mark.vectors
@needs_vectors
def test_the_message_with_indefinite_lengths_matches_its_facts() -> None:
    signed = cms.decode_signed(vector("scep/ber-indefinite-signed.ber"))
    certificate = cms.verify_signed(signed)
    assert certificate.serial_number == 0x6AE314C2B8E6DDA370D1ED8D8D438C4
    assert names.text(certificate.subject) == "CN=codedeploy-signer-us-east-2.amazonaws.com"
    assert len(signed.content or b"") == 893
    (signer,) = signed.signers
    assert signer.digest == "sha256"
    assert set(signer.attributes or ()) == {
        CONTENT_TYPE,
        MESSAGE_DIGEST,
        SIGNING_TIME,
        "1.2.840.113549.1.9.52",
    }
