"""Every way in which the ACME client and the ACME server misbehave on purpose (certificates.md, section 7).

Each is the name of an `Action` that a `FaultPoint` gives at a step; how often, and for which device, is for the
FaultPoint to say by its counter. Faults of the attestation certificate itself are in `certs.attestation_faults`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class DeviceFault(StrEnum):
    """Side `device`. At every step with a signed request, unless another step is named."""

    DELAY = "delay"  # {seconds} before the request
    SEND_PAYLOAD = "send-payload"  # {payload} in place of the honest one
    REUSED_NONCE = "reused-nonce"
    WRONG_URL = "wrong-url"  # in the protected header
    RS256_ON_EC_KEY = "rs256-on-ec-key"  # the header lies about the algorithm

    # Step `freshness`: what the device has attested together with its key.
    FRESHNESS_OF_ANOTHER_TOKEN = "freshness-of-another-token"
    FRESHNESS_OF_KEY_AUTHORIZATION = "freshness-of-key-authorization"
    RAW_TOKEN = "raw-token"

    # Step `new_order`.
    IDENTIFIER_WITH_SLASH = "identifier-with-slash"

    # Step `challenge`: what becomes of the attestation object.
    MISSING_INTERMEDIATE = "missing-intermediate"
    FORMAT_NONE = "format-none"
    PADDED = "padded"
    NOT_CBOR = "not-cbor"
    ERROR_MEMBER = "error-member"

    # Step `await_order`, between the last challenge and finalize.
    FINALIZE_EARLY = "finalize-early"  # without a look whether the order is ready

    # Step `finalize`: the certificate request, made again.
    WRONG_COMMON_NAME = "wrong-common-name"  # {common_name}; needs the key of the request
    ANOTHER_KEY = "another-key"  # of the same kind, not attested


class ServerFault(StrEnum):
    """Side `server`. At every step, unless another one is named."""

    DELAY = "delay"  # {seconds} before the answer
    STATUS = "status"  # {status} 500, without a body
    PROBLEM = "problem"  # {type, detail, status, retry_after_s}
    BAD_NONCE = "bad-nonce"
    RATE_LIMITED = "rate-limited"  # {retry_after_s} 60
    EAB_REQUIRED = "eab-required"
    NO_REPLAY_NONCE = "no-replay-nonce"  # the answer, without its nonce

    CHALLENGE_WITH_ERROR = (
        "challenge-with-error"  # step `challenge`: 200 and the error inside, as step-ca
    )
    PROCESSING = "processing"  # steps `challenge` and `finalize`: {polls} 1
    EXPIRE_ORDER = "expire-order"  # steps `challenge`, `order`, `finalize`, `certificate`
    CHAIN_IN_WRONG_ORDER = "chain-in-wrong-order"  # step `certificate`: the leaf last


# Problems that have a name of their own among the faults.
PROBLEMS: Final[Mapping[str, str]] = {
    ServerFault.BAD_NONCE: "badNonce",
    ServerFault.RATE_LIMITED: "rateLimited",
    ServerFault.EAB_REQUIRED: "externalAccountRequired",
}
# Carried out by the handler of the step, as they change the answer rather than replace it.
HANDLERS: Final[Mapping[str, tuple[str, ...]]] = {
    ServerFault.CHALLENGE_WITH_ERROR: ("challenge",),
    ServerFault.PROCESSING: ("challenge", "finalize"),
    ServerFault.EXPIRE_ORDER: ("challenge", "order", "finalize", "certificate"),
    ServerFault.CHAIN_IN_WRONG_ORDER: ("certificate",),
}
