"""Identities that a profile brings ready made, as other programs write them (mdm.md 2.5)."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certs import names
from certs.keys import PrivateKey, generate
from emulator.device.identities import obtain
from emulator.device.keychain import InstalledIdentity
from emulator.errors import ProfileRefused
from emulator.wire.profile import Pkcs12Payload
from tests.emulator.device.world import make_device, mdm_authority, surroundings
from tests.support import openssl, rsa_key

PASSWORD = "geheim"
# What openssl is asked for: its own default, and what older tools write.
FORMS = {
    "pbes2-aes256": [],
    "3des-sha1": ["-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"],
    "rc2-40-certificates": ["-legacy"],
    "rc2-128": ["-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128"],
}


def made_by_openssl(folder: Path, key: PrivateKey, *options: str, password: str) -> bytes:
    certificate = mdm_authority()[0].issue(
        key.public_key(), names.from_subject([[["CN", "ready made"]]])
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    files = ["-inkey", str(folder / "key.pem"), "-in", str(folder / "certificate.pem")]
    return openssl("pkcs12", "-export", *files, "-passout", f"pass:{password}", *options)


async def installed(content: bytes, password: str | None) -> InstalledIdentity:
    payload = Pkcs12Payload(identifier="p12", uuid="U", content=content, password=password)
    return await obtain(make_device(), surroundings(), "com.example", payload)


async def refusal(content: bytes, password: str | None) -> tuple[str, int, str]:
    with pytest.raises(ProfileRefused) as caught:
        await installed(content, password)
    top, cause = caught.value.chain
    assert top[:2] == ("MCInstallationErrorDomain", 4001)
    return cause


WRONG_PASSWORD = (
    "MCCertificateErrorDomain",
    9000,
    "The password of the certificate “p12” is incorrect.",
)


@pytest.mark.peer
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["rsa", "ec"])
async def test_what_openssl_encrypts_is_installed_with_its_password_alone(
    tmp_path: Path, kind: str, form: str
) -> None:
    key = rsa_key(5) if kind == "rsa" else generate("p256")
    content = made_by_openssl(tmp_path, key, *FORMS[form], password=PASSWORD)
    item = await installed(content, PASSWORD)
    assert item.kind == "pkcs12"
    expected = rsa.RSAPrivateKey if kind == "rsa" else ec.EllipticCurvePrivateKey
    assert isinstance(item.identity.key, expected)
    assert item.identity.certificate.subject == x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "ready made")]
    )
    for wrong in ("Geheim", "", None):
        assert await refusal(content, wrong) == WRONG_PASSWORD


@pytest.mark.peer
async def test_an_empty_password_is_as_good_as_none(tmp_path: Path) -> None:
    content = made_by_openssl(tmp_path, generate("p256"), password="")
    for password in ("", None):
        assert (await installed(content, password)).kind == "pkcs12"
    assert await refusal(content, "geheim") == WRONG_PASSWORD


@pytest.mark.peer
async def test_a_password_beyond_ascii_works(tmp_path: Path) -> None:
    content = made_by_openssl(tmp_path, generate("p256"), password="Schlüssel")
    assert (await installed(content, "Schlüssel")).kind == "pkcs12"


@pytest.mark.peer
async def test_a_file_without_key_or_certificate_is_no_identity(tmp_path: Path) -> None:
    key = generate("p256")
    for option in ("-nokeys", "-nocerts"):
        content = made_by_openssl(tmp_path, key, option, password=PASSWORD)
        domain, code, text = await refusal(content, PASSWORD)
        assert (domain, code) == ("MCCertificateErrorDomain", 9006)
        assert text == "The payload “p12” holds no identity."


@pytest.mark.parametrize(
    "content",
    [b"", b"no PKCS#12", mdm_authority()[0].certificate.public_bytes(Encoding.DER)],
    ids=["nothing", "text", "a certificate"],
)
async def test_what_is_no_pkcs12_is_malformed_whatever_the_password(content: bytes) -> None:
    for password in (PASSWORD, None):
        domain, code, text = await refusal(content, password)
        assert (domain, code) == ("MCCertificateErrorDomain", 9005)
        assert text == "The certificate “p12” is malformed."


async def test_a_damaged_byte_looks_like_a_wrong_password() -> None:
    identity = mdm_authority()[0].issue_identity(
        generate("p256"), names.from_subject([[["CN", "ready made"]]])
    )
    content = bytearray(identity.to_pkcs12(PASSWORD))
    content[len(content) // 2] ^= 1
    assert await refusal(bytes(content), PASSWORD) == WRONG_PASSWORD
