"""The ACME client against a real server over TLS, and against servers that bend or break the protocol."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.acme.client import AcmeClient
from certs.acme.device_attest import Unattested
from certs.acme.jws import base64url, decode
from certs.acme.order_road import MAX_POLLS
from certs.acme.session import BAD_NONCE_RETRIES, retry_after_s
from certs.attestation import AttestationAuthority
from certs.clock import SystemClock
from certs.errors import AcmeProblem, MalformedMessage, TransportError, UnexpectedAnswer
from certs.faults import Action, FaultPoint
from certs.keys import FreshKeys, generate, spki_der
from certs.tls import client_context
from certs.transport import HttpResponse
from tests.certs.acme.world import CODE, SERIAL, UDID, SocketTransport, World, name, open_world
from tests.support import openssl, rsa_key

KEY = generate("p256")
RSA = rsa_key()
STEPS = [
    "directory",
    "new_nonce",
    "new_account",
    "new_order",
    "authorization",
    "challenge",
    "order",
    "finalize",
    "certificate",
]


def changing(step: str, **members: Any) -> Callable[[str, HttpResponse], HttpResponse]:
    """Change members of the JSON that a step answers; None takes one away."""

    def change(name_: str, response: HttpResponse) -> HttpResponse:
        if name_ != step:
            return response
        fields = {**json.loads(response.body), **members}
        kept = {key: value for key, value in fields.items() if value is not None}
        return replace(response, body=json.dumps(kept).encode())

    return change


def headers_of(step: str, **changed: str | None) -> Callable[[str, HttpResponse], HttpResponse]:
    def change(name_: str, response: HttpResponse) -> HttpResponse:
        if name_ != step:
            return response
        headers = {**response.headers, **{k.replace("_", "-"): v for k, v in changed.items()}}
        return replace(response, headers={k: v for k, v in headers.items() if v is not None})

    return change


async def refused(world: World, **changed: Any) -> AcmeProblem:
    with pytest.raises(AcmeProblem) as caught:
        await world.enroll(KEY, **changed)
    return caught.value


# The road


@pytest.mark.parametrize("identifier", [SERIAL, UDID, CODE])
@pytest.mark.parametrize("spec", ["p256", "p384", "p521", "rsa2048"])
async def test_a_device_gets_a_certificate_for_its_attested_key(identifier: str, spec: Any) -> None:
    key = RSA if spec == "rsa2048" else generate(spec)
    async with open_world() as world:
        chain = await world.enroll(key, identifier=identifier)
        assert world.transport.steps == STEPS
        assert world.devices.issued_to == [chain[0]]
    assert spki_der(chain[0].public_key()) == spki_der(key.public_key())  # type: ignore[arg-type]
    assert chain[1:] == (world.ca.certificate,)


async def test_an_attestation_can_be_proved_without_a_certificate() -> None:
    async with open_world() as world:
        await world.client().prove(identifier=SERIAL, attest=world.attest(KEY))
        assert world.transport.steps == STEPS[: STEPS.index("finalize")]
        assert world.devices.issued_to == []
        foreign = world.attest(KEY, authority=AttestationAuthority.create(world.clock))
        with pytest.raises(AcmeProblem, match="badAttestationStatement"):
            await world.client().prove(identifier=SERIAL, attest=foreign)


async def test_a_second_enrollment_keeps_directory_and_account() -> None:
    async with open_world() as world:
        client = world.client()
        for key in generate("p256"), generate("p256"):
            await client.enroll(
                csr.build(key, name(SERIAL)), identifier=SERIAL, attest=world.attest(key)
            )
    assert world.transport.steps == STEPS + STEPS[3:]


async def test_each_nonce_is_used_once_and_each_url_is_signed() -> None:
    async with open_world() as world:
        await world.enroll(KEY)
        posts = [
            (url, decode(body)) for method, url, body in world.transport.sent if method == "POST"
        ]
    assert [url for url, _ in posts] == [request.url for _, request in posts]
    assert len({request.nonce for _, request in posts}) == len(posts) == 7
    assert [request.kid is None for _, request in posts] == [True] + 6 * [False]
    assert posts[0][1].fields() == {"termsOfServiceAgreed": True}
    assert posts[0][1].algorithm == "ES256"


async def test_the_attestation_covers_the_hash_of_the_token() -> None:
    async with open_world() as world:
        asked: list[bytes] = []

        async def attest(freshness: bytes) -> list[bytes]:
            asked.append(freshness)
            return list(await world.attest(KEY)(freshness))

        request = csr.build(KEY, name(SERIAL))
        await world.client().enroll(request, identifier=SERIAL, attest=attest)
    assert len(asked[0]) == 32


@pytest.mark.parametrize("form", ["none", "empty", "object", "error"])
async def test_a_device_that_cannot_attest_says_so_in_each_form(form: Unattested) -> None:
    request = csr.build(KEY, name(SERIAL))
    async with open_world(allow_unattested=True) as world:
        chain = await world.client().enroll(
            request, identifier=SERIAL, attest=None, unattested=form
        )
        assert chain[0].subject == name(SERIAL)
    async with open_world() as world:
        with pytest.raises(AcmeProblem, match="an attestation is required"):
            await world.client().enroll(request, identifier=SERIAL, attest=None, unattested=form)


# The server says no


async def test_an_unknown_identifier_is_rejected() -> None:
    async with open_world() as world:
        problem = await refused(world, identifier="unknown")
    assert (problem.type, problem.status) == ("rejectedIdentifier", 400)


async def test_a_foreign_authority_convinces_nobody() -> None:
    async with open_world() as world:
        foreign = AttestationAuthority.create(world.clock)
        problem = await refused(world, authority=foreign)
        assert world.devices.issued_to == []
    assert problem.type == "badAttestationStatement"


async def test_another_device_convinces_nobody() -> None:
    async with open_world() as world:
        problem = await refused(world, serial_number="ANOTHER001")
    assert problem.type == "badAttestationStatement"
    assert problem.subproblems[0]["type"] == "urn:ietf:params:acme:error:rejectedIdentifier"


async def test_another_key_in_the_request_is_unauthorized() -> None:
    async with open_world() as world:
        request = csr.build(generate("p256"), name(SERIAL))
        with pytest.raises(AcmeProblem) as caught:
            await world.client().enroll(request, identifier=SERIAL, attest=world.attest(KEY))
    assert (caught.value.type, caught.value.status) == ("unauthorized", 403)


async def test_an_error_inside_a_200_challenge_is_a_refusal_too() -> None:
    """As step-ca answers (certificates.md 0.16)."""

    def like_step_ca(side: str, step: str, message: object, n: int) -> Action | None:
        return Action(name="challenge-with-error") if step == "challenge" else None

    async with open_world(faults=like_step_ca) as world:
        problem = await refused(world, freshness=bytes(32))
        assert world.transport.steps[-1] == "challenge"
        assert await world.enroll(KEY)
    assert problem.type == "badAttestationStatement"


async def test_an_invalid_order_tells_why_by_its_challenge() -> None:
    async with open_world() as world:

        def change(step: str, response: HttpResponse) -> HttpResponse:
            response = changing("order", status="invalid")(step, response)
            if world.transport.steps.count("authorization") == 2:
                error = {"type": "urn:ietf:params:acme:error:caa", "detail": "no", "status": 403}
                fields = json.loads(response.body)
                if "challenges" in fields:
                    fields["challenges"][0].update(status="invalid", error=error)
                    return replace(response, body=json.dumps(fields).encode())
            return response

        world.transport.change_response = change
        problem = await refused(world)
    assert (problem.type, problem.detail, problem.status) == ("caa", "no", 403)


async def test_a_challenge_that_failed_before_is_not_answered() -> None:
    """What a server remembers of an earlier try is its answer to this one."""
    error = {"type": "urn:ietf:params:acme:error:unauthorized", "detail": "seen before"}
    async with open_world() as world:
        world.transport.change_response = changing(
            "authorization",
            challenges=[{"type": "x", "url": "https://h/c", "status": "invalid", "error": error}],
        )
        problem = await refused(world)
        assert "challenge" not in world.transport.steps
    assert (problem.type, problem.detail) == ("unauthorized", "seen before")


@pytest.mark.parametrize("token", [None, ""])
async def test_a_challenge_without_token_is_malformed(token: str | None) -> None:
    async with open_world() as world:
        url = f"{world.base}/acme/challenge/x"
        offered = {"type": "device-attest-01", "url": url, "status": "pending", "token": token}
        world.transport.change_response = changing("authorization", challenges=[offered])
        with pytest.raises(MalformedMessage, match="challenge: expected a token"):
            await world.enroll(KEY)
        assert "challenge" not in world.transport.steps


async def test_an_invalid_order_without_any_reason_is_still_a_problem() -> None:
    async with open_world() as world:
        world.transport.change_response = changing("order", status="invalid")
        problem = await refused(world)
    assert (problem.type, problem.detail) == ("about:blank", "the order is invalid")


# Nonces


async def test_bad_nonces_are_tried_again_at_once() -> None:
    def twice(side: str, step: str, message: object, n: int) -> Action | None:
        bad = Action(name="problem", arguments={"type": "badNonce"})
        return bad if n <= 2 and step in ("new_order", "finalize") else None

    async with open_world(faults=twice) as world:
        assert await world.enroll(KEY)
        assert world.transport.steps.count("new_order") == 3
        assert world.transport.steps.count("new_nonce") == 1


async def test_a_server_that_refuses_some_nonces_at_random_still_issues() -> None:
    async with open_world(nonce_rejection=0.1) as world:  # six in a row: one run in 50,000
        for _ in range(3):
            assert await world.enroll(generate("p256"))


async def test_endless_bad_nonces_end() -> None:
    async with open_world(nonce_rejection=1.0) as world:
        problem = await refused(world)
        assert world.transport.steps.count("new_account") == BAD_NONCE_RETRIES + 1
    assert problem.type == "badNonce"


async def test_without_replay_nonces_each_request_fetches_one() -> None:
    async with open_world() as world:

        def change(step: str, response: HttpResponse) -> HttpResponse:
            return (
                response
                if step == "new_nonce"
                else headers_of(step, replay_nonce=None)(step, response)
            )

        world.transport.change_response = change
        assert await world.enroll(KEY)
        assert world.transport.steps.count("new_nonce") == 7


@pytest.mark.parametrize("nonce", [None, "", "not base64url!"])
async def test_new_nonce_without_a_usable_nonce_is_malformed(nonce: str | None) -> None:
    async with open_world() as world:
        world.transport.change_response = headers_of("new_nonce", replay_nonce=nonce)
        with pytest.raises(MalformedMessage, match="Replay-Nonce"):
            await world.enroll(KEY)


# Polling


@dataclass
class CountingClock(SystemClock):
    """Notes every pause and makes none."""

    pauses: list[float] = field(default_factory=list)
    time: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def polled(
    answers: list[tuple[str, str | None]], *, step: str = "order"
) -> tuple[list[float], list[str]]:
    """Enroll where the order shows these states and Retry-After headers first; return pauses and steps."""
    clock = CountingClock()
    async with open_world() as world:

        def change(name_: str, response: HttpResponse) -> HttpResponse:
            if name_ == step and answers:
                status, retry_after = answers.pop(0)
                response = changing(step, status=status)(step, response)
                return headers_of(step, retry_after=retry_after)(step, response)
            return response

        world.transport.change_response = change
        client = AcmeClient(world.transport, world.directory, clock=clock, keys=FreshKeys())
        await client.enroll(
            csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
        )
        return clock.pauses, world.transport.steps


async def test_pauses_double_unless_the_server_names_one() -> None:
    pauses, steps = await polled([("pending", None), ("pending", "7"), ("pending", None)])
    assert pauses == [1.0, 7.0, 4.0]
    assert steps.count("order") == 4


async def test_a_date_as_retry_after_is_obeyed() -> None:
    pauses, _ = await polled([("pending", "Thu, 01 Jan 2026 00:00:20 GMT")])
    assert pauses == [20.0]


async def test_one_pause_has_a_limit() -> None:
    pauses, _ = await polled([("pending", "99999999")])
    assert pauses == [60.0]


async def test_processing_after_finalize_is_polled() -> None:
    pauses, steps = await polled([("processing", "2")], step="finalize")
    assert pauses == [2.0]
    assert steps[-3:] == ["finalize", "order", "certificate"]


async def test_polling_ends() -> None:
    with pytest.raises(UnexpectedAnswer, match=f"the order is pending after {MAX_POLLS} polls"):
        await polled([("pending", None)] * 99)


def test_retry_after_in_each_form() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def seconds(value: str | None) -> float | None:
        headers = {} if value is None else {"retry-after": value}
        return retry_after_s(HttpResponse(status=200, body=b"", headers=headers), now)

    assert seconds("120") == 120.0
    assert seconds("Thu, 01 Jan 2026 00:01:00 GMT") == 60.0
    assert seconds("Thu, 01 Jan 2025 00:01:00 GMT") == 0.0
    no_time = f"Thu, 01 Jan 2026 00:01:00 +{'9' * 20}"
    odd = (None, "", "soon", "-5", "²", "Thu, 01 Jan 2026 00:01:00", no_time)
    assert [seconds(value) for value in odd] == [None] * 7


# Faults of the device


def device_fault(action: Action, at: str) -> FaultPoint:
    return lambda side, step, message, n: action if (side, step) == ("device", at) else None


async def enroll_with(world: World, action: Action, at: str) -> tuple[x509.Certificate, ...]:
    return await world.client(device_fault(action, at)).enroll(
        csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=world.attest(KEY)
    )


async def test_a_reused_nonce_is_refused_and_mended() -> None:
    async with open_world() as world:
        assert await enroll_with(world, Action(name="reused-nonce"), "new_order")
        assert world.transport.steps.count("new_order") == 2


async def test_a_wrong_url_is_refused() -> None:
    async with open_world() as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll_with(world, Action(name="wrong-url"), "finalize")
    assert caught.value.type == "malformed"


@pytest.mark.parametrize(
    "payload",
    [{"attObj": "eA=="}, {"attObj": base64url(b"no cbor")}, {"error": "x"}, {}],
    ids=["padded", "no-cbor", "error", "object"],
)
async def test_a_spoilt_payload_is_refused(payload: dict[str, str]) -> None:
    action = Action(name="send-payload", arguments={"payload": payload})
    async with open_world() as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll_with(world, action, "challenge")
    assert caught.value.type == "badAttestationStatement"


@pytest.mark.parametrize("step", ["authorization", "order", "certificate"])
async def test_a_payload_is_sent_in_place_of_none(step: str) -> None:
    """Where a device only reads, RFC 8555, section 6.3, has it send nothing."""
    action = Action(name="send-payload", arguments={"payload": {}})
    async with open_world() as world:
        with pytest.raises(AcmeProblem) as caught:
            await enroll_with(world, action, step)
        assert world.transport.steps[-1] == step
    assert caught.value.type == "malformed"


async def test_a_device_may_take_its_time() -> None:
    async with open_world() as world:
        action = Action(name="delay", arguments={"seconds": 0})
        assert await enroll_with(world, action, "challenge")


# The socket


async def test_a_server_of_a_foreign_ca_is_not_spoken_to() -> None:
    async with open_world() as world:
        stranger = SocketTransport(client_context([world.ca.certificate]))
        client = AcmeClient(stranger, world.directory, clock=world.clock, keys=FreshKeys())
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.enroll(csr.build(KEY, name(SERIAL)), identifier=SERIAL, attest=None)
        await stranger.close()


@pytest.mark.peer
async def test_openssl_accepts_the_chain_and_the_purpose(tmp_path: Path) -> None:
    async with open_world() as world:
        leaf, ca = await world.enroll(KEY)
    for file, certificate in ("leaf", leaf), ("ca", ca):
        (tmp_path / file).write_bytes(certificate.public_bytes(Encoding.PEM))
    at = str(int((world.clock.now() + timedelta(days=1)).timestamp()))
    arguments = ["verify", "-x509_strict", "-attime", at, "-purpose", "sslclient"]
    arguments += ["-CAfile", str(tmp_path / "ca"), str(tmp_path / "leaf")]
    assert openssl(*arguments).strip().endswith(b"OK")
