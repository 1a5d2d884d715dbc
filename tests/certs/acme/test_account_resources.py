"""Accounts at the ACME server: made once per key, changed, given up, bound to others, and their lists of orders."""

import json
from datetime import timedelta
from typing import Any

import pytest

from certs.acme import inner_jws
from certs.acme.inner_jws import ExternalAccount
from certs.acme.jws import encode_json, sign, to_jwk
from certs.acme.order_book import OrderBook
from certs.acme.policy import AcmePolicy
from certs.clock import SimulatedClock
from certs.keys import PrivateKey, generate
from tests.certs.acme.world import (
    SERIAL,
    RawClient,
    World,
    fields,
    open_world,
    problem_of,
)
from tests.support import rsa_key

EXTERNAL = ExternalAccount("key-1", b"0123456789abcdef0123456789abcdef")
WITH_EAB = AcmePolicy(eab_keys={EXTERNAL.key_id: EXTERNAL.mac_key})
PERMANENT = {"type": "permanent-identifier", "value": SERIAL}


@pytest.mark.parametrize("key", [generate("p256"), generate("p384"), generate("p521"), rsa_key()])
async def test_an_account_is_made_once_per_key(key: Any) -> None:
    async with open_world() as world:
        client = RawClient(world, key)
        payload = {"termsOfServiceAgreed": True, "contact": ["mailto:a@b.example"]}
        first = await client.post("new-account", payload, with_jwk=True)
        again = await client.post("new-account", {}, with_jwk=True)
        assert (first.status, again.status) == (201, 200)
        assert first.headers["location"] == again.headers["location"]
        client.kid = first.headers["location"]
        shown = await client.post(client.kid, None)
    orders = f"{client.kid}/orders"
    assert fields(shown) == fields(first) == {"status": "valid", **payload, "orders": orders}


async def test_only_an_existing_account_was_wanted() -> None:
    async with open_world() as world:
        client, wanted = RawClient(world), {"onlyReturnExisting": True}
        answer = problem_of(await client.post("new-account", wanted, with_jwk=True))
        assert answer == (400, "accountDoesNotExist", "no account has this key")
        await client.register()
        assert (await client.post("new-account", wanted, with_jwk=True)).status == 200


async def test_an_account_belongs_to_its_key() -> None:
    async with open_world() as world:
        mine, other = await RawClient(world).register(), await RawClient(world).register()
        answer = problem_of(await mine.post(other.kid or "", None))
        change = problem_of(await mine.post(other.kid or "", {"status": "deactivated"}))
        orders = problem_of(await mine.post(f"{other.kid}/orders", None))
        assert fields(await other.post(other.kid or "", None))["status"] == "valid"
    assert answer == change == orders == (403, "unauthorized", "this is another account")


@pytest.mark.parametrize("payload", [b"", b"[]", {"contact": "x"}, {"onlyReturnExisting": 1}])
async def test_a_malformed_account_request(payload: Any) -> None:
    async with open_world() as world:
        answer = problem_of(await RawClient(world).post("new-account", payload, with_jwk=True))
    assert answer[:2] == (400, "malformed")


async def test_a_weak_account_key_is_refused() -> None:
    async with open_world() as world:
        client = RawClient(world, rsa_key(7, 1024))
        answer = problem_of(await client.post("new-account", {}, with_jwk=True))
    assert answer == (400, "badPublicKey", "RSA keys have 2048 to 8192 bits")


# Contacts


@pytest.mark.parametrize(
    ("contact", "type_"),
    [
        (["tel:+15551234"], "unsupportedContact"),
        (["nobody"], "unsupportedContact"),
        (["mailto:nobody"], "invalidContact"),
        (["mailto:a@b.example,c@d.example"], "invalidContact"),
        (["mailto:a@b.example?subject=x"], "invalidContact"),
        (["mailto:a@b.example"] * 11, "invalidContact"),
    ],
)
async def test_a_contact_that_reaches_nobody_is_refused(contact: list[str], type_: str) -> None:
    async with open_world() as world:
        client = RawClient(world)
        made = problem_of(await client.post("new-account", {"contact": contact}, with_jwk=True))
        assert world.server.book.sizes()[0] == 0
        await client.register()
        changed = problem_of(await client.post(client.kid or "", {"contact": contact}))
        assert "contact" not in fields(await client.post(client.kid or "", None))
    assert made[:2] == changed[:2] == (400, type_)


async def test_an_account_changes_its_contacts() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        for contact in ["mailto:a@b.example"], []:
            shown = fields(await client.post(client.kid or "", {"contact": contact}))
            assert shown.get("contact", []) == contact


async def test_what_is_not_for_clients_to_change_is_ignored() -> None:
    """RFC 8555, section 7.3.2."""
    async with open_world() as world:
        client = await RawClient(world).register()
        before = fields(await client.post(client.kid or "", None))
        for change in {"termsOfServiceAgreed": False}, {"status": "revoked"}, {"orders": "x"}, {}:
            assert fields(await client.post(client.kid or "", change)) == before
    assert before["termsOfServiceAgreed"] is True


