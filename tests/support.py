"""What tests of every room share: captured messages of others, cached RSA keys, the openssl witness."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"
GOLDENS = Path(__file__).resolve().parent / "vectors"

needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="vectors are absent")


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One RSA key per number and process: making one costs 42 ms. Call it outside a running event loop or reuse it there."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run the openssl command as an independent witness; its refusal fails the test with its own words."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    run = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    return run.stdout
