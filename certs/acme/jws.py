"""JSON Web Keys and Signatures as ACME uses them (RFC 7515 to 7518 and 7638, through RFC 8555, section 6.2).

Flattened JSON, no unprotected header, ES256, ES384, ES512 and RS256; HS256 only inside, for external accounts. In come bytes
of a peer, out comes a `SignedRequest` whose signature is still to be checked against the key that its `jwk` or `kid` names.
"""

import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec
from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from certs.errors import AcmeProblem, InvalidSignature, MalformedMessage
from certs.keys import PrivateKey, PublicKey

Json = dict[str, Any]

CONTENT_TYPE: Final = "application/jose+json"
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # verification time grows with the square; nobody needs more


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    curve: ec.EllipticCurve
    size: int  # bytes of a coordinate
    algorithm: str
    digest: hashes.HashAlgorithm


_CURVES: Final = (
    _Curve("P-256", ec.SECP256R1(), 32, "ES256", hashes.SHA256()),
    _Curve("P-384", ec.SECP384R1(), 48, "ES384", hashes.SHA384()),
    _Curve("P-521", ec.SECP521R1(), 66, "ES512", hashes.SHA512()),
)
_BY_NAME: Final = {curve.name: curve for curve in _CURVES}
_BY_CURVE: Final = {curve.curve.name: curve for curve in _CURVES}
ALGORITHMS: Final = (*(curve.algorithm for curve in _CURVES), "RS256")
MAC_ALGORITHM: Final = "HS256"

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# By length modulo 4, what may stand last: the unused bits are zero (RFC 4648, section 3.5).
_LAST: Final = {0: _ALPHABET, 2: _ALPHABET[::16], 3: _ALPHABET[::4]}
_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")
_FROM_BASE64: Final = bytes.maketrans(b"+/", b"-_")


def base64url(data: bytes) -> str:
    """Without padding (RFC 7515, section 2)."""
    # Bytes are translated by a table, text character by character.
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_FROM_BASE64).decode()


def check_base64url(text: object, field: str) -> str:
    """What looks like base64url without padding, such as a nonce. Raises MalformedMessage."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise MalformedMessage(field, "base64url without padding", text)
    return text


def from_base64url(value: object, field: str) -> bytes:
    """Strict: padding is refused (RFC 8555, section 5), as is another alphabet or a second text for the same bytes. Raises MalformedMessage."""
    text = check_base64url(value, field)
    if text and text[-1] not in _LAST[len(text) % 4]:
        raise MalformedMessage(field, "base64url without padding", text)
    return binascii.a2b_base64(text.encode().translate(_TO_BASE64) + b"=" * (-len(text) % 4))


def json_object(data: bytes, field: str) -> Json:
    """One JSON object in UTF-8 whose names are unique. Raises MalformedMessage."""
    try:
        text = data.decode()
        value = _DECODER.decode(text)
        if "\\u" in text:  # half of a surrogate pair is no character, and UTF-8 has no bytes for it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(field, "a JSON object", str(error)) from error
    if not isinstance(value, dict):
        raise MalformedMessage(field, "a JSON object", type(value).__name__)
    return value


def encode_json(value: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def to_jwk(key: PublicKey) -> dict[str, str]:
    """The public key as JWK, members in the order of RFC 7638."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
    curve = _curve_of(key)
    point = key.public_numbers()
    return {
        "crv": curve.name,
        "kty": "EC",
        "x": base64url(point.x.to_bytes(curve.size, "big")),
        "y": base64url(point.y.to_bytes(curve.size, "big")),
    }


def from_jwk(jwk: object) -> PublicKey:
    """Raises AcmeProblem badPublicKey for a key that cannot be used, MalformedMessage for what is no JWK."""
    if not isinstance(jwk, dict):
        raise MalformedMessage("jwk", "a JSON object", type(jwk).__name__)
    match jwk.get("kty"):
        case "EC":
            return _ec_key(jwk)
        case "RSA":
            return _rsa_key(jwk)
        case other:
            raise AcmeProblem("badPublicKey", f"key type {other!r:.40} is not EC or RSA")


