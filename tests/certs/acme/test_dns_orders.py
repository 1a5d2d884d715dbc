"""Orders for DNS names: http-01 against a real web server on loopback, and only where the setting allows it."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import csr
from certs.acme.client import AcmeClient
from certs.acme.http01 import LoopbackFetcher, Unreachable
from certs.acme.jws import base64url, key_authorization
from certs.acme.order_book import OrderBook
from certs.acme.policy import AcmePolicy
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem
from certs.keys import generate, spki_der
from tests.certs.acme.world import SERIAL, RawClient, World, fields, name, open_world, problem_of
from tests.support import rsa_key

KEY = generate("p256")
RSA = rsa_key()


@dataclass
class Shown:
    """What a web server on loopback shows, and which names it was asked by."""

    port: int = 0
    files: dict[str, str] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    answer: Callable[[str], Awaitable[web.StreamResponse]] | None = None

    async def publish(self, token: str, authorization: str) -> None:
        self.files[token] = authorization


@asynccontextmanager
async def web_server() -> AsyncIterator[Shown]:
    shown = Shown()

    async def serve(request: web.Request) -> web.StreamResponse:
        shown.hosts.append(request.headers["Host"])
        token = request.match_info["token"]
        if shown.answer is not None:
            return await shown.answer(token)
        if token not in shown.files:
            return web.Response(status=404)
        return web.Response(text=shown.files[token] + "\n")

    app = web.Application()
    app.router.add_get("/.well-known/acme-challenge/{token}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shown.port = runner.addresses[0][1]
    try:
        yield shown
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_web_world(**settings: Any) -> AsyncIterator[tuple[World, Shown]]:
    async with web_server() as shown:
        policy = AcmePolicy(http01=LoopbackFetcher(shown.port), **settings)
        async with open_world(policy=policy) as world:
            yield world, shown


def request(*dns: str, common_name: str | None = None) -> bytes:
    subject = x509.Name([]) if common_name is None else name(common_name)
    return csr.build(KEY, subject, alternative_names=[x509.DNSName(one) for one in dns])


async def ordered(client: RawClient, *dns: str) -> tuple[str, list[dict[str, Any]], str]:
    """The order's URL, its authorizations with their URLs, and where to finalize."""
    wanted = {"identifiers": [{"type": "dns", "value": one} for one in dns]}
    response = await client.post("new-order", wanted)
    assert response.status == 201, response.body
    order = fields(response)
    authorizations = [
        {"url": url, **fields(await client.post(url, None))} for url in order["authorizations"]
    ]
    return response.headers["location"], authorizations, order["finalize"]


async def test_names_are_proved_by_a_web_server_on_loopback() -> None:
    async with open_web_world() as (world, shown):
        names = ["a.example", "b.example"]
        chain = await world.client().enroll_names(
            request(*names), names=names, publish=shown.publish
        )
        assert shown.hosts == names
        assert world.devices.issued_to == []  # no device, so nobody is told
    leaf = chain[0]
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.DNSName) == names
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.subject == x509.Name([])


@pytest.mark.parametrize("spec", ["p256", "p384", "p521", "rsa2048"])
async def test_a_name_is_certified_for_a_key_of_each_kind(spec: Any) -> None:
    key = RSA if spec == "rsa2048" else generate(spec)
    asked = csr.build(key, x509.Name([]), alternative_names=[x509.DNSName("a.example")])
    async with open_web_world() as (world, shown):
        leaf, *_ = await world.client(account_key=generate("p521")).enroll_names(
            asked, names=["a.example"], publish=shown.publish
        )
    assert spki_der(leaf.public_key()) == spki_der(key.public_key())  # type: ignore[arg-type]


async def test_an_order_waits_for_every_name() -> None:
    async with open_web_world() as (world, shown):
        client = await RawClient(world).register()
        url, (first, second), finalize = await ordered(client, "a.example", "b.example")
        for authorization, status in (first, "pending"), (second, "ready"):
            (challenge,) = authorization["challenges"]
            assert challenge["type"] == "http-01"
            token = challenge["token"]
            shown.files[token] = key_authorization(token, client.key.public_key())
            assert fields(await client.post(challenge["url"], {}))["status"] == "valid"
            assert fields(await client.post(url, None))["status"] == status
        early = problem_of(await client.post(finalize, {"csr": ""}))
    assert early[:2] == (400, "badCSR")


