"""Server tokens: a key pair for the portal, the token file that comes back, its renewal, and when one may be deleted.

The steps of rules 33-37: consent, and a key is made; download its certificate as .pem; in the portal add a server with it and
download the .p7m; upload that, and the first sync starts by itself. A key that was given up opens nothing any more.
"""

import asyncio
import uuid
from datetime import timedelta
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from certs.clock import Clock
from certs.errors import CertsError
from certs.identity import Identity
from certs.keys import generate
from mdmserver.assignment_answers import account_of, credentials_of
from mdmserver.assignment_apple import AppleSide
from mdmserver.assignment_errors import (
    AppleError,
    AppleUnreachable,
    Invalid,
    LimitReached,
    NotPossible,
    Unknown,
)
from mdmserver.assignment_rules import MAX_TOKENS
from mdmserver.assignment_sync import check_account
from mdmserver.store.assignment_base import AssignmentStore, Credentials, Token, TokenKey

log = structlog.get_logger()

CERTIFICATE_DAYS: Final = 5 * 365  # the portal goes on encrypting to it at every renewal
MAX_TOKEN_FILE: Final = 64 * 1024
ACCOUNT_WORDS: Final = ("T_C_NOT_SIGNED", "ACCESS_DENIED")  # no fault of the token file


class Tokens:
    """The server tokens and the keys that wait for one."""

    def __init__(self, store: AssignmentStore, apple: AppleSide, clock: Clock) -> None:
        self._store = store
        self._apple = apple
        self._clock = clock
        self._creating = asyncio.Lock()  # so that no file makes two tokens

    # -- the key pair ---------------------------------------------------------------------------------------------

    async def new_key(self, *, consent: bool, token_id: str | None = None) -> TokenKey:
        """A key pair for a new token, or for the renewal of one. Raises Invalid, Unknown or LimitReached."""
        if not consent:
            raise Invalid('consent: expected true ("I agree" that Apple is told about devices)')
        if token_id is not None:
            await self.token(token_id)
        else:
            await self._room_for_one()
        identity = await asyncio.to_thread(self._identity)
        key = TokenKey(
            key_id=str(uuid.uuid4()),
            made_at=self._clock.now(),
            identity_pem=identity.to_pem(),
            token_id=token_id,
        )
        await self._store.add_key(key)
        log.info("assignment_key_made", key=key.key_id, token=token_id)
        return key

    async def certificate_pem(self, key_id: str) -> bytes:
        """The public part, for the portal; from now on a token file may come. Raises Unknown."""
        key = await self.key(key_id)
        await self._store.key_downloaded(key_id, self._clock.now())
        return _identity_of(key.identity_pem).certificates_pem()

    async def close_key(self, key_id: str) -> None:
        """The page is closed: whatever was encrypted to this key stays closed, too. Raises Unknown."""
        if not await self._store.drop_key(key_id):
            raise Unknown("key", key_id)
        log.info("assignment_key_given_up", key=key_id)

    async def key(self, key_id: str) -> TokenKey:
        """Raises Unknown."""
        key = await self._store.key(key_id)
        if key is None:
            raise Unknown("key", key_id)
        return key

    # -- the token ------------------------------------------------------------------------------------------------

    async def token(self, token_id: str) -> Token:
        """Raises Unknown."""
        token = await self._store.token(token_id)
        if token is None:
            raise Unknown("token", token_id)
        return token

    async def create(
        self, key_id: str, data: bytes, *, name: str, description: str, apple_id: str
    ) -> Token:
        """A token from the file that the portal made for this key."""
        async with self._creating:
            return await self._create(key_id, data, name, description, apple_id)

    async def _create(
        self, key_id: str, data: bytes, name: str, description: str, apple_id: str
    ) -> Token:
        key = await self.key(key_id)
        if key.token_id is not None:
            raise NotPossible(f"key {key_id} is for the renewal of token {key.token_id}")
        if key.downloaded_at is None:
            raise NotPossible(f"the certificate of key {key_id} has not been downloaded")
        await self._room_for_one()
        credentials = self._open(data, key.identity_pem)
        for other in await self._store.tokens():
            if other.credentials.consumer_key == credentials.consumer_key:
                raise NotPossible(f"this is a file of token {other.token_id}: renew that one")
        token = Token(
            token_id=str(uuid.uuid4()),
            name=name,
            description=description,
            apple_id=apple_id,
            credentials=credentials,
            identity_pem=key.identity_pem,
            created_at=self._clock.now(),
        )
        await self._store.add_token(token, key_id)
        log.info(
            "assignment_token_created",
            token=token.token_id,
            name=name,
            expires_at=f"{credentials.expires_at:%FT%TZ}",
        )
        return token

    async def renew(
        self,
        token_id: str,
        data: bytes,
        *,
        key_id: str | None = None,
        apple_id: str | None = None,
        force: bool = False,
    ) -> Token:
        """Replace the credentials by those of a newer file, after the checks of apple-services.md 5.4.

        `force` accepts another consumer key, as a renewal by another portal user brings, and an older file; never a
        file of another server.
        """
        token = await self.token(token_id)
        identity_pem = token.identity_pem
        if key_id is not None:
            key = await self.key(key_id)
            if key.token_id != token_id:
                raise NotPossible(f"key {key_id} is not for the renewal of token {token_id}")
            identity_pem = key.identity_pem
        credentials = self._open(data, identity_pem)
        if not force:
            _check_renewal(token.credentials, credentials)
        await self._try(token, credentials)
        await self._store.renew_token(
            token_id,
            credentials,
            identity_pem=identity_pem,
            key_id=key_id,
            apple_id=apple_id,
            at=self._clock.now(),
        )
        self._apple.forget(token_id)
        log.info(
            "assignment_token_renewed",
            token=token_id,
            expires_at=f"{credentials.expires_at:%FT%TZ}",
            forced=force,
        )
        return await self.token(token_id)

    async def describe(
        self,
        token_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        apple_id: str | None = None,
    ) -> Token:
        """Change what only administrators see (rules 36, 38)."""
        token = await self.token(token_id)
        await self._store.describe_token(
            token_id,
            name=token.name if name is None else name,
            description=token.description if description is None else description,
            apple_id=token.apple_id if apple_id is None else apple_id,
        )
        return await self.token(token_id)

    async def delete(self, token_id: str) -> None:
        """Only when nothing hangs on it: devices first, then the default profile, then all profiles (rule 121)."""
        token = await self.token(token_id)
        counts = await self._store.counts(token_id)
        if shown := counts.listed + counts.removed:
            raise NotPossible(f"token {token_id} has {shown} devices: delete them first")
        if token.default_profile is not None:
            raise NotPossible(
                f"token {token_id} has the default profile {token.default_profile}: "
                "whatever device comes would get it; clear it first"
            )
        if profiles := len(await self._store.profiles(token_id)):
            raise NotPossible(f"token {token_id} has {profiles} profiles: delete them first")
        await self._store.delete_token(token_id)
        self._apple.forget(token_id)
        log.info("assignment_token_deleted", token=token_id)

    # -- parts ----------------------------------------------------------------------------------------------------

    async def _room_for_one(self) -> None:
        if len(await self._store.tokens()) >= MAX_TOKENS:
            raise LimitReached("tokens per account", MAX_TOKENS)

    async def _try(self, token: Token, credentials: Credentials) -> None:
        """Apple must take the new credentials and name the same server; where it cannot be asked, the next sync asks."""
        try:
            async with self._apple.trial(credentials) as client:
                account = account_of(await client.account())
        except AppleUnreachable as error:
            log.warning("assignment_renewal_unchecked", token=token.token_id, reason=str(error))
            return
        except AppleError as error:
            if error.word in ACCOUNT_WORDS or not error.about_token:
                log.warning("assignment_renewal_unchecked", token=token.token_id, reason=str(error))
                return
            raise NotPossible(f"Apple does not take this token file: {error}") from error
        check_account(token.account, account)
        await self._store.set_account(token.token_id, account)

    def _open(self, data: bytes, identity_pem: bytes) -> Credentials:
        """The credentials in a token file that is good now. Raises Invalid."""
        if len(data) > MAX_TOKEN_FILE:
            raise Invalid(f"the token file has {len(data)} bytes, more than {MAX_TOKEN_FILE}")
        try:
            credentials = credentials_of(data, _identity_of(identity_pem))
        except CertsError as error:
            raise Invalid(
                f"the token file cannot be read with this key: {error}. Was it made with the "
                "certificate of another key, or of a page that was closed?"
            ) from error
        if credentials.expires_at <= self._clock.now():
            raise Invalid(
                f"the token file expired at {credentials.expires_at:%FT%TZ}: download a new one"
            )
        return credentials

    def _identity(self) -> Identity:
        """An RSA key and a certificate signed by itself; off the event loop."""
        key = generate("rsa2048")
        assert isinstance(key, rsa.RSAPrivateKey)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mdm-server")])
        now = self._clock.now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=10))
            .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=True,
                    data_encipherment=True,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )
        return Identity(key, certificate)


def _check_renewal(stored: Credentials, came: Credentials) -> None:
    """Raises NotPossible for what only `force` allows."""
    if came.consumer_key != stored.consumer_key:
        raise NotPossible(
            "the file's consumer key is not the one of this token: it is of another server, "
            "or another portal user renewed it (then force)"
        )
    if came.expires_at < stored.expires_at:
        raise NotPossible(
            f"the file expires at {came.expires_at:%FT%TZ}, before the one in use "
            f"({stored.expires_at:%FT%TZ}): download a new one, or force"
        )


def _identity_of(pem: bytes) -> Identity:
    return Identity.from_own_pem(pem)
