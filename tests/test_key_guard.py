"""Slow key work on the event loop is caught in every test, whichever way our code takes to it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from certs import keys
from certs.keys import KeyWorkOnEventLoop
from tests.support import rsa_key

DETOURS = {
    "generate": "rsa.generate_private_key(public_exponent=65537, key_size=1024)",
    "pem": "serialization.load_pem_private_key(pem, None)",
    "der": "serialization.load_der_private_key(der, None)",
    "pkcs12": "pkcs12.load_pkcs12(pfx, b'p')",
    "key-and-certificates": "pkcs12.load_key_and_certificates(pfx, b'p')",
}
IMPORTS = """
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
"""


def call_of(module: str, expression: str) -> Callable[[], Any]:
    """A function that calls the library as one of `module` would."""
    key = rsa_key()
    names: dict[str, Any] = {
        "__name__": module,
        "pem": keys.to_pem(key),
        "der": keys.to_der(key),
        "pfx": pkcs12.serialize_key_and_certificates(
            b"n", key, None, None, serialization.BestAvailableEncryption(b"p")
        ),
    }
    exec(f"{IMPORTS}\ndef call():\n    return {expression}\n", names)
    called: Callable[[], Any] = names["call"]
    return called


@pytest.fixture(autouse=True)
def _key() -> None:
    rsa_key()


@pytest.mark.parametrize("module", ["certs.acme.client", "emulator.device.device", "mdmserver.app"])
@pytest.mark.parametrize("way", DETOURS)
async def test_a_detour_of_our_code_is_caught_on_the_loop_and_passes_beside_it(
    module: str, way: str
) -> None:
    call = call_of(module, DETOURS[way])
    with pytest.raises(AssertionError, match=f"{module} calls .* on the event loop"):
        call()
    assert await asyncio.to_thread(call)


@pytest.mark.parametrize("way", DETOURS)
def test_without_a_loop_every_way_is_open(way: str) -> None:
    assert call_of("certs.keys", DETOURS[way])()


async def test_a_key_of_our_own_is_loaded_unchecked_on_the_loop() -> None:
    assert keys.load_own(keys.to_der(rsa_key()))


@pytest.mark.parametrize("encoded", [keys.to_pem, keys.to_der], ids=["pem", "der"])
async def test_the_honest_way_refuses_by_itself(
    encoded: Callable[[keys.PrivateKey], bytes],
) -> None:
    data = encoded(rsa_key())
    with pytest.raises(KeyWorkOnEventLoop, match="loading a foreign key"):
        keys.load_checked(data)
    assert isinstance(await asyncio.to_thread(keys.load_checked, data), type(rsa_key()))
    for spec in "rsa1024", "rsa2048", "rsa3072", "rsa4096":
        with pytest.raises(KeyWorkOnEventLoop, match=f"generating an {spec} key"):
            keys.generate(spec)
