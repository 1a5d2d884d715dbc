"""The ACME client: of a device, one order, one attestation, one certificate (RFC 8555; certificates.md 2.2 and 2.4).

In come a CSR, an identifier and a way to have a key attested; out comes the certificate chain, leaf first, or the server's
problem as AcmeProblem. What devices never do is here for the tests of other servers: DNS names, accounts that change, revocation.
`session` signs the requests and minds nonces, `order_road` walks an order.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.acme import device_attest, device_faults, http01, jws
from certs.acme.account import Account, AccountUpdate, NewAccount, OrdersList
from certs.acme.device_attest import PERMANENT_IDENTIFIER, Unattested
from certs.acme.inner_jws import ExternalAccount
from certs.acme.jws import Json, base64url
from certs.acme.links import link
from certs.acme.message import Challenge, Identifier
from certs.acme.order_road import OrderRoad
from certs.acme.session import BAD_NONCE_RETRIES, AcmeSession, fields_of
from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.faults import FaultPoint, no_faults
from certs.keys import KeySource, KeySpec, PrivateKey
from certs.transport import Transport

MAX_PAGES: Final = 1000  # of a list of orders

Attest = Callable[[bytes], Awaitable[Sequence[bytes]]]
Publish = Callable[[str, str], Awaitable[None]]


class AcmeClient:
    """Gets certificates from the server behind `directory_url`; its account lasts as long as the object, unless it has a key given."""

    def __init__(
        self,
        transport: Transport,
        directory_url: str,
        *,
        clock: Clock,
        keys: KeySource,
        faults: FaultPoint = no_faults,
        account_key: PrivateKey | None = None,
        account_spec: KeySpec = "p256",
        contact: Sequence[str] = (),
        external: ExternalAccount | None = None,
        preferred_issuer: str | None = None,
        bad_nonce_retries: int = BAD_NONCE_RETRIES,
    ) -> None:
        """`external` is the account at the CA's operator that ours shall belong to.

        `preferred_issuer` chooses among the chains that a server offers, if it offers one that ends below a CA of this
        common name; devices take the first.
        """
        self._session = AcmeSession(
            transport,
            directory_url,
            clock=clock,
            keys=keys,
            faults=faults,
            account_key=account_key,
            account_spec=account_spec,
            bad_nonce_retries=bad_nonce_retries,
        )
        self._road = OrderRoad(
            self._session, clock=clock, keys=keys, preferred_issuer=preferred_issuer
        )
        self._wanted = NewAccount(terms_of_service_agreed=True, contact=tuple(contact))
        self._external = external

    async def enroll(
        self,
        csr_der: bytes,
        *,
        identifier: str,
        attest: Attest | None,
        unattested: Unattested = "none",
        key: PrivateKey | None = None,
    ) -> tuple[x509.Certificate, ...]:
        """Return the chain, leaf first; the leaf's key is the CSR's.

        `attest` gets the freshness code (SHA-256 of the token) and returns a DER chain, leaf first. With None the
        challenge is answered without attestation, in the form `unattested`. `key` is the CSR's, for faults that write
        another one. Raises AcmeProblem when the server refuses, MalformedMessage or UnexpectedAnswer when it breaks the
        protocol, and what the Transport raises.
        """

        async def answer(challenge: Challenge) -> Json:
            if attest is None:
                return device_attest.unattested_response(unattested)
            return await self._attested(challenge, attest)

        await self._open()
        return await self._road.walk(
            [Identifier(PERMANENT_IDENTIFIER, identifier)],
            csr_der,
            challenge_type=device_attest.CHALLENGE_TYPE,
            answer=answer,
            key=key,
        )

    async def prove(self, *, identifier: str, attest: Attest) -> None:
        """Find out whether the server accepts an attestation; the order is left when it is ready, so nothing is issued.

        Raises what `enroll` raises.
        """

        async def answer(challenge: Challenge) -> Json:
            return await self._attested(challenge, attest)

        await self._open()
        await self._road.prove(
            [Identifier(PERMANENT_IDENTIFIER, identifier)],
            challenge_type=device_attest.CHALLENGE_TYPE,
            answer=answer,
        )

    async def enroll_names(
        self, csr_der: bytes, *, names: Sequence[str], publish: Publish
    ) -> tuple[x509.Certificate, ...]:
        """A certificate for DNS names. `publish` gets token and key authorization, and shows the one under the other (http-01)."""

        async def answer(challenge: Challenge) -> Json:
            token = _token(challenge)
            await publish(token, jws.key_authorization(token, self._session.key.public_key()))
            return {}

        await self._open()
        return await self._road.walk(
            [Identifier(http01.DNS, name) for name in names],
            csr_der,
            challenge_type=http01.CHALLENGE_TYPE,
            answer=answer,
        )

    async def account(self) -> Account:
        """Our account as the server has it, made if need be."""
        return await self._on_account(None)

    async def update_contact(self, contact: Sequence[str]) -> Account:
        return await self._on_account(AccountUpdate(contact=tuple(contact)))

    async def deactivate(self) -> Account:
        """There is no way back (RFC 8555, section 7.3.6)."""
        return await self._on_account(AccountUpdate(deactivate=True))

    async def change_key(self, new: PrivateKey) -> None:
        await self._open()
        await self._session.change_key(new)

    async def orders(self) -> list[str]:
        """The URLs of our orders, from as many pages as there are."""
        url, found = (await self.account()).orders, list[str]()
        for _ in range(MAX_PAGES):
            if url is None:
                return found
            response = await self._session.post(url, None, step="orders")
            found += OrdersList.from_fields(fields_of(response)).orders
            url = link(response, "next")
        raise MalformedMessage("orders", f"at most {MAX_PAGES} pages")

    async def revoke(
        self,
        certificate: x509.Certificate,
        *,
        reason: int | None = None,
        key: PrivateKey | None = None,
    ) -> None:
        """Withdraw a certificate, as its account or with its own `key` (RFC 8555, section 7.6)."""
        await self._open()
        payload: Json = {"certificate": base64url(certificate.public_bytes(Encoding.DER))}
        if reason is not None:
            payload["reason"] = reason
        url = self._session.url_of(self._session.directory.revoke_cert, "revokeCert")
        await self._session.post(url, payload, step="revoke_cert", key=key)

    async def _attested(self, challenge: Challenge, attest: Attest) -> Json:
        token = _token(challenge)
        fault = self._session.fault("freshness", token)
        account_key = self._session.key.public_key()
        freshness = device_faults.freshness(token, account_key, fault)
        return device_attest.response(await attest(freshness))

    async def _open(self) -> None:
        await self._session.open(self._wanted, self._external)

    async def _on_account(self, update: AccountUpdate | None) -> Account:
        await self._open()
        assert self._session.account_url is not None
        payload = None if update is None else update.to_fields()
        response = await self._session.post(self._session.account_url, payload, step="account")
        return Account.from_fields(fields_of(response))


def _token(challenge: Challenge) -> str:
    if not challenge.token:
        raise MalformedMessage("challenge", "a token")
    return challenge.token
