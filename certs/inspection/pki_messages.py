"""SCEP messages in words (RFC 8894, section 3): the attributes of a pkiMessage, and whether it carries what its type asks for."""

from typing import Final

from certs import cms, csr, der
from certs.cms import SignedData
from certs.cms_enveloped import ENVELOPED_DATA
from certs.errors import CertsError, MalformedMessage
from certs.inspection.report import Report, blob
from certs.scep import message
from certs.scep.message import FailInfo, MessageType, PkiStatus

TYPES: Final = {
    MessageType.CERT_REP: "CertRep, an answer",
    MessageType.RENEWAL_REQ: "RenewalReq, a request signed with the certificate to renew",
    MessageType.UPDATE_REQ: "UpdateReq, as early drafts called a renewal",
    MessageType.PKCS_REQ: "PKCSReq, a request for a certificate",
    MessageType.CERT_POLL: "CertPoll, asking whether a certificate is ready",
    MessageType.GET_CERT: "GetCert, asking for a certificate by its number",
    MessageType.GET_CRL: "GetCRL, asking for the revocation list",
}
STATUSES: Final = {
    PkiStatus.SUCCESS: "SUCCESS",
    PkiStatus.FAILURE: "FAILURE",
    PkiStatus.PENDING: "PENDING: ask again later",
}
FAILURES: Final = {
    FailInfo.BAD_ALG: "badAlg: an algorithm that the server does not speak",
    FailInfo.BAD_MESSAGE_CHECK: "badMessageCheck: the message does not prove what it should",
    FailInfo.BAD_REQUEST: "badRequest: not allowed, or a wrong challenge",
    FailInfo.BAD_TIME: "badTime: signingTime is too far off",
    FailInfo.BAD_CERT_ID: "badCertId: nothing is known under this name",
}
REQUESTS: Final = (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.UPDATE_REQ)
NAMED: Final[dict[str, str]] = {
    MessageType.CERT_POLL: "the names of issuer and subject",
    MessageType.GET_CERT: "the issuer's name and a serial number",
    MessageType.GET_CRL: "the issuer's name and a serial number",
}
STRINGS: Final = {
    message.MESSAGE_TYPE: "messageType",
    message.PKI_STATUS: "pkiStatus",
    message.FAIL_INFO: "failInfo",
    message.TRANSACTION_ID: "transactionID",
}
NONCES: Final = {
    message.SENDER_NONCE: "senderNonce",
    message.RECIPIENT_NONCE: "recipientNonce",
}
NAMES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}


def kind_of(found: SignedData) -> str:
    """The messageType, whatever it says."""
    return _latin((found.signers[0].attributes or {}).get(message.MESSAGE_TYPE))


def describe(report: Report, data: bytes, found: SignedData) -> None:
    """The attributes, checked as our server and client check them, and as stricter peers do."""
    attributes = found.signers[0].attributes or {}
    kind = kind_of(found)
    report.say("messageType", f"{kind} ({TYPES.get(kind, 'unknown')})")  # type: ignore[call-overload]
    report.say("transactionID", _latin(attributes.get(message.TRANSACTION_ID)) or "missing")
    for dotted, label in NONCES.items():
        if dotted in attributes:
            report.say(label, blob(attributes[dotted].content))
    if kind not in TYPES:
        report.wrong(f"messageType {kind} is none of RFC 8894")
    for dotted, label in STRINGS.items():
        if dotted in attributes:
            _string(report, attributes[dotted], label)
    try:
        if kind == MessageType.CERT_REP:
            _answer(report, message.CertRep.decode(data))
        else:
            asked = message.PkiRequest.decode(data)
            if len(asked.sender_nonce) != 16:
                report.say("senderNonce is not of 16 bytes, as Apple's clients do it")
            if not _is_envelope(asked.signed.content):
                report.wrong("a request without an envelope: its content is not EnvelopedData")
    except MalformedMessage as error:
        report.wrong(str(error))
    if csr.CHALLENGE_PASSWORD in attributes:
        report.wrong("the challenge password stands in the clear, as a signed attribute")


