"""The ACME server when a challenge is answered: what proves a device, what does not, and what stays of the order."""

import base64
from datetime import timedelta
from typing import Any

import pytest
import structlog

from certs import csr
from certs.acme.device_attest import (
    AttestationObject,
    freshness,
    unattested_response,
)
from certs.acme.jws import base64url
from certs.acme.policy import AcmePolicy
from certs.keys import generate
from tests.certs.acme.world import (
    SERIAL,
    RawClient,
    fields,
    name,
    open_world,
    problem_of,
)

KEY = generate("p384")
CSR = csr.build(KEY, name(SERIAL), digest="sha384")


async def test_an_attested_challenge_makes_the_order_ready() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        response = await order.attested(KEY)
        challenge = fields(response)
        assert challenge["status"] == "valid"
        assert challenge["validated"] == world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        assert f'<{order.authorization}>;rel="up"' in (response.header("link") or "")
        assert await order.states() == ("ready", "valid", "valid")


async def test_reading_a_challenge_is_no_answer() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        assert fields(await order.answer(None))["status"] == "pending"
        assert (await order.attested(KEY)).status == 200


async def test_a_failed_challenge_ends_the_order_for_good() -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        with structlog.testing.capture_logs() as logs:
            refused = problem_of(await order.attested(KEY, serial_number="ANOTHER001"))
        outcomes = [(line["event"], line["outcome"], line["reference"]) for line in logs]
        assert outcomes == [("acme_order", "invalid", "device 1")]
        assert refused[:2] == (400, "badAttestationStatement")
        assert await order.states() == ("invalid", "invalid", "invalid")
        again = fields(await order.attested(KEY))
        assert again["error"]["type"].endswith(":badAttestationStatement")
        late = problem_of(await order.finalize(CSR))
        assert late == (403, "orderNotReady", "the order is invalid")
        shown = fields(await order.client.post(order.url, None))
        assert shown["error"]["detail"] == refused[2]


@pytest.mark.parametrize(
    "changed",
    [
        {"freshness": bytes(32)},
        {"freshness": None},
        {"serial_number": None, "udid": None},
        {"serial_number": "", "udid": ""},
        {"udid": "another"},
        {"days": 0.001},
    ],
    ids=["stale", "no-freshness", "user-enrollment", "blank", "udid", "expired"],
)
async def test_each_attestation_fault_is_a_bad_statement(changed: dict[str, Any]) -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        if "days" in changed:
            await world.clock.advance(600)
            changed = {"not_before": world.clock.now() - timedelta(minutes=5), **changed}
        answer = problem_of(await order.attested(KEY, **changed))
        assert answer[:2] == (400, "badAttestationStatement")
        assert await order.states() == ("invalid", "invalid", "invalid")


@pytest.mark.parametrize(
    "payload",
    [
        {"attObj": "===="},
        {"attObj": base64url(b"not cbor")},
        {"attObj": base64url(AttestationObject("packed", (b"x",)).encode())},
        unattested_response("none"),
        unattested_response("empty"),
        unattested_response("object"),
        unattested_response("error"),
    ],
    ids=["padding", "no-cbor", "format", "none", "empty", "object", "error"],
)
async def test_each_answer_without_attestation_is_a_bad_statement(payload: dict[str, Any]) -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        answer = problem_of(await order.answer(payload))
        assert answer[:2] == (400, "badAttestationStatement")
        assert await order.states() == ("invalid", "invalid", "invalid")


@pytest.mark.parametrize("payload", [b"[]", b"{", b"\xff"])
async def test_an_answer_that_is_no_object_leaves_the_challenge_open(payload: bytes) -> None:
    async with open_world() as world:
        order = await (await RawClient(world).register()).order()
        assert problem_of(await order.answer(payload))[:2] == (400, "malformed")
        assert await order.states() == ("pending", "pending", "pending")


@pytest.mark.parametrize("tolerant", [False, True])
async def test_padding_of_an_attestation_needs_the_setting(tolerant: bool) -> None:
    async with open_world(policy=AcmePolicy(accept_padding=tolerant)) as world:
        order = await (await RawClient(world).register()).order()
        text, version = "", "18"
        while not text.endswith("="):  # a third of the sizes needs none
            chain = await world.attest(KEY, os_version=version)(freshness(order.token))
            data = AttestationObject("apple", tuple(chain)).encode()
            text, version = base64.urlsafe_b64encode(data).decode(), f"{version}.0"
        answer = await order.answer({"attObj": text})
    if tolerant:
        assert fields(answer)["status"] == "valid"
    else:
        assert problem_of(answer)[:2] == (400, "badAttestationStatement")


async def test_unattested_devices_need_the_setting() -> None:
    async with open_world(allow_unattested=True) as world:
        order = await (await RawClient(world).register()).order()
        assert fields(await order.answer(unattested_response("none")))["status"] == "valid"
        assert fields(await order.finalize(CSR))["status"] == "valid"


async def test_an_order_expires() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        pending, ready = await client.order(), await client.order()
        await ready.attested(KEY)
        await world.clock.advance(3600)
        late = problem_of(await pending.attested(KEY))
        assert late == (400, "malformed", "the authorization is expired")
        assert await pending.states() == ("invalid", "expired", "pending")
        finalize = problem_of(await ready.finalize(CSR))
        assert finalize == (403, "orderNotReady", "the order is invalid")
