"""The objects of RFC 8555, section 7.1, and its problem documents, section 6.7: bytes to values and back.

`decode` of each class accepts unknown members, as the RFC tells clients to; what is wrong raises MalformedMessage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Self, TypeVar

from certs.acme.jws import ALGORITHMS, Json, json_object
from certs.errors import AcmeProblem, MalformedMessage

ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"
PROBLEM_TYPE: Final = "application/problem+json"
CERTIFICATE_TYPE: Final = "application/pem-certificate-chain"

# What each error is usually answered with (certificates.md 2.2); 400 where nothing is said.
STATUSES: Final = {
    "unauthorized": 403,
    "orderNotReady": 403,
    "externalAccountRequired": 403,
    "userActionRequired": 403,
    "rateLimited": 429,
    "serverInternal": 500,
}


class OrderStatus(StrEnum):
    """RFC 8555, section 7.1.6."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """RFC 8555, section 7.1.6."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    EXPIRED = "expired"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    """RFC 8555, section 7.1.6."""

    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem document, alone as an answer or inside an object."""

    type: str  # the name after urn:ietf:params:acme:error:, or a whole foreign URI
    detail: str = ""
    status: int | None = None
    subproblems: tuple[Json, ...] = ()

    @classmethod
    def of(cls, error: AcmeProblem) -> Self:
        return cls(
            type=error.type,
            detail=error.detail,
            status=error.status,
            subproblems=tuple(error.subproblems),
        )

    def exception(self, retry_after_s: float | None = None) -> AcmeProblem:
        return AcmeProblem(
            self.type,
            self.detail,
            status=self.status or 400,
            subproblems=self.subproblems,
            retry_after_s=retry_after_s,
        )

    def to_fields(self) -> Json:
        name = self.type if ":" in self.type else ERROR_PREFIX + self.type
        fields: Json = {"type": name, "detail": self.detail}
        if self.status is not None:
            fields["status"] = self.status
        if self.subproblems:
            fields["subproblems"] = list(self.subproblems)
        if self.type == "badSignatureAlgorithm":
            fields["algorithms"] = list(ALGORITHMS)  # RFC 8555, section 6.2
        return fields

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        type_ = _optional(fields, "type", str) or "about:blank"  # RFC 7807, section 4.2
        subproblems = _optional(fields, "subproblems", list) or []
        return cls(
            type=type_.removeprefix(ERROR_PREFIX),
            detail=_optional(fields, "detail", str) or _optional(fields, "title", str) or "",
            status=_optional(fields, "status", int),
            subproblems=tuple(item for item in subproblems if isinstance(item, dict)),
        )


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a certificate shall prove: a type and a value compared octet for octet."""

    type: str
    value: str

    def to_fields(self) -> Json:
        return {"type": self.type, "value": self.value}

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(_required(fields, "type", str), _required(fields, "value", str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where a server's resources are."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None = None
    key_change: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    def to_fields(self) -> Json:
        return _present(
            newNonce=self.new_nonce,
            newAccount=self.new_account,
            newOrder=self.new_order,
            revokeCert=self.revoke_cert,
            keyChange=self.key_change,
            meta=dict(self.meta) or None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            new_nonce=_required(fields, "newNonce", str),
            new_account=_required(fields, "newAccount", str),
            new_order=_required(fields, "newOrder", str),
            revoke_cert=_optional(fields, "revokeCert", str),
            key_change=_optional(fields, "keyChange", str),
            meta=_optional(fields, "meta", dict) or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way to prove an identifier."""

    type: str
    url: str
    status: ChallengeStatus
    token: str | None = None
    validated: datetime | None = None
    error: Problem | None = None

    def to_fields(self) -> Json:
        return _present(
            type=self.type,
            url=self.url,
            status=self.status.value,
            token=self.token,
            validated=_time_text(self.validated),
            error=self.error.to_fields() if self.error else None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            type=_required(fields, "type", str),
            url=_required(fields, "url", str),
            status=_status(fields, ChallengeStatus),
            token=_optional(fields, "token", str),
            validated=_time(fields, "validated"),
            error=_problem(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Whether an account may have a certificate for one identifier."""

    identifier: Identifier
    status: AuthorizationStatus
    challenges: tuple[Challenge, ...]
    expires: datetime | None = None

    def to_fields(self) -> Json:
        return _present(
            identifier=self.identifier.to_fields(),
            status=self.status.value,
            expires=_time_text(self.expires),
            challenges=[challenge.to_fields() for challenge in self.challenges],
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            identifier=Identifier.from_fields(_required(fields, "identifier", dict)),
            status=_status(fields, AuthorizationStatus),
            challenges=tuple(
                Challenge.from_fields(_object(item, "challenges"))
                for item in _required(fields, "challenges", list)
            ),
            expires=_time(fields, "expires"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request for a certificate."""

    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    finalize: str
    expires: datetime | None = None
    certificate: str | None = None
    error: Problem | None = None

    def to_fields(self) -> Json:
        return _present(
            status=self.status.value,
            expires=_time_text(self.expires),
            identifiers=[identifier.to_fields() for identifier in self.identifiers],
            authorizations=list(self.authorizations),
            finalize=self.finalize,
            certificate=self.certificate,
            error=self.error.to_fields() if self.error else None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            status=_status(fields, OrderStatus),
            identifiers=tuple(
                Identifier.from_fields(_object(item, "identifiers"))
                for item in _required(fields, "identifiers", list)
            ),
            authorizations=_texts(fields, "authorizations"),
            finalize=_required(fields, "finalize", str),
            expires=_time(fields, "expires"),
            certificate=_optional(fields, "certificate", str),
            error=_problem(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """What newAccount asks for."""

    contact: tuple[str, ...] = ()
    terms_of_service_agreed: bool = False
    only_return_existing: bool = False

    def to_fields(self) -> Json:
        return _present(
            contact=list(self.contact) or None,
            termsOfServiceAgreed=self.terms_of_service_agreed or None,
            onlyReturnExisting=self.only_return_existing or None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            contact=_texts(fields, "contact") if "contact" in fields else (),
            terms_of_service_agreed=_optional(fields, "termsOfServiceAgreed", bool) or False,
            only_return_existing=_optional(fields, "onlyReturnExisting", bool) or False,
        )


def decode_problem(body: bytes, status: int) -> Problem:
    """A problem document; the HTTP status stands in where it names none. Raises MalformedMessage."""
    problem = Problem.from_fields(json_object(body, "problem document"))
    return problem if problem.status is not None else replace(problem, status=status)


def problem(type_: str, detail: str, *, subproblems: tuple[Json, ...] = ()) -> AcmeProblem:
    """The error to raise, with its usual HTTP status."""
    return AcmeProblem(type_, detail, status=STATUSES.get(type_, 400), subproblems=subproblems)


T = TypeVar("T")
S = TypeVar("S", bound=StrEnum)


def _present(**members: object) -> Json:
    return {name: value for name, value in members.items() if value is not None}


def _required(fields: Json, name: str, kind: type[T]) -> T:
    value = _optional(fields, name, kind)
    if value is None:
        raise MalformedMessage(name, f"a JSON {kind.__name__}")
    return value


def _optional(fields: Json, name: str, kind: type[T]) -> T | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedMessage(name, f"a JSON {kind.__name__}", value)
    return value


def _object(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise MalformedMessage(name, "JSON objects", value)
    return value


def _texts(fields: Json, name: str) -> tuple[str, ...]:
    values = _required(fields, name, list)
    if not all(isinstance(value, str) for value in values):
        raise MalformedMessage(name, "a list of texts", values)
    return tuple(values)


def _status(fields: Json, kind: type[S]) -> S:
    try:
        return kind(_required(fields, "status", str))
    except ValueError:
        raise MalformedMessage(
            "status", f"one of {', '.join(kind)}", fields.get("status")
        ) from None


def _problem(fields: Json) -> Problem | None:
    error = _optional(fields, "error", dict)
    return None if error is None else Problem.from_fields(error)


def _time(fields: Json, name: str) -> datetime | None:
    text = _optional(fields, name, str)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedMessage(name, "a time as of RFC 3339", text) from None


def _time_text(time: datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
