"""The anchors of the simulated PKI in a folder, with a README that says which server takes which, values ready to paste.

The hour an engineer loses is trust, not load: a server that knows only Apple's real roots refuses every simulated device.
"""

import base64
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs import names
from emulator.apple.pki import SimPKI

README: Final = "README.md"
ROOT: Final = "sim-apple-root-ca.pem"
DEVICE_CA: Final = "sim-iphone-device-ca.pem"
ATTESTATION_ROOT: Final = "sim-attestation-root-ca.pem"
TLS: Final = "sim-tls-ca.pem"

USES: Final = {
    ROOT: "signers of MachineInfo lead here (in place of Apple Root CA)",
    DEVICE_CA: "issues the identities that sign MachineInfo",
    ATTESTATION_ROOT: "ACME device attestations lead here",
    "sim-attestation-sub-ca.pem": "issues the attestations",
    TLS: "issues the TLS certificates of the stand-ins",
    "sim-apns-ca.pem": "issues push certificates",
    "sim-activation-service-key.pem": "signs activation handshakes (devices check it)",
}

# Server, file, and where it goes. What a product has no setting for is said, too.
PLACES: Final = (
    ("NanoMDM", TLS, "environment `SSL_CERT_FILE` (Go), for pushes by way of the proxy"),
    ("", "", "nothing for devices: it checks identities by its own `-ca` alone"),
    ("NanoDEP", TLS, "environment `SSL_CERT_FILE` of `depserver` and `depsyncer`"),
    ("MicroMDM", TLS, "environment `SSL_CERT_FILE`, for `-depsim` and pushes"),
    ("", DEVICE_CA, "no flag: its check of MachineInfo has Apple's CA compiled in"),
    ("Fleet", TLS, "environment `SSL_CERT_FILE`"),
    (
        "",
        DEVICE_CA,
        "no setting: `FLEET_DEV_MDM_APPLE_DISABLE_DEVICE_INFO_CERT_VERIFY=1` with `--dev` ends the check",
    ),
    ("Zentral", TLS, "environment `REQUESTS_CA_BUNDLE` and `SSL_CERT_FILE`"),
    (
        "",
        f"{DEVICE_CA}, {ROOT}",
        "append both to `zentral/contrib/mdm/assets/Apple_iPhone_Device_CA_Fullchain.pem`",
    ),
    ("step-ca", ATTESTATION_ROOT, "`attestationRoots` of the ACME provisioner: below"),
    ("mdmserver", ROOT, "`--apple-root`, or `machine_info_roots`"),
    ("", ATTESTATION_ROOT, "`--attestation-root`, or `attestation_roots`"),
    ("", TLS, "`--assignment-root`, or `assignment_roots`; `push_roots`"),
)


def export(pki: SimPKI, folder: Path) -> list[Path]:
    """Write each anchor and the README into `folder`; no private key is among them. Returns the files."""
    written = pki.export(folder)
    guide = folder / README
    guide.write_text(readme(pki), encoding="utf-8")
    return [*written, guide]


def attestation_roots(pem: bytes) -> str:
    """For step-ca: the PEM of the attestation root, base64 once more, on one line."""
    return base64.b64encode(pem).decode()


def readme(pki: SimPKI) -> str:
    """The whole guide, in Markdown."""
    return "\n".join(
        [
            "# Trust anchors of the simulated devices and services",
            "",
            "For test servers only: whoever trusts these believes every simulated device. No private key is here.",
            "",
            "| file | what it is | SHA-256 |",
            "|---|---|---|",
            *(f"| `{name}` | {use} | {_fingerprint(pki, name)} |" for name, use in USES.items()),
            "",
            "## Which server takes which",
            "",
            "| server | file | where it goes |",
            "|---|---|---|",
            *(f"| {server} | {_files(files)} | {place} |" for server, files, place in PLACES),
            "",
            "Behind a CONNECT proxy (`HTTPS_PROXY`) a server meets Apple's names with certificates of another CA: then take",
            "`trust-bundle.pem`, which `mdm-emulator apple serve` writes beside these files, in place of `sim-tls-ca.pem`.",
            "",
            "## step-ca",
            "",
            "In `ca.json`, among the provisioners:",
            "",
            "```json",
            '{"type": "ACME", "name": "devices", "challenges": ["device-attest-01"], "attestationFormats": ["apple"],',
            f' "attestationRoots": "{attestation_roots(pki.pems()[ATTESTATION_ROOT].encode())}"}}',
            "```",
            "",
            "## base64 of DER",
            "",
            "As profiles (`anchor_certs`) and other JSON or YAML take certificates:",
            "",
            *_der(pki),
            "",
        ]
    )


def _certificate(pki: SimPKI, name: str) -> x509.Certificate | None:
    """None: the one file that holds a bare key."""
    pem = pki.pems()[name]
    return x509.load_pem_x509_certificate(pem.encode()) if "CERTIFICATE" in pem else None


def _fingerprint(pki: SimPKI, name: str) -> str:
    certificate = _certificate(pki, name)
    return "a public key" if certificate is None else certificate.fingerprint(hashes.SHA256()).hex()


def _files(files: str) -> str:
    return ", ".join(f"`{file}`" for file in files.split(", ")) if files else ""


def _der(pki: SimPKI) -> list[str]:
    lines = []
    for name in USES:
        certificate = _certificate(pki, name)
        if certificate is not None:
            der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
            lines += [f"`{name}` ({names.text(certificate.subject)})", "", f"    {der}", ""]
    return lines[:-1]
