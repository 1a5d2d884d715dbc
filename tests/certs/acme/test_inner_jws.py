"""Signatures inside signatures: external account binding and key change, one thing wrong at a time."""

import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.acme import inner_jws, jws
from certs.acme.inner_jws import ExternalAccount
from certs.acme.jws import Json, base64url, decode, encode_json
from certs.errors import AcmeProblem, CertsError, InvalidSignature, MalformedMessage
from certs.keys import generate

URL = "https://ca.example/acme/new-account"
EXTERNAL = ExternalAccount("kid-1", bytes(range(32)))
KEY, NEW = generate("p256"), generate("p384")
KEYS = {EXTERNAL.key_id: EXTERNAL.mac_key}


def check(binding: Json) -> str:
    return inner_jws.check_binding(binding, KEY.public_key(), url=URL, keys=KEYS)


def resigned(**header: Any) -> Json:
    """A binding with another protected header, signed rightly."""
    protected = base64url(
        encode_json({"alg": "HS256", "kid": EXTERNAL.key_id, "url": URL, **header})
    )
    payload = base64url(encode_json(jws.to_jwk(KEY.public_key())))

    signature = hmac.digest(EXTERNAL.mac_key, f"{protected}.{payload}".encode(), "sha256")
    return {"protected": protected, "payload": payload, "signature": base64url(signature)}


def test_a_binding_names_its_key() -> None:
    binding = inner_jws.bind(KEY.public_key(), EXTERNAL, url=URL)
    assert check(binding) == check(resigned()) == EXTERNAL.key_id


def test_a_shared_key_is_in_no_text() -> None:
    assert repr(EXTERNAL) == "ExternalAccount(key_id='kid-1')"


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"nonce": "bm9uY2U"}, "no nonce"),
        ({"url": URL + "x"}, "the URL of the outer request"),
        ({"kid": None, "jwk": jws.to_jwk(KEY.public_key())}, "kid, not jwk"),
        ({"jwk": {}}, "exactly one of jwk and kid"),
        ({"crit": ["b64"]}, "no critical extensions"),
    ],
)
def test_a_binding_with_another_header_is_malformed(header: Json, error: str) -> None:
    with pytest.raises(MalformedMessage, match=error):
        check(resigned(**header))


@pytest.mark.parametrize("algorithm", ["none", "HS512", "ES256", None, ["HS256"]])
def test_a_binding_by_another_algorithm_is_refused(algorithm: object) -> None:
    with pytest.raises(AcmeProblem) as caught:
        check(resigned(alg=algorithm))
    assert caught.value.type == "badSignatureAlgorithm"


def test_hs256_is_for_bindings_alone() -> None:
    outer = encode_json(inner_jws.bind(KEY.public_key(), EXTERNAL, url=URL))
    with pytest.raises(AcmeProblem, match="alg 'HS256' is not supported"):
        decode(outer)


@pytest.mark.parametrize("part", ["protected", "payload", "signature"])
def test_a_flipped_character_of_a_binding_is_noticed(part: str) -> None:
    good = inner_jws.bind(KEY.public_key(), EXTERNAL, url=URL)
    for index in range(0, len(good[part]) - 1, 3):
        text = good[part]
        other = "A" if text[index] != "A" else "B"
        with pytest.raises(CertsError):
            check({**good, part: text[:index] + other + text[index + 1 :]})


def key_change(**changed: Any) -> jws.SignedRequest:
    account, url = "https://ca.example/acme/account/1", "https://ca.example/acme/key-change"
    inner = inner_jws.change_key(KEY.public_key(), NEW, account=account, url=url)
    outer = jws.sign(KEY, encode_json({**inner, **changed}), url=url, nonce="bm9uY2U", kid=account)
    return decode(outer)


def test_a_key_change_gives_the_new_key() -> None:
    found = inner_jws.check_key_change(key_change(), KEY.public_key())
    assert found == NEW.public_key()


def test_a_key_change_of_another_key_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="oldKey"):
        inner_jws.check_key_change(key_change(), generate("p256").public_key())


def test_a_new_key_that_did_not_sign_is_noticed() -> None:
    with pytest.raises(InvalidSignature):
        inner_jws.check_key_change(key_change(signature=base64url(bytes(96))), KEY.public_key())


odd: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.text(max_size=8) | st.just({}) | st.just([])
)


@given(inner=st.dictionaries(st.sampled_from(["protected", "payload", "signature"]), odd) | odd)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_inside_has_a_documented_error(inner: Any) -> None:
    with pytest.raises((MalformedMessage, AcmeProblem, InvalidSignature)):
        check(inner)
