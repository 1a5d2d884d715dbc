"""The objects of RFC 8555, section 7.1: bytes to values and back. Accounts are in `account`, problems in `problem`.

`from_fields` of each class accepts unknown members, as the RFC tells clients to; what is wrong raises MalformedMessage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from certs.acme.fields import (
    json_object_of,
    optional,
    present,
    required,
    status_of,
    texts,
    time_of,
    time_text,
)
from certs.acme.jws import Json
from certs.acme.problem import Problem

CERTIFICATE_TYPE: Final = "application/pem-certificate-chain"


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


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a certificate shall prove: a type and a value compared octet for octet."""

    type: str
    value: str

    def to_fields(self) -> Json:
        return {"type": self.type, "value": self.value}

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(required(fields, "type", str), required(fields, "value", str))


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
        return present(
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
            new_nonce=required(fields, "newNonce", str),
            new_account=required(fields, "newAccount", str),
            new_order=required(fields, "newOrder", str),
            revoke_cert=optional(fields, "revokeCert", str),
            key_change=optional(fields, "keyChange", str),
            meta=optional(fields, "meta", dict) or {},
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
        return present(
            type=self.type,
            url=self.url,
            status=self.status.value,
            token=self.token,
            validated=time_text(self.validated),
            error=self.error.to_fields() if self.error else None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            type=required(fields, "type", str),
            url=required(fields, "url", str),
            status=status_of(fields, ChallengeStatus),
            token=optional(fields, "token", str),
            validated=time_of(fields, "validated"),
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
        return present(
            identifier=self.identifier.to_fields(),
            status=self.status.value,
            expires=time_text(self.expires),
            challenges=[challenge.to_fields() for challenge in self.challenges],
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            identifier=Identifier.from_fields(required(fields, "identifier", dict)),
            status=status_of(fields, AuthorizationStatus),
            challenges=tuple(
                Challenge.from_fields(json_object_of(item, "challenges"))
                for item in required(fields, "challenges", list)
            ),
            expires=time_of(fields, "expires"),
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
        return present(
            status=self.status.value,
            expires=time_text(self.expires),
            identifiers=[identifier.to_fields() for identifier in self.identifiers],
            authorizations=list(self.authorizations),
            finalize=self.finalize,
            certificate=self.certificate,
            error=self.error.to_fields() if self.error else None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            status=status_of(fields, OrderStatus),
            identifiers=tuple(
                Identifier.from_fields(json_object_of(item, "identifiers"))
                for item in required(fields, "identifiers", list)
            ),
            authorizations=texts(fields, "authorizations"),
            finalize=required(fields, "finalize", str),
            expires=time_of(fields, "expires"),
            certificate=optional(fields, "certificate", str),
            error=_problem(fields),
        )


def _problem(fields: Json) -> Problem | None:
    error = optional(fields, "error", dict)
    return None if error is None else Problem.from_fields(error)
