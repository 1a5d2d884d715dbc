"""Every way in which the SCEP client and the SCEP server misbehave on purpose (certificates.md, section 7).

Each is the name of an `Action` that a `FaultPoint` gives at a step; how often, and for which device, is for the
FaultPoint to say by its counter.
"""

from enum import StrEnum


class DeviceFault(StrEnum):
    """Side `device`, step `pki_operation`, asked once per enrollment with the honest CSR."""

    # The certificate request, made again.
    WRONG_CHALLENGE = "wrong-challenge"  # {challenge} random
    MISSING_CHALLENGE = "missing-challenge"
    CSR_VERSION_2 = "csr-version-2"
    UNSORTED_ATTRIBUTES = "unsorted-attributes"
    NON_ASCII_SUBJECT = "non-ascii-subject"  # {common_name}
    SHORT_KEY = "short-key"  # 1024 bits, a key of its own

    # The envelope.
    WRONG_RECIPIENT = "wrong-recipient"  # encrypted to our own key
    TWO_RECIPIENTS = "two-recipients"  # ours first
    OAEP = "oaep"  # {digest} sha1, or sha256
    DES_ONLY = "des-only"
    CONSTRUCTED_CONTENT = "constructed-content"

    # The signature around it.
    ANOTHER_SIGNER = "another-signer"  # whose key is not that of the request
    EXPIRED_SIGNER = "expired-signer"
    SHORT_NONCE = "short-nonce"  # 8 bytes
    CHALLENGE_AS_ATTRIBUTE = "challenge-as-attribute"  # once more, in the clear
    SHA1_ONLY = "sha1-only"
    INDEFINITE_LENGTHS = "indefinite-lengths"

    # The exchange.
    BY_GET = "by-get"  # whatever the server offers; with a key of 4096 bits some 6 KB of URL
    TRUNCATED_BASE64 = "truncated-base64"  # by GET, the last quarter missing
    BARE_PLUS = "bare-plus"  # by GET, whatever the server offers, nothing percent-encoded
    DUPLICATE = "duplicate"  # the same message twice
    UNKNOWN_POLL = "unknown-poll"  # a CertPoll for a transaction that never was


class ServerFault(StrEnum):
    """Side `server`, steps `get_ca_caps`, `get_ca_cert` and `pki_operation`."""

    # At every step.
    DELAY = "delay"  # {seconds}, then honest
    STATUS = "status"  # {status, body}
    BODY = "body"  # {body, content_type} with HTTP 200; may be empty
    TRAILING_NEWLINE = "trailing-newline"

    # Step `get_ca_cert`.
    CERTS_ONLY_OF_ONE = "certs-only-of-one"
    RA_WITHOUT_KEY_ENCIPHERMENT = "ra-without-key-encipherment"

    # Step `pki_operation`.
    FAIL = "fail"  # {fail_info, text}
    PENDING = "pending"  # {polls} 1: so many answers say PENDING
    DES_ANSWER = "des-answer"  # with SHA-1, as Go servers
    ECHOED_NONCE = "echoed-nonce"
    WRONG_RECIPIENT_NONCE = "wrong-recipient-nonce"
    WRONG_TRANSACTION_ID = "wrong-transaction-id"
    FOREIGN_KEY_LEAF = "foreign-key-leaf"