async def failed(world: World) -> tuple[str, str]:
    """Type and detail of the problem of an http-01 challenge, as the client reads it."""

    async def nothing(token: str, authorization: str) -> None:
        pass

    with pytest.raises(AcmeProblem) as caught:
        await world.client().enroll_names(
            request("a.example"), names=["a.example"], publish=nothing
        )
    return caught.value.type, caught.value.detail


async def test_a_web_server_without_the_file_proves_nothing() -> None:
    async with open_web_world() as (world, _):
        assert await failed(world) == ("incorrectResponse", "a.example answers with status 404")


async def test_a_wrong_file_proves_nothing() -> None:
    async with open_web_world() as (world, shown):

        async def another(token: str) -> web.StreamResponse:
            return web.Response(text=key_authorization(token, KEY.public_key()))

        shown.answer = another
        reason = "a.example does not show the key authorization"
        assert await failed(world) == ("incorrectResponse", reason)


async def test_a_redirection_is_not_followed() -> None:
    async with open_web_world() as (world, shown):

        async def elsewhere(token: str) -> web.StreamResponse:
            raise web.HTTPFound("http://127.0.0.1:1/")

        shown.answer = elsewhere
        assert await failed(world) == ("incorrectResponse", "a.example answers with status 302")


async def test_a_name_where_nobody_listens_is_not_reached() -> None:
    class Nobody:
        async def fetch(self, name: str, path: str) -> tuple[int, bytes]:
            raise Unreachable("refused")

    async with open_world(policy=AcmePolicy(http01=Nobody())) as world:
        assert await failed(world) == ("connection", "a.example does not answer: refused")
    async with web_server() as shown:
        port = shown.port
    with pytest.raises(Unreachable):
        await LoopbackFetcher(port).fetch("a.example", "/x")


async def test_a_file_without_end_is_cut() -> None:
    async with web_server() as shown:

        async def endless(token: str) -> web.StreamResponse:
            return web.Response(body=b"x" * 1_000_000)

        shown.answer = endless
        fetcher = LoopbackFetcher(shown.port)
        status, body = await fetcher.fetch("a.example", "/.well-known/acme-challenge/t")
    assert (status, len(body)) == (200, 4096)


async def test_a_failure_of_ours_leaves_the_challenge_open() -> None:
    class Breaks(LoopbackFetcher):
        broken = True

        async def fetch(self, name: str, path: str) -> tuple[int, bytes]:
            if self.broken:
                raise RuntimeError("a bug of ours")
            return await super().fetch(name, path)

    async with web_server() as shown:
        fetcher = Breaks(shown.port)
        async with open_world(policy=AcmePolicy(http01=fetcher)) as world:
            client = await RawClient(world).register()
            _, (authorization,), _ = await ordered(client, "a.example")
            (challenge,) = authorization["challenges"]
            token = challenge["token"]
            shown.files[token] = key_authorization(token, client.key.public_key())
            failed = problem_of(await client.post(challenge["url"], {}))
            assert failed == (500, "serverInternal", "the server failed; its log says why")
            fetcher.broken = False
            assert fields(await client.post(challenge["url"], {}))["status"] == "valid"


async def test_a_challenge_is_answered_once() -> None:
    async with open_web_world() as (world, shown):
        client = await RawClient(world).register()
        _, (authorization,), _ = await ordered(client, "a.example")
        url = authorization["challenges"][0]["url"]
        first = fields(await client.post(url, {}))
        second = fields(await client.post(url, {}))
        assert first["status"] == second["status"] == "invalid"
        assert len(shown.hosts) == 1


@pytest.mark.parametrize(
    ("csr_der", "detail"),
    [
        (request("a.example"), "the names are not exactly those of the order"),
        (
            request("a.example", "b.example", "c.example"),
            "the names are not exactly those of the order",
        ),
        (
            request("a.example", "b.example", common_name="c.example"),
            "the names are not exactly those of the order",
        ),
        (
            csr.build(KEY, x509.Name([]), alternative_names=[x509.RFC822Name("a@b.example")]),
            "a subject alternative name is no DNS name",
        ),
        (csr.build(KEY, x509.Name([])), "the names are not exactly those of the order"),
    ],
    ids=["fewer", "more", "common-name", "mail", "none"],
)
async def test_a_request_for_other_names_is_refused(csr_der: bytes, detail: str) -> None:
    async with open_web_world() as (world, shown):
        names = ["a.example", "b.example"]
        client = world.client()
        with pytest.raises(AcmeProblem) as caught:
            await client.enroll_names(csr_der, names=names, publish=shown.publish)
    assert (caught.value.type, caught.value.detail) == ("badCSR", detail)


