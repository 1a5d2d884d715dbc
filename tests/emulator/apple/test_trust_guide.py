"""The folder of anchors: every value of its README reads back as the certificate it stands for."""

import base64
import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.apple import trust_guide
from tests.emulator.apple.support import pki

PRODUCTS = ("NanoMDM", "NanoDEP", "MicroMDM", "Fleet", "Zentral", "step-ca", "mdmserver")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("anchors")
    trust_guide.export(pki(), made)
    return made


@pytest.fixture(scope="module")
def readme(folder: Path) -> str:
    return (folder / "README.md").read_text()


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / name).read_bytes())


def test_every_file_is_named_once_with_its_fingerprint(folder: Path, readme: str) -> None:
    rows = re.findall(r"^\| `(sim-[a-z-]+\.pem)` \| [^|]+ \| ([^|]+) \|$", readme, re.M)
    assert sorted(name for name, _ in rows) == sorted(path.name for path in folder.glob("*.pem"))
    for name, said in rows:
        if name != "sim-activation-service-key.pem":
            assert said == certificate(folder, name).fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_has_a_row_whose_files_are_there(
    folder: Path, readme: str, product: str
) -> None:
    table = readme.partition("## Which server takes which")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:4] for row in table.splitlines() if row.startswith("| ")]
    named = {rows[index][0].strip(): index for index in range(len(rows)) if rows[index][0].strip()}
    files = re.findall(r"`([^`]+)`", rows[named[product]][1])
    assert files
    assert all((folder / file).is_file() for file in files)
    assert rows[named[product]][2].strip()


def test_attestation_roots_of_step_ca_read_back(folder: Path, readme: str) -> None:
    block = readme.partition("```json\n")[2].partition("```")[0]
    pem = base64.b64decode(json.loads(block)["attestationRoots"], validate=True)
    root = x509.load_pem_x509_certificate(pem)
    assert root == certificate(folder, "sim-attestation-root-ca.pem")
    assert root.subject == root.issuer


def test_base64_of_der_reads_back(folder: Path, readme: str) -> None:
    der = readme.partition("## base64 of DER")[2]
    found = dict(re.findall(r"^`(sim-[a-z-]+\.pem)` .*\n\n    (\S+)$", der, re.M))
    assert "sim-iphone-device-ca.pem" in found
    assert len(found) == len(list(folder.glob("*.pem"))) - 1  # the bare key has none
    for name, text in found.items():
        expected = certificate(folder, name).public_bytes(Encoding.DER)
        assert base64.b64decode(text, validate=True) == expected


def test_no_private_key_is_written(folder: Path) -> None:
    assert not any("PRIVATE KEY" in path.read_text() for path in folder.iterdir())
