"""Link headers (RFC 8288), as far as ACME uses them: the targets of one relation."""

import re
from typing import Final

from certs.transport import HttpResponse

_LINK: Final = re.compile(r'<([^<>]*)>\s*((?:;\s*[^,;"]*(?:"[^"]*")?)*)')
_RELATION: Final = re.compile(r';\s*rel\s*=\s*"?([^";,]*)"?', re.IGNORECASE)


def links(response: HttpResponse, relation: str) -> list[str]:
    """Every target with this relation, in order."""
    return [
        str(target)
        for target, parameters in _LINK.findall(response.header("link") or "")
        if (found := _RELATION.search(parameters)) and relation in found[1].split()
    ]


def link(response: HttpResponse, relation: str) -> str | None:
    """The first target with this relation; None where no header names one."""
    return next(iter(links(response, relation)), None)
