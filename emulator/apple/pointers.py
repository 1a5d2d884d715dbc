"""Per server product the settings that point it at running stand-ins, ready to paste (README.md has the same as a table)."""

from collections.abc import Iterator
from pathlib import Path

from emulator.apple.addresses import Addresses
from emulator.apple.trust_guide import ATTESTATION_ROOT, ROOT, attestation_roots

NAME = "NAME"  # what the reader fills in stands in capitals: NAME, KEY, TOPIC, SERVER


def pointers(at: Addresses, state: Path) -> dict[str, list[str]]:
    """Lines by product; comments start with #, as in a shell."""
    return {
        "NanoMDM": list(_nanomdm(at, state)),
        "NanoDEP": list(_nanodep(at, state)),
        "MicroMDM": list(_micromdm(at)),
        "Fleet": list(_fleet(at)),
        "Zentral": list(_zentral(at)),
        "step-ca": list(_step_ca(at)),
        "mdmserver": list(_mdmserver(at, state)),
        "any other": list(_any_other(at)),
    }


def fleet_section(at: Addresses) -> list[str]:
    """What a fleet file says to use these stand-ins."""
    return [
        "apple:",
        f"  url: {at.url}",
        f"  admin_url: {at.admin_url}",
        f"  token_file: {at.token_file}",
        f"  ca: {at.tls_root}",
    ]


def _by_proxy(at: Addresses) -> str:
    """Environment of a Go program whose Apple URLs are constants."""
    if at.proxy_url is None:
        return f"SSL_CERT_FILE={at.trust_bundle}"
    return f"HTTPS_PROXY={at.proxy_url} SSL_CERT_FILE={at.trust_bundle}"


def _needs_proxy(at: Addresses) -> Iterator[str]:
    if at.proxy_url is None:
        yield "# its URL of APNs is a constant: start the stand-ins with a proxy_port"


def _nanomdm(at: Addresses, state: Path) -> Iterator[str]:
    yield from _needs_proxy(at)
    yield f"{_by_proxy(at)} nanomdm -ca ca.pem -api KEY"
    yield f"mdm-emulator portal --apple {state} push-certificate TOPIC --out push.pem"
    yield "curl -u nanomdm:KEY -T push.pem http://NANOMDM/v1/pushcert"
    yield "# NanoHUB: the same, below /api/v1/nanomdm"


def _nanodep(at: Addresses, state: Path) -> Iterator[str]:
    trust = f"SSL_CERT_FILE={at.trust_bundle}"
    yield f"{trust} depserver -api KEY"
    yield (
        f'curl -u depserver:KEY -X PUT -d \'{{"base_url": "{at.url}/"}}\' http://DEPSERVER/v1/config/{NAME}'
    )
    yield f"curl -u depserver:KEY -o {NAME}.pem http://DEPSERVER/v1/tokenpki/{NAME}"
    yield (
        f"mdm-emulator portal --apple {state} token issue SERVER --certificate {NAME}.pem --out {NAME}.p7m"
    )
    yield f"curl -u depserver:KEY -T {NAME}.p7m http://DEPSERVER/v1/tokenpki/{NAME}"
    yield f"{trust} depsyncer {NAME}"


def _micromdm(at: Addresses) -> Iterator[str]:
    yield "# in the settings file: a server with `credentials: micromdm`, the ones that -depsim signs with"
    yield from _needs_proxy(at)
    yield f"{_by_proxy(at)} micromdm serve -depsim {at.url} -api-key KEY -server-url https://MICROMDM"
    yield "# after an import of a .p7m it forgets -depsim and asks Apple's name: the proxy leads that here, too"


def _fleet(at: Addresses) -> Iterator[str]:
    push = at.push_plain_url or at.push_url
    yield f"FLEET_DEV_MDM_APPLE_PUSH_SERVER_URL={push}"
    if at.push_plain_url is None:
        yield "# it shows no certificate there: push mode compat, with a plain_port for HTTP without TLS"
    yield "FLEET_DEV_MDM_APPLE_DISABLE_DEVICE_INFO_CERT_VERIFY=1"
    yield f"SSL_CERT_FILE={at.trust_bundle}"
    yield "# with `fleet serve --dev`; and in its database, for the row of the token:"
    yield f"UPDATE nano_dep_names SET config_base_url = '{at.url}/' WHERE name = '{NAME}';"


def _zentral(at: Addresses) -> Iterator[str]:
    if at.proxy_url is not None:
        yield f"HTTPS_PROXY={at.proxy_url}"
    yield f"REQUESTS_CA_BUNDLE={at.trust_bundle}"
    yield f"SSL_CERT_FILE={at.trust_bundle}"
    yield "# or, in a module that is imported at its start:"
    yield "from zentral.contrib.mdm.apns import APNSClient"
    yield "from zentral.contrib.mdm.dep_client import DEPClient"
    yield f'APNSClient.apns_production_base_url = "{at.push_url}"'
    yield f'DEPClient.API_URL = "{at.url}/"'


def _step_ca(at: Addresses) -> Iterator[str]:
    yield "# of the ACME provisioner with challenge device-attest-01 and format apple:"
    pem = Path(at.anchors, ATTESTATION_ROOT).read_bytes()
    yield f'"attestationRoots": "{attestation_roots(pem)}"'


def _mdmserver(at: Addresses, state: Path) -> Iterator[str]:
    yield f"mdm-emulator portal --apple {state} push-certificate TOPIC --out push.pem"
    yield "# server.yaml:"
    yield "push_certificate: push.pem"
    yield f"push_url: {at.push_url}"
    yield f"push_roots: [{at.tls_root}]"
    yield (
        f"mdm-server serve --config server.yaml --state mdm-state --apple-root {at.anchors}/{ROOT}"
        f" --attestation-root {at.anchors}/{ATTESTATION_ROOT}"
        f" --assignment-url {at.url} --assignment-root {at.tls_root}"
    )


def _any_other(at: Addresses) -> Iterator[str]:
    if at.proxy_url is not None:
        yield f"HTTPS_PROXY={at.proxy_url}"
    yield f"# or resolve mdmenrollment.apple.com to an address whose port 443 leads to {at.url}"
    yield f"# and api.push.apple.com to another, whose port 443 leads to {at.push_url}; and trust:"
    yield at.trust_bundle
