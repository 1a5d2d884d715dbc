"""The download of a certificate, with the choice among its chains (RFC 8555, section 7.4.2).

In come a session, the order's certificate URL and what was asked for; out comes a chain, leaf first: the one that the server gives
first, or another that it links to and the caller likes better.
"""

from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs import der, names
from certs.acme.links import links
from certs.acme.message import CERTIFICATE_TYPE
from certs.acme.session import AcmeSession
from certs.errors import MalformedMessage
from certs.transport import HttpResponse
from certs.trust import UNREADABLE

log = structlog.get_logger()

MAX_CERTIFICATES: Final = 10  # of one chain
MAX_ALTERNATES: Final = 10  # that are looked at

Chain = tuple[x509.Certificate, ...]


async def download(
    session: AcmeSession, url: str, csr_der: bytes, preferred_issuer: str | None
) -> Chain:
    """The first chain whose last certificate was issued by `preferred_issuer` (its common name), else the server's own first.

    Raises MalformedMessage for a chain that does not begin with the certificate for the key of the CSR.
    """
    response = await _get(session, url)
    own = _chain(response, csr_der)
    if preferred_issuer is None or _top(own) == preferred_issuer:
        return own
    for alternate in links(response, "alternate")[:MAX_ALTERNATES]:
        chain = _chain(await _get(session, alternate), csr_der)
        if _top(chain) == preferred_issuer:
            return chain
    log.info("acme_no_preferred_chain", wanted=preferred_issuer, offered=_top(own))
    return own


async def _get(session: AcmeSession, url: str) -> HttpResponse:
    return await session.post(url, None, step="certificate", accept=CERTIFICATE_TYPE)


def _chain(response: HttpResponse, csr_der: bytes) -> Chain:
    try:
        chain = x509.load_pem_x509_certificates(response.body)
        if len(chain) > MAX_CERTIFICATES:
            raise MalformedMessage("certificate", f"at most {MAX_CERTIFICATES}", len(chain))
        for one in chain:  # cryptography parses these only when they are asked for
            _ = one.subject, one.issuer, one.not_valid_before_utc, one.not_valid_after_utc
        leaf_key = chain[0].public_key()
    except UNREADABLE as error:
        raise MalformedMessage("certificate", "a chain in PEM", str(error)) from error
    if leaf_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != _requested_key(
        csr_der
    ):
        raise MalformedMessage("certificate", "first the one for the key of the CSR")
    return tuple(chain)


def _top(chain: Chain) -> str | None:
    """Who issued the last certificate of a chain, whether or not the root itself is in it."""
    return names.common_name(chain[-1].issuer)


def _requested_key(csr_der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of our own CSR (RFC 2986, section 4), without checking its signature again."""
    request = der.read(csr_der, "certificate request").items(der.SEQUENCE, 3)
    return request[0].items(der.SEQUENCE, 3)[2].raw
