"""How much hashing a PKCS#12 asks of whoever opens it: the iterations of its MAC and of its encryption (RFC 7292, section 4).

A file names them itself, OpenSSL believes it, and the interpreter stands still meanwhile. What is inside the encrypted part cannot
be seen before it is opened.
"""

from typing import Final

from certs import der
from certs.errors import MalformedMessage

MAX_ITERATIONS: Final = 3_000_000  # a second; Firefox writes 600,000 for each of three parts
MAX_ELEMENTS: Final = 10_000
# pbeWith…, whose parameters are salt and iterations (RFC 7292, appendix C; RFC 8018, appendix A.3), and PBKDF2 (A.2).
PBE: Final = ("1.2.840.113549.1.12.1.", "1.2.840.113549.1.5.")


def check_work(data: bytes) -> None:
    """Raises MalformedMessage for more than `MAX_ITERATIONS`; what cannot be read is for others to refuse."""
    asked = 0
    try:
        _, content, *mac = der.read(data, "PKCS#12").items(der.SEQUENCE, 2)
        if mac:
            asked += _mac_iterations(mac[0])
        asked += sum(_iterations(element) for element in _elements(content))
    except MalformedMessage:
        return
    finally:
        if asked > MAX_ITERATIONS:
            raise MalformedMessage("PKCS#12", f"at most {MAX_ITERATIONS} iterations", asked)


def _mac_iterations(mac: der.Node) -> int:
    fields = mac.items(der.SEQUENCE, 2, "MacData")
    return fields[2].as_int() if len(fields) > 2 else 1


def _iterations(element: der.Node) -> int:
    """Of an AlgorithmIdentifier that derives a key; else 0."""
    if element.tag != der.SEQUENCE:
        return 0
    try:
        name, parameters = element.items(der.SEQUENCE, 2)[:2]
        if not name.as_oid().startswith(PBE):
            return 0
        fields = parameters.items(der.SEQUENCE, 2)
        return fields[1].as_int() if fields[1].tag == der.INTEGER else 0
    except MalformedMessage:
        return 0


def _elements(node: der.Node) -> list[der.Node]:
    """All within, also in the OCTET STRINGs that hold more DER, which is how a PKCS#12 nests."""
    found: list[der.Node] = []
    waiting = [node]
    while waiting and len(found) < MAX_ELEMENTS:
        element = waiting.pop()
        found.append(element)
        try:
            if element.tag in (der.OCTET_STRING, der.OCTET_STRING | der.CONSTRUCTED):
                inside = element.octets()
                if inside[:1] == b"\x30":
                    waiting.append(der.read(inside, element.field))
            elif element.is_constructed:
                waiting += element.children()
        except MalformedMessage:
            continue
    return found
