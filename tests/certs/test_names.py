"""Names as profiles write them."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs import csr, der, names
from certs.errors import MalformedMessage
from tests.support import rsa_key


def test_a_subject_keeps_its_order_and_its_rdns() -> None:
    name = names.from_subject(
        [[["C", "CH"]], [["O", "Œuvre"], ["OU", "IT"]], [["CN", "a"]], [["2.5.4.5", "SN1"]]]
    )
    assert [len(rdn) for rdn in name.rdns] == [1, 2, 1, 1]
    assert names.text(name).startswith("C=CH,")
    assert names.common_name(name) == "a"
    tags = {
        der.read(pair.raw).children()[0].as_oid(): der.read(pair.raw).children()[1].tag
        for rdn in der.read(name.public_bytes()).children()
        for pair in rdn.children()
    }
    assert tags == {
        "2.5.4.6": der.PRINTABLE_STRING,
        "2.5.4.10": der.UTF8_STRING,
        "2.5.4.11": der.UTF8_STRING,
        "2.5.4.3": der.UTF8_STRING,
        "2.5.4.5": der.PRINTABLE_STRING,
    }


def test_e_mail_and_uid_go_by_their_numbers() -> None:
    name = names.from_subject(
        [[["1.2.840.113549.1.9.1", "a@example.com"]], [["0.9.2342.19200300.100.1.1", "u"]]]
    )
    assert name.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)[0].value == "a@example.com"
    assert name.get_attributes_for_oid(NameOID.USER_ID)[0].value == "u"
    assert der.IA5_STRING in name.public_bytes()


@pytest.mark.parametrize(
    ("kind", "value", "tag"),
    [
        ("2.5.4.5", "SN1", der.PRINTABLE_STRING),
        ("2.5.4.5", "%SerialNumber%", der.UTF8_STRING),  # a variable that iOS does not fill in
        ("2.5.4.5", "SN_1", der.UTF8_STRING),
        ("2.5.4.46", "é", der.UTF8_STRING),
        ("1.2.840.113549.1.9.1", "jürg@example.com", der.UTF8_STRING),
        ("0.9.2342.19200300.100.1.25", "example", der.IA5_STRING),
    ],
)
def test_what_a_string_type_cannot_hold_is_written_in_utf8(kind: str, value: str, tag: int) -> None:
    name = names.from_subject([[[kind, value]]])
    pair = der.read(name.public_bytes()).children()[0].children()[0].children()
    assert (pair[1].tag, pair[1].content) == (tag, value.encode())
    assert csr.decode(csr.build(rsa_key(1), name)).subject == name


def test_an_empty_subject_is_the_empty_name() -> None:
    assert names.from_subject([]).public_bytes() == b"\x30\x00"
    assert names.common_name(names.from_subject([])) is None
    assert names.text(names.from_subject([])) == ""


@pytest.mark.parametrize(
    "subject",
    [
        None,
        "CN=a",
        {"CN": "a"},
        ["CN", "a"],
        [["CN", "a"]],
        [[]],
        [[["CN"]]],
        [[["CN", 1]]],
        [[["CN", "a", "b"]]],
        [[["XYZ", "a"]]],
        [[["2.5.4.", "a"]]],
        [[["C", "CHE"]]],
        [[["CN", ""]]],
        [[["CN", "a"], ["CN", "a"]]],
    ],
)
def test_wrong_nesting_is_refused_as_ios_refuses_it(subject: object) -> None:
    with pytest.raises(MalformedMessage, match="Subject"):
        names.from_subject(subject)


def test_alternative_names_may_be_strings_or_arrays() -> None:
    found = names.alternative_names(
        {
            "rfc822Name": "a@example.com",
            "dNSName": ["a.example.com", "b.example.com"],
            "uniformResourceIdentifier": "https://example.com/a",
            "ntPrincipalName": "user@EXAMPLE",
            "directoryName": "not one that profiles know",
        }
    )
    assert found == [
        x509.RFC822Name("a@example.com"),
        x509.DNSName("a.example.com"),
        x509.DNSName("b.example.com"),
        x509.UniformResourceIdentifier("https://example.com/a"),
        x509.OtherName(names.NT_PRINCIPAL_NAME, der.utf8("user@EXAMPLE")),
    ]


@pytest.mark.parametrize("mapping", [{"dNSName": 1}, {"dNSName": [None]}, {"rfc822Name": "ä@b"}])
def test_an_alternative_name_that_is_none_is_refused(mapping: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage, match="SubjectAltName"):
        names.alternative_names(mapping)


def test_key_usage_bits_are_those_of_the_payload() -> None:
    signing, both, encryption = names.key_usage(1), names.key_usage(5), names.key_usage(4)
    assert signing is not None
    assert encryption is not None
    assert both is not None
    assert (signing.digital_signature, signing.key_encipherment) == (True, False)
    assert (encryption.digital_signature, encryption.key_encipherment) == (False, True)
    assert both.public_bytes() == bytes.fromhex("030205a0")
    assert names.key_usage(0) is None


VALUES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text(alphabet=' #\\,+<>;"=aZ9.-', min_size=1, max_size=12),
)


@given(
    st.lists(st.tuples(st.sampled_from(["CN", "O", "2.5.4.5", "0.9.2342.1"]), VALUES), max_size=4)
)
def test_a_name_in_words_is_that_of_cryptography(pairs: list[tuple[str, str]]) -> None:
    try:
        name = names.from_subject([[[kind, value]] for kind, value in pairs])
    except MalformedMessage:
        return
    assert names.rfc4514(name) == name.rfc4514_string()
    assert names.text(name) == ",".join(rdn.rfc4514_string() for rdn in name.rdns)