@pytest.mark.parametrize("payload", [{"status": 1}, {"contact": 1}, b"[]"])
async def test_an_impossible_change_is_malformed(payload: Any) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        answer = problem_of(await client.post(client.kid or "", payload))
    assert answer[:2] == (400, "malformed")


# Deactivation


async def test_a_deactivated_account_can_do_nothing_more() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        order = await client.order()
        shown = fields(await client.post(client.kid or "", {"status": "deactivated"}))
        assert shown["status"] == "deactivated"
        refused = [
            problem_of(await client.post(client.kid or "", None)),
            problem_of(await client.post("new-order", {"identifiers": [PERMANENT]})),
            problem_of(await order.answer({})),
            problem_of(await order.finalize(b"")),
        ]
        again = problem_of(await client.post("new-account", {}, with_jwk=True))
    assert set(refused) == {(401, "unauthorized", "the account is deactivated")}
    assert again == (401, "unauthorized", "the account of this key is deactivated")


# Key change


async def change_key(client: RawClient, new: PrivateKey, **changed: Any) -> Any:
    """What keyChange answers; `changed` bends the inner JWS."""
    url = f"{client.world.base}/acme/key-change"
    payload = {
        "account": changed.get("account", client.kid),
        "oldKey": to_jwk(changed.get("old", client.key).public_key()),
    }
    inner = sign(
        changed.get("signer", new),
        encode_json(payload),
        url=changed.get("url", url),
        nonce=None,
        kid=changed.get("kid"),
    )
    return await client.post("key-change", json.loads(inner))


@pytest.mark.parametrize("new", [generate("p256"), generate("p384"), generate("p521"), rsa_key(1)])
async def test_an_account_changes_its_key(new: PrivateKey) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        old = client.key
        response = await change_key(client, new)
        assert fields(response)["status"] == "valid"
        assert response.headers["location"] == client.kid
        stale = problem_of(await client.post(client.kid or "", None))
        assert stale[:2] in [(400, "malformed"), (400, "badSignatureAlgorithm")]
        client.key = new
        assert (await client.post(client.kid or "", None)).status == 200
        found = await client.post("new-account", {"onlyReturnExisting": True}, with_jwk=True)
        assert found.headers["location"] == client.kid
        client.key = old
        gone = await client.post("new-account", {"onlyReturnExisting": True}, with_jwk=True)
    assert problem_of(gone)[1] == "accountDoesNotExist"


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"account": "https://ca.example/acme/account/x"}, "account: expected the account that"),
        ({"account": 1}, "account: expected a JSON str"),
        ({"old": generate("p256")}, "oldKey: expected the key that signed"),
        ({"url": "https://ca.example/key-change"}, "inner JWS: expected the URL of the outer"),
        ({"kid": "https://ca.example/acme/account/x"}, "inner JWS: expected jwk, not kid"),
    ],
)
async def test_each_wrong_key_change_is_malformed(changed: dict[str, Any], detail: str) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        answer = problem_of(await change_key(client, generate("p256"), **changed))
        assert (await client.post(client.kid or "", None)).status == 200
    assert answer[:2] == (400, "malformed")
    assert answer[2].startswith(detail)


async def test_the_new_key_must_sign_for_itself() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        url, new = f"{world.base}/acme/key-change", generate("p256")
        inner = inner_jws.change_key(
            client.key.public_key(), new, account=client.kid or "", url=url
        )
        inner["signature"] = inner["signature"][:-4] + "AAAA"
        forged = problem_of(await client.post("key-change", inner))
        nothing = problem_of(await client.post("key-change", {}))
    assert forged == (400, "malformed", "JWS: signature is not valid")
    assert nothing[:2] == (400, "malformed")


async def test_a_key_of_another_account_is_a_conflict() -> None:
    async with open_world() as world:
        client, other = await RawClient(world).register(), await RawClient(world).register()
        response = await change_key(client, other.key)
        same = await change_key(client, client.key)
    assert problem_of(response) == (
        409,
        "malformed",
        "the new key belongs to an account already",
    )
    assert response.headers["location"] == other.kid
    assert same.headers["location"] == client.kid


# External accounts


def bound(world: World, client: RawClient, **changed: Any) -> dict[str, Any]:
    external = changed.get("external", EXTERNAL)
    url = changed.get("url", f"{world.base}/acme/new-account")
    key = changed.get("key", client.key).public_key()
    return {"externalAccountBinding": inner_jws.bind(key, external, url=url)}


async def test_an_account_is_bound_to_an_external_one() -> None:
    async with open_world(policy=WITH_EAB) as world:
        client = RawClient(world)
        directory = fields(await client.get("GET", "directory"))
        assert directory["meta"] == {"externalAccountRequired": True}
        payload = bound(world, client)
        response = await client.post("new-account", payload, with_jwk=True)
        assert response.status == 201
        binding = fields(response)["externalAccountBinding"]
        assert binding == payload["externalAccountBinding"]
        again = await client.post("new-account", {}, with_jwk=True)
    assert again.status == 200