def _string(report: Report, node: der.Node, label: str) -> None:
    """A PrintableString, as Go reads no other (section 3.2.1)."""
    if node.tag != der.PRINTABLE_STRING:
        report.wrong(f"{label} is no PrintableString: strict readers refuse it")
    elif not der.is_printable(node.content.decode("latin-1")):
        report.wrong(f"{label} has characters that PrintableString does not have")


def _answer(report: Report, answer: message.CertRep) -> None:
    report.say("pkiStatus", f"{answer.status.value} ({STATUSES[answer.status]})")
    if answer.fail_info is not None:
        why = FAILURES.get(answer.fail_info)  # type: ignore[call-overload]
        report.say("failInfo", f"{answer.fail_info} ({why or 'unknown'})")
        if why is None:
            report.wrong(f"failInfo {answer.fail_info} is none of RFC 8894")
        if answer.status is not PkiStatus.FAILURE:
            report.wrong(f"CertRep {answer.status.name} with failInfo")
    elif answer.status is PkiStatus.FAILURE:
        report.wrong("CertRep FAILURE without failInfo")
    if answer.fail_info_text:
        report.say("failInfoText", answer.fail_info_text)
    if answer.recipient_nonce is None:
        report.wrong("CertRep without recipientNonce")
    if answer.status is PkiStatus.SUCCESS:
        if not _is_envelope(answer.signed.content):
            report.wrong("CertRep SUCCESS without an envelope: its content is not EnvelopedData")
    elif answer.signed.content:
        report.wrong(f"CertRep {answer.status.name} with content: only SUCCESS has an envelope")


def _is_envelope(content: bytes | None) -> bool:
    try:
        first = der.read(content or b"").items(der.SEQUENCE, 2)[0]
        return first.as_oid() == ENVELOPED_DATA
    except MalformedMessage:
        return False


def content(report: Report, opened: bytes) -> bool:
    """Whether an opened envelope holds what its message asks for. True: it was told here, as the names and numbers of
    CertPoll, GetCert and GetCRL are no file; False: the reader of its kind is still to say what it holds.
    """
    kind = report.message_type
    if kind in NAMED:
        try:
            _names(report, kind, opened)
        except MalformedMessage:
            report.wrong(f"the envelope of a {_word(kind)} does not hold {NAMED[kind]}")
            return False
        return True
    try:
        if kind == MessageType.CERT_REP:
            cms.decode_certs_only(opened)
        elif kind in REQUESTS:
            csr.decode(opened)
    except MalformedMessage:
        wanted = "certificates" if kind == MessageType.CERT_REP else "a certificate request"
        report.wrong(f"the envelope of a {_word(kind)} does not hold {wanted}")
    except CertsError:
        pass  # its reader says so
    return False


def _names(report: Report, kind: str, opened: bytes) -> None:
    issuer, second = der.read(opened, "messageData").items(der.SEQUENCE, 2)[:2]
    said = name(second.raw) if kind == MessageType.CERT_POLL else f"{second.as_int():x}"
    report.say("issuer", name(issuer.raw))
    report.say("subject" if kind == MessageType.CERT_POLL else "serial number", said)


def _word(kind: str) -> str:
    return TYPES[MessageType(kind)].partition(",")[0]


def name(data: bytes) -> str:
    """An X.500 name by itself, which cryptography does not read."""
    parts = []
    for relative in der.read(data, "name").expect(der.SEQUENCE).children():
        for attribute in relative.children():
            dotted, value = attribute.items(der.SEQUENCE, 2)[:2]
            oid = dotted.as_oid()
            label = NAMES.get(oid, oid)
            parts.append(f"{label}={value.as_text()}")
    return ",".join(parts) or "(empty name)"


def _latin(node: der.Node | None) -> str:
    return "" if node is None else node.content[:255].decode("latin-1")
