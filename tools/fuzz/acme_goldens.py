"""Good objects and payloads of ACME, from which the fuzzer starts."""

from cryptography import x509

from certs import csr
from certs.acme import jws
from certs.acme.inner_jws import ExternalAccount, bind, change_key
from certs.keys import generate
from tools.fuzz import goldens


def answers() -> tuple[bytes, ...]:
    """One of each object of RFC 8555."""
    device = {"type": "permanent-identifier", "value": "SIM1"}
    challenge = {
        "type": "device-attest-01",
        "url": "https://h/c",
        "status": "invalid",
        "token": "t",
        "validated": "2026-01-01T00:00:00Z",
        "error": {"type": "urn:ietf:params:acme:error:badAttestationStatement", "detail": "no"},
    }
    objects: tuple[jws.Json, ...] = (
        {"newNonce": "https://h/n", "newAccount": "https://h/a", "newOrder": "https://h/o"},
        {"status": "valid", "contact": ["mailto:a@b.c"], "orders": "https://h/orders"},
        {
            "status": "valid",
            "identifiers": [device],
            "authorizations": ["https://h/z"],
            "finalize": "https://h/f",
            "expires": "2026-01-01T00:00:00Z",
            "certificate": "https://h/x",
        },
        {"identifier": device, "status": "pending", "challenges": [challenge]},
        challenge,
        {"orders": ["https://h/1", "https://h/2"]},
        {
            "type": "urn:ietf:params:acme:error:malformed",
            "detail": "no",
            "status": 400,
            "subproblems": [{"type": "x", "detail": "y", "identifier": device}],
        },
    )
    return tuple(jws.encode_json(one) for one in objects)


def payloads() -> tuple[bytes, ...]:
    """One of each payload of RFC 8555 and of device attestation."""
    names = [{"type": "dns", "value": "a.example"}, {"type": "dns", "value": "b.example"}]
    external = ExternalAccount("k", bytes(32))
    objects: tuple[jws.Json, ...] = (
        {"contact": ["mailto:a@b.c"], "termsOfServiceAgreed": True, "onlyReturnExisting": True},
        {"contact": [], "status": "deactivated"},
        {"identifiers": names},
        {"identifiers": [{"type": "permanent-identifier", "value": "SIM1"}]},
        {"csr": jws.base64url(csr.build(generate("p256"), x509.Name([])))},
        *({"attObj": jws.base64url(one)} for one in goldens.attestations()),
        bind(goldens.account_key(), external, url="https://h/x"),
        change_key(
            goldens.account_key(), generate("p256"), account="https://h/1", url="https://h/x"
        ),
    )
    return tuple(jws.encode_json(one) for one in objects)
