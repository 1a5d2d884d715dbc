"""What a device is told no for: each error knows the HTTP status and the sentence that go out."""


class ServerError(Exception):
    """Root of the refusals that the middleware turns into an answer; nothing has changed when one is raised."""

    status = 400  # never 401 by accident: a device unenrolls on it (mdm.md 4.3)


class UnknownDevice(ServerError):
    """The message concerns a device that is not enrolled here, or not far enough for this message."""

    def __init__(self, udid: str, reason: str) -> None:
        self.udid = udid
        self.reason = reason
        super().__init__(f"device {udid}: {reason}")


class CertificateRefused(ServerError):
    """No usable client certificate came, or one that does not entitle to speak for this device."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"client certificate: {reason}")


class EnrollmentRefused(ServerError):
    """A genuine request for the enrollment profile that is not granted."""

    status = 403  # without a typed body this is a plain failure to the device (mdm.md 1f)

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"enrollment: {reason}")


class MarkedToUnenroll(ServerError):
    """An admin wants this device gone; the answer makes it unenroll (mdm.md 1f, 4.3)."""

    status = 403

    def __init__(self, udid: str, *, typed: bool) -> None:
        self.udid = udid
        self.typed = (
            typed  # True: 403 with com.apple.unrecognized.device (17.0 and later); False: 401
        )
        super().__init__(f"device {udid}: an admin unenrolled it")
