"""Endpoints about the account: session, account, beta tokens, account-driven enrollment (apple-services.md 4.2, 4.4, 4.10)."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.assignment import Asked, AssignmentDesk, AssignmentService, Told
from emulator.apple.ledger import Call, Ledger
from emulator.apple.records import Organization
from emulator.wire import assignment, json_object
from emulator.wire.assignment import Account
from emulator.wire.fields import optional

BETA_TITLES: Final = {
    "iOS": "iOS 27 AppleSeed Beta",
    "OSX": "macOS 27 AppleSeed Beta",
    "tvOS": "tvOS 27 AppleSeed Beta",
    "watchOS": "watchOS 27 AppleSeed Beta",
}
MAX_URL: Final = 2000


class SessionService:
    """`GET /session`: a session token for a server token."""

    step = "assignment_session"

    def __init__(self, desk: AssignmentDesk) -> None:
        self._desk = desk

    def headers(self) -> Mapping[str, str]:
        return {}

    def decode(self, received: Received) -> Received:
        return received

    def serial_number(self, message: Received) -> str:
        return ""

    async def answer(self, message: Received) -> Answer:
        desk, now = self._desk, self._desk.clock.now()
        ledger: Ledger | None = None
        try:
            desk.check_agent(message)
            if (
                desk.settings.strict_content_type
                and message.content_type != assignment.CONTENT_TYPE
            ):
                raise Refusal(
                    "TYPE", 400, "UNSUPPORTED_CONTENT_TYPE", f"{message.content_type:.80}"
                )
            authorization = message.headers.get("Authorization", "")
            ledger = desk.oauth.verify(authorization, message.headers.get("Host", ""), now)
            desk.organization(ledger)
        except Refusal as refusal:
            if ledger is not None:
                ledger.calls.append(
                    Call(at=now, step=self.step, outcome=refusal.word, status=refusal.status)
                )
            raise desk.word(refusal) from refusal.__cause__
        ledger.calls.append(Call(at=now, step=self.step, outcome="session", status=200))
        token = desk.sessions.open(ledger, now)
        return Answer(
            body=json_object.dumps({"auth_session_token": token}),
            content_type=assignment.CONTENT_TYPE,
            outcome="session",
        )


class TokenService:
    """`GET /token`: the credentials that MicroMDM and Apple's simulator have built in, where a server has them (7.1)."""

    step = "assignment_token"

    def __init__(self, desk: AssignmentDesk, consumer_key: str) -> None:
        self._desk = desk
        self._consumer_key = consumer_key

    def headers(self) -> Mapping[str, str]:
        return {}

    def decode(self, received: Received) -> Received:
        return received

    def serial_number(self, message: Received) -> str:
        return ""

    async def answer(self, message: Received) -> Answer:
        ledger = self._desk.registry.ledger_by_key(self._consumer_key)
        if ledger is None or ledger.token is None:
            raise Refusal("TOKEN", 404, "NOT_FOUND", "no server has the built-in credentials")
        if ledger.token.token.consumer_key != self._consumer_key:
            raise Refusal("TOKEN", 404, "NOT_FOUND", "that server's token is another by now")
        return Answer(
            body=json_object.dumps(ledger.token.token.to_fields()),
            content_type=assignment.CONTENT_TYPE,
            outcome="token",
        )


class AccountService(AssignmentService):
    """`GET /account`."""

    step = "assignment_account"

    def tell(self, asked: Asked) -> Told:
        return Told(
            fields=account_of(asked.ledger, asked.organization, self._limit()).to_fields(
                asked.version
            ),
            outcome="account",
        )

    def _limit(self) -> dict[str, int]:
        settings = self.desk.settings
        return {"default": settings.page_default, "maximum": settings.page_maximum}


class BetaService(AssignmentService):
    """`GET /os-beta-enrollment/tokens`."""

    step = "assignment_beta"

    def tell(self, asked: Asked) -> Told:
        if not self.desk.settings.seed_for_it:
            raise Refusal("SEED", 403, "APPLE_SEED_FOR_IT_TURNED_OFF", "seed_for_it is off")
        tokens = [
            {
                "token": hashlib.sha256(f"{asked.organization.name} {title}".encode()).hexdigest(),
                "title": title,
                "os": system,
            }
            for system, title in BETA_TITLES.items()
        ]
        return Told(fields={"betaEnrollmentTokens": tokens}, outcome="tokens")