def thumbprint(key: PublicKey) -> str:
    """RFC 7638, base64url: which account key this is."""
    return base64url(hashlib.sha256(encode_json(to_jwk(key))).digest())


def key_authorization(token: str, key: PublicKey) -> str:
    """RFC 8555, section 8.1."""
    return f"{token}.{thumbprint(key)}"


def algorithm_of(key: PublicKey) -> str:
    """The one algorithm that goes with this key."""
    return "RS256" if isinstance(key, rsa.RSAPublicKey) else _curve_of(key).algorithm


def sign(
    key: PrivateKey,
    payload: bytes,
    *,
    url: str,
    nonce: str | None,
    kid: str | None = None,
    algorithm: str | None = None,
) -> bytes:
    """A signed request: with `kid`, or with the key itself where there is no account yet. b"" is POST-as-GET.

    Without `nonce` it is an inner JWS. `algorithm` lies about the one that was used.
    """
    public_key = key.public_key()
    header: Json = {"alg": algorithm or algorithm_of(public_key), "url": url}
    if nonce is not None:
        header["nonce"] = nonce
    header.update({"kid": kid} if kid is not None else {"jwk": to_jwk(public_key)})
    return _flattened(header, payload, lambda data: _raw_signature(key, data))


def sign_mac(mac_key: bytes, payload: bytes, *, url: str, kid: str) -> bytes:
    """An inner JWS that a shared key authenticates (RFC 8555, section 7.3.4)."""
    header: Json = {"alg": MAC_ALGORITHM, "kid": kid, "url": url}
    return _flattened(header, payload, lambda data: hmac.digest(mac_key, data, "sha256"))


def _flattened(header: Json, payload: bytes, signer: Callable[[bytes], bytes]) -> bytes:
    protected, encoded = base64url(encode_json(header)), base64url(payload)
    signature = base64url(signer(f"{protected}.{encoded}".encode()))
    # All three are base64url, so nothing needs escaping.
    return f'{{"protected":"{protected}","payload":"{encoded}","signature":"{signature}"}}'.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request as it came, its signature not checked yet."""

    algorithm: str
    url: str
    nonce: str  # empty in an inner JWS
    jwk: Json | None  # exactly one of jwk and kid
    kid: str | None
    payload: bytes
    signed: bytes  # what the signature covers
    signature: bytes

    @property
    def is_post_as_get(self) -> bool:
        return self.payload == b""

    def fields(self) -> Json:
        """The payload as JSON object. Raises MalformedMessage."""
        return json_object(self.payload, "payload")

    def verify(self, key: PublicKey) -> None:
        """Raises InvalidSignature, or AcmeProblem badSignatureAlgorithm where key and `alg` do not go together."""
        if self.algorithm != algorithm_of(key):
            raise AcmeProblem(
                "badSignatureAlgorithm", f"{self.algorithm} does not go with this key"
            )
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(self.signature, self.signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                curve = _curve_of(key)
                key.verify(_der_signature(self.signature, curve), self.signed, _ecdsa(curve.name))
        except WrongSignature:
            raise InvalidSignature("JWS") from None

    def verify_mac(self, mac_key: bytes) -> None:
        """Raises InvalidSignature."""
        if not hmac.compare_digest(self.signature, hmac.digest(mac_key, self.signed, "sha256")):
            raise InvalidSignature("inner JWS")


def decode(data: bytes) -> SignedRequest:
    """Read one flattened JWS. Raises MalformedMessage, or AcmeProblem badSignatureAlgorithm."""
    signed = _read(json_object(data, "JWS"), ALGORITHMS)
    if not signed.nonce:
        raise MalformedMessage("nonce", "a text")
    check_base64url(signed.nonce, "nonce")  # RFC 8555, section 6.5.2
    return signed


def decode_inner(message: object, algorithms: Collection[str] = ALGORITHMS) -> SignedRequest:
    """Read a JWS that stands inside another, as JSON; it needs no nonce. Raises as `decode`."""
    if not isinstance(message, dict):
        raise MalformedMessage("inner JWS", "a JSON object", type(message).__name__)
    return _read(message, algorithms)


def _read(message: Json, algorithms: Collection[str]) -> SignedRequest:
    for forbidden in ("header", "signatures"):
        if forbidden in message:
            raise MalformedMessage("JWS", f"the flattened form without {forbidden!r}")
    header = json_object(from_base64url(message.get("protected"), "protected"), "protected")
    if "crit" in header:
        raise MalformedMessage("protected", "no critical extensions", header["crit"])
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise AcmeProblem("badSignatureAlgorithm", f"alg {algorithm!r:.40} is not supported")
    jwk, kid = header.get("jwk"), header.get("kid")
    if (jwk is None) == (kid is None):
        raise MalformedMessage("protected", "exactly one of jwk and kid")
    if jwk is not None and not isinstance(jwk, dict):
        raise MalformedMessage("jwk", "a JSON object", type(jwk).__name__)
    protected, payload = _text(message, "protected"), _text(message, "payload")
    return SignedRequest(
        algorithm=algorithm,
        url=_text(header, "url"),
        nonce=_text(header, "nonce") if "nonce" in header else "",
        jwk=jwk,
        kid=None if kid is None else _text(header, "kid"),
        payload=from_base64url(payload, "payload"),
        signed=f"{protected}.{payload}".encode(),
        signature=from_base64url(message.get("signature"), "signature"),
    )


def _raw_signature(key: PrivateKey, data: bytes) -> bytes:
    """For EC r and s at fixed length, not DER (RFC 7518, section 3.4)."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    curve = _curve_of(key.public_key())
    r, s = decode_dss_signature(key.sign(data, _ecdsa(curve.name)))
    return r.to_bytes(curve.size, "big") + s.to_bytes(curve.size, "big")


