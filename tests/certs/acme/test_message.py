"""The objects of RFC 8555: round trips, the samples of others, and values that must be refused."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.acme.account import Account, AccountStatus, AccountUpdate, NewAccount, OrdersList
from certs.acme.jws import encode_json, json_object
from certs.acme.message import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Directory,
    Identifier,
    Order,
    OrderStatus,
)
from certs.acme.problem import Problem, decode_problem, problem
from certs.errors import MalformedMessage
from tests.support import VECTORS, needs_vectors

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
times = st.none() | st.datetimes(
    datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)
).map(lambda time: time.replace(microsecond=0))
names = st.from_regex(r"[a-zA-Z]{1,12}", fullmatch=True)
identifiers = st.builds(Identifier, texts, texts)
problems = st.builds(
    Problem,
    type=names,
    detail=texts,
    status=st.none() | st.integers(400, 599),
    subproblems=st.lists(st.fixed_dictionaries({"type": texts}), max_size=2).map(tuple),
)
challenges = st.builds(
    Challenge,
    type=texts,
    url=texts,
    status=st.sampled_from(ChallengeStatus),
    token=st.none() | texts,
    validated=times,
    error=st.none() | problems,
)
objects = st.one_of(
    identifiers,
    problems,
    challenges,
    st.builds(
        Directory,
        new_nonce=texts,
        new_account=texts,
        new_order=texts,
        revoke_cert=st.none() | texts,
        key_change=st.none() | texts,
        meta=st.dictionaries(texts, texts, max_size=2),
    ),
    st.builds(
        Authorization,
        identifier=identifiers,
        status=st.sampled_from(AuthorizationStatus),
        challenges=st.lists(challenges, max_size=2).map(tuple),
        expires=times,
    ),
    st.builds(
        Order,
        status=st.sampled_from(OrderStatus),
        identifiers=st.lists(identifiers, max_size=2).map(tuple),
        authorizations=st.lists(texts, max_size=2).map(tuple),
        finalize=texts,
        expires=times,
        certificate=st.none() | texts,
        error=st.none() | problems,
    ),
    st.builds(
        NewAccount,
        contact=st.lists(texts, min_size=1, max_size=2).map(tuple),
        terms_of_service_agreed=st.booleans(),
        only_return_existing=st.booleans(),
        external_account_binding=st.none() | st.dictionaries(texts, texts, max_size=2),
    ),
    st.builds(
        Account,
        status=st.sampled_from(AccountStatus),
        contact=st.lists(texts, max_size=2).map(tuple),
        terms_of_service_agreed=st.booleans(),
        orders=st.none() | texts,
        external_account_binding=st.none() | st.dictionaries(texts, texts, max_size=2),
    ),
    st.builds(
        AccountUpdate,
        contact=st.none() | st.lists(texts, max_size=2).map(tuple),
        deactivate=st.booleans(),
    ),
    st.builds(OrdersList, st.lists(texts, max_size=3).map(tuple)),
)


@given(objects)
@settings(max_examples=150, deadline=None)
def test_decoding_undoes_encoding(message: Any) -> None:
    fields = json_object(encode_json(message.to_fields()), "object")
    assert type(message).from_fields(fields) == message
    assert type(message).from_fields({**fields, "somethingNew": [1]}) == message


values = st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=2)


@given(
    kind=st.sampled_from(
        [
            Order,
            Authorization,
            Challenge,
            Directory,
            Account,
            AccountUpdate,
            NewAccount,
            OrdersList,
            Problem,
            Identifier,
        ]
    ),
    fields=st.dictionaries(
        st.sampled_from(
            [
                "type",
                "value",
                "url",
                "status",
                "token",
                "error",
                "detail",
                "identifiers",
                "authorizations",
                "finalize",
                "expires",
                "challenges",
                "identifier",
                "contact",
                "orders",
                "externalAccountBinding",
                "termsOfServiceAgreed",
                "newNonce",
                "newAccount",
                "newOrder",
                "meta",
                "subproblems",
                "validated",
            ]
        ),
        values | st.dictionaries(texts, values, max_size=2),
    ),
)
@settings(max_examples=150, deadline=None)
def test_odd_members_raise_only_malformed_message(kind: Any, fields: dict[str, Any]) -> None:
    with contextlib.suppress(MalformedMessage):
        assert isinstance(kind.from_fields(fields), kind)


def test_the_order_of_the_draft_is_read() -> None:
    """certificates.md 2.3."""
    order = Order.from_fields(
        json.loads(
            '{"status":"pending","expires":"2026-11-24T06:00:00Z","identifiers":[{"type":"permanent-identifier",'
            '"value":"C8QH6T96DPNG"}],"authorizations":["https://ca.example/acme/mda/authz/AZ"],'
            '"finalize":"https://ca.example/acme/mda/order/OR/finalize"}'
        )
    )
    assert order.status is OrderStatus.PENDING
    assert order.expires == datetime(2026, 11, 24, 6, tzinfo=UTC)
    assert order.identifiers == (Identifier("permanent-identifier", "C8QH6T96DPNG"),)
    assert order.certificate is None


@needs_vectors
def test_an_invalid_challenge_of_certbots_tests_is_read() -> None:
    fields = json_object(
        (VECTORS / "acme/problem-challenge-invalid.json").read_bytes(), "challenge"
    )
    challenge = Challenge.from_fields(fields)
    assert challenge.status is ChallengeStatus.INVALID
    assert challenge.error is not None
    assert challenge.error.type
    assert challenge.error.exception().detail == challenge.error.detail


def test_a_problem_names_its_type_in_full_and_lists_algorithms() -> None:
    fields = Problem.of(problem("badSignatureAlgorithm", "no")).to_fields()
    assert fields == {
        "type": "urn:ietf:params:acme:error:badSignatureAlgorithm",
        "detail": "no",
        "status": 400,
        "algorithms": ["ES256", "ES384", "ES512", "RS256"],
    }


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("malformed", 400),
        ("badNonce", 400),
        ("badCSR", 400),
        ("badAttestationStatement", 400),
        ("rejectedIdentifier", 400),
        ("unauthorized", 403),
        ("orderNotReady", 403),
        ("rateLimited", 429),
        ("serverInternal", 500),
    ],
)
def test_each_problem_has_its_usual_status(type_: str, status: int) -> None:
    assert problem(type_, "").status == status


def test_a_problem_without_status_or_type_takes_the_http_status() -> None:
    found = decode_problem(b'{"title":"Teapot"}', 418)
    assert found == Problem(type="about:blank", detail="Teapot", status=418)


def test_a_foreign_problem_type_stays_whole() -> None:
    found = Problem.from_fields({"type": "https://ca.example/problems/x"})
    assert found.to_fields()["type"] == "https://ca.example/problems/x"


@pytest.mark.parametrize(
    "time", ["yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", 5]
)
def test_an_impossible_time_is_malformed(time: object) -> None:
    with pytest.raises(MalformedMessage, match="expires"):
        Authorization.from_fields(
            {
                "identifier": {"type": "a", "value": "b"},
                "status": "pending",
                "challenges": [],
                "expires": time,
            }
        )


def test_fractions_and_offsets_of_a_time_are_read() -> None:
    fields = {
        "type": "t",
        "url": "u",
        "status": "valid",
        "validated": "2026-01-01T01:00:00.25+01:00",
    }
    assert Challenge.from_fields(fields).validated == datetime(2026, 1, 1, 0, 0, 0, 250_000, UTC)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"identifiers": ["x"]}, "identifiers: expected JSON objects"),
        ({"authorizations": ["https://h/1", 2]}, "authorizations: expected a list of texts"),
        ({"authorizations": "https://h/1"}, "authorizations: expected a JSON list"),
        ({"finalize": None}, "finalize: expected a JSON str"),
        ({"status": "odd"}, "status: expected one of pending, ready"),
    ],
)
def test_a_wrong_member_of_an_order_is_named(fields: dict[str, Any], words: str) -> None:
    whole = {"status": "ready", "identifiers": [], "authorizations": [], "finalize": "https://h/f"}
    assert Order.from_fields(whole).finalize == "https://h/f"
    with pytest.raises(MalformedMessage, match=words):
        Order.from_fields({**whole, **fields})
