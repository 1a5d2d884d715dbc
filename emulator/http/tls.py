"""TLS as devices do it: what a session trusts, the contexts shared by all sessions, and certificate dates by our own clock.

Comes in: trusted roots, a client identity, the injected clock's time. Goes out: what asyncio takes as `ssl=`, and
words for what went wrong.
"""

import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs.identity import Identity
from certs.tls import NO_CHECK_TIME, load_identity

MAX_CONTEXTS: Final = 192  # 23 KB each; trust sets beyond that are rare and built again


@dataclass(frozen=True, slots=True)
class TrustSet:
    """The certificates a session accepts as the end of a server's chain, as DER; `system` adds the machine's own."""

    roots: frozenset[bytes] = frozenset()
    system: bool = False

    def with_roots(self, *certificates: x509.Certificate) -> Self:
        """The same set and these certificates."""
        added = {certificate.public_bytes(Encoding.DER) for certificate in certificates}
        return replace(self, roots=self.roots | added)


class TlsContexts:
    """One SSLContext per trust set and kind of client identity, made at first use and shared by all sessions.

    Three kinds, because an SSLContext never forgets: an identity stays in it after use, and OpenSSL keeps RSA and EC
    identities side by side and may present either of the two in TLS 1.3. So sessions without an identity have a context
    that never saw one, and loading an identity always replaces the one that was there.
    """

    def __init__(self) -> None:
        self._contexts: OrderedDict[tuple[TrustSet, str], ssl.SSLContext] = OrderedDict()

    def for_connection(self, trust: TrustSet, identity: Identity | None) -> "ConnectionContext":
        """What to hand to asyncio as `ssl=` for one connection."""
        if identity is None:
            kind = "none"
        else:
            kind = "rsa" if isinstance(identity.key, rsa.RSAPrivateKey) else "ec"
        context = self._contexts.get((trust, kind))
        if context is None:
            context = self._contexts[trust, kind] = _new_context(trust)
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end((trust, kind))
        return ConnectionContext(context, identity)


class ConnectionContext:
    """Stands in for the SSLContext of one connection: puts the identity into the shared one as the TLS object is made.

    asyncio and uvloop ask nothing of `ssl=` but `wrap_bio`. OpenSSL copies the identity into the new TLS object, and no
    other connection can come between, as nothing here awaits.
    """

    def __init__(self, context: ssl.SSLContext, identity: Identity | None) -> None:
        self.context = context
        self._identity = identity

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        if self._identity is not None:
            load_identity(self.context, self._identity)
        return self.context.wrap_bio(
            incoming, outgoing, server_side=False, server_hostname=server_hostname
        )

    def as_ssl_argument(self) -> ssl.SSLContext:
        """Itself, typed as the event loop's signatures want it."""
        return cast(ssl.SSLContext, self)


def _new_context(trust: TrustSet) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # devices ask for a subjectAltName since iOS 13
    # An anchor of a cloud configuration or profile may be any certificate of the chain, not only its root.
    context.verify_flags |= NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    if trust.system:
        context.load_default_certs()
    if trust.roots:
        context.load_verify_locations(cadata=b"".join(sorted(trust.roots)))
    return context


def date_problem(tls: ssl.SSLObject, at: datetime) -> str | None:
    """Say which certificate of the server's chain is outside its dates at `at`; None when all are inside."""
    for position, der in enumerate(_verified_chain(tls)):
        subject, not_before, not_after = _validity(der)
        who = "server certificate" if position == 0 else f"issuer certificate {subject}"
        if at > not_after:
            return f"{who} expired on {not_after:%Y-%m-%d %H:%M:%S} UTC"
        if at < not_before:
            return f"{who} is not valid before {not_before:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """DER of the chain that OpenSSL accepted, leaf first."""
    public: Callable[[], list[bytes]] | None = getattr(tls, "get_verified_chain", None)
    if public is not None:  # Python 3.13 and newer
        return public()
    inner: Any = getattr(tls, "_sslobj", None)
    if hasattr(inner, "get_verified_chain"):
        return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in inner.get_verified_chain()]
    leaf = tls.getpeercert(binary_form=True)
    return [leaf] if leaf else []


@lru_cache(maxsize=1024)
def _validity(der: bytes) -> tuple[str, datetime, datetime]:
    certificate = x509.load_der_x509_certificate(der)
    return (
        certificate.subject.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's error in words a person can act on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"server certificate refused: {error.verify_message}"
    reason = error.reason or str(error)
    _, alert, name = reason.partition("_ALERT_")
    if alert:
        words = name.lower().replace("_", " ")
        return "TLS alert: " + words.replace("unknown ca", "unknown CA")
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "the server does not speak TLS on this port"
    return f"TLS: {reason.lower().replace('_', ' ')}"
