"""How an ACME server behaves where the RFC leaves it free; every default is what devices need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from certs.acme.http01 import Http01Fetcher


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmePolicy:
    """Settings of one server."""

    # Key ids and HMAC keys of external accounts; with any, newAccount needs a binding, which no Apple device can give.
    eab_keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    http01: Http01Fetcher | None = None  # None: no orders for DNS names
    # An attestation that names no device, as in User Enrollment, is good for a one-time identifier of a device unknown to the host.
    user_enrollment: bool = False
    accept_padding: bool = False  # of an attObj, which RFC 8555, section 5, has servers refuse
    authz_reuse: bool = False  # a valid authorization also serves an account's next orders
    slow_validation: int = 0  # polls until an answered challenge is seen to be decided
    slow_finalize: int = 0  # polls until a certificate is seen to be there
    retry_after_s: int = 1  # what a poller is told to wait meanwhile
    orders_per_hour: int | None = None  # of one account; more are rateLimited
    orders_per_page: int = 50  # in the list of an account's orders
    # Chains that a client may prefer to the CA's own, each without the leaf (RFC 8555, section 7.4.2).
    alternate_chains: Sequence[Sequence[x509.Certificate]] = ()