def _der_signature(signature: bytes, curve: _Curve) -> bytes:
    if len(signature) != 2 * curve.size:
        raise WrongSignature
    r, s = signature[: curve.size], signature[curve.size :]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


@lru_cache(maxsize=4)
def _ecdsa(curve_name: str) -> ec.ECDSA:
    return ec.ECDSA(_BY_NAME[curve_name].digest)


def _curve_of(key: ec.EllipticCurvePublicKey) -> _Curve:
    try:
        return _BY_CURVE[key.curve.name]
    except KeyError:
        raise AcmeProblem("badPublicKey", f"curve {key.curve.name} is not supported") from None


def _ec_key(jwk: Json) -> PublicKey:
    curve = _BY_NAME.get(str(jwk.get("crv")))
    if curve is None:
        raise AcmeProblem("badPublicKey", f"curve {jwk.get('crv')!r:.40} is not supported")
    x, y = (from_base64url(jwk.get(name), f"jwk.{name}") for name in "xy")
    if len(x) != curve.size or len(y) != curve.size:
        raise AcmeProblem("badPublicKey", f"coordinates of {curve.name} have {curve.size} bytes")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, b"\x04" + x + y)
    except ValueError:
        raise AcmeProblem("badPublicKey", f"the point is not on {curve.name}") from None


def _rsa_key(jwk: Json) -> PublicKey:
    n, e = (from_base64url(jwk.get(name), f"jwk.{name}") for name in "ne")
    bits = int.from_bytes(n, "big").bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or len(e) > 4:
        raise AcmeProblem("badPublicKey", f"RSA keys have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    try:
        return rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big")).public_key()
    except ValueError as error:
        raise AcmeProblem("badPublicKey", f"no RSA key: {error}") from None


def _integer(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(fields: Json, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise MalformedMessage(name, "a text", value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name comes twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` makes one anew for each call that is not plain. msgspec would take a name that comes twice.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
