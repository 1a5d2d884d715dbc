"""MachineInfo: the golden, every signed form, the genuine iPhone's body, and damage."""

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import cms
from certs.errors import InvalidSignature, MalformedMessage
from certs.identity import Identity
from emulator.wire import plist
from emulator.wire.machineinfo import FORMS, Form, MachineInfo, decode, encode, sign, verify
from tests.emulator.wire.certificates import certificate, identity
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import text
from tests.support import GOLDENS, VECTORS, needs_vectors, openssl

INFO = MachineInfo(
    udid="00008110-001A34D90E38801E",
    serial="F7K2Q9XW4M",
    product="iPhone14,5",
    version="22B83",
    os_version="18.1",
    language="en",
    imei="35 391805 123456 1",
    mdm_can_request_software_update=True,
    software_update_device_id="iPhone14,5",
)
SIGNED_ATTRIBUTES = {
    "1.2.840.113549.1.9.3",  # contentType
    "1.2.840.113549.1.9.4",  # messageDigest
    "1.2.840.113549.1.9.5",  # signingTime
}

infos = st.builds(
    MachineInfo,
    product=text,
    version=text,
    udid=st.none() | text,
    serial=st.none() | text,
    os_version=st.none() | text,
    language=st.none() | text,
    imei=st.none() | text,
    meid=st.none() | text,
    mdm_can_request_software_update=st.none() | st.booleans(),
    software_update_device_id=st.none() | text,
    supplemental_build_version=st.none() | text,
    supplemental_os_version_extra=st.none() | text,
)


@settings(max_examples=50)
@given(infos)
def test_decoding_undoes_encoding(info: MachineInfo) -> None:
    assert decode(encode(info)) == info


def test_the_golden_is_written_byte_for_byte_and_read_back() -> None:
    golden = (GOLDENS / "wire" / "MachineInfo.plist").read_bytes()
    assert encode(INFO) == golden
    assert decode(golden) == INFO


def test_keys_newer_than_the_system_are_left_off() -> None:
    old = MachineInfo(product="iPad4,1", version="16A366", language="en", udid="u", serial="s")
    assert sorted(plist.loads(encode(old))) == ["LANGUAGE", "PRODUCT", "SERIAL", "UDID", "VERSION"]


@pytest.mark.parametrize("key", ["PRODUCT", "VERSION"])
def test_what_every_device_sends_must_be_there(key: str) -> None:
    fields = INFO.to_fields()
    del fields[key]
    with pytest.raises(MalformedMessage, match=f"{key}: expected string"):
        decode(plist.dumps(fields))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_verifies_and_tells_the_signer(form: Form, kind: str) -> None:
    signer = Identity(identity(kind).key, identity(kind).certificate, (certificate(9),))
    signed = verify(sign(INFO, signer, form=form))
    assert signed.info == INFO
    assert signed.signer == signer.certificate
    assert signed.certificates == (signer.certificate, certificate(9))


@pytest.mark.parametrize(
    ("form", "starts", "digest", "attributes"),
    [
        ("ber", b"\x30\x80\x06\x09", "sha256", True),
        ("der", b"\x30\x82", "sha256", True),
        ("sha1-ber", b"\x30\x80\x06\x09", "sha1", True),
        ("no-attributes", b"\x30\x82", "sha256", False),
    ],
)
def test_each_form_looks_as_its_name_says(
    form: Form, starts: bytes, digest: str, attributes: bool
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    wire = sign(INFO, identity(), form=form, signing_time=now)
    (signer,) = cms.decode_signed(wire).signers
    assert wire.startswith(starts)
    assert signer.digest == digest
    assert (signer.attributes is not None) is attributes
    if signer.attributes is not None:
        assert set(signer.attributes) >= SIGNED_ATTRIBUTES


def test_the_default_form_is_what_devices_send_today() -> None:
    assert next(iter(FORMS)) == "ber"
    assert sign(INFO, identity()).startswith(b"\x30\x80\x06\x09")


@pytest.mark.peer
@pytest.mark.parametrize("form", get_args(Form))
def test_openssl_verifies_every_form(form: Form) -> None:
    wire = sign(INFO, identity(), form=form)
    content = openssl("cms", "-verify", "-inform", "DER", "-noverify", "-binary", stdin=wire)
    assert content == encode(INFO)


@pytest.mark.parametrize("form", get_args(Form))
def test_one_letter_changed_breaks_the_signature(form: Form) -> None:
    wire = sign(INFO, identity(), form=form)
    with pytest.raises(InvalidSignature):
        verify(wire.replace(b"F7K2Q9XW4M", b"F7K2Q9XW4N"))


def test_another_key_under_the_same_certificate_is_refused() -> None:
    forged = Identity(identity("rsa", 1).key, identity("rsa", 0).certificate)
    with pytest.raises(InvalidSignature):
        verify(sign(INFO, forged))


def test_content_must_be_inside() -> None:
    with pytest.raises(MalformedMessage, match="MachineInfo: expected content"):
        verify(cms.sign(encode(INFO), identity(), detached=True))


def test_an_unsigned_plist_is_not_signed_machine_info() -> None:
    with pytest.raises(MalformedMessage):
        verify(encode(INFO))


def test_signed_rubbish_is_malformed_although_its_signature_is_good() -> None:
    with pytest.raises(MalformedMessage, match="MachineInfo"):
        verify(cms.sign(b"hello", identity("ec")))


@settings(max_examples=50)
@given(garbage | damaged(sign(INFO, identity("ec"))))
def test_garbage_and_damage_are_refused(noise: bytes) -> None:
    survives(verify, noise, (MalformedMessage, InvalidSignature))


@needs_vectors
@pytest.mark.vectors
def test_the_body_of_a_genuine_iphone_verifies() -> None:
    signed = verify((VECTORS / "activation" / "enroll-body-iphone12.p7").read_bytes())
    assert signed.info == MachineInfo(product="iPhone12,1", version="19H12", language="ja-JP")
    assert len(signed.certificates) == 3
    assert signed.signer.serial_number == 0x218E74EFDA9481088EC


@needs_vectors
@pytest.mark.vectors
def test_a_captured_unsigned_machine_info_is_read_and_written_back() -> None:
    wire = (VECTORS / "activation" / "machineinfo-commandment-ipad.plist").read_bytes()
    info = decode(wire)
    assert (info.product, info.version, info.language) == ("iPad4,1", "15A5278f", "en-AU")
    assert (info.udid, info.serial) == ("0" * 32, "BLXLN1111111")
    assert encode(info) == wire
