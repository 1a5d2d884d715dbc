"""Every fault of certificates.md section 7 by its name: what it does, and the exact answer that it gets."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from certs import csr
from certs.acme.device_attest import freshness
from certs.acme.faults import DeviceFault, ServerFault
from certs.acme.jws import base64url, decode, key_authorization
from certs.acme.policy import AcmePolicy
from certs.attestation_faults import Facts, LeafFault
from certs.errors import AcmeProblem, MalformedMessage, UnexpectedAnswer
from certs.faults import Action, FaultPoint
from certs.keys import PrivateKey, generate
from tests.certs.acme.world import SERIAL, UDID, RawClient, World, name, open_world, problem_of

KEY = generate("p256")
STATEMENT = "badAttestationStatement"


def once(side: str, step: str, fault: str, **arguments: Any) -> FaultPoint:
    """The fault at the first such step."""
    action = Action(name=fault, arguments=arguments)
    return lambda at_side, at, message, n: action if (at_side, at, n) == (side, step, 1) else None


async def enroll(
    world: World, faults: FaultPoint, key: PrivateKey | None = KEY
) -> tuple[x509.Certificate, ...]:
    return await world.client(faults).enroll(
        csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY), key=key
    )


# Of the device

DEVICE_FAULTS: dict[
    DeviceFault, tuple[str, str, str]
] = {  # step, then type and words of the answer
    DeviceFault.WRONG_URL: ("order", "malformed", "url: expected the URL of the request"),
    DeviceFault.RS256_ON_EC_KEY: (
        "new_order",
        "badSignatureAlgorithm",
        "RS256 does not go with this key",
    ),
    DeviceFault.FRESHNESS_OF_ANOTHER_TOKEN: ("freshness", STATEMENT, "the freshness code is not"),
    DeviceFault.FRESHNESS_OF_KEY_AUTHORIZATION: (
        "freshness",
        STATEMENT,
        "the freshness code is not",
    ),
    DeviceFault.RAW_TOKEN: ("freshness", STATEMENT, "the freshness code is not"),
    DeviceFault.IDENTIFIER_WITH_SLASH: ("new_order", "malformed", "permanent-identifier: expected"),
    DeviceFault.MISSING_INTERMEDIATE: ("challenge", STATEMENT, "certificate "),
    DeviceFault.FORMAT_NONE: ("challenge", STATEMENT, "an attestation is required"),
    DeviceFault.PADDED: ("challenge", STATEMENT, "attObj: expected base64url without padding"),
    DeviceFault.NOT_CBOR: ("challenge", STATEMENT, "attObj: expected CBOR"),
    DeviceFault.ERROR_MEMBER: ("challenge", STATEMENT, "an attestation is required"),
    DeviceFault.WRONG_COMMON_NAME: ("finalize", "badCSR", "the common name is neither"),
    DeviceFault.ANOTHER_KEY: (
        "finalize",
        "unauthorized",
        "the key of the CSR is not the attested key",
    ),
}
ELSEWHERE = {  # with tests of their own
    DeviceFault.DELAY,
    DeviceFault.SEND_PAYLOAD,
    DeviceFault.REUSED_NONCE,
    DeviceFault.FINALIZE_EARLY,
}


@pytest.mark.parametrize("fault", sorted(set(DeviceFault) - ELSEWHERE))
async def test_each_fault_of_the_device_gets_its_answer(fault: DeviceFault) -> None:
    step, type_, words = DEVICE_FAULTS[fault]
    async with open_world() as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll(world, once("device", step, fault))
        assert world.devices.issued_to == []
        assert await enroll(world, once("device", step, "")) if step != "freshness" else True
    assert caught.value.type == type_
    assert caught.value.detail.startswith(words)


async def test_a_device_finalizes_before_a_slow_server_has_decided() -> None:
    faults = once("device", "await_order", DeviceFault.FINALIZE_EARLY)
    async with open_world(policy=AcmePolicy(slow_validation=2)) as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll(world, faults)
        assert "order" not in world.transport.steps
        assert world.devices.issued_to == []
    assert (caught.value.type, caught.value.status) == ("orderNotReady", 403)
    assert caught.value.detail == "the order is pending"


async def test_the_wrong_freshness_codes_are_what_they_say() -> None:
    async with open_world() as world:
        seen = {}
        for fault in ("raw-token", "freshness-of-key-authorization", "freshness-of-another-token"):
            asked: list[bytes] = []

            async def attest(code: bytes, asked: list[bytes] = asked) -> list[bytes]:
                asked.append(code)
                return list(await world.attest(KEY)(code))

            key = generate("p256")
            client = world.client(once("device", "freshness", fault), account_key=key)
            with pytest.raises(AcmeProblem):
                await client.enroll(csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=attest)
            (account,) = [a for a in [world.server.book.account_of_key(key.public_key())] if a]
            order = world.server.book.order(next(iter(account.orders)))
            assert order is not None
            seen[fault] = asked[0], order.authorizations[0].token, key
    code, token, _ = seen["raw-token"]
    assert base64url(code) == token
    code, token, key = seen["freshness-of-key-authorization"]
    assert code == freshness(key_authorization(token, key.public_key()))
    code, token, _ = seen["freshness-of-another-token"]
    assert len(code) == 32
    assert code != freshness(token)


async def test_a_short_token_goes_raw_as_it_is() -> None:
    """As with step-ca, whose tokens have 32 characters."""

    def change(step: str, response: Any) -> Any:
        fields = json.loads(response.body or b"{}") if step == "authorization" else {}
        for challenge in fields.get("challenges", ()):
            challenge["token"] = "A" * 32
        return replace(response, body=json.dumps(fields).encode()) if fields else response

    asked: list[bytes] = []

    async def attest(code: bytes) -> list[bytes]:
        asked.append(code)
        return []

    async with open_world() as world:
        world.transport.change_response = change
        with pytest.raises(AcmeProblem):
            await world.client(once("device", "freshness", "raw-token")).enroll(
                csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=attest
            )
    assert asked == [b"A" * 32]


async def test_a_server_that_takes_a_slash_is_followed() -> None:
    """As step-ca does."""

    def change(step: str, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        if step == "new_order":
            sent.append(decode(body).fields()["identifiers"][0]["value"])
        return headers, body

    def accept(step: str, response: Any) -> Any:
        if step != "new_order":
            return response
        value = {"type": "permanent-identifier", "value": sent[0]}
        order = {
            "status": "pending",
            "identifiers": [value],
            "authorizations": [f"{world.base}/acme/authz/x"],
            "finalize": "x",
        }
        headers = {**response.headers, "location": "x", "content-type": "application/json"}
        return replace(response, status=201, headers=headers, body=json.dumps(order).encode())

    sent: list[str] = []
    async with open_world() as world:
        world.transport.change_request, world.transport.change_response = change, accept
        with pytest.raises(AcmeProblem, match="no such resource"):
            await enroll(world, once("device", "new_order", "identifier-with-slash"))
    assert sent == [f"a/{SERIAL}"]


async def test_a_fault_that_needs_the_key_says_so() -> None:
    async with open_world() as world:
        with pytest.raises(ValueError, match="wrong-common-name needs the key of the request"):
            await enroll(world, once("device", "finalize", "wrong-common-name"), key=None)


async def test_an_unknown_freshness_fault_is_our_own_mistake() -> None:
    async with open_world() as world:
        with pytest.raises(ValueError, match="freshness has no fault 'freshnes'"):
            await enroll(world, once("device", "freshness", "freshnes"))


async def test_the_request_is_made_again_with_everything_else_as_it_was() -> None:
    async with open_world(subject_for=lambda grant, request: request.subject) as world:
        (leaf, *_) = await enroll(
            world, once("device", "finalize", "wrong-common-name", common_name="x")
        )
        assert leaf.subject == name("x")
        (sent,) = [
            decode(body).fields()["csr"]
            for _, url, body in world.transport.sent
            if url.endswith("/finalize")
        ]
    assert sent != base64url(csr.build(KEY, name(SERIAL)))


# Of the attestation authority

LEAF_FAULTS = {
    LeafFault.NO_FRESHNESS: "the attestation carries no freshness code",
    LeafFault.FOREIGN_ROOT: "certificate ",
    LeafFault.EXPIRED_LEAF: "certificate ",
    LeafFault.ANOTHER_DEVICE: "the attested device is not the one",
    LeafFault.ANONYMOUS: "the attested device is not the one",
    LeafFault.BLANK_VALUES: "the attested device is not the one",
}


@pytest.mark.parametrize("fault", sorted(LeafFault))
async def test_each_fault_of_the_leaf_is_a_bad_statement(fault: LeafFault) -> None:
    async with open_world() as world:
        world.authority.misbehave(once("server", "attestation_leaf", fault))
        with pytest.raises(AcmeProblem) as caught:
            await world.enroll(KEY)
        assert world.devices.issued_to == []
        assert await world.enroll(KEY)  # the fault was for the first leaf alone
    assert caught.value.type == STATEMENT
    assert caught.value.detail.startswith(LEAF_FAULTS[fault])


async def test_a_fault_of_a_leaf_knows_its_device_and_counts_by_it() -> None:
    seen: list[tuple[str | None, str | None, int]] = []

    def watch(side: str, step: str, message: object, n: int) -> Action | None:
        assert isinstance(message, Facts)
        seen.append((message.serial_number, message.udid, n))
        return None

    async with open_world() as world:
        world.authority.misbehave(watch)
        for serial in SERIAL, SERIAL, "ANOTHER001":
            world.authority.issue(KEY.public_key(), serial_number=serial, udid=UDID, freshness=None)
        assert seen == [(SERIAL, UDID, 1), (SERIAL, UDID, 2), ("ANOTHER001", UDID, 1)]
        world.authority.misbehave(lambda *_: Action(name="foreign-rot"))
        with pytest.raises(ValueError, match="an attestation leaf has no fault 'foreign-rot'"):
            await world.enroll(KEY)


# Of the server

REFUSALS: dict[ServerFault, tuple[int, str, str | None]] = {
    ServerFault.PROBLEM: (500, "serverInternal", None),
    ServerFault.RATE_LIMITED: (429, "rateLimited", "60"),
    ServerFault.EAB_REQUIRED: (403, "externalAccountRequired", None),
    ServerFault.BAD_NONCE: (400, "badNonce", None),
}


@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_fault_refuses(fault: ServerFault) -> None:
    async with open_world(faults=once("server", "account", fault)) as world:
        client = await RawClient(world).register()
        response = await client.post(client.kid or "", None)
        assert (await client.post(client.kid or "", None)).status == 200
    status, type_, pause = REFUSALS[fault]
    assert problem_of(response) == (status, type_, "refused on purpose")
    assert response.header("retry-after") == pause


async def test_our_client_survives_a_burst_of_bad_nonces() -> None:
    burst = Action(name="bad-nonce")

    def faults(side: str, step: str, message: object, n: int) -> Action | None:
        return burst if (side, step) == ("server", "finalize") and n <= 5 else None

    async with open_world(faults=faults) as world:
        assert await world.enroll(KEY)
        assert world.transport.steps.count("finalize") == 6


async def test_our_client_asks_for_a_nonce_where_an_answer_brings_none() -> None:
    async with open_world(faults=once("server", "challenge", "no-replay-nonce")) as world:
        assert await world.enroll(KEY)
        assert world.transport.steps.count("new_nonce") == 2


@pytest.mark.parametrize("step", ["challenge", "order", "finalize", "certificate"])
async def test_an_order_expires_on_the_way(step: str) -> None:
    async with open_world(faults=once("server", step, "expire-order")) as world:
        client = await RawClient(world).register()
        order = await client.order()
        answers = [
            await order.attested(KEY),
            await client.post(order.url, None),
            await order.finalize(csr.build(KEY, name(SERIAL))),
            await client.post(order.url.replace("/order/", "/certificate/"), None),
        ]
        state = (await order.states())[0]
    late = answers[["challenge", "order", "finalize", "certificate"].index(step)]
    if step == "certificate":  # a valid order stays so
        assert (late.status, state) == (200, "valid")
        return
    assert state == "invalid"
    words = {
        "challenge": "the authorization is expired",
        "finalize": "the order is invalid",
    }
    if step == "order":
        assert json.loads(late.body)["error"]["detail"] == "the order expired"
    else:
        assert problem_of(late)[2] == words[step]


async def test_our_client_wants_its_certificate_first() -> None:
    async with open_world(faults=once("server", "certificate", "chain-in-wrong-order")) as world:
        with pytest.raises(MalformedMessage, match="first the one for the key of the CSR"):
            await world.enroll(KEY)


async def test_a_server_fails_once() -> None:
    async with open_world(faults=once("server", "new_order", "status", status=503)) as world:
        client = world.client()
        arguments: Any = {"identifier": SERIAL, "attest": world.attest(KEY)}
        with pytest.raises(UnexpectedAnswer):
            await client.enroll(csr.build(KEY, name(SERIAL)), **arguments)
        assert await client.enroll(csr.build(KEY, name(SERIAL)), **arguments)


async def test_a_fault_at_a_step_that_has_none_is_our_own_mistake() -> None:
    async with open_world(faults=once("server", "new_order", "chain-in-wrong-order")) as world:
        with pytest.raises(AcmeProblem) as caught:
            await world.enroll(KEY)
    assert (caught.value.type, caught.value.status) == ("serverInternal", 500)


def test_no_fault_is_left_without_a_test() -> None:
    tested = {"delay", "status", "no-replay-nonce", "challenge-with-error", "processing"}
    tested |= {"expire-order", "chain-in-wrong-order", *REFUSALS}
    assert tested == set(ServerFault)
    assert set(DEVICE_FAULTS) | ELSEWHERE == set(DeviceFault)
    assert set(LEAF_FAULTS) == set(LeafFault)
