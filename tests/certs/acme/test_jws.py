"""JWS and JWK: round trips, an independent library as witness, and every frame that must be refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws as other
from joserfc.jwk import ECKey, RSAKey

from certs.acme import jws
from certs.acme.jws import (
    ALGORITHMS,
    base64url,
    decode,
    encode_json,
    from_base64url,
    from_jwk,
    json_object,
    sign,
    thumbprint,
    to_jwk,
)
from certs.errors import AcmeProblem, InvalidSignature, MalformedMessage
from certs.keys import PrivateKey, generate, spki_der, to_pem
from tests.support import rsa_key

KEYS: dict[str, PrivateKey] = {
    "ES256": generate("p256"),
    "ES384": generate("p384"),
    "ES512": generate("p521"),
    "RS256": rsa_key(),
}
every_key = pytest.mark.parametrize("algorithm", ALGORITHMS)
URL = "https://ca.example/acme/new-order"


def signed(key: PrivateKey | None = None, payload: bytes = b"{}", **header: Any) -> dict[str, str]:
    """A good message as dictionary, whose protected header may be changed before it is signed."""
    key = key or KEYS["ES256"]
    good: dict[str, str] = json.loads(
        sign(key, payload, url=URL, nonce="bm9uY2U", kid="https://ca.example/a/1")
    )
    if header:
        protected = json.loads(from_base64url(good["protected"], ""))
        protected.update(header)
        kept = {name: value for name, value in protected.items() if value is not ...}
        good["protected"] = base64url(encode_json(kept))
        covered = f"{good['protected']}.{good['payload']}".encode()
        good["signature"] = base64url(jws._raw_signature(key, covered))
    return good


@every_key
@given(payload=st.binary(max_size=60))
@settings(max_examples=10, deadline=None)
def test_what_is_signed_verifies(algorithm: str, payload: bytes) -> None:
    key = KEYS[algorithm]
    request = decode(sign(key, payload, url=URL, nonce="bm9uY2U", kid="k"))
    request.verify(key.public_key())
    assert (request.algorithm, request.url, request.nonce) == (algorithm, URL, "bm9uY2U")
    assert (request.payload, request.kid, request.jwk) == (payload, "k", None)
    assert request.is_post_as_get is (payload == b"")


@every_key
def test_a_request_without_account_carries_its_key(algorithm: str) -> None:
    key = KEYS[algorithm].public_key()
    request = decode(sign(KEYS[algorithm], b"{}", url=URL, nonce="bm9uY2U"))
    assert request.kid is None
    assert spki_der(from_jwk(request.jwk)) == spki_der(key)


@every_key
def test_jwk_round_trip(algorithm: str) -> None:
    key = KEYS[algorithm].public_key()
    assert spki_der(from_jwk(to_jwk(key))) == spki_der(key)


def test_coordinates_keep_their_length() -> None:
    """One key in 256 has a coordinate that begins with a zero byte (RFC 7518, section 6.2.1.2)."""
    for _ in range(300):
        assert len(to_jwk(generate("p256").public_key())["x"]) == 43


def test_the_thumbprint_of_rfc_7638() -> None:
    """The example of section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst"
        "n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr"
        "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = from_jwk({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert jws.key_authorization("token", key) == f"token.{thumbprint(key)}"


@every_key
def test_another_library_reads_ours_and_we_read_its(algorithm: str) -> None:
    key = KEYS[algorithm]
    theirs = (RSAKey if algorithm == "RS256" else ECKey).import_key(to_pem(key))
    registry = other.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    message = json.loads(sign(key, b"payload", url=URL, nonce="bm9uY2U", kid="k"))
    found = other.deserialize_json(message, theirs, registry=registry)
    assert found.payload == b"payload"
    header = {"alg": algorithm, "url": URL, "nonce": "bm9uY2U", "kid": "k"}
    made = other.serialize_json({"protected": header}, b"{}", theirs, registry=registry)
    decode(json.dumps(made).encode()).verify(key.public_key())
    assert thumbprint(key.public_key()) == theirs.thumbprint()


@every_key
def test_each_changed_part_breaks_the_signature(algorithm: str) -> None:
    key = KEYS[algorithm]
    good = signed(key, b'{"a":1}')
    decode(encode_json(good)).verify(key.public_key())
    other_url = signed(key, url="https://ca.example/other")["protected"]
    for part, value in (
        ("payload", base64url(b'{"a":2}')),
        ("protected", other_url),
        ("signature", base64url(bytes(len(from_base64url(good["signature"], ""))))),
        ("signature", ""),
        ("signature", good["signature"] + "AAAA"),
    ):
        with pytest.raises(InvalidSignature):
            decode(encode_json({**good, part: value})).verify(key.public_key())


@every_key
def test_another_key_did_not_sign(algorithm: str) -> None:
    spec = {"ES256": "p256", "ES384": "p384", "ES512": "p521"}.get(algorithm)
    stranger = generate(spec) if spec else rsa_key(1)  # type: ignore[arg-type]
    with pytest.raises(InvalidSignature):
        decode(encode_json(signed(KEYS[algorithm]))).verify(stranger.public_key())