@pytest.mark.filterwarnings("ignore:Attribute's length must be")
async def test_a_name_that_is_too_long_for_a_common_name_stands_beside_it_alone() -> None:
    long = f"{'a' * 60}.example"
    called = x509.NameAttribute(NameOID.COMMON_NAME, long, _validate=False)
    csr_der = csr.build(KEY, x509.Name([called]), alternative_names=[x509.DNSName(long)])
    async with open_web_world() as (world, shown):
        client = world.client()
        with pytest.raises(AcmeProblem) as caught:
            await client.enroll_names(csr_der, names=[long], publish=shown.publish)
        assert await client.enroll_names(request(long), names=[long], publish=shown.publish)
    assert caught.value.type == "badCSR"
    assert caught.value.detail == "a common name has at most 64 characters"


async def test_a_common_name_may_stand_for_a_name_in_any_case() -> None:
    async with open_web_world() as (world, shown):
        chain = await world.client().enroll_names(
            request("B.example", common_name="A.example"),
            names=["a.example", "b.example"],
            publish=shown.publish,
        )
    assert chain[0].subject == name("a.example")


@pytest.mark.parametrize(
    ("value", "type_", "detail"),
    [
        ("*.example", "rejectedIdentifier", "a wildcard cannot be proved by http-01"),
        ("mdmenrollment.apple.com", "rejectedIdentifier", "names of Apple's get no"),
        ("A.example", "malformed", "dns: expected a DNS name in lower case"),
        ("a..example", "malformed", "dns: expected"),
        ("a.example.", "malformed", "dns: expected"),
        ("127.0.0.1:80", "malformed", "dns: expected"),
        ("127.0.0.1", "malformed", "dns: expected"),
        ("a.example.1", "malformed", "dns: expected"),
        ("", "malformed", "dns: expected"),
        ("a" * 64, "malformed", "dns: expected"),
        ("a.example/x", "malformed", "dns: expected"),
    ],
)
async def test_a_name_that_cannot_be_proved_is_refused(value: str, type_: str, detail: str) -> None:
    async with open_web_world() as (world, _):
        client = await RawClient(world).register()
        wanted = {"identifiers": [{"type": "dns", "value": value}]}
        answer = problem_of(await client.post("new-order", wanted))
    assert answer[:2] == (400, type_)
    assert answer[2].startswith(detail)


@pytest.mark.parametrize("type_", ["hardware-module", "ip", "email"])
async def test_other_kinds_of_identifiers_are_unsupported(type_: str) -> None:
    async with open_web_world() as (world, _):
        client = await RawClient(world).register()
        wanted = {"identifiers": [{"type": type_, "value": "x"}]}
        answer = problem_of(await client.post("new-order", wanted))
    assert answer == (400, "unsupportedIdentifier", f"type {type_!r} cannot be proved here")


async def test_several_bad_identifiers_are_named_one_by_one() -> None:
    async with open_web_world() as (world, _):
        client = await RawClient(world).register()
        bad = [{"type": "dns", "value": "*.example"}, {"type": "ip", "value": "127.0.0.1"}]
        wanted = {"identifiers": [{"type": "dns", "value": "a.example"}, *bad]}
        response = await client.post("new-order", wanted)
        same = await client.post(
            "new-order", {"identifiers": [bad[1], {"type": "ip", "value": ""}]}
        )
        assert world.server.book.sizes()[1] == 0
    assert problem_of(response) == (400, "compound", "2 identifiers are refused")
    prefix = "urn:ietf:params:acme:error:"
    assert [(sub["type"], sub["identifier"]) for sub in _subproblems(response.body)] == [
        (f"{prefix}rejectedIdentifier", bad[0]),
        (f"{prefix}unsupportedIdentifier", bad[1]),
    ]
    assert problem_of(same)[1] == "unsupportedIdentifier"
    assert len(_subproblems(same.body)) == 2


def _subproblems(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body)["subproblems"]
    return found


