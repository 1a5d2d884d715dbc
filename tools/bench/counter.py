"""Counts the crypto operations that really happen in this process, so that no floor can be stated too high or too low.

Counted, wherever they are called from, certificate builders and chain checks of `cryptography` included, as those call the
same methods: RSA and EC key generation, private-key operations (sign, decrypt, exchange), the first private operation of each
RSA key object (it sets up Montgomery form and blinding), public-key operations (verify, encrypt), and TLS connections of
the devices' HTTP door by the kind of client identity. A handshake counts as one; what OpenSSL does inside it is in the price
of one handshake (`floor`). Not counted: hashes, symmetric ciphers, parsing, and all else that is not public-key cryptography.

The wrappers replace methods of the key types of `cryptography` while the counter is on. They cost 0.3 µs a call, and are
on during the measurement itself: what is counted is what is measured.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from emulator.http.tls import ConnectionContext
from tools.bench.operation import Operation, Operations, Verb

ANONYMOUS: Final = "anonymous"
SIZES: Final = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}


class OperationCounter:
    """What was done between `reset` and now, in all threads."""

    def __init__(self) -> None:
        self.done: Operations = Counter()
        self.generating_s = (
            0.0  # CPU spent on RSA generation: a lottery, so its floor is what it took
        )
        self._lock = threading.Lock()  # RSA keys are made in threads
        self._used: dict[
            int, object
        ] = {}  # RSA keys that worked before, held so that no id comes again

    def reset(self) -> None:
        """Begin again at nothing; keys stay known as used."""
        self.done = Counter()
        self.generating_s = 0.0

    def forget_keys(self) -> None:
        """Let go of the keys that were seen."""
        self._used.clear()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Wrap every seam, and unwrap it at the end."""
        rsa_key = rsa.generate_private_key(65537, 1024)
        ec_key = ec.generate_private_key(ec.SECP256R1())
        with ExitStack() as stack:

            def count(owner: Any, name: str, verb: Verb) -> None:
                original = getattr(owner, name)
                setattr(owner, name, self._counted(original, verb))
                stack.callback(setattr, owner, name, original)

            for name in ("sign", "decrypt"):
                count(type(rsa_key), name, "private")
            for name in ("sign", "exchange"):
                count(type(ec_key), name, "private")
            for name in ("verify", "encrypt", "recover_data_from_signature"):
                count(type(rsa_key.public_key()), name, "public")
            count(type(ec_key.public_key()), "verify", "public")
            self._replace(stack, rsa, "generate_private_key", self._generated)
            self._replace(stack, ec, "generate_private_key", self._generated)
            self._replace(stack, ConnectionContext, "wrap_bio", self._connected)
            yield

    @staticmethod
    def _replace(
        stack: ExitStack, owner: Any, name: str, wrap: Callable[[Any], Callable[..., Any]]
    ) -> None:
        original = getattr(owner, name)
        setattr(owner, name, wrap(original))
        stack.callback(setattr, owner, name, original)

    def _counted(self, original: Any, verb: Verb) -> Callable[..., Any]:
        def counted(key: Any, *arguments: Any, **named: Any) -> Any:
            name = key_name(key)
            with self._lock:
                if verb == "private" and name.startswith("rsa") and id(key) not in self._used:
                    self._used[id(key)] = key
                    self.done[Operation(name, "first use")] += 1
                self.done[Operation(name, verb)] += 1
            return original(key, *arguments, **named)

        return counted

    def _generated(self, original: Any) -> Callable[..., Any]:
        def generate(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            key = original(*arguments, **named)
            spent_s = time.thread_time() - started
            name = key_name(key)
            with self._lock:
                if name.startswith("rsa"):
                    self.generating_s += spent_s
                self.done[Operation(name, "generate")] += 1
            return key

        return generate

    def _connected(self, original: Any) -> Callable[..., Any]:
        def wrap_bio(context: Any, *arguments: Any, **named: Any) -> Any:
            identity = context._identity
            name = ANONYMOUS if identity is None else key_name(identity.key)
            with self._lock:
                self.done[Operation(name, "handshake")] += 1
            return original(context, *arguments, **named)

        return wrap_bio


def key_name(key: Any) -> str:
    """The KeySpec of a private or public key."""
    curve = getattr(key, "curve", None)  # quicker than asking which of the abstract types it is
    return f"rsa{key.key_size}" if curve is None else SIZES[curve.name]
