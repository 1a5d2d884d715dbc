"""Problem documents (RFC 8555, section 6.7; RFC 7807): how an ACME server says no.

In comes an AcmeProblem to be said, or a body that was received; out comes the other one.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from certs.acme.fields import optional
from certs.acme.jws import ALGORITHMS, Json, json_object
from certs.errors import AcmeProblem

ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"
PROBLEM_TYPE: Final = "application/problem+json"

# What each error is usually answered with (certificates.md 2.2); 400 where nothing is said.
STATUSES: Final = {
    "unauthorized": 403,
    "orderNotReady": 403,
    "externalAccountRequired": 403,
    "userActionRequired": 403,
    "rateLimited": 429,
    "serverInternal": 500,
}


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
        type_ = optional(fields, "type", str) or "about:blank"  # RFC 7807, section 4.2
        subproblems = optional(fields, "subproblems", list) or []
        return cls(
            type=type_.removeprefix(ERROR_PREFIX),
            detail=optional(fields, "detail", str) or optional(fields, "title", str) or "",
            status=optional(fields, "status", int),
            subproblems=tuple(item for item in subproblems if isinstance(item, dict)),
        )


def decode_problem(body: bytes, status: int) -> Problem:
    """A problem document; the HTTP status stands in where it names none. Raises MalformedMessage."""
    problem = Problem.from_fields(json_object(body, "problem document"))
    return problem if problem.status is not None else replace(problem, status=status)


def problem(type_: str, detail: str, *, subproblems: tuple[Json, ...] = ()) -> AcmeProblem:
    """The error to raise, with its usual HTTP status."""
    return AcmeProblem(type_, detail, status=STATUSES.get(type_, 400), subproblems=subproblems)
