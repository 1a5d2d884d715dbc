"""Private keys: made fresh or ahead of need, never on the event loop, and loaded without the 34 ms check when ours.

RSA-2048 generation costs about 42 ms of a core and checked loading 34 ms with the GIL held; either would stall every
device of a fleet, so both raise `KeyWorkOnEventLoop` on a thread that runs an event loop.
"""

import asyncio
import threading
from collections import deque
from functools import lru_cache
from typing import Final, Literal, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.errors import CertsError, MalformedMessage

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
KeySpec = Literal["rsa1024", "rsa2048", "rsa3072", "rsa4096", "p192", "p256", "p384", "p521"]

CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "p192": ec.SECP192R1,  # Apple's ACME payload allows it; hardly a CA does
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
}


class KeyWorkOnEventLoop(CertsError):
    """Our own mistake: slow key work was started on a thread whose event loop it would stall."""


def generate(spec: KeySpec) -> PrivateKey:
    """Make a key; RSA only off the event loop (use a `KeySource` there)."""
    if spec.startswith("rsa"):
        _not_on_the_loop(f"generating an {spec} key")
        return rsa.generate_private_key(public_exponent=65537, key_size=int(spec[3:]))
    return ec.generate_private_key(CURVES[spec]())


def load_own(der: bytes) -> PrivateKey:
    """Load a PKCS#8 DER key that this project wrote itself: no validation, 4 µs."""
    key = serialization.load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    return _supported(key)


def load_checked(data: bytes, password: bytes | None = None) -> PrivateKey:
    """Load a foreign key, PEM or DER, with full validation; only off the event loop."""
    _not_on_the_loop("loading a foreign key")
    load = (
        serialization.load_pem_private_key
        if data.lstrip().startswith(b"-----")
        else serialization.load_der_private_key
    )
    try:
        return _supported(load(data, password))
    except (ValueError, TypeError) as error:
        raise MalformedMessage("private key", "an RSA or EC key, PEM or DER", str(error)) from error


def to_der(key: PrivateKey) -> bytes:
    """PKCS#8 DER, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def to_pem(key: PrivateKey) -> bytes:
    """PKCS#8 PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def spki_der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo DER: what two keys are compared by."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_spki(spki: bytes) -> object:
    """The public key of a SubjectPublicKeyInfo, of any kind; raises what cryptography raises.

    One object for equal bytes: what OpenSSL prepares at a key's first use then serves all that one message asks of it.
    """
    if len(spki) > MAX_KEPT_SPKI:
        return serialization.load_der_public_key(spki)
    return _load_spki(spki)


def forget_spkis() -> None:
    """As a program that has just started: for measurements that see the same keys again."""
    _load_spki.cache_clear()


MAX_KEPT_SPKI: Final = 1024  # bytes; RSA with 4096 bits has 550


@lru_cache(maxsize=256)
def _load_spki(spki: bytes) -> object:
    return serialization.load_der_public_key(spki)


class KeySource(Protocol):
    """Where a device gets its keys from."""

    async def take(self, spec: KeySpec) -> PrivateKey:
        """A key that nobody else has."""
        ...


class FreshKeys:
    """Makes every key at the moment it is asked for, in a thread."""

    async def take(self, spec: KeySpec) -> PrivateKey:
        if spec.startswith("rsa"):
            return await asyncio.to_thread(generate, spec)
        return generate(spec)


class KeyPool:
    """Keys made ahead of need; falls back to fresh ones when it runs dry, and counts those."""

    def __init__(self) -> None:
        self._keys: dict[str, deque[PrivateKey]] = {}
        self._lock = threading.Lock()
        self.made_late = 0  # keys that had to be made during the run

    def fill(self, spec: KeySpec, count: int) -> None:
        """Make keys until `count` are ready; only off the event loop."""
        keys = self._keys.setdefault(spec, deque())
        while len(keys) < count:
            key = generate(spec)
            with self._lock:
                keys.append(key)

    def ready(self, spec: KeySpec) -> int:
        """How many keys wait."""
        return len(self._keys.get(spec, ()))

    async def take(self, spec: KeySpec) -> PrivateKey:
        with self._lock:
            keys = self._keys.get(spec)
            if keys:
                return keys.popleft()
        if spec.startswith("rsa"):
            self.made_late += 1
            return await asyncio.to_thread(generate, spec)
        return generate(spec)


def _supported(key: object) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise MalformedMessage("private key", "RSA or EC", type(key).__name__)


def _not_on_the_loop(work: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise KeyWorkOnEventLoop(f"{work} would stall the event loop")
