"""What can be known to be wrong with a fleet before anything of it exists: told at once, and nothing is written."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from emulator.apple.portal import Portal
from emulator.errors import ConfigurationError
from emulator.fleet.fleet import FleetFile, plan


def preflight(fleet: FleetFile) -> None:
    """Raise ConfigurationError with every mistake that the schema alone cannot see."""
    mistakes = list(_mistakes(fleet))
    if mistakes:
        raise ConfigurationError(fleet.name, mistakes)


def _mistakes(fleet: FleetFile) -> Iterator[str]:
    try:
        plan(fleet)
    except ConfigurationError as error:
        yield from error.mistakes
    yield from _unreadable("profile", fleet.profile)
    yield from _unreadable("apple.token_file", fleet.apple.token_file)
    yield from _unreadable("apple.ca", fleet.apple.ca)
    if fleet.enroll_url is not None:
        try:
            parts = urlsplit(fleet.enroll_url)
            usable = parts.scheme in ("https", "http") and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            yield f"enroll_url: expected https://HOST/PATH, got {fleet.enroll_url!r}"
    if fleet.apple.url is None:
        yield from _owners(fleet)


def _unreadable(key: str, file: Path | None) -> Iterator[str]:
    if file is not None:
        try:
            file.open("rb").close()
        except OSError as error:
            yield f"{key}: cannot be read: {error}"


def _owners(fleet: FleetFile) -> Iterator[str]:
    """Organizations and servers that the portal of this run does not have."""
    try:
        portal = Portal.read(fleet.apple.portal) if fleet.apple.portal else Portal()
    except ConfigurationError as error:
        yield from (f"apple.portal: {mistake}" for mistake in error.mistakes)
        return
    known = {
        organization.name: {server.name for server in organization.servers}
        for organization in portal.organizations
    }
    for number, group in enumerate(fleet.groups):
        if group.organization is None:
            continue
        if group.organization not in known:
            yield f"groups.{number}.organization: the portal has no {group.organization!r}"
        elif group.server is not None and group.server not in known[group.organization]:
            yield f"groups.{number}.server: {group.organization!r} has no server {group.server!r}"
