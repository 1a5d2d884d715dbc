"""What can go wrong in `certs`: one tree, facts as attributes, the sentence built from them."""


class CertsError(Exception):
    """Root of every error that this package raises on purpose."""


class MalformedMessage(CertsError):
    """The peer broke a format: which field, what was expected, what came."""

    def __init__(self, field: str, expected: str, got: object = None) -> None:
        self.field = field
        self.expected = expected
        self.got = got
        came = "" if got is None else f", got {shorten(got)}"
        super().__init__(f"{field}: expected {expected}{came}")


class UntrustedCertificate(CertsError):
    """A certificate does not lead to a trusted root, or is outside its dates."""

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(f"certificate {subject or '(empty subject)'}: {reason}")


class InvalidSignature(CertsError):
    """A signature does not belong to the bytes and the key it claims."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: signature is not valid")


class CannotDecrypt(CertsError):
    """An envelope is not for our key, or damaged: on purpose the two are not told apart."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: cannot decrypt")


class ScepFailure(CertsError):
    """The SCEP server said no (RFC 8894, section 3.2.1.4)."""

    def __init__(self, fail_info: str, text: str = "") -> None:
        self.fail_info = fail_info
        self.text = text
        super().__init__(f"SCEP failure {fail_info}" + (f": {text}" if text else ""))


class AcmeProblem(CertsError):
    """The ACME server answered with a problem document (RFC 8555, section 6.7)."""

    def __init__(
        self,
        type_: str,
        detail: str,
        *,
        status: int = 400,
        subproblems: tuple[dict[str, object], ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.type = type_  # the name after urn:ietf:params:acme:error:
        self.detail = detail
        self.status = status
        self.subproblems = subproblems
        self.retry_after_s = retry_after_s
        super().__init__(f"{type_}: {detail}")


class ChallengeRefused(CertsError):
    """A challenge password or client identifier entitles nobody to a certificate."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ForbiddenHost(CertsError):
    """An outgoing door was about to reach a host that must never be reached."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"{host} is a real Apple host: map it to a stand-in on loopback (--map {host}=127.0.0.1:PORT)"
        )


class TransportError(CertsError):
    """No HTTP answer came: refused, reset, TLS alert, or a time-out."""

    def __init__(
        self,
        url: str,
        reason: str,
        *,
        timeout_s: float | None = None,
        untrusted_server: bool = False,
    ) -> None:
        self.url = url
        self.reason = reason
        self.timeout_s = timeout_s  # set when the reason is that time ran out
        self.untrusted_server = untrusted_server  # its certificate: chain, name or dates
        super().__init__(f"{url}: {reason}")


class UnexpectedAnswer(CertsError):
    """An HTTP answer came whose status or content type the protocol does not allow here."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        self.url = url
        self.status = status
        self.reason = reason
        super().__init__(f"{url}: HTTP {status}: {reason}")


def shorten(value: object, limit: int = 80) -> str:
    """One line of at most `limit` characters for an error or a log; never the whole input."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
