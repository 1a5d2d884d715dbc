"""Server tokens as the portal makes them: new credentials, sealed into a .p7m for the certificate that was uploaded (5).

Downloading a token ends the one before at once (rule 120). Who downloads must be an administrator or a device enrollment
manager, where the portal knows its people.
"""

import secrets
from datetime import UTC, datetime
from typing import Final, Literal

import structlog
from cryptography import x509

from certs import cms
from certs.errors import MalformedMessage
from certs.identity import Identity
from emulator.apple.ledger import IssuedToken, Ledger
from emulator.apple.operations import ms_of
from emulator.apple.records import Organization
from emulator.apple.registry import Registry
from emulator.errors import EmulatorError
from emulator.wire import token as wire
from emulator.wire.token import ServerToken

log = structlog.get_logger()

TokenCipher = Literal["aes128", "aes256", "des3"]
Lengths = Literal["indefinite", "definite"]

# What MicroMDM signs with once it is started with -depsim, as published in its source (7.1).
BUILT_IN: Final = ServerToken(
    consumer_key="CK_48dd68d198350f51258e885ce9a5c37ab7f98543c4a697323d75682a6c10a32501cb247e3db08105db868f73f2c972bdb6ae77112aea803b9219eb52689d42e6",
    consumer_secret="CS_34c7b2b531a600d99a0e4edcf4a78ded79b86ef318118c2f5bcfee1b011108c32d5302df801adbe29d446eb78f02b13144e323eb9aad51c79f01e50cb45c3a68",
    access_token="AT_927696831c59ba510cfe4ec1a69e5267c19881257d4bca2906a99d0785b785a6f6fdeb09774954fdd5e2d0ad952e3af52c6d8d2f21c924ba0caf4a031c158b89",
    access_secret="AS_c31afd7a09691d83548489336e8ff1cb11b82b6bca13f793344496a556b1f4972eaff4dde6deb5ac9cf076fdfa97ec97699c34d515947b9cf9ed31c99dded6ba",
    access_token_expiry=datetime(2099, 1, 1, tzinfo=UTC),
)


class NotAllowed(EmulatorError):
    """The person has no role that may do this."""


def new_token(now: datetime, consumer_key: str | None = None) -> ServerToken:
    """Fresh credentials of the real ones' shape, good for a year; a renewal keeps the consumer key (5.3, 5.4)."""
    now = now.replace(microsecond=0)
    try:
        expiry = now.replace(year=now.year + 1)
    except ValueError:  # on 29 February
        expiry = now.replace(year=now.year + 1, day=28)
    digits = "".join(secrets.choice("0123456789") for _ in range(10))
    return ServerToken(
        consumer_key=consumer_key or f"CK_{secrets.token_hex(48)}",
        consumer_secret=f"CS_{secrets.token_hex(20)}",
        access_token=f"AT_O{digits}O{secrets.token_hex(20)}O{ms_of(now)}",
        access_secret=f"AS_{secrets.token_hex(20)}",
        access_token_expiry=expiry,
    )


def issue(
    registry: Registry,
    ledger: Ledger,
    organization: Organization,
    now: datetime,
    *,
    by: str | None = None,
    new_consumer_key: bool = False,
) -> ServerToken:
    """Make the server's token anew. Raises NotAllowed."""
    person = enroller(organization, by)
    before = ledger.token
    same_key = before is not None and not new_consumer_key
    kept = before.token.consumer_key if before is not None and same_key else None
    if before is None and ledger.former_keys and not new_consumer_key:
        kept = ledger.former_keys[-1]  # after an invalidation the next token is a renewal, too
    token = new_token(now, kept)
    registry.issue(ledger, IssuedToken(token=token, issued_at=now, issued_by=person))
    log.info(
        "token_issued", server=ledger.name, by=person, expires=f"{token.access_token_expiry:%FT%TZ}"
    )
    return token


def enroller(organization: Organization, by: str | None) -> str:
    """Who acts; with people in the portal it must be one of them with the right role. Raises NotAllowed."""
    if not organization.people:
        return by or organization.admin_id
    if by is None:
        by = next((p.apple_id for p in organization.people.values() if p.role.may_enroll), None)
        if by is None:
            raise NotAllowed(f"nobody in {organization.name} may download server tokens")
    person = organization.people.get(by)
    if person is None:
        raise NotAllowed(f"{by} is not in {organization.name}")
    if not person.role.may_enroll:
        raise NotAllowed(
            f"{by} is {person.role.value}: server tokens are for an administrator or a device_enrollment_manager"
        )
    return by


def recipient(text: bytes) -> x509.Certificate:
    """The certificate that a server uploads, PEM or DER. Raises MalformedMessage."""
    try:
        if b"-----BEGIN" in text:
            certificate = x509.load_pem_x509_certificate(text)
        else:
            certificate = x509.load_der_x509_certificate(text)
    except ValueError as error:
        raise MalformedMessage("certificate", "an X.509 certificate, PEM or DER") from error
    return certificate


def check_recipient(certificate: x509.Certificate) -> None:
    """A token file can only be for an RSA key. Raises MalformedMessage."""
    if cms.rsa_public_key(certificate) is None:
        raise MalformedMessage("certificate", "a certificate with an RSA key")


def seal(
    token: ServerToken,
    certificate: x509.Certificate,
    *,
    cipher: TokenCipher = "aes128",
    lengths: Lengths = "indefinite",
) -> bytes:
    """The .p7m file. Raises MalformedMessage for a key that is not RSA."""
    envelope = cms.encrypt(
        wire.encode_content(token), [certificate], cipher, ber=lengths == "indefinite"
    )
    return wire.encode_message(envelope)


def unseal(data: bytes, identity: Identity) -> ServerToken:
    """Read a .p7m with the key that it is for. Raises CertsError."""
    return wire.decode_content(cms.decrypt(wire.decode_message(data), identity))
