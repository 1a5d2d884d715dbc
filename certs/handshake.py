"""The server's side of TLS handshakes: a certificate of a foreign CA is an alert to the client and one log line here."""

import ssl
from typing import Final

import structlog

log = structlog.get_logger()

PATIENCE: Final = 8  # reads for which a refused client may stay to hear why


class LoggedHandshake(ssl.SSLObject):
    """Set as `SSLContext.sslobject_class` of a server's context.

    asyncio closes a connection whose handshake failed before it has sent OpenSSL's alert, which leaves the client without
    a reason. Claiming to need more data makes it send what is ready; the client then closes.
    """

    _refusal: ssl.SSLError | None = None
    _reads = 0

    def do_handshake(self) -> None:
        if self._refusal is None:
            try:
                return super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                self._refusal = error
                log.warning("tls_handshake_refused", reason=error.reason or str(error))
        self._reads += 1
        if self._reads > PATIENCE:
            raise self._refusal
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert has to go out first")
