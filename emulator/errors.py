"""What can go wrong for a virtual device: one tree, facts as attributes, the sentence built from them."""


class EmulatorError(Exception):
    """Root of every error that a device turns into an outcome."""


class PeerRefused(EmulatorError):
    """A server or service said no, or answered something that the protocol does not allow.

    Wraps `CertsError` (SCEP failures, ACME problems, malformed answers) and HTTP refusals.
    """

    def __init__(self, step: str, reason: str, *, status: int | None = None) -> None:
        self.step = step  # the protocol step, as in reports: "activation", "scep", "authenticate" …
        self.reason = reason
        self.status = status  # HTTP status, where one was the reason
        super().__init__(f"{step}: " + (f"HTTP {status}: " if status else "") + reason)


class StepTimeout(EmulatorError):
    """A step took longer than it may."""

    def __init__(self, step: str, seconds: float) -> None:
        self.step = step
        self.seconds = seconds
        super().__init__(f"{step}: no answer within {seconds:g} s")


class IllegalTransition(EmulatorError):
    """Our own mistake: an event that cannot happen in this state."""


class ProfileRefused(EmulatorError):
    """The device will not install a profile; carries the ErrorChain that it reports (mdm.md 2.6)."""

    def __init__(self, chain: "list[tuple[str, int, str]]") -> None:
        self.chain = chain  # (ErrorDomain, ErrorCode, description), top-level error first
        super().__init__(" > ".join(f"{domain} {code}: {text}" for domain, code, text in chain))


class CannotListen(EmulatorError):
    """A port of ours is taken, or not ours to take."""

    def __init__(self, service: str, host: str, port: int, reason: str) -> None:
        self.service = service  # as the command line names its port
        self.host = host
        self.port = port
        super().__init__(
            f"{service}: cannot listen on {host} port {port} ({reason}): "
            "end the program that has it, or choose another host or port"
        )


class ConfigurationError(EmulatorError):
    """A file or option that a person wrote cannot be used; lists every mistake at once."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source = source
        self.mistakes = mistakes
        noun = "mistake" if len(mistakes) == 1 else "mistakes"
        super().__init__(
            f"{source}: {len(mistakes)} {noun}\n" + "\n".join(f"  {m}" for m in mistakes)
        )
