"""Certificate requests: round trip, the openssl command as witness, and how peers bend the format."""

import base64
from pathlib import Path

import pytest
from asn1crypto import csr as asn1_csr
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import algorithms, csr, der, names
from certs.errors import CertsError, InvalidSignature, MalformedMessage
from certs.keys import PrivateKey, spki_der, to_pem
from tests.support import VECTORS, needs_vectors, openssl, rsa_key

KEY = rsa_key(1)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT = names.from_subject([[["O", "Test"]], [["CN", "dev"]]])
FULL = csr.build(
    KEY,
    SUBJECT,
    challenge="s3cret",
    key_usage=names.key_usage(5),
    alternative_names=names.alternative_names({"dNSName": "a.example.com"}),
    extended_key_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,),
)


def rebuilt(
    attributes: list[bytes], *, key: PrivateKey = KEY, version: int = 0, digest: str = "sha256"
) -> bytes:
    """A signed request of our own making, its attributes in the order given."""
    information = der.sequence(
        der.integer(version),
        SUBJECT.public_bytes(),
        spki_der(key.public_key()),
        der.context(0, *attributes),
    )
    return der.sequence(
        information,
        algorithms.signature_identifier("rsa", digest),
        der.bit_string(algorithms.sign(key, information, digest)),
    )


def attributes_of(data: bytes) -> list[bytes]:
    information = der.read(data).children()[0]
    return [attribute.raw for attribute in information.children()[3].children()]


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("key", [KEY, EC_KEY], ids=["rsa", "ec"])
def test_decoding_undoes_building(key: PrivateKey, digest: str) -> None:
    data = csr.build(
        key,
        SUBJECT,
        challenge="pä ss",
        key_usage=names.key_usage(1),
        alternative_names=names.alternative_names({"rfc822Name": ["a@b.ch", "c@d.ch"]}),
        extended_key_usage=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        digest=digest,
    )
    request = csr.decode(data + b"\n")
    assert request.der == data
    assert request.subject == SUBJECT
    assert request.common_name == "dev"
    assert request.public_key == key.public_key()
    assert request.challenge_password == "pä ss"
    assert request.key_usage == names.key_usage(1)
    assert request.alternative_names == (x509.RFC822Name("a@b.ch"), x509.RFC822Name("c@d.ch"))
    assert request.extended_key_usage == (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300))
@settings(max_examples=20, deadline=None)
def test_a_challenge_comes_back_whatever_its_characters(challenge: str) -> None:
    data = csr.build(KEY, SUBJECT, challenge=challenge)
    assert csr.decode(data).challenge_password == challenge
    native = asn1_csr.CertificationRequest.load(data)["certification_request_info"]["attributes"]
    assert native[0]["values"][0].native == challenge
    expected = "PrintableString" if der.is_printable(challenge) else "UTF8String"
    assert type(native[0]["values"][0].chosen).__name__ == expected


def test_a_request_without_wishes_has_empty_attributes() -> None:
    request = csr.decode(csr.build(KEY, names.from_subject([])))
    assert request.challenge_password is None
    assert request.common_name is None
    assert request.alternative_names == ()
    assert request.key_usage is None
    assert request.extended_key_usage == ()


def test_the_challenge_stays_out_of_the_repr() -> None:
    assert "s3cret" not in repr(csr.decode(FULL))


@pytest.mark.peer
@pytest.mark.parametrize("key", [KEY, EC_KEY], ids=["rsa", "ec"])
def test_openssl_reads_and_verifies_it(key: PrivateKey) -> None:
    data = csr.build(
        key,
        SUBJECT,
        challenge="s3cret",
        key_usage=names.key_usage(5),
        alternative_names=names.alternative_names({"ntPrincipalName": "u@D", "dNSName": "d.ch"}),
    )
    text = openssl("req", "-inform", "DER", "-noout", "-verify", "-text", stdin=data).decode()
    assert "Subject: O = Test, CN = dev" in text
    assert "challengePassword        :s3cret" in text
    assert "X509v3 Key Usage: critical" in text
    assert "Digital Signature, Key Encipherment" in text
    assert "DNS:d.ch" in text
    assert x509.load_der_x509_csr(data).is_signature_valid


