"""Which kind of file is this? `inspect` finds out, unwraps PEM, base64 and S/MIME, and hands over to the reader of the kind."""

import base64
import binascii
import contextlib
import re
import warnings
from email import message_from_bytes
from email.errors import MessageError
from typing import Final

from cryptography import x509

from certs import der, trust
from certs.errors import CertsError, InvalidSignature, MalformedMessage
from certs.identity import is_pkcs12
from certs.inspection import envelopes, others, plists, x509_objects
from certs.inspection.report import MAX_DEPTH, Context, Report, blob

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_BLOCKS: Final = 50
CONTENT_INFOS: Final = {
    "1.2.840.113549.1.7.2": envelopes.signed,
    "1.2.840.113549.1.7.3": envelopes.enveloped,
}
TIMES: Final = (der.UTC_TIME, der.GENERALIZED_TIME)
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 #]{3,40})-----\s(.*?)-----END \1-----", re.DOTALL)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_MIME: Final = re.compile(rb"\A(?:[\w-]+:[^\n]*\n(?:[ \t][^\n]*\n)*)+\r?\n", re.IGNORECASE)


def inspect(data: bytes, context: Context) -> Report:
    """Everything there is to say about a file; never raises for its content."""
    report = Report(context)
    if len(data) > MAX_FILE_BYTES:
        report.wrong(f"{len(data)} bytes: more than {MAX_FILE_BYTES} are not read")
        return report
    with warnings.catch_warnings(record=True) as noticed:
        # What cryptography takes all the same, others may not.
        warnings.simplefilter("always")
        _file(report, data, "file")
    for warning in noticed:
        report.wrong(f"a name or an extension is not as the standard has it: {warning.message}")
    return report


def _file(report: Report, data: bytes, what: str) -> None:
    """One file, or one inside another; what is wrong with it becomes a problem of the whole."""
    if report.depth == MAX_DEPTH:
        report.say(f"{what}: {blob(data)}, too deep to be read")
        return
    report.depth += 1
    try:
        _reader(report, data)
    except InvalidSignature as error:
        report.say(f"wrongly signed {what}", blob(data))
        report.wrong(str(error))
    except CertsError as error:
        report.say(f"unreadable {what}", blob(data))
        report.wrong(str(error))
    finally:
        report.depth -= 1


def _carried(report: Report, data: bytes, what: str) -> None:
    """A file inside a profile or command."""
    before, report.in_profile = report.in_profile, True
    try:
        _file(report, data, what)
    finally:
        report.in_profile = before


def _reader(report: Report, data: bytes) -> None:
    text = data.lstrip()
    if not text:
        report.say("empty")
        report.wrong("the file is empty")
    elif plists.looks_like(data):
        plists.describe(report, data, _carried)
    elif text[:1] in (b"{", b"["):
        others.json_text(report, data)
    elif b"-----BEGIN " in data:
        _blocks(report, data)
    elif data[0] == der.SEQUENCE and (data[1:2] == b"\x80" or _fits(data)):
        _der(report, data)
    elif 0xA0 <= data[0] <= 0xBF:
        others.attestation_object(report, data)
    elif _MIME.match(data):
        _mime(report, data)
    elif (decoded := _from_base64(text)) is not None:
        report.say("base64 of")
        with report:
            _file(report, decoded, "content of the base64")
    else:
        others.unknown(report, data)


def _fits(data: bytes) -> bool:
    try:
        der.read(data)
    except MalformedMessage:
        return len(data) > 64  # a DER file that was cut: let its reader say so
    return True


def _der(report: Report, data: bytes) -> None:
    """Which of the SEQUENCEs it is, by what stands at the front."""
    whole = der.read(data)
    if more := len(data) - len(whole.raw):
        report.wrong(f"{more} bytes stand behind the end: strict readers refuse that")
    first = whole.items(der.SEQUENCE, 1)
    if first[0].tag == der.OID:
        dotted = first[0].as_oid()
        reader = CONTENT_INFOS.get(dotted)
        if reader is None:
            raise MalformedMessage("ContentInfo", "signedData or envelopedData", dotted)
        reader(report, data, _file)
    elif is_pkcs12(data):
        others.pkcs12(report, data)
    elif first[0].tag == der.INTEGER:
        others.private_key(report, data)
    elif len(first) == 2 and first[1].tag == der.BIT_STRING:
        others.public_key(report, data)
    elif len(first) == 2 and first[1].tag == der.OCTET_STRING:
        report.say("private key, encrypted: convert it to PEM to name its password")
    else:
        _signed_object(report, data, first)


def _signed_object(report: Report, data: bytes, parts: list[der.Node]) -> None:
    """Certificate, request or revocation list: all three are a body, an algorithm and a signature."""
    body = parts[0].items(der.SEQUENCE, 3)
    if any(node.tag in TIMES for node in body[2:5]):
        x509_objects.revocation_list(report, der.read(data).raw)
    elif body[0].tag == der.INTEGER and len(body) <= 4:
        x509_objects.request(report, data)
    else:
        x509_objects.certificate(report, der.read(data).raw, alone=not report.in_profile)


def _blocks(report: Report, data: bytes) -> None:
    """Every PEM block of a text."""
    found = list(_BLOCK.finditer(data))
    if not found:
        raise MalformedMessage("PEM", "a whole block", "no end of it")
    report.beside = _certificates(found[:MAX_BLOCKS])
    for match in found[:MAX_BLOCKS]:
        label = match[1].decode()
        if label.endswith("PRIVATE KEY"):
            others.private_key(report, match[0] + b"\n")
            continue
        if label == "PUBLIC KEY":
            others.public_key(report, match[0] + b"\n")
            continue
        if label == "MESSAGE":  # of Apple's server tokens: text, not base64
            _file(report, match[2].strip(), "message")
            continue
        body = match[2].rpartition(b"\n\n")[2] if b":" in match[2] else match[2]
        try:
            decoded = base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error as error:
            report.wrong(f"PEM block {label}: {error}")
            continue
        _file(report, decoded, f"PEM block {label}")
    if len(found) > MAX_BLOCKS:
        report.say(f"and {len(found) - MAX_BLOCKS} more PEM blocks")


def _certificates(blocks: list[re.Match[bytes]]) -> list[x509.Certificate]:
    """Those that can be read; the others have their own line later."""
    found = []
    for match in blocks:
        if match[1] == b"CERTIFICATE":
            with contextlib.suppress(*trust.UNREADABLE):
                found.append(x509.load_pem_x509_certificate(match[0] + b"\n"))
    return found


def _mime(report: Report, data: bytes) -> None:
    """An S/MIME message, such as the .p7m of a server token."""
    try:
        part = message_from_bytes(data)
        content = part.get_payload(decode=True)
    except (MessageError, ValueError, LookupError) as error:
        raise MalformedMessage("MIME", "a message", str(error)) from error
    report.say("MIME message", part.get_content_type())
    with report:
        if isinstance(content, bytes) and content:
            _file(report, content, "content of the MIME message")
        else:
            report.wrong("the MIME message has no body that can be decoded")


def _from_base64(text: bytes) -> bytes | None:
    """The bytes behind a base64 or base64url text that is nothing else, also as `:…:` of an HTTP header (RFC 8941)."""
    text = text.strip()
    if text[:1] == text[-1:] == b":":
        text = text[1:-1]
    if len(text) < 16 or not _BASE64.fullmatch(text):
        return None
    compact = b"".join(text.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True) or None
    except binascii.Error:
        return None