class DiscoverySetService(AssignmentService):
    """`POST /account-driven-enrollment/profile`: where devices of this organisation's accounts look for their server."""

    step = "assignment_discovery_set"

    def tell(self, asked: Asked) -> Told:
        url = optional(asked.fields, "mdm_service_discovery_url", str)
        if not url:
            raise Refusal(
                "URL", 400, "MDM_SERVICE_DISCOVERY_URL_REQUIRED", "mdm_service_discovery_url"
            )
        if not _is_https(url):
            raise Refusal("URL", 400, "MDM_SERVICE_DISCOVERY_URL_NOT_VALID", f"{url:.80}")
        if asked.organization.org_version == "v1":
            raise Refusal("ORG", 400, "ORG_NOT_SUPPORTED", "an organisation of the older kind")
        asked.ledger.discovery_url, asked.ledger.discovery_updated = url, asked.now
        self.desk.registry.touch(asked.ledger)
        return Told(fields={}, outcome="set")


class DiscoveryService(AssignmentService):
    """`GET /account-driven-enrollment/profile`."""

    step = "assignment_discovery"

    def tell(self, asked: Asked) -> Told:
        ledger = asked.ledger
        if ledger.discovery_url is None:
            raise Refusal("URL", 404, "NOT_FOUND", "no URL is set")
        return Told(
            fields={
                "mdm_service_discovery_url": ledger.discovery_url,
                "last_updated_timestamp": assignment.time_text(ledger.discovery_updated),
            },
            outcome="url",
        )


class DiscoveryDeleteService(AssignmentService):
    """`DELETE /account-driven-enrollment/profile`."""

    step = "assignment_discovery_delete"

    def tell(self, asked: Asked) -> Told:
        if asked.ledger.discovery_url is None:
            raise Refusal("URL", 404, "NOT_FOUND", "no URL is set")
        asked.ledger.discovery_url = asked.ledger.discovery_updated = None
        self.desk.registry.touch(asked.ledger)
        return Told(fields={}, outcome="deleted")


def account_of(ledger: Ledger, organization: Organization, limit: Mapping[str, int]) -> Account:
    facts = organization.facts
    lines = (facts.address, facts.address_line_1, facts.address_line_2, facts.address_line_3)
    places = (facts.city, facts.region, facts.zip_code, facts.country)
    return Account(
        server_name=ledger.name,
        server_uuid=ledger.uuid,
        admin_id=admin_of(ledger, organization),
        org_name=organization.name,
        org_email=facts.email or "",
        org_phone=facts.phone or "",
        org_address=", ".join(part for part in (*lines, *places) if part),
        org_id=organization.org_id,
        org_id_hash=hashlib.sha256(organization.org_id.encode()).hexdigest(),
        org_type=organization.org_type,
        org_version=organization.org_version,
        urls=tuple(_urls(limit)),
    )


def admin_of(ledger: Ledger, organization: Organization) -> str:
    """Whose Apple ID stands for the server: who downloaded its token, or who made it."""
    if ledger.token is not None:
        return ledger.token.issued_by
    return ledger.admin_id or organization.admin_id


def _urls(limit: Mapping[str, int]) -> list[dict[str, Any]]:
    methods = {
        assignment.SESSION_PATH: ["GET"],
        assignment.ACCOUNT_PATH: ["GET"],
        assignment.DETAILS_PATH: ["POST"],
        assignment.FETCH_PATH: ["POST"],
        assignment.SYNC_PATH: ["POST"],
        assignment.DISOWN_PATH: ["POST"],
        assignment.LOCK_PATH: ["POST"],
        assignment.PROFILE_PATH: ["POST", "GET"],
        assignment.ASSIGN_PATH: ["DELETE", "POST", "PUT"],
        assignment.DISCOVERY_PATH: ["DELETE", "POST", "GET"],
        assignment.BETA_PATH: ["GET"],
        assignment.REPLACEMENT_PATH: ["GET"],
    }
    paged = (assignment.FETCH_PATH, assignment.SYNC_PATH)
    return [
        {"uri": uri, "http_method": names, **({"limit": dict(limit)} if uri in paged else {})}
        for uri, names in methods.items()
    ]


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and len(url) <= MAX_URL
    except ValueError:
        return False
