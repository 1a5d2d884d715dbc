"""The ACME server, request by request: what it answers, and the exact problem for each thing that is wrong."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import structlog
from yarl import URL

from certs import csr
from certs.acme.jws import base64url, encode_json, sign
from certs.acme.order_book import OrderBook
from certs.authorize import Grant, KnownDevices
from certs.clock import SimulatedClock
from certs.faults import Action
from certs.keys import generate
from certs.transport import HttpResponse
from tests.certs.acme.world import (
    SERIAL,
    UDID,
    RawClient,
    fields,
    name,
    open_world,
    problem_of,
)

KEY = generate("p384")
CSR = csr.build(KEY, name(SERIAL), digest="sha384")


# Directory, nonces, and every request


async def test_the_directory_names_the_resources() -> None:
    async with open_world() as world:
        response = await RawClient(world).get("GET", "directory")
    assert fields(response) == {
        "newNonce": f"{world.base}/acme/new-nonce",
        "newAccount": f"{world.base}/acme/new-account",
        "newOrder": f"{world.base}/acme/new-order",
        "revokeCert": f"{world.base}/acme/revoke-cert",
        "keyChange": f"{world.base}/acme/key-change",
    }


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
async def test_new_nonce_gives_a_nonce_and_no_body(method: str, status: int) -> None:
    async with open_world() as world:
        response = await RawClient(world).get(method, "new-nonce")
    assert (response.status, response.body) == (status, b"")
    assert response.header("cache-control") == "no-store"
    assert response.header("replay-nonce")
    assert response.header("link") == f'<{world.directory}>;rel="index"'


async def test_the_directory_and_new_nonce_are_read_by_post_as_get_too() -> None:
    """RFC 8555, section 6.3: servers must allow both."""
    async with open_world() as world:
        client = await RawClient(world).register()
        open_to_all = fields(await client.get("GET", "directory"))
        for with_jwk in False, True:
            directory = await client.post("directory", None, with_jwk=with_jwk)
            assert fields(directory) == open_to_all
            nonce = await client.post("new-nonce", None, with_jwk=with_jwk)
            assert (nonce.status, nonce.body) == (204, b"")
        forged = problem_of(await client.post("directory", None, key=generate("p256")))
    assert forged == (400, "malformed", "JWS: signature is not valid")


async def test_what_is_only_read_wants_an_empty_payload() -> None:
    """RFC 8555, section 6.3: POST-as-GET carries nothing, `{}` is another request."""
    async with open_world() as world:
        client = await RawClient(world).register()
        order = await client.order()
        await order.attested(KEY)
        await order.finalize(csr.build(KEY, name(SERIAL)))
        chain = fields(await client.post(order.url, None))["certificate"]
        readable = [order.url, f"{client.kid}/orders", chain, f"{chain}/0", "directory"]
        for url in readable:
            assert (await client.post(url, None)).status == 200
            for payload in b"{}", b"junk":
                answer = problem_of(await client.post(url, payload))
                assert answer[:2] == (400, "malformed")
                assert answer[2].startswith("payload: expected an empty one")


async def test_every_answer_brings_a_nonce_and_the_directory() -> None:
    async with open_world() as world:
        seen: list[HttpResponse] = []

        def keep(step: str, response: HttpResponse) -> HttpResponse:
            seen.append(response)
            return response

        world.transport.change_response = keep
        await world.enroll(KEY)
        await RawClient(world).get("PUT", "new-order")
        await RawClient(world).post("new-order", {}, content_type="text/plain")
    nonces = [response.header("replay-nonce") for response in seen]
    assert all(nonces)
    assert len(set(nonces)) == len(nonces)
    assert all(
        f'<{world.directory}>;rel="index"' in (response.header("link") or "") for response in seen
    )


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "new-order"), ("GET", "order/x"), ("PUT", "directory")]
)
async def test_another_method_is_not_allowed(method: str, path: str) -> None:
    async with open_world() as world:
        answer = problem_of(await RawClient(world).get(method, path))
    assert answer == (405, "malformed", f"{method} is not for this resource")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/jose+json; charset=utf-8", "text/plain", ""]
)
async def test_another_content_type_is_415(content_type: str) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        answer = problem_of(await client.post("new-order", {}, content_type=content_type))
    assert answer[:2] == (415, "malformed")


async def test_a_request_too_large_is_413() -> None:
    async with open_world() as world:
        answer = problem_of(await RawClient(world).post("new-order", {}, body=b"x" * 300_000))
    assert answer == (413, "malformed", "more than 262144 bytes")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"protected":"e30="}'])
async def test_what_is_no_jws_is_malformed(body: bytes) -> None:
    async with open_world() as world:
        answer = problem_of(await RawClient(world).post("new-account", {}, body=body or b" "))
    assert answer[:2] == (400, "malformed")


async def test_a_nonce_used_twice_is_bad() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        nonce = await client.nonce()
        assert (await client.post(client.kid or "", None, nonce=nonce)).status == 200
        answer = problem_of(await client.post(client.kid or "", None, nonce=nonce))
        unknown = problem_of(await client.post(client.kid or "", None, nonce="bm9uY2U"))
    assert answer == unknown == (400, "badNonce", "the nonce is unknown, used or too old")


async def test_a_forged_request_uses_up_no_nonce() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        nonce = await client.nonce()
        forged = await client.post(client.kid or "", None, nonce=nonce, key=generate("p256"))
        assert problem_of(forged) == (400, "malformed", "JWS: signature is not valid")
        assert (await client.post(client.kid or "", None, nonce=nonce)).status == 200


@pytest.mark.parametrize(
    "other",
    ["https://ca.example/acme/new-order", "/acme/new-order", "{base}/acme/new-account", "x"],
)
async def test_the_signed_url_must_be_that_of_the_request(other: str) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        wrong = other.format(base=world.base)
        answer = problem_of(await client.post("new-order", {}, signed_url=wrong))
    assert answer[:2] == (400, "malformed")
    assert answer[2].startswith("url: expected the URL of the request")


async def test_behind_a_proxy_the_published_name_counts() -> None:
    async with open_world(base_url="https://mdm.example/") as world:
        client = RawClient(world)
        directory = fields(await client.get("GET", "directory"))
        assert directory["newOrder"] == "https://mdm.example/acme/new-order"
        signed = "https://mdm.example/acme/new-account"
        response = await client.post("new-account", {}, with_jwk=True, signed_url=signed)
        assert response.status == 201
        assert response.headers["location"].startswith("https://mdm.example/acme/account/")


async def test_each_resource_wants_its_own_kind_of_signature() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        with_kid = problem_of(await client.post("new-account", {}))
        with_key = problem_of(await client.post("new-order", {}, with_jwk=True))
    assert with_kid == (400, "malformed", "protected: expected jwk, not kid, for this resource")
    assert with_key == (400, "malformed", "protected: expected kid, not jwk, for this resource")


@pytest.mark.parametrize("kid", ["{base}/acme/account/unknown", "https://x.example/a/1", "", "x"])
async def test_an_unknown_account_does_not_exist(kid: str) -> None:
    async with open_world() as world:
        client = RawClient(world, kid=kid.format(base=world.base))
        answer = problem_of(await client.post("new-order", {}))
    assert answer == (400, "accountDoesNotExist", "no account has this URL")


@pytest.mark.parametrize("wrong", ["{path}", "{host}{path}", "x{url}", "{url}/", "{url}?a", "{id}"])
async def test_an_account_is_named_by_its_whole_url(wrong: str) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        whole = URL(client.kid or "")
        client.kid = wrong.format(
            url=whole, host=whole.authority, path=whole.path, id=whole.path.rpartition("/")[2]
        )
        answer = problem_of(await client.post("new-order", {}))
    assert answer == (400, "accountDoesNotExist", "no account has this URL")


async def test_an_unsupported_algorithm_lists_the_supported_ones() -> None:
    async with open_world() as world:
        client = RawClient(world)
        message = sign(KEY, b"{}", url=f"{world.base}/acme/new-account", nonce="bm9uY2U")
        protected = base64url(
            encode_json({"alg": "HS256", "nonce": "bm9uY2U", "url": "x", "kid": "k"})
        )
        body = encode_json({**json.loads(message), "protected": protected})
        response = await client.post("new-account", {}, body=body)
    assert problem_of(response)[:2] == (400, "badSignatureAlgorithm")
    assert json.loads(response.body)["algorithms"] == ["ES256", "ES384", "ES512", "RS256"]


async def test_an_unknown_resource_is_404() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        known = "order/x", "authz/x", "challenge/x", "certificate/x", "order/x/finalize"
        for path in *known, "", "order", "order/x/y", "elsewhere":
            answer = problem_of(await client.post(path, None))
            assert answer == (404, "malformed", "no such resource")


async def test_a_failure_of_ours_is_a_problem_too_and_tells_nothing() -> None:
    class Broken(KnownDevices):
        async def authorize(self, identifier: str) -> Grant:
            raise RuntimeError("secret detail")

    async with open_world(devices=Broken({})) as world:
        client = await RawClient(world).register()
        wanted = {"identifiers": [{"type": "permanent-identifier", "value": SERIAL}]}
        with structlog.testing.capture_logs() as logs:
            answer = problem_of(await client.post("new-order", wanted))
    assert answer == (500, "serverInternal", "the server failed; its log says why")
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["step"]) == ("acme_failed", "new_order")
    assert "secret detail" in str(line["exc_info"])


async def test_a_refusal_is_one_log_line() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        with structlog.testing.capture_logs() as logs:
            await client.post("new-order", {})
    assert [(line["event"], line["step"], line["type"]) for line in logs] == [
        ("acme_refused", "new_order", "malformed")
    ]


# Orders


async def test_a_new_order_has_the_shape_of_the_draft() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        wanted = {"identifiers": [{"type": "permanent-identifier", "value": SERIAL}]}
        response = await client.post("new-order", wanted)
        order = fields(response)
        authorization = fields(await client.post(order["authorizations"][0], None))
    assert response.status == 201
    expires = (world.clock.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert order == {
        "status": "pending",
        "expires": expires,
        "identifiers": wanted["identifiers"],
        "authorizations": order["authorizations"],
        "finalize": response.headers["location"] + "/finalize",
    }
    (challenge,) = authorization.pop("challenges")
    assert authorization == {
        "identifier": wanted["identifiers"][0],
        "status": "pending",
        "expires": expires,
    }
    assert (challenge["type"], challenge["status"]) == ("device-attest-01", "pending")
    assert len(challenge["token"]) == 43


NOT_SUPPORTED = (400, "unsupportedIdentifier", "type 'dns' cannot be proved here")
PERMANENT = {"type": "permanent-identifier", "value": SERIAL}


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        ({}, (400, "malformed", None)),
        ({"identifiers": []}, (400, "malformed", None)),
        ({"identifiers": ["x"]}, (400, "malformed", None)),
        ({"identifiers": [{"type": "permanent-identifier"}]}, (400, "malformed", None)),
        ({"identifiers": [{**PERMANENT, "value": "a/b"}]}, (400, "malformed", None)),
        ({"identifiers": [{**PERMANENT, "value": ""}]}, (400, "malformed", None)),
        (
            {"identifiers": [PERMANENT], "notAfter": "2026-01-02T00:00:00Z"},
            (400, "malformed", None),
        ),
        ({"identifiers": [{"type": "dns", "value": "a.example"}]}, NOT_SUPPORTED),
        ({"identifiers": [PERMANENT, {"type": "dns", "value": "a.example"}]}, NOT_SUPPORTED),
        (
            {"identifiers": [PERMANENT, {**PERMANENT, "value": UDID}]},
            (400, "rejectedIdentifier", "one certificate is for one device"),
        ),
        (
            {"identifiers": [{**PERMANENT, "value": "unknown"}]},
            (400, "rejectedIdentifier", "no device has this identifier"),
        ),
    ],
)
async def test_an_order_that_cannot_be_is_refused(
    payload: dict[str, Any], answer: tuple[int, str, str | None]
) -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        status, type_, detail = problem_of(await client.post("new-order", payload))
        assert world.server.book.sizes()[1] == 0
    assert (status, type_) == answer[:2]
    assert answer[2] in (None, detail)


async def test_another_accounts_objects_are_unauthorized() -> None:
    async with open_world() as world:
        mine, other = await RawClient(world).register(), await RawClient(world).register()
        order = await other.order()
        urls = order.url, order.authorization, order.challenge, order.finalize_url
        for url in urls:
            answer = problem_of(await mine.post(url, None))
            assert answer == (403, "unauthorized", "this belongs to another account")
        assert await order.states() == ("pending", "pending", "pending")


async def test_too_many_open_orders_are_limited() -> None:
    clock = SimulatedClock()
    async with open_world(clock=clock, book=OrderBook(clock, max_live=1)) as world:
        client = await RawClient(world).register()
        await client.order()
        response = await client.post("new-order", {"identifiers": [PERMANENT]})
    assert problem_of(response) == (429, "rateLimited", "1 orders are open already")
    assert response.header("retry-after") == "60"


# Faults


async def test_the_fault_point_is_asked_at_each_step_and_counts() -> None:
    seen: list[tuple[str, str, int]] = []

    def watch(side: str, step: str, message: object, n: int) -> Action | None:
        seen.append((side, step, n))
        return None

    async with open_world(faults=watch) as world:
        await world.enroll(KEY)
    steps = "directory new_nonce new_account new_order authorization challenge order finalize certificate"
    assert seen == [("server", step, 1) for step in steps.split()]


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        (Action(name="problem", arguments={"type": "badCSR"}), (400, "badCSR")),
        (Action(name="problem", arguments={"type": "rateLimited"}), (429, "rateLimited")),
        (Action(name="problem", arguments={"type": "x", "status": 418}), (418, "x")),
        (Action(name="problem"), (500, "serverInternal")),
    ],
)
async def test_a_fault_answers_with_a_problem(action: Action, answer: tuple[int, str]) -> None:
    def fault(side: str, step: str, message: object, n: int) -> Action | None:
        return action if step == "finalize" else None

    async with open_world(faults=fault) as world:
        order = await (await RawClient(world).register()).order()
        await order.attested(KEY)
        assert problem_of(await order.finalize(CSR))[:2] == answer


async def test_a_fault_answers_with_a_bare_status_or_after_a_while() -> None:
    def fault(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "new_nonce":
            return Action(name="status", arguments={"status": 503})
        if step == "directory":
            return Action(name="delay", arguments={"seconds": 1200})
        return None

    asked = asyncio.Event()

    class Watched(SimulatedClock):
        async def sleep(self, seconds: float) -> None:
            asked.set()
            await super().sleep(seconds)

    async with open_world(faults=fault, clock=Watched()) as world:
        client = RawClient(world)
        assert (await client.get("HEAD", "new-nonce")).status == 503
        answer = asyncio.ensure_future(client.get("GET", "directory"))
        await asked.wait()
        await world.clock.advance(1199, guard_s=1)
        assert not answer.done()
        await world.clock.advance(1, guard_s=1)
        assert (await answer).status == 200
