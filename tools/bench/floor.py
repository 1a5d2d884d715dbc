"""The floor of each workload: the public-key operations that its steps really make, and nothing else.

A step lists what the device does in it. Signing a request, opening a CertRep, checking a chain and each TLS connection are
operations; XML, DER, JSON, CBOR, hashing, symmetric ciphers, sockets and the store are not, because they are what this project
could do faster. So no figure reaches its floor. `tools.bench.counter` asserts that a run made exactly what is listed here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tools.bench.operation import Operation, Operations, Verb


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the road costs at least."""

    name: str
    operations: Mapping[Operation, int]
    why: str


def _step(name: str, why: str, **counts: int) -> Step:
    """Names operations as `rsa2048_private=2` or `handshake_p256=1`."""
    operations = {}
    for text, count in counts.items():
        first, _, second = text.partition("_")
        key, verb = (second, first) if first == "handshake" else (first, second)
        operations[Operation(key, _VERBS[verb])] = count
    return Step(name, operations, why)


_VERBS: Final[Mapping[str, Verb]] = {
    "generate": "generate",
    "private": "private",
    "first": "first use",
    "public": "public",
    "handshake": "handshake",
}


def enrollment(identity: str, *, fresh: bool = False, throw_away: bool = False) -> tuple[Step, ...]:
    """From power-on to the home screen, with an MDM identity of that key; every message carries Mdm-Signature."""
    steps = [*BEFORE]
    if identity == "rsa2048":
        keys = 2 if throw_away else 1
        made = {"rsa2048_generate": keys} if fresh else {}
        steps.append(
            _step(
                "scep",
                "CSR and its own check, self-signed signer, pkiMessage; CertRep verified and opened",
                handshake_anonymous=1,
                rsa2048_first=keys,
                rsa2048_private=4,
                rsa2048_public=3,
                **made,
            )
        )
    else:
        acme = Counter({"p256_private": 7, "p256_generate": 1})
        acme[f"{identity}_private"] += 1
        acme[f"{identity}_generate"] += 1
        steps += [
            _step("acme", "account key and seven JWS; the CSR", handshake_anonymous=1, **acme),
            _step("attestation", "the signed request", handshake_anonymous=1, p256_private=1),
        ]
    steps += [
        _step(
            "authenticate",
            "the connection that the rest shares, with the client certificate; one Mdm-Signature",
            **{f"handshake_{identity}": 1, f"{identity}_private": 1},
        ),
        _signed(identity, "token_update", 1),
        _signed(identity, "awaiting_configuration", 6),  # Idle and five results
        _signed(identity, "token_update, configured", 1),
    ]
    return tuple(steps)


BEFORE: Final = (
    _step(
        "drm_handshake",
        "request signed by the attestation key; reply verified",
        handshake_anonymous=1,
        p256_private=1,
        p256_public=1,
    ),
    _step(
        "device_activation",
        "session proof, DeviceCertRequest and FairPlay signature; token and certificate verified",
        p256_private=1,
        rsa2048_first=1,
        rsa2048_private=2,
        rsa2048_public=3,
    ),
    _step("cloud_configuration", "signed envelope", handshake_anonymous=1, p256_private=1),
    _step(
        "enrollment_profile",
        "MachineInfo signed; the profile’s signature verified",
        handshake_anonymous=1,
        rsa2048_private=1,
        p256_public=1,
    ),
)


def _signed(identity: str, name: str, messages: int) -> Step:
    return _step(name, "Mdm-Signature of each message", **{f"{identity}_private": messages})


def cycle(identity: str) -> tuple[Step, ...]:
    """Idle and one result on a connection that is open, each signed."""
    return (_signed(identity, "idle, command", 2),)


def connected_cycle(identity: str) -> tuple[Step, ...]:
    """Idle and one result, unsigned, on a new connection with the client certificate."""
    return (_step("connect", "TLS with client certificate", **{f"handshake_{identity}": 1}),)


def total(steps: Iterable[Step]) -> Operations:
    """All operations of one pass."""
    operations: Operations = Counter()
    for step in steps:
        operations.update(step.operations)
    return operations


def differences(done: Operations, listed: Operations, passes: int) -> list[str]:
    """Every kind of operation that a run made more or less often than its floor says, with both numbers.

    Less is as wrong as more: the floor would be too high, and the ratio too good.
    """
    return [
        f"{operation}: {done[operation]} made, {listed[operation] * passes} listed"
        for operation in sorted(done.keys() | listed.keys())
        if done[operation] != listed[operation] * passes
    ]
