"""The two signatures that stand inside another one: external account binding and key change (RFC 8555, sections 7.3.4 and 7.3.5).

Each says that whoever signed the outer request also holds another key: the one of an account elsewhere, or the account's next.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from certs.acme import jws
from certs.acme.fields import required
from certs.acme.jws import Json, SignedRequest
from certs.acme.problem import problem
from certs.errors import InvalidSignature, MalformedMessage
from certs.keys import PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """What a CA's operator hands out elsewhere: a key's id and the shared key."""

    key_id: str
    mac_key: bytes = field(repr=False)


def bind(account_key: PublicKey, external: ExternalAccount, *, url: str) -> Json:
    """What newAccount says to belong to an external account."""
    payload = jws.encode_json(jws.to_jwk(account_key))
    inner = jws.sign_mac(external.mac_key, payload, url=url, kid=external.key_id)
    return _as_json(inner)


def check_binding(
    binding: Json, account_key: PublicKey, *, url: str, keys: Mapping[str, bytes]
) -> str:
    """The id of the external account's key. Raises AcmeProblem unauthorized, or MalformedMessage."""
    inner = jws.decode_inner(binding, (jws.MAC_ALGORITHM,))
    if inner.nonce:
        raise MalformedMessage("externalAccountBinding", "no nonce")
    if inner.url != url:
        raise MalformedMessage("externalAccountBinding", "the URL of the outer request", inner.url)
    if inner.kid is None:
        raise MalformedMessage("externalAccountBinding", "kid, not jwk")
    if inner.kid not in keys:
        raise problem("unauthorized", "no external account has this key id")
    try:
        inner.verify_mac(keys[inner.kid])
    except InvalidSignature as error:
        raise problem(
            "unauthorized", "the binding is not signed by the external account"
        ) from error
    if not _is_key(inner.fields(), account_key):
        raise MalformedMessage("externalAccountBinding", "the key of the outer request")
    return inner.kid


def change_key(old: PublicKey, new: PrivateKey, *, account: str, url: str) -> Json:
    """The payload of keyChange: the new key says which account and which key it takes the place of."""
    payload = jws.encode_json({"account": account, "oldKey": jws.to_jwk(old)})
    return _as_json(jws.sign(new, payload, url=url, nonce=None))


def check_key_change(outer: SignedRequest, old: PublicKey) -> PublicKey:
    """The new key, which signed for itself. A nonce in there is ignored, as the RFC says. Raises MalformedMessage."""
    inner = jws.decode_inner(outer.fields())
    if inner.jwk is None:
        raise MalformedMessage("inner JWS", "jwk, not kid")
    new = jws.from_jwk(inner.jwk)
    inner.verify(new)
    if inner.url != outer.url:
        raise MalformedMessage("inner JWS", "the URL of the outer request", inner.url)
    payload = inner.fields()
    if required(payload, "account", str) != outer.kid:
        raise MalformedMessage("account", "the account that signed")
    if not _is_key(required(payload, "oldKey", dict), old):
        raise MalformedMessage("oldKey", "the key that signed")
    return new


def _is_key(jwk: Json, key: PublicKey) -> bool:
    return jws.thumbprint(jws.from_jwk(jwk)) == jws.thumbprint(key)


def _as_json(inner: bytes) -> Json:
    value: Json = json.loads(inner)
    return value