async def test_of_a_binding_only_the_signature_is_remembered() -> None:
    """Extra members would be kept for as long as the account, and shown with it."""
    async with open_world(policy=WITH_EAB) as world:
        client = RawClient(world)
        payload = bound(world, client)
        good = dict(payload["externalAccountBinding"])
        payload["externalAccountBinding"]["more"] = "x" * 1000
        raw = encode_json(payload).replace(b'"more"', b'"number":' + b"9" * 30 + b',"more"')
        response = await client.post("new-account", raw, with_jwk=True)
        assert response.status == 201
        assert fields(response)["externalAccountBinding"] == good


async def test_without_a_binding_there_is_no_account() -> None:
    async with open_world(policy=WITH_EAB) as world:
        answer = problem_of(await RawClient(world).post("new-account", {}, with_jwk=True))
        assert world.server.book.sizes()[0] == 0
    assert answer == (
        403,
        "externalAccountRequired",
        "newAccount needs externalAccountBinding",
    )


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        (
            {"external": ExternalAccount("key-2", EXTERNAL.mac_key)},
            (403, "unauthorized", "no external account has this key id"),
        ),
        (
            {"external": ExternalAccount(EXTERNAL.key_id, b"guess")},
            (403, "unauthorized", "the binding is not signed by the external account"),
        ),
        (
            {"key": generate("p256")},
            (400, "malformed", "externalAccountBinding: expected the key of the outer request"),
        ),
        ({"url": "https://ca.example/"}, (400, "malformed", None)),
    ],
)
async def test_each_wrong_binding_is_refused(
    changed: dict[str, Any], answer: tuple[int, str, str | None]
) -> None:
    async with open_world(policy=WITH_EAB) as world:
        client = RawClient(world)
        payload = bound(world, client, **changed)
        found = problem_of(await client.post("new-account", payload, with_jwk=True))
        assert world.server.book.sizes()[0] == 0
    assert found[:2] == answer[:2]
    assert answer[2] in (None, found[2])


async def test_a_binding_by_public_key_or_with_a_nonce_is_refused() -> None:
    async with open_world(policy=WITH_EAB) as world:
        client = RawClient(world)
        url = f"{world.base}/acme/new-account"
        by_key = json.loads(sign(client.key, b"{}", url=url, nonce=None, kid="key-1"))
        answer = problem_of(
            await client.post("new-account", {"externalAccountBinding": by_key}, with_jwk=True)
        )
        assert answer[:2] == (400, "badSignatureAlgorithm")


async def test_a_server_without_external_accounts_reads_no_binding() -> None:
    async with open_world() as world:
        client = RawClient(world)
        response = await client.post("new-account", bound(world, client), with_jwk=True)
    assert response.status == 201
    assert "externalAccountBinding" not in fields(response)


# Orders of an account


async def test_the_orders_of_an_account_come_in_pages() -> None:
    async with open_world(policy=AcmePolicy(orders_per_page=2)) as world:
        client, other = await RawClient(world).register(), await RawClient(world).register()
        urls = [(await client.order()).url for _ in range(5)]
        failed = await client.order()
        await failed.answer({})  # invalid orders are not listed
        await other.order()
        first = await client.post(f"{client.kid}/orders", None)
        assert fields(first) == {"orders": urls[:2]}
        assert f'<{client.kid}/orders?cursor=2>;rel="next"' in (first.header("link") or "")
        second = await client.post(f"{client.kid}/orders?cursor=2", None)
        last = await client.post(f"{client.kid}/orders?cursor=4", None)
        beyond = await client.post(f"{client.kid}/orders?cursor=400", None)
        assert fields(second) == {"orders": urls[2:4]}
        assert fields(last) == {"orders": urls[4:]}
        assert 'rel="next"' not in (last.header("link") or "")
        assert fields(beyond) == {"orders": []}
        for cursor in "x", "-1", "9" * 10, "²":
            odd = await client.post(f"{client.kid}/orders?cursor={cursor}", None)
            assert problem_of(odd)[:2] == (400, "malformed")


async def test_a_forgotten_order_is_not_listed() -> None:
    clock = SimulatedClock()
    async with open_world(clock=clock, book=OrderBook(clock, max_ended=0)) as world:
        client = await RawClient(world).register()
        await (await client.order()).answer({})
        assert fields(await client.post(f"{client.kid}/orders", None)) == {"orders": []}
        assert world.server.book.sizes()[1:] == (0, 0, 0)


async def test_too_many_orders_in_an_hour_are_limited() -> None:
    async with open_world(policy=AcmePolicy(orders_per_hour=2)) as world:
        client, other = await RawClient(world).register(), await RawClient(world).register()
        await client.order()
        await world.clock.advance(600)
        await client.order()
        response = await client.post("new-order", {"identifiers": [PERMANENT]})
        assert problem_of(response) == (
            429,
            "rateLimited",
            "more than 2 orders of one account in an hour",
        )
        assert response.header("retry-after") == "3000"
        await other.order()
        await world.clock.advance(timedelta(seconds=3000).total_seconds())
        await client.order()
