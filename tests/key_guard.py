"""Raises where our code makes an RSA key, or loads one with the slow check, on a thread that runs an event loop.

`certs.keys` refuses that itself; this stands under it, at the library's own functions, so that no detour is left: whoever of
certs, emulator or mdmserver calls them directly is caught in every test. Tests themselves may.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

OURS: Final = ("certs.", "emulator.", "mdmserver.")
GUARDED: Final = (
    (rsa, "generate_private_key"),
    (serialization, "load_pem_private_key"),
    (serialization, "load_der_private_key"),
    (pkcs12, "load_pkcs12"),
    (pkcs12, "load_key_and_certificates"),
)


def install() -> None:
    """Once a process; a function that is guarded already stays as it is."""
    for module, name in GUARDED:
        function = getattr(module, name)
        if not hasattr(function, "guarded"):
            setattr(module, name, _guard(function))


def _guard(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **options: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        skips_check = options.get("unsafe_skip_rsa_key_validation", False)
        if caller.startswith(OURS) and not skips_check and _is_on_a_loop():
            raise AssertionError(f"{caller} calls {function.__name__} on the event loop")
        return function(*arguments, **options)

    guarded.guarded = True  # type: ignore[attr-defined]
    return guarded


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
