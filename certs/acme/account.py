"""The account messages of RFC 8555, sections 7.1.2, 7.1.2.1 and 7.3: bytes to values and back.

What is wrong raises MalformedMessage; a contact that nobody can be reached by raises AcmeProblem.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from certs.acme.fields import optional, present, status_of, texts
from certs.acme.jws import Json
from certs.acme.problem import problem

MAX_CONTACTS: Final = 10
NOT_VALID: Final = 401  # the HTTP status for an account that is given up (RFC 8555, section 7.3.6)

_MAILBOX: Final = re.compile(r"[^\s@,?]{1,64}@[^\s@,?]{1,255}")


class AccountStatus(StrEnum):
    """RFC 8555, section 7.1.6."""

    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account as the server shows it."""

    status: AccountStatus
    contact: tuple[str, ...] = ()
    terms_of_service_agreed: bool = False
    orders: str | None = None  # the URL of its list
    external_account_binding: Json | None = None

    def to_fields(self) -> Json:
        return present(
            status=self.status.value,
            contact=list(self.contact) or None,
            termsOfServiceAgreed=self.terms_of_service_agreed or None,
            orders=self.orders,
            externalAccountBinding=self.external_account_binding,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            status=status_of(fields, AccountStatus),
            contact=texts(fields, "contact") if "contact" in fields else (),
            terms_of_service_agreed=optional(fields, "termsOfServiceAgreed", bool) or False,
            orders=optional(fields, "orders", str),
            external_account_binding=optional(fields, "externalAccountBinding", dict),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """What newAccount asks for."""

    contact: tuple[str, ...] = ()
    terms_of_service_agreed: bool = False
    only_return_existing: bool = False
    external_account_binding: Json | None = None

    def to_fields(self) -> Json:
        return present(
            contact=list(self.contact) or None,
            termsOfServiceAgreed=self.terms_of_service_agreed or None,
            onlyReturnExisting=self.only_return_existing or None,
            externalAccountBinding=self.external_account_binding,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(
            contact=texts(fields, "contact") if "contact" in fields else (),
            terms_of_service_agreed=optional(fields, "termsOfServiceAgreed", bool) or False,
            only_return_existing=optional(fields, "onlyReturnExisting", bool) or False,
            external_account_binding=optional(fields, "externalAccountBinding", dict),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUpdate:
    """What an account asks to change of itself; None leaves a part as it is (RFC 8555, sections 7.3.2 and 7.3.6)."""

    contact: tuple[str, ...] | None = None
    deactivate: bool = False

    def to_fields(self) -> Json:
        return present(
            contact=None if self.contact is None else list(self.contact),
            status=AccountStatus.DEACTIVATED.value if self.deactivate else None,
        )

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        # Any other status is ignored, as are members that are not for clients to change.
        return cls(
            contact=texts(fields, "contact") if "contact" in fields else None,
            deactivate=optional(fields, "status", str) == AccountStatus.DEACTIVATED,
        )


@dataclass(frozen=True, slots=True)
class OrdersList:
    """One page of an account's orders; where the next one is stands in a Link header."""

    orders: tuple[str, ...]

    def to_fields(self) -> Json:
        return {"orders": list(self.orders)}

    @classmethod
    def from_fields(cls, fields: Json) -> Self:
        return cls(texts(fields, "orders"))


def check_contacts(contacts: tuple[str, ...]) -> None:
    """Raises AcmeProblem unsupportedContact or invalidContact (RFC 8555, section 7.3)."""
    if len(contacts) > MAX_CONTACTS:
        raise problem("invalidContact", f"more than {MAX_CONTACTS} contacts")
    for contact in contacts:
        scheme, _, address = contact.partition(":")
        if scheme.lower() != "mailto":
            raise problem("unsupportedContact", f"{scheme!r:.40} is not mailto")
        if not _MAILBOX.fullmatch(address):
            raise problem("invalidContact", f"{contact!r:.80} is not one address alone")
