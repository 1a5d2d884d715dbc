"""How much hashing a PKCS#12 asks of whoever opens it: the iterations of its MAC and of its encryption (RFC 7292, section 4).

A file names them itself, OpenSSL believes it, and the interpreter stands still meanwhile. What is inside the encrypted part cannot
be seen before it is opened.
"""

from math import prod
from typing import Final

from certs import der
from certs.errors import MalformedMessage

READABLE: Final = "a readable file and its password"
MAX_ITERATIONS: Final = 3_000_000  # a second; Firefox writes 600,000 for each of three parts
MAX_ELEMENTS: Final = 10_000
LEVELS: Final = 2  # of DER in data: the AuthenticatedSafe, and the SafeContents within
# pbeWith…, whose parameters are salt and iterations (RFC 7292, appendix C; RFC 8018, appendix A.3), and PBKDF2 (A.2).
PBE: Final = ("1.2.840.113549.1.12.1.", "1.2.840.113549.1.5.")
DATA: Final = "1.2.840.113549.1.7.1"
# Its parameters are salt and three costs that multiply (RFC 7914, section 7.1).
SCRYPT: Final = "1.3.6.1.4.1.11591.4.11"


def check_work(data: bytes) -> None:
    """Raises MalformedMessage for more than `MAX_ITERATIONS`, and where more may hide: in what OpenSSL reads and we do not.

    What is no PKCS#12 at all is for others to refuse.
    """
    try:
        whole = der.read(data, "PKCS#12")
        mac = whole.items(der.SEQUENCE, 2)[2:]
    except MalformedMessage:
        return
    try:
        asked = _mac_iterations(mac[0]) if mac else 0
        asked += sum(_iterations(element) for element in _elements(whole))
    except MalformedMessage as error:
        raise MalformedMessage("PKCS#12", READABLE) from error
    if asked > MAX_ITERATIONS:
        raise MalformedMessage("PKCS#12", f"at most {MAX_ITERATIONS} iterations", asked)


def _mac_iterations(mac: der.Node) -> int:
    """Of MacData itself; PBMAC1 (RFC 9579) has PBKDF2 within, which `_iterations` finds."""
    fields = mac.items(der.SEQUENCE, 2, "MacData")
    return _count(fields[2]) if len(fields) > 2 else 1


def _iterations(element: der.Node) -> int:
    """Of an AlgorithmIdentifier that derives a key; else 0."""
    if element.tag != der.SEQUENCE:
        return 0
    try:
        name, parameters = element.items(der.SEQUENCE, 2)[:2]
        kind = name.as_oid()
        if kind == SCRYPT:
            return prod(_count(cost) for cost in parameters.items(der.SEQUENCE, 4)[1:4])
        if not kind.startswith(PBE):
            return 0
        fields = parameters.items(der.SEQUENCE, 2)
        return _count(fields[1]) if fields[1].tag == der.INTEGER else 0
    except MalformedMessage:
        return 0


def _count(number: der.Node) -> int:
    """Never below zero: it would make up for others."""
    return max(0, number.as_int())


def _elements(whole: der.Node) -> list[der.Node]:
    """All that is not encrypted."""
    found: list[der.Node] = []
    waiting = [(whole, 0)]
    while waiting:
        element, level = waiting.pop()
        found.append(element)
        if len(found) > MAX_ELEMENTS:
            raise MalformedMessage("PKCS#12", f"at most {MAX_ELEMENTS} elements", "more")
        if not element.is_constructed:
            continue
        within = element.children()
        waiting += [(one, level) for one in within]
        if level < LEVELS and _is_data(within):
            content = within[1].items(0xA0, 1)[0].octets()
            waiting.append((der.read(content, "PKCS#12"), level + 1))
    return found


def _is_data(fields: list[der.Node]) -> bool:
    """Whether these are a ContentInfo whose content stands in the clear, as more DER in an OCTET STRING."""
    return (
        len(fields) > 1
        and fields[0].tag == der.OID
        and fields[1].tag == 0xA0
        and fields[0].as_oid() == DATA
    )
