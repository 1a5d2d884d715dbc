"""Identities into TLS contexts, and the peer's certificate out of a request.

A server context asks for client certificates without demanding them, and no context looks at dates: handlers check those
with the injected clock, so that an expired identity gets an HTTP answer with a reason (design.md, "Time").
"""

import os
import ssl
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from certs.identity import Identity

if TYPE_CHECKING:
    from aiohttp import web  # devices use this module without any HTTP server

NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for

# ssl loads keys from files only. Linux has files that never touch a disk; a test sets this to False.
use_memory_files = sys.platform == "linux"

_has_rsa: WeakKeyDictionary[ssl.SSLContext, bool] = WeakKeyDictionary()


def server_context(
    identity: Identity, *, client_roots: Sequence[x509.Certificate] = ()
) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, no session tickets (performance.md, section 3).

    With `client_roots` a client may show a certificate; one of a foreign CA ends the handshake with an alert.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    load_identity(context, identity)
    trust(context, client_roots)
    if client_roots:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    roots: Sequence[x509.Certificate], identity: Identity | None = None
) -> ssl.SSLContext:
    """A client's context that trusts `roots` alone, checks the server's name and leaves dates to the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    trust(context, roots)
    if identity is not None:
        load_identity(context, identity)
    return context


def trust(context: ssl.SSLContext, roots: Sequence[x509.Certificate]) -> None:
    """Make `roots` the context's anchors, whatever their dates; an anchor need not be self-signed."""
    context.verify_flags = ssl.VerifyFlags(
        context.verify_flags | NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN
    )
    der = b"".join(root.public_bytes(serialization.Encoding.DER) for root in roots)
    if der:
        context.load_verify_locations(cadata=der)


def load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    """Give the context this key and certificate, in place of those it had.

    OpenSSL keeps one identity per kind of key and prefers EC, so a context that once held an EC identity would go on
    showing it after an RSA one was loaded: a context serves one kind only. Raises ValueError for the other.
    """
    is_rsa = isinstance(identity.key, rsa.RSAPrivateKey)
    if _has_rsa.setdefault(context, is_rsa) is not is_rsa:
        raise ValueError("this TLS context holds an identity with another kind of key")
    pem = identity.to_pem()
    if use_memory_files:
        _load_from_memory(context, pem)
    else:
        _load_from_temporary_file(context, pem)


def peer_certificate(request: "web.Request") -> x509.Certificate | None:
    """The certificate that the client proved in the handshake; None over plain HTTP or without one."""
    transport = request.transport
    if transport is None:
        return None
    session = transport.get_extra_info("ssl_object")
    der = session.getpeercert(binary_form=True) if session is not None else None
    return x509.load_der_x509_certificate(der) if der else None


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _load_from_temporary_file(context: ssl.SSLContext, pem: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="identity-", suffix=".pem") as file:  # made 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
