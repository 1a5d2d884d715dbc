"""The ACME client and its account: kinds of keys, external accounts, changes, orders in pages."""

from typing import Any

import pytest
from cryptography import x509

from certs import csr
from certs.acme.inner_jws import ExternalAccount
from certs.acme.policy import AcmePolicy
from certs.errors import AcmeProblem, MalformedMessage, UnexpectedAnswer
from certs.keys import KeySpec, generate
from tests.certs.acme.test_client import changing, headers_of
from tests.certs.acme.world import SERIAL, World, name, open_world

KEY = generate("p256")
EXTERNAL = ExternalAccount("key-1", b"0123456789abcdef0123456789abcdef")


async def enrolled(world: World, client: Any) -> tuple[x509.Certificate, ...]:
    chain: tuple[x509.Certificate, ...] = await client.enroll(
        csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
    )
    return chain


@pytest.mark.parametrize("spec", ["p256", "p384", "p521", "rsa2048"])
async def test_an_account_key_of_each_kind_serves(spec: KeySpec) -> None:
    async with open_world() as world:
        assert await enrolled(world, world.client(account_spec=spec))


async def test_a_given_key_finds_its_account_again() -> None:
    async with open_world() as world:
        for _ in range(2):
            assert await enrolled(world, world.client(account_key=generate("p384")))
        key = generate("p256")
        for _ in range(2):
            assert await enrolled(world, world.client(account_key=key))
        assert world.server.book.sizes()[0] == 3


async def test_an_external_account_is_named_where_it_is_asked_for() -> None:
    policy = AcmePolicy(eab_keys={EXTERNAL.key_id: EXTERNAL.mac_key})
    async with open_world(policy=policy) as world:
        client = world.client(external=EXTERNAL)
        assert await enrolled(world, client)
        binding = (await client.account()).external_account_binding
        assert binding is not None
        with pytest.raises(AcmeProblem) as caught:
            await enrolled(world, world.client())
    assert caught.value.type == "externalAccountRequired"


async def test_contacts_are_given_and_changed() -> None:
    async with open_world() as world:
        client = world.client(contact=["mailto:a@b.example"])
        assert (await client.account()).contact == ("mailto:a@b.example",)
        changed = await client.update_contact(["mailto:c@d.example"])
        assert changed.contact == (await client.account()).contact == ("mailto:c@d.example",)
        with pytest.raises(AcmeProblem, match="invalidContact"):
            await client.update_contact(["mailto:"])


async def test_after_a_key_change_the_new_key_signs() -> None:
    async with open_world() as world:
        client, new = world.client(), generate("p521")
        await client.change_key(new)
        assert await enrolled(world, client)
        again = await world.client(account_key=new).account()
        assert again.orders == (await client.account()).orders
        assert world.server.book.sizes()[0] == 1


async def test_a_refused_key_change_keeps_the_key() -> None:
    async with open_world() as world:
        other = generate("p256")
        await world.client(account_key=other).account()
        client = world.client()
        with pytest.raises(AcmeProblem) as caught:
            await client.change_key(other)
        assert caught.value.status == 409
        assert await enrolled(world, client)


async def test_a_deactivated_account_gets_nothing_more() -> None:
    async with open_world() as world:
        client = world.client()
        await enrolled(world, client)
        assert (await client.deactivate()).status == "deactivated"
        with pytest.raises(AcmeProblem, match="the account is deactivated"):
            await enrolled(world, client)


async def test_orders_are_read_page_by_page() -> None:
    async with open_world(policy=AcmePolicy(orders_per_page=2)) as world:
        client = world.client()
        for _ in range(5):
            await enrolled(world, client)
        world.transport.steps.clear()
        orders = await client.orders()
        assert world.transport.steps == ["account", "orders", "orders", "orders"]
    assert len(orders) == len(set(orders)) == 5


async def test_pages_without_end_are_noticed() -> None:
    async with open_world() as world:
        client = world.client()
        orders = (await client.account()).orders
        world.transport.change_response = headers_of("orders", link=f'<{orders}>;rel="next"')
        with pytest.raises(MalformedMessage, match="at most 1000 pages"):
            await client.orders()


async def test_a_server_without_a_list_of_orders_has_none() -> None:
    async with open_world() as world:
        world.transport.change_response = changing("account", orders=None)
        assert await world.client().orders() == []


async def test_what_a_directory_lacks_is_named() -> None:
    async with open_world() as world:
        world.transport.change_response = changing("directory", revokeCert=None, keyChange=None)
        client = world.client()
        with pytest.raises(UnexpectedAnswer, match="the directory has no keyChange"):
            await client.change_key(generate("p256"))
        with pytest.raises(UnexpectedAnswer, match="the directory has no revokeCert"):
            await client.revoke(world.ca.certificate)
