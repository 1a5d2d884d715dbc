"""Whatever comes over the socket: cut off, changed, huge or deep, it has one documented error, and nothing changes (RFC 8555, section 6.7)."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.acme import jws
from certs.acme.device_attest import AttestationObject, freshness, judge
from certs.acme.door import MAX_REQUEST_BYTES
from certs.acme.jws import base64url
from certs.attestation import AttestationAuthority
from certs.authorize import Grant
from certs.clock import SimulatedClock
from certs.errors import AcmeProblem, InvalidSignature, MalformedMessage
from certs.keys import generate
from tests.certs.acme.world import (
    SERIAL,
    RawClient,
    RawOrder,
    World,
    fields,
    name,
    open_world,
    problem_of,
)

KEY = generate("p256")
CSR = csr.build(KEY, name(SERIAL))
TEN_MB = 10 * 1024 * 1024
REFUSED = (MalformedMessage, InvalidSignature, AcmeProblem)


@asynccontextmanager
async def an_order() -> AsyncIterator[tuple[World, RawClient, RawOrder]]:
    async with open_world() as world:
        client = await RawClient(world).register()
        yield world, client, await client.order()


async def signed(client: RawClient, url: str, payload: Any) -> bytes:
    content = payload if isinstance(payload, bytes) else jws.encode_json(payload)
    return jws.sign(client.key, content, url=url, nonce=await client.nonce(), kid=client.kid)


def flips(data: bytes) -> Iterator[bytes]:
    """Every byte with its lowest bit changed."""
    for index, byte in enumerate(data):
        yield data[:index] + bytes([byte ^ 1]) + data[index + 1 :]


# Cut off


async def test_a_jws_cut_off_at_each_byte_is_malformed() -> None:
    async with an_order() as (world, client, order):
        whole = await signed(client, order.challenge, {})
        for length in range(len(whole)):
            answer = await client.post(order.challenge, None, body=whole[:length])
            assert problem_of(answer)[:2] == (400, "malformed"), length
        assert await order.states() == ("pending", "pending", "pending")
        # The nonce in it is still good: nothing of this used it up.
        assert fields(await client.post(order.url, None, body=None))["status"] == "pending"
        assert world.server.door.nonces.use(jws.decode(whole).nonce)


def test_an_attestation_object_cut_off_at_each_byte_is_malformed() -> None:
    whole = AttestationObject("apple", (b"leaf" * 9, b"issuer" * 9)).encode()
    for length in range(len(whole)):
        with pytest.raises(MalformedMessage, match="attObj"):
            AttestationObject.decode(whole[:length])


async def test_an_attestation_cut_off_is_a_bad_statement_and_ends_the_order() -> None:
    async with open_world() as world:
        client = await RawClient(world).register()
        order = await client.order()
        chain = await world.attest(KEY)(freshness(order.token))
        whole = AttestationObject("apple", tuple(chain)).encode()
        for length in range(0, len(whole), 97):
            answer = await order.answer({"attObj": base64url(whole[:length] or b"\xa2")})
            assert problem_of(answer)[:2] == (400, "badAttestationStatement")
            assert await order.states() == ("invalid", "invalid", "invalid")
            order = await client.order()


async def test_a_request_for_a_certificate_cut_off_is_a_bad_csr_and_leaves_the_order_ready() -> (
    None
):
    async with an_order() as (world, _, order):
        await order.attested(KEY)
        for length in range(len(CSR)):
            answer = await order.finalize(CSR[:length])
            assert problem_of(answer)[:2] == (400, "badCSR"), length
        assert (await order.states())[0] == "ready"
        assert world.devices.issued_to == []


# Changed


def test_a_jws_with_any_byte_changed_is_refused() -> None:
    whole = jws.sign(KEY, b'{"a":1}', url="https://h/x", nonce="bm9uY2U", kid="https://h/account/1")
    for changed in flips(whole):
        with pytest.raises(REFUSED):
            jws.decode(changed).verify(KEY.public_key())


@pytest.mark.parametrize("part", ["protected", "payload", "signature"])
async def test_a_changed_part_of_a_jws_is_refused_by_the_server(part: str) -> None:
    async with an_order() as (_, client, order):
        message = json.loads(await signed(client, order.challenge, {"a": 1}))
        text = message[part]
        found = set()
        for index in range(0, len(text), 5):
            other = "A" if text[index] != "A" else "B"
            body = json.dumps({**message, part: text[:index] + other + text[index + 1 :]})
            answer = await client.post(order.challenge, None, body=body.encode())
            status, type_, _ = problem_of(answer)
            found.add((status, type_))
        assert found <= {
            (400, "malformed"),
            (400, "accountDoesNotExist"),
            (400, "badSignatureAlgorithm"),
        }
        assert await order.states() == ("pending", "pending", "pending")


def test_one_signature_has_one_text() -> None:
    """RFC 4648, section 3.5: the unused bits of the last character are zero."""
    for data in b"\xff", b"\xff\xff":
        text = base64url(data)
        assert jws.from_base64url(text, "x") == data
        with pytest.raises(MalformedMessage, match="base64url without padding"):
            jws.from_base64url(text[:-1] + chr(ord(text[-1]) + 1), "x")


def test_an_attestation_object_with_any_byte_changed_is_a_bad_statement() -> None:
    clock = SimulatedClock()
    authority = AttestationAuthority.create(clock)
    chain = authority.issue(
        KEY.public_key(), serial_number=SERIAL, udid=None, freshness=freshness("token")
    )
    encoded = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    whole = AttestationObject("apple", encoded).encode()

    def judged(data: bytes) -> object:
        return judge(
            {"attObj": base64url(data)},
            token="token",
            identifier=SERIAL,
            grant=Grant(reference="x"),
            roots=[authority.root],
            at=clock.now(),
            allow_unattested=False,
        )

    assert judged(whole)
    # How many bits of a signature's last byte are unused is covered by no signature, and changes nothing.
    unused_bits = {whole.index(certificate.signature) - 1 for certificate in chain}
    for index, changed in enumerate(flips(whole)):
        if index in unused_bits:
            continue
        with pytest.raises(AcmeProblem) as caught:
            judged(changed)
        assert caught.value.type == "badAttestationStatement"


@pytest.mark.parametrize(
    ("header", "type_"),
    [
        ({"alg": "none"}, "badSignatureAlgorithm"),
        ({"alg": "HS256"}, "badSignatureAlgorithm"),
        ({"alg": "ES384"}, "badSignatureAlgorithm"),
        ({"alg": None}, "badSignatureAlgorithm"),
        ({"nonce": ""}, "malformed"),
        ({"nonce": "no base64"}, "malformed"),
        ({"nonce": None}, "malformed"),
        ({"url": "https://elsewhere.example/"}, "malformed"),
        ({"url": 7}, "malformed"),
        ({"kid": "https://h/acme/account/nobody"}, "accountDoesNotExist"),
        ({"kid": "nonsense"}, "accountDoesNotExist"),
        ({"kid": None}, "malformed"),
        ({"jwk": {}}, "malformed"),
        ({"crit": ["x"]}, "malformed"),
    ],
)
async def test_each_wrong_field_of_the_header_has_its_error(
    header: dict[str, Any], type_: str
) -> None:
    async with an_order() as (_, client, order):
        honest = {"alg": "ES256", "kid": client.kid, "url": order.url, "nonce": "bm9uY2U"}
        message = {
            "protected": base64url(jws.encode_json({**honest, **header})),
            "payload": "",
            "signature": base64url(bytes(64)),
        }
        answer = await client.post(order.url, None, body=jws.encode_json(message))
    assert problem_of(answer)[:2] == (400, type_)


async def test_another_key_is_told_what_damage_is_told() -> None:
    """Who forges learns nothing from the difference."""
    async with an_order() as (_, client, order):
        whole = json.loads(await signed(client, order.url, b""))
        damaged = {**whole, "signature": base64url(bytes(64))}
        answers = [
            await client.post(order.url, None, key=generate("p256")),
            await client.post(order.url, None, body=jws.encode_json(damaged)),
        ]
    told = {problem_of(answer) for answer in answers}
    assert told == {(400, "malformed", "JWS: signature is not valid")}


# Huge


async def test_a_body_of_ten_megabytes_is_413_with_and_without_its_length() -> None:
    async with an_order() as (world, _, order):

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10 * 16):
                yield b"x" * 65536

        assert world.transport.session is not None
        for body in io.BytesIO(b"x" * TEN_MB), pieces():
            async with world.transport.session.post(
                order.challenge,
                data=body,
                headers={"Content-Type": "application/jose+json"},
                ssl=world.transport.context,
            ) as answer:
                assert answer.status == 413
                assert answer.content_type == "application/problem+json"
                assert "malformed" in (await answer.json(content_type=None))["type"]
        assert await order.states() == ("pending", "pending", "pending")


async def test_a_body_over_the_limit_of_this_door_is_413_though_the_host_takes_it() -> None:
    async with an_order() as (world, _, order):

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(MAX_REQUEST_BYTES // 65536 + 1):
                yield b"x" * 65536

        assert world.transport.session is not None
        async with world.transport.session.post(
            order.challenge,
            data=pieces(),
            headers={"Content-Type": "application/jose+json"},
            ssl=world.transport.context,
        ) as answer:
            problem = await answer.json(content_type=None)
    assert (problem["status"], problem["detail"]) == (413, f"more than {MAX_REQUEST_BYTES} bytes")


async def test_the_largest_request_that_is_read_is_refused_for_what_it_says() -> None:
    async with an_order() as (_, client, order):
        room = MAX_REQUEST_BYTES - 2000
        long = {"attObj": "A" * (room * 3 // 4 // 4 * 4)}
        answer = problem_of(await client.post(order.challenge, long))
    assert answer[:2] == (400, "badAttestationStatement")
    assert len(answer[2]) < 200


@pytest.mark.parametrize(
    "head",
    [b"\x5a\xff\xff\xff\xff", b"\x9b" + b"\xff" * 8, b"\xbb" + b"\x7f" * 8, b"\x7b" + b"\xff" * 8],
    ids=["bytes", "array", "map", "text"],
)
def test_a_length_that_nobody_has_memory_for_is_malformed(head: bytes) -> None:
    for data in head, b"\xa2\x63fmt" + head:
        with pytest.raises(MalformedMessage, match="attObj"):
            AttestationObject.decode(data)


# Deep


def deep_json(levels: int) -> list[bytes]:
    return [
        b"[" * levels,
        b"[" * levels + b"]" * levels,
        b'{"a":' * levels + b"1" + b"}" * levels,
        b'{"identifiers":' + b"[" * levels + b"]" * levels + b"}",
    ]


@pytest.mark.parametrize("where", ["body", "protected", "payload"])
async def test_deep_json_is_malformed_wherever_it_stands(where: str) -> None:
    async with an_order() as (_, client, order):
        new_order = f"{client.world.base}/acme/new-order"
        for deep in deep_json(20_000):
            body = deep
            if where == "payload":
                body = await signed(client, new_order, deep)
            elif where == "protected":
                parts = {"protected": base64url(deep), "payload": "", "signature": ""}
                body = jws.encode_json(parts)
            answer = await client.post(new_order, None, body=body)
            assert problem_of(answer)[:2] == (400, "malformed")
        assert await order.states() == ("pending", "pending", "pending")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"contact":["mailto:\\ud800@b.example"]}',
        b'{"identifiers":[{"type":"x","value":"\\udfff"},{"type":"x","value":"b"}]}',
    ],
    ids=["account", "new-order"],
)
async def test_half_a_surrogate_pair_is_malformed_and_not_kept(payload: bytes) -> None:
    async with an_order() as (_, client, _):
        path = (client.kid or "") if b"contact" in payload else "new-order"
        assert problem_of(await client.post(path, payload))[:2] == (400, "malformed")
        assert (await client.post(client.kid or "", None)).status == 200


@pytest.mark.parametrize(
    "opening",
    [b"\x81", b"\xa1\x01", b"\x9f", b"\xbf\x01", b"\xc1", b"\xd8\x1d", b"\xa1\x63fmt", b"\x5f"],
    ids=["array", "map", "open-array", "open-map", "date", "shared", "format", "open-bytes"],
)
async def test_deep_cbor_is_a_bad_statement(opening: bytes) -> None:
    async with an_order() as (_, _, order):
        deep = opening * (60_000 // len(opening))
        answer = await order.answer({"attObj": base64url(deep)})
        assert problem_of(answer)[:2] == (400, "badAttestationStatement")
        assert await order.states() == ("invalid", "invalid", "invalid")