async def test_too_many_names_and_names_beside_a_device_are_rejected() -> None:
    async with open_web_world() as (world, _):
        client = await RawClient(world).register()
        many = [{"type": "dns", "value": f"h{n}.example"} for n in range(11)]
        device = {"type": "permanent-identifier", "value": SERIAL}
        too_many = problem_of(await client.post("new-order", {"identifiers": many}))
        mixed = problem_of(await client.post("new-order", {"identifiers": [device, many[0]]}))
        twice = await client.post("new-order", {"identifiers": [many[0], many[0]]})
    assert too_many == (400, "rejectedIdentifier", "more than 10 identifiers")
    assert mixed == (400, "rejectedIdentifier", "one certificate is for one device")
    assert fields(twice)["identifiers"] == [many[0]]


# Authorizations that serve again, and those given up


async def test_a_valid_authorization_serves_the_next_order_where_that_is_allowed() -> None:
    for reuse in True, False:
        async with open_web_world(authz_reuse=reuse) as (world, shown):
            client = world.client()
            for names in ["a.example"], ["a.example", "b.example"], ["a.example"]:
                await client.enroll_names(request(*names), names=names, publish=shown.publish)
        times = {"a.example": 1 if reuse else 3, "b.example": 1}
        assert Counter(shown.hosts) == times


async def test_a_reused_attestation_still_binds_its_key() -> None:
    async with open_world(policy=AcmePolicy(authz_reuse=True)) as world:
        client = await RawClient(world).register()
        first = await client.order()
        await first.attested(KEY)
        response = await client.post(
            "new-order", {"identifiers": [{"type": "permanent-identifier", "value": SERIAL}]}
        )
        order = fields(response)
        assert order["status"] == "ready"
        assert order["authorizations"] == [first.authorization]
        good = await first.finalize(csr.build(KEY, name(SERIAL)))
        assert fields(good)["status"] == "valid"
        stolen = csr.build(generate("p256"), name(SERIAL))
        answer = problem_of(await client.post(order["finalize"], {"csr": base64url(stolen)}))
        assert answer[:2] == (403, "unauthorized")
        again = await client.order()
    assert again.authorization != first.authorization  # that one is invalid now


async def test_an_authorization_is_given_up() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        order = await client.order()
        odd = problem_of(await client.post(order.authorization, {"status": "valid"}))
        assert odd[:2] == (400, "malformed")
        shown = fields(await client.post(order.authorization, {"status": "deactivated"}))
        assert shown["status"] == "deactivated"
        late = problem_of(await order.attested(KEY))
        assert late == (400, "malformed", "the authorization is deactivated")
        found = fields(await client.post(order.url, None))
    assert (found["status"], found["error"]["detail"]) == (
        "invalid",
        "an authorization is deactivated",
    )


async def test_whoever_proved_its_names_revokes_a_certificate_whose_order_is_forgotten() -> None:
    """RFC 8555, section 7.6: an account that has the authorizations for all that the certificate names."""
    clock = SimulatedClock()
    names = ["a.example", "b.example"]
    async with web_server() as shown:
        policy = AcmePolicy(http01=LoopbackFetcher(shown.port))
        book = OrderBook(clock, max_ended=1)
        async with open_world(clock=clock, policy=policy, book=book) as world:

            async def enroll(client: AcmeClient, *names: str) -> x509.Certificate:
                asked = request(*names)
                return (await client.enroll_names(asked, names=names, publish=shown.publish))[0]

            old = await enroll(world.client(), *names)
            half, whole = world.client(), world.client()
            await enroll(half, "a.example")  # the first order is forgotten now
            with pytest.raises(AcmeProblem, match="unauthorized"):
                await half.revoke(old)
            await enroll(whole, *names)
            await whole.revoke(old)
            assert set(world.ca.index.revoked) == {old.serial_number}


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (name("a.example"), [x509.IPAddress(IPv4Address("127.0.0.1"))]),
        (name("00008120-000000000000001E"), []),
        (x509.Name([*name("b.example"), *name("a.example")]), []),
    ],
    ids=["address", "common-name", "first-common-name"],
)
async def test_a_name_that_is_not_proved_keeps_another_account_from_revoking(
    subject: x509.Name, names: list[x509.GeneralName]
) -> None:
    """The CA has other doors than ACME: what they issue may name more than http-01 can prove."""
    async with open_web_world() as (world, shown):
        client = world.client()
        await client.enroll_names(request("a.example"), names=["a.example"], publish=shown.publish)
        theirs = world.ca.issue(
            generate("p256").public_key(),
            subject,
            alternative_names=[x509.DNSName("a.example"), *names],
        )
        with pytest.raises(AcmeProblem, match="unauthorized"):
            await client.revoke(theirs)
        assert world.ca.index.revoked == {}
