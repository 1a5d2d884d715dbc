"""An ACME server for devices, and for ordinary ACME programs too (RFC 8555; certificates.md 2.2 to 2.7).

In come signed requests, out come certificates of one CA. A device proves its permanent-identifier by device-attest-01, a web
server its DNS name by http-01. `door` checks each request, `account_resources`, `order_resources`, `authorization_resources` and
`certificate_resources` answer it, `order_book` remembers.
"""

from collections.abc import Sequence

from aiohttp import web
from cryptography import x509

from certs.acme.account_resources import AccountResources
from certs.acme.authorization_resources import AuthorizationResources
from certs.acme.certificate_resources import CertificateResources
from certs.acme.door import Door, json_answer
from certs.acme.message import Directory
from certs.acme.order_book import OrderBook
from certs.acme.order_resources import OrderResources, SubjectFor
from certs.acme.policy import AcmePolicy
from certs.authorize import DeviceAuthorizer
from certs.ca import CertificateAuthority
from certs.clock import Clock
from certs.faults import FaultPoint, no_faults

DEFAULT_POLICY = AcmePolicy()


class AcmeServer:
    """Serves one CA to the devices that `devices` knows."""

    def __init__(
        self,
        ca: CertificateAuthority,
        devices: DeviceAuthorizer,
        *,
        attestation_roots: Sequence[x509.Certificate],
        clock: Clock,
        earlier: Sequence[CertificateAuthority] = (),  # whose certificates may be revoked, too
        allow_unattested: bool = False,
        nonce_rejection: float = 0.0,
        faults: FaultPoint = no_faults,
        subject_for: SubjectFor | None = None,
        certificate_days: float = 365,
        base_url: str | None = None,
        book: OrderBook | None = None,
        policy: AcmePolicy = DEFAULT_POLICY,
    ) -> None:
        """`nonce_rejection` is the share of good nonces to refuse, as pebble does.

        `subject_for` writes the subject of each device's certificate; without it the CSR's is taken, whose common name
        must be the identifier or name the device. `base_url` (scheme and host) is how clients call this server where a
        proxy stands before it.
        """
        self.book = book or OrderBook(clock)
        self.door = Door(
            self.book,
            clock=clock,
            nonce_rejection=nonce_rejection,
            faults=faults,
            base_url=base_url,
        )
        self._policy = policy
        common = self.door, self.book, policy
        orders = OrderResources(
            *common,
            ca=ca,
            devices=devices,
            clock=clock,
            subject_for=subject_for,
            certificate_days=certificate_days,
        )
        self._resources = (
            AccountResources(*common),
            orders,
            AuthorizationResources(
                *common,
                attestation_roots=attestation_roots,
                allow_unattested=allow_unattested,
                clock=clock,
            ),
            CertificateResources(*common, ca=ca, earlier=earlier, orders=orders),
        )

    def add_routes(self, app: web.Application, path: str = "/acme") -> None:
        """Mount everything below `path`; the directory is `{path}/directory`."""
        self.door.mount(path)
        self.door.open_route(app, "directory", "directory", self._directory)
        self.door.open_route(app, "new-nonce", "new_nonce", self._new_nonce)
        for resources in self._resources:
            resources.add_routes(app)
        self.door.close_routes(app)

    async def _directory(self, request: web.Request) -> web.Response:
        url = self.door.url
        directory = Directory(
            new_nonce=url(request, "new-nonce"),
            new_account=url(request, "new-account"),
            new_order=url(request, "new-order"),
            revoke_cert=url(request, "revoke-cert"),
            key_change=url(request, "key-change"),
            meta={"externalAccountRequired": True} if self._policy.eab_keys else {},
        )
        return json_answer(directory.to_fields())

    async def _new_nonce(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.method == "HEAD" else 204)
