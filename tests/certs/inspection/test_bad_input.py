"""`mdm-certs inspect` on JSON, on noise and on damage: one problem each, never a crash, and an end to everything."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import cms
from certs.acme.jws import sign as sign_jws
from certs.inspection.files import MAX_FILE_BYTES
from certs.inspection.plists import MAX_PLIST_BYTES
from certs.inspection.report import MAX_DEPTH, MAX_LINES
from certs.keys import generate
from tests.certs.inspection.told import (
    CA,
    DEVICE,
    RA,
    REQUEST,
    attestation_object,
    has,
    pki_request,
    tell,
)


def test_a_request_of_acme_is_opened() -> None:
    key = generate("p256")
    body = sign_jws(key, b'{"status": "ready"}', url="https://h/x", nonce="N")
    has(tell(body), "JSON Web Signature, a request of ACME", "nonce: N", "status: ready")


def test_a_token_of_a_json_file_is_hidden() -> None:
    report = tell(json.dumps({"access_secret": "hush", "name": "shown"}).encode())
    has(report, "access_secret: hidden, 4 characters", "name: shown")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b"just words, nothing else", "no file of a kind that is known here"),
        (b"{", "JSON: expected a JSON text"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA", "PEM: expected a whole block"),
        (
            b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
            "PEM block CERTIFICATE: ",
        ),
        (b"<?xml version='1.0'?><!DOCTYPE plist [<!ENTITY a 'b'>]><plist/>", "property list"),
        (b"<plist>" + bytes(MAX_PLIST_BYTES), "at most"),
        (bytes(MAX_FILE_BYTES + 1), "are not read"),
        (b"\x30\x80" * 1000, "levels"),
        (b"\x30\x84\xff\xff\xff\xff" + bytes(100), "bytes of content"),
        (b"\xa1" * 1000, "attObj"),
    ],
)
def test_what_cannot_be_read_is_one_problem(data: bytes, problem: str) -> None:
    report = tell(data)
    assert any(problem in said for said in report.problems), report.problems


def test_files_within_files_end_somewhere() -> None:
    data = b"inside"
    for _ in range(MAX_DEPTH + 3):
        data = cms.sign(data, RA)
    has(tell(data), "too deep to be read")


def test_lines_end_somewhere() -> None:
    block = CA.certificate.public_bytes(Encoding.PEM)
    report = tell(block * 200)
    assert len(report.lines) == MAX_LINES + 1
    assert report.lines[-1] == "…"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_told_and_not_raised(noise: bytes) -> None:
    tell(noise)
    tell(b"\x30\x80" + noise)
    tell(b"bplist00" + noise)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_file_is_told_and_not_raised(which: int, where: int, flip: int) -> None:
    sources = (pki_request(), DEVICE.der, REQUEST, CA.crl(), attestation_object(), RA.to_pem())
    data = bytearray(sources[which])
    data[where % len(data)] ^= flip
    tell(bytes(data), identities=[RA])
    tell(bytes(data[: where % len(data)]))
