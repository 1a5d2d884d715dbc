"""The ACME client at servers that break the protocol: each broken answer is named, and nothing hangs."""

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.errors import MalformedMessage, UnexpectedAnswer
from certs.faults import Action
from certs.keys import generate
from certs.transport import HttpResponse
from tests.certs.acme.test_client import STEPS, changing, headers_of
from tests.certs.acme.world import SERIAL, name, open_world

KEY = generate("p256")


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (changing("directory", newOrder=None), MalformedMessage, "newOrder"),
        (changing("new_order", authorizations=[]), MalformedMessage, "our identifier"),
        (changing("new_order", identifiers=[]), MalformedMessage, "our identifier"),
        (changing("new_order", status="new"), MalformedMessage, "status: expected one of"),
        (headers_of("new_order", location=None), MalformedMessage, "Location"),
        (headers_of("new_account", location=None), MalformedMessage, "Location"),
        (changing("authorization", challenges=[]), MalformedMessage, "device-attest-01"),
        (changing("order", status="processing"), UnexpectedAnswer, "is processing, not ready"),
        (changing("finalize", status="ready"), UnexpectedAnswer, "is ready, not valid"),
        (changing("finalize", certificate=None), UnexpectedAnswer, "names no certificate"),
    ],
)
async def test_a_broken_answer_is_named(
    change: Callable[[str, HttpResponse], HttpResponse], error: type[Exception], reason: str
) -> None:
    async with open_world() as world:
        world.transport.change_response = change
        with pytest.raises(error, match=reason):
            await world.enroll(KEY)


def body_of(
    step: str, body: bytes, status: int = 200
) -> Callable[[str, HttpResponse], HttpResponse]:
    def change(name_: str, response: HttpResponse) -> HttpResponse:
        return replace(response, body=body, status=status) if name_ == step else response

    return change


@pytest.mark.parametrize(
    "step", ["directory", "new_order", "authorization", "challenge", "order", "finalize"]
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 200_000, b'{"a":' * 200_000])
async def test_what_is_no_json_is_malformed(step: str, body: bytes) -> None:
    async with open_world() as world:
        status = 201 if step == "new_order" else 200
        world.transport.change_response = body_of(step, body, status)
        with pytest.raises(MalformedMessage, match="answer: expected a JSON object"):
            await world.enroll(KEY)


@pytest.mark.parametrize("step", STEPS)
async def test_a_bare_status_is_unexpected(step: str) -> None:
    def fault(side: str, step_: str, message: object, n: int) -> Action | None:
        return Action(name="status", arguments={"status": 503}) if step_ == step else None

    async with open_world(faults=fault) as world:
        with pytest.raises(UnexpectedAnswer) as caught:
            await world.enroll(KEY)
    assert caught.value.status == 503
    assert world.transport.steps[-1] == step


UNREADABLE = {  # what stands in a good leaf, and what in its place
    "version": ("a003020102", "a003020107"),
    "kind of key": ("06072a8648ce3d0201", "06072a8648ce3d027f"),
    "curve": ("06082a8648ce3d030107", "06082a8648ce3d03017f"),
    "point": ("03420004", "03420009"),
    "issuer": (b"Test Device CA".hex(), b"Test Device\xffCA".hex()),
}


@pytest.mark.parametrize("part", UNREADABLE)
@pytest.mark.parametrize("preferred", [None, "another root"])
async def test_a_certificate_that_cannot_be_read_is_malformed(
    part: str, preferred: str | None
) -> None:
    good, bad = (bytes.fromhex(text) for text in UNREADABLE[part])
    async with open_world() as world:
        leaf = (await world.enroll(KEY))[0].public_bytes(Encoding.DER)
        assert good in leaf
        text = base64.encodebytes(leaf.replace(good, bad, 1)).decode()
        pem = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode()
        world.transport.change_response = body_of("certificate", pem)
        client = world.client(preferred_issuer=preferred)
        with pytest.raises(MalformedMessage, match="a chain in PEM"):
            await client.enroll(
                csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
            )


async def test_the_certificate_must_be_for_our_key_and_come_first() -> None:
    async with open_world() as world:
        ours = await world.enroll(KEY)
        foreign = world.ca.issue(generate("p256").public_key(), name(SERIAL))
        reason = "first the one for the key of the CSR"
        for chain in [foreign], [world.ca.certificate, *ours]:
            pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
            world.transport.change_response = body_of("certificate", pem)
            with pytest.raises(MalformedMessage, match=reason):
                await world.enroll(KEY)
        for body in b"", b"no pem":
            world.transport.change_response = body_of("certificate", body)
            with pytest.raises(MalformedMessage, match="a chain in PEM"):
                await world.enroll(KEY)
        many = ours[0].public_bytes(Encoding.PEM) * 11
        world.transport.change_response = body_of("certificate", many)
        with pytest.raises(MalformedMessage, match="at most 10"):
            await world.enroll(KEY)
