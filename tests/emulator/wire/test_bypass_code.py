"""Activation-lock bypass codes: the printed form and the escrow hash (apple-services.md 2.8)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import bypass_code
from tests.support import VECTORS, needs_vectors

RAW = bytes(range(16))
CODE = "000H4-0R40M-30F2-0918-5HR3-8F17"
HASH = "c5ced1d0c51459c1a887866a5868dd3e9e6f4fc4a8c244f3f9eb9383c0f8aecb"


def test_the_published_code_encodes_decodes_and_hashes() -> None:
    assert bypass_code.encode(RAW) == CODE
    assert bypass_code.decode(CODE) == RAW
    assert bypass_code.escrow_hash(RAW).hex() == HASH


@needs_vectors
def test_bypass_codes_agree_with_the_captured_table() -> None:
    table = json.loads((VECTORS / "activation" / "activation-lock-bypass-codes.json").read_bytes())
    rows = (
        table if isinstance(table, list) else next(v for v in table.values() if isinstance(v, list))
    )
    assert len(rows) == 7
    for row in rows:
        raw, code, hashed = (str(value) for value in row.values())
        assert bypass_code.encode(bytes.fromhex(raw)) == code
        assert bypass_code.escrow_hash(bypass_code.decode(code)).hex() == hashed


@given(st.binary(min_size=16, max_size=16))
def test_decoding_a_code_undoes_encoding(raw: bytes) -> None:
    assert bypass_code.decode(bypass_code.encode(raw)) == raw


@pytest.mark.parametrize(
    "text", ["", CODE[:-1], CODE + "0", CODE[:-1] + "8", "B" + CODE[1:], "é" * 26]
)
def test_a_text_that_is_no_code_is_malformed_and_not_repeated(text: str) -> None:
    with pytest.raises(MalformedMessage) as refused:
        bypass_code.decode(text)
    assert refused.value.got is None
