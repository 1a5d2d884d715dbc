"""The chains of one certificate: offered by links, chosen by the name of the root (RFC 8555, section 7.4.2)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.acme.chain_download import MAX_ALTERNATES
from certs.acme.policy import AcmePolicy
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.errors import MalformedMessage
from certs.keys import generate
from certs.transport import HttpResponse
from tests.certs.acme.world import SERIAL, RawClient, World, name, open_world, problem_of

KEY = generate("p256")
CLOCK = SimulatedClock()
OTHERS = [CertificateAuthority.create(f"Root {n}", clock=CLOCK).certificate for n in (1, 2)]


@asynccontextmanager
async def with_other_chains() -> AsyncIterator[World]:
    policy = AcmePolicy(alternate_chains=[[other] for other in OTHERS])
    async with open_world(clock=CLOCK, policy=policy) as world:
        yield world


async def enroll(world: World, preferred: str | None) -> tuple[x509.Certificate, ...]:
    client = world.client(preferred_issuer=preferred)
    return await client.enroll(
        csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
    )


async def test_other_chains_are_offered_by_links() -> None:
    async with with_other_chains() as world:
        client = await RawClient(world).register()
        order = await client.order()
        await order.attested(KEY)
        await order.finalize(csr.build(KEY, name(SERIAL)))
        url = order.url.replace("/order/", "/certificate/")
        found = [await client.post(one, None) for one in (url, f"{url}/1", f"{url}/0", f"{url}/2")]
        missing = [await client.post(f"{url}/{chain}", None) for chain in ("3", "-1", "x")]
        leaf = world.devices.issued_to[0]
        chains = [x509.load_pem_x509_certificates(response.body) for response in found]
        assert chains[0] == chains[2] == [leaf, world.ca.certificate]
    assert chains[1::2] == [[leaf, other] for other in OTHERS]
    numbers = [[link.removeprefix(f"{url}/") for link in _alternates(one)] for one in found]
    assert numbers == [["1", "2"], ["0", "2"], ["1", "2"], ["0", "1"]]
    assert {problem_of(response) for response in missing} == {
        (404, "malformed", "no such resource")
    }


def _alternates(response: HttpResponse) -> list[str]:
    links = (response.header("link") or "").split(", ")
    return [one.partition(";")[0].strip("<>") for one in links if 'rel="alternate"' in one]


@pytest.mark.parametrize(
    ("preferred", "taken", "downloads"),
    [
        (None, "Test Device CA", 1),
        ("Test Device CA", "Test Device CA", 1),
        ("Root 1", "Root 1", 2),
        ("Root 2", "Root 2", 3),
        ("Root 3", "Test Device CA", 3),
    ],
)
async def test_our_client_takes_the_chain_that_it_prefers(
    preferred: str | None, taken: str, downloads: int
) -> None:
    async with with_other_chains() as world:
        _, root = await enroll(world, preferred)
        steps = world.transport.steps
    assert root.subject.rfc4514_string().startswith(f"CN={taken}")
    assert steps.count("certificate") == downloads


async def test_another_chain_must_be_for_our_key_too() -> None:
    downloads = 0

    def change(step: str, response: HttpResponse) -> HttpResponse:
        nonlocal downloads
        downloads += step == "certificate"
        if downloads < 2:
            return response
        foreign = OTHERS[0].public_bytes(Encoding.PEM)
        return HttpResponse(status=200, body=foreign, headers=response.headers, url=response.url)

    async with with_other_chains() as world:
        world.transport.change_response = change
        with pytest.raises(MalformedMessage, match="first the one for the key of the CSR"):
            await enroll(world, "Root 2")


async def test_only_so_many_chains_are_looked_at() -> None:
    def change(step: str, response: HttpResponse) -> HttpResponse:
        if step != "certificate":
            return response
        link = ", ".join([f'<{response.url}>;rel="alternate"'] * 1000)
        return HttpResponse(
            status=200,
            body=response.body,
            headers={**response.headers, "link": link},
            url=response.url,
        )

    async with with_other_chains() as world:
        world.transport.change_response = change
        await enroll(world, "Root 3")
        steps = world.transport.steps
    assert steps.count("certificate") == 1 + MAX_ALTERNATES