def test_an_algorithm_that_does_not_go_with_the_key() -> None:
    request = decode(encode_json(signed(alg="RS256")))
    with pytest.raises(AcmeProblem, match="RS256 does not go with this key") as caught:
        request.verify(KEYS["ES256"].public_key())
    assert caught.value.type == "badSignatureAlgorithm"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256K", "EdDSA", "", 7, None, ["ES256"]])
def test_other_algorithms_are_refused(algorithm: object) -> None:
    with pytest.raises(AcmeProblem) as caught:
        decode(encode_json(signed(alg=algorithm)))
    assert caught.value.type == "badSignatureAlgorithm"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kid": ...}, "exactly one of jwk and kid"),
        ({"jwk": {"kty": "EC"}}, "exactly one of jwk and kid"),
        ({"kid": 7}, "kid: expected a text"),
        ({"kid": ..., "jwk": "x"}, "jwk: expected a JSON object"),
        ({"nonce": ...}, "nonce: expected a text"),
        ({"nonce": "no base64url!"}, "nonce: expected base64url"),
        ({"nonce": "bm9uY2U="}, "nonce: expected base64url"),
        ({"url": ...}, "url: expected a text"),
        ({"crit": ["exp"], "exp": 1}, "no critical extensions"),
    ],
)
def test_a_bad_protected_header_is_malformed(header: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        decode(encode_json(signed(**header)))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"header": {}}, "flattened form without 'header'"),
        ({"signatures": []}, "flattened form without 'signatures'"),
        ({"protected": "e30="}, "protected: expected base64url without padding"),
        ({"protected": base64url(b"[]")}, "protected: expected a JSON object"),
        ({"protected": base64url(b'{"alg":"ES256","alg":"RS256"}')}, "a name comes twice"),
        ({"payload": "e30="}, "payload: expected base64url without padding"),
        ({"payload": "a+/b"}, "payload: expected base64url without padding"),
        ({"payload": None}, "payload: expected a text"),
        ({"signature": 1}, "signature: expected base64url"),
        ({"signature": "A"}, "signature: expected base64url"),
    ],
)
def test_a_bad_frame_is_malformed(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        decode(encode_json({**signed(), **changed}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff{}",
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b"1" * 9999,
        b'{"a":"\\ud800"}',
        b'{"\\udc00":[{}]}',
    ],
)
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage, match="expected a JSON object"):
        json_object(body, "JWS")


def test_a_surrogate_pair_is_one_character() -> None:
    assert json_object(rb'{"a":"\ud83d\ude00 \\ud800"}', "JWS") == {"a": "\U0001f600 \\ud800"}


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(max_examples=80, deadline=None)
def test_garbage_raises_only_malformed_message(data: bytes) -> None:
    with pytest.raises((MalformedMessage, AcmeProblem)):
        decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    message=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("payload", "signature", "header"), json_values),
    ),
    header=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("alg", "nonce", "url", "kid", "jwk", "crit"), json_values)
    ),
)
@settings(max_examples=100, deadline=None)
def test_odd_values_anywhere_raise_only_malformed_message_or_a_problem(
    message: dict[str, Any], header: dict[str, Any]
) -> None:
    good = signed()
    body = {**good, **message, "protected": base64url(encode_json(header))}
    try:
        decode(encode_json(body))
    except (MalformedMessage, AcmeProblem):
        return
    assert set(header) >= {"alg", "nonce", "url"}


@given(st.binary(max_size=70))
@settings(max_examples=50, deadline=None)
def test_base64url_round_trip(data: bytes) -> None:
    text = base64url(data)
    assert "=" not in text
    assert from_base64url(text, "x") == data


EC = to_jwk(KEYS["ES256"].public_key())
RSA = to_jwk(rsa_key().public_key())


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        ({**EC, "kty": "OKP"}, "key type 'OKP' is not EC or RSA"),
        ({}, "key type None"),
        ({**EC, "crv": "P-192"}, "curve 'P-192' is not supported"),
        ({**EC, "x": EC["y"], "y": EC["y"]}, "the point is not on P-256"),
        ({**EC, "x": EC["x"][:-3]}, "coordinates of P-256 have 32 bytes"),
        ({**RSA, "n": base64url(bytes(8) + b"\x01" * 128)}, "RSA keys have 2048 to 8192 bits"),
        ({**RSA, "n": base64url(b"\xff" * 2000)}, "RSA keys have 2048 to 8192 bits"),
        ({**RSA, "e": base64url(b"\x01")}, "no RSA key"),
        ({**RSA, "e": base64url(b"\x01" * 5)}, "RSA keys have"),
    ],
)
def test_an_unfit_key_is_a_bad_public_key(jwk: dict[str, str], reason: str) -> None:
    with pytest.raises(AcmeProblem, match=reason) as caught:
        from_jwk(jwk)
    assert caught.value.type == "badPublicKey"


def test_a_key_on_a_curve_without_algorithm_signs_nothing() -> None:
    with pytest.raises(AcmeProblem, match="badPublicKey: curve secp192r1 is not supported"):
        sign(generate("p192"), b"", url="https://h/", nonce="bm9uY2U")


@pytest.mark.parametrize("jwk", [None, [], {**EC, "x": 1}, {**EC, "y": "a="}, {**RSA, "n": None}])
def test_what_is_no_jwk_is_malformed(jwk: object) -> None:
    with pytest.raises(MalformedMessage, match="jwk"):
        from_jwk(jwk)
