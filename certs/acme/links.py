"""Link headers (RFC 8288), as far as ACME uses them: one target for one relation."""

import re
from typing import Final

from certs.transport import HttpResponse

_LINK: Final = re.compile(r'<([^<>]*)>\s*((?:;\s*[^,;"]*(?:"[^"]*")?)*)')
_RELATION: Final = re.compile(r';\s*rel\s*=\s*"?([^";,]*)"?', re.IGNORECASE)


def link(response: HttpResponse, relation: str) -> str | None:
    """The first target with this relation; None where no header names one."""
    for target, parameters in _LINK.findall(response.header("link") or ""):
        found = _RELATION.search(parameters)
        if found and relation in found[1].split():
            return str(target)
    return None
