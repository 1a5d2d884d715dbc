"""Time-outs and sizes, each named once. Seconds unless the name says otherwise."""

from typing import Final

CONNECT_TIMEOUT_S: Final = 15.0  # TCP connect plus TLS handshake
REQUEST_TIMEOUT_S: Final = (
    60.0  # one request, first byte sent to last byte received; what profiled allows SCEP
)
CLOUD_CONFIGURATION_TIMEOUT_S: Final = 30.0  # apple-services 3.2
MAX_REDIRECTS: Final = 10
MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024  # a larger answer is refused, not buffered
MAX_HEADER_BYTES: Final = 64 * 1024  # status line and headers of one answer
MAX_BODY_BYTES: Final = 10 * 1024 * 1024  # what our servers accept as a request body
MAX_ACTIVATION_BYTES: Final = 256 * 1024  # apple-services 2.6: a larger activation request is a 413
CLOSE_TIMEOUT_S: Final = 1.0  # a peer's goodbye on a connection we close; after that it is dropped
SHUTDOWN_TIMEOUT_S: Final = 5.0
MAX_COMMANDS_PER_SESSION: Final = 1000  # a server that never ends a session is an error of its own
MAX_AWAITING_FAILURES: Final = 3  # check-ins in a row that may fail while awaiting configuration
CLOUD_CONFIGURATION_RETRIES: Final = 3  # after HTTP 503, before the device gives up with 34006
REGISTRATION_TIMEOUT_S: Final = 15.0  # until the push stand-in has confirmed a token