@pytest.mark.peer
def test_a_request_of_openssl_is_read(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(to_pem(KEY))
    made = openssl(
        "req", "-new", "-key", str(key_file), "-subj", "/C=CH/O=Ö/CN=dev", "-utf8",
        "-addext", "subjectAltName=DNS:x.example.com,IP:127.0.0.1",
    )  # fmt: skip
    request = csr.decode(made)
    assert names.text(request.subject) == "C=CH,O=Ö,CN=dev"
    assert request.alternative_names[0] == x509.DNSName("x.example.com")
    assert len(request.alternative_names) == 2


def test_pem_is_read_with_and_without_text_around_it() -> None:
    body = base64.encodebytes(FULL)
    for text in (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n",
        b"\r\n-----BEGIN NEW CERTIFICATE REQUEST-----\r\n"
        + body.replace(b"\n", b"\r\n")
        + b"-----END NEW CERTIFICATE REQUEST-----\r\nmore",
    ):
        assert csr.decode(text).der == FULL
    with pytest.raises(MalformedMessage, match="the end of the PEM block"):
        csr.decode(b"-----BEGIN CERTIFICATE REQUEST-----\n" + body)


def test_unsorted_attributes_are_accepted_as_strongswan_sends_them() -> None:
    unsorted = rebuilt(sorted(attributes_of(FULL), reverse=True))
    assert unsorted != FULL
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        x509.load_der_x509_csr(unsorted)
    request = csr.decode(unsorted)
    assert request.challenge_password == "s3cret"
    assert request.alternative_names == (x509.DNSName("a.example.com"),)


def test_version_2_is_accepted_as_apple_sends_it() -> None:
    request = csr.decode(rebuilt(attributes_of(FULL), version=2))
    assert request.challenge_password == "s3cret"


def test_foreign_attributes_and_extensions_pass_quietly() -> None:
    friendly_name = csr._attribute("1.2.840.113549.1.9.20", der.tlv(0x1E, b"\0a"))
    odd_extension = der.sequence(der.oid("1.2.3.4"), der.octet_string(b"\xff"))
    legacy = csr._attribute(
        "2.16.840.1.113733.1.9.8",
        der.sequence(
            der.sequence(der.oid("2.5.29.15"), der.octet_string(bytes.fromhex("03020780"))),
            odd_extension,
        ),
    )
    request = csr.decode(rebuilt([friendly_name, legacy]))
    assert request.key_usage == names.key_usage(1)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([csr._attribute(csr.CHALLENGE_PASSWORD, der.printable("a"))] * 2, "a second one"),
        ([csr._attribute(csr.CHALLENGE_PASSWORD, der.integer(1))], "a character string"),
        ([csr._attribute(csr.CHALLENGE_PASSWORD, der.utf8("x" * 4097))], "at most 4096"),
        (
            [
                csr._attribute(
                    csr.EXTENSION_REQUEST,
                    der.sequence(
                        der.sequence(der.oid("2.5.29.17"), der.octet_string(b"\x02\x01\x05"))
                    ),
                )
            ],
            "readable extensions",
        ),
        ([csr._attribute(csr.EXTENSION_REQUEST, der.null())], "tag 0x30"),
    ],
)
def test_each_broken_attribute_has_its_own_error(attributes: list[bytes], expected: str) -> None:
    with pytest.raises(MalformedMessage, match=expected):
        csr.decode(rebuilt(attributes))


def test_a_flipped_byte_in_any_part_is_noticed() -> None:
    information = der.read(FULL).children()[0]
    start = FULL.index(information.raw)
    for position in range(start, len(FULL), 7):
        damaged = FULL[:position] + bytes((FULL[position] ^ 0x01,)) + FULL[position + 1 :]
        with pytest.raises(CertsError) as error:
            csr.decode(damaged)
        assert isinstance(error.value, MalformedMessage | InvalidSignature), position


def test_the_signature_must_be_of_the_requested_key() -> None:
    stolen = FULL.replace(spki_der(KEY.public_key()), spki_der(rsa_key(2).public_key()))
    with pytest.raises(InvalidSignature, match="certificate request"):
        csr.decode(stolen)


def test_a_truncated_request_is_malformed_at_each_byte() -> None:
    for end in range(len(FULL)):
        with pytest.raises(MalformedMessage):
            csr.decode(FULL[:end])


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_garbage_is_malformed(data: bytes) -> None:
    with pytest.raises(CertsError):
        csr.decode(data)


@pytest.mark.vectors
@needs_vectors
def test_the_request_of_jscep_matches_its_facts() -> None:
    request = csr.decode((VECTORS / "scep" / "jscep-req0.der").read_bytes())
    assert names.text(request.subject) == (
        "C=NZ,O=Dave's Wetaburgers,OU=Procurement,CN=Test SCEP PKI user"
    )
    assert request.public_key.key_size == 1536
    assert request.challenge_password == "NQ3C6-GS3ZN-2XPGL-SEJTQ"
    assert request.alternative_names == (
        x509.RFC822Name("dave@wetas-r-us.com"),
        x509.UniformResourceIdentifier("http://www.wetas-r-us.com"),
    )


@pytest.mark.vectors
@needs_vectors
def test_the_malformed_requests_match_their_facts() -> None:
    with pytest.raises(InvalidSignature):
        csr.decode((VECTORS / "malformed" / "smallstep-badsig.csr").read_bytes())
    short = csr.decode((VECTORS / "malformed" / "smallstep-short-rsa.csr").read_bytes())
    assert short.public_key.key_size == 1048  # for a CA to refuse
    assert short.alternative_names == (x509.DNSName("foo"),)
