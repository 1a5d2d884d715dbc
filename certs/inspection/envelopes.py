"""CMS files in words: signed, enveloped, certificates alone; and the SCEP messages among them."""

from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, der, names, trust
from certs.algorithms import CIPHER_BY_OID, RSA_ENCRYPTION, RSAES_OAEP
from certs.cms import SignedData
from certs.errors import CertsError, InvalidSignature, MalformedMessage
from certs.inspection import x509_objects
from certs.inspection.report import Inside, Report, blob, moment
from certs.scep import message
from certs.scep.message import FailInfo, MessageType, PkiStatus

ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"
WEAK: Final = {"des": "single DES", "sha1": "SHA-1"}
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


def signed(report: Report, data: bytes, inside: Inside) -> None:
    """A ContentInfo with SignedData. Raises MalformedMessage."""
    found = cms.decode_signed(data)
    if not found.signers:
        report.say("certificates alone (degenerate SignedData)")
        with report:
            x509_objects.chain(report, list(found.certificates))
        return
    scep = message.MESSAGE_TYPE in (found.signers[0].attributes or {})
    report.say("SCEP pkiMessage" if scep else "signed message (CMS SignedData)")
    with report:
        report.say("encoding", "BER, indefinite lengths" if data[1:2] == b"\x80" else "DER")
        _signer(report, found)
        if scep:
            _scep(report, data, found)
        if found.content is None:
            report.say("content", "none: a detached signature, good for its body alone")
        elif found.content:
            report.say("content", f"{len(found.content)} bytes")
            with report:
                inside(report, found.content, "signed content")
        for one in found.certificates:
            with report:
                x509_objects.certificate(report, one.public_bytes(Encoding.DER))


def _signer(report: Report, found: SignedData) -> None:
    if len(found.signers) > 1:
        report.wrong(f"{len(found.signers)} signers: devices and servers take one")
    signer = found.signers[0]
    report.say("digest", signer.digest)
    if signer.digest in WEAK:
        report.wrong(f"digest {WEAK[signer.digest]}: some servers refuse it")
    if signer.attributes is None:
        report.say("signed attributes", "none: the signature is over the content itself")
    else:
        try:
            if (at := signer.signing_time) is not None:
                report.say("signing time", moment(at))
        except MalformedMessage as error:
            report.wrong(str(error))
    if found.content is None:
        return
    try:
        certificate = cms.verify_signed(found)
    except (MalformedMessage, InvalidSignature) as error:
        if "signer's certificate" in str(error):
            report.say("signer", "its certificate is not in the message")
        else:
            report.wrong(f"signature: {error}")
        return
    report.say("signature is valid, by", trust.name_of(certificate))
    others = [one for one in found.certificates if one != certificate]
    if report.context.roots:
        x509_objects.trusted(report, certificate, others)


def _scep(report: Report, data: bytes, found: SignedData) -> None:
    """The SCEP attributes, checked as our server and client check them."""
    attributes = found.signers[0].attributes or {}
    kind = _latin(attributes.get(message.MESSAGE_TYPE))
    report.say("messageType", f"{kind} ({TYPES.get(kind, 'unknown')})")  # type: ignore[call-overload]
    report.say("transactionID", _latin(attributes.get(message.TRANSACTION_ID)) or "missing")
    for dotted, name in (
        (message.SENDER_NONCE, "senderNonce"),
        (message.RECIPIENT_NONCE, "recipientNonce"),
    ):
        if dotted in attributes:
            report.say(name, blob(attributes[dotted].content))
    try:
        if kind == MessageType.CERT_REP:
            answer = message.CertRep.decode(data)
            report.say("pkiStatus", f"{answer.status.value} ({STATUSES[answer.status]})")
            if answer.fail_info is not None:
                why = FAILURES.get(answer.fail_info, "unknown")  # type: ignore[call-overload]
                report.say("failInfo", f"{answer.fail_info} ({why})")
            if answer.fail_info_text:
                report.say("failInfoText", answer.fail_info_text)
            if answer.recipient_nonce is None:
                report.wrong("CertRep without recipientNonce")
            if answer.status is PkiStatus.FAILURE and answer.fail_info is None:
                report.wrong("CertRep FAILURE without failInfo")
        else:
            asked = message.PkiRequest.decode(data)
            if len(asked.sender_nonce) != 16:
                report.say("senderNonce is not of 16 bytes, as Apple's clients do it")
    except MalformedMessage as error:
        report.wrong(str(error))
    if "1.2.840.113549.1.9.7" in attributes:
        report.wrong("the challenge password stands in the clear, as a signed attribute")


def _latin(node: der.Node | None) -> str:
    return "" if node is None else node.content[:255].decode("latin-1")


def enveloped(report: Report, data: bytes, inside: Inside) -> None:
    """A ContentInfo with EnvelopedData. Raises MalformedMessage."""
    content = der.read(data, "EnvelopedData").items(der.SEQUENCE, 2)[1]
    fields = content.items(0xA0, 1)[0].items(der.SEQUENCE, 3)
    if fields[1].tag == 0xA0:  # originatorInfo
        del fields[1]
    if len(fields) < 3:
        raise MalformedMessage("EnvelopedData", "recipientInfos and encryptedContentInfo")
    report.say("encrypted message (CMS EnvelopedData)")
    with report:
        report.say("encoding", "BER, indefinite lengths" if data[1:2] == b"\x80" else "DER")
        for recipient in fields[1].expect(der.SET, field="recipientInfos").children():
            report.say("for", _recipient(recipient))
        information = fields[2].items(der.SEQUENCE, 2, "encryptedContentInfo")
        dotted = information[1].items(der.SEQUENCE, 1)[0].as_oid()
        cipher = CIPHER_BY_OID.get(dotted)
        report.say("cipher", dotted if cipher is None else f"{cipher.name}-cbc")
        if cipher is None:
            report.wrong(f"cipher {dotted} is none of DES, 3DES and AES in CBC mode")
        elif cipher.name in WEAK:
            report.wrong(f"cipher {WEAK[cipher.name]}: some devices and servers refuse it")
        _opened(report, data, inside)


def _recipient(node: der.Node) -> str:
    if node.tag != der.SEQUENCE:
        return f"a recipient of another kind (tag 0x{node.tag:02x})"
    fields = node.items(der.SEQUENCE, 4, "RecipientInfo")
    transport = fields[2].items(der.SEQUENCE, 1)[0].as_oid()
    how = {RSA_ENCRYPTION: "RSA PKCS#1 v1.5", RSAES_OAEP: "RSA OAEP"}.get(transport, transport)
    if fields[1].tag != der.SEQUENCE:
        return f"key identifier {blob(fields[1].octets())}, by {how}"
    issuer, serial = fields[1].items(der.SEQUENCE, 2)[:2]
    return f"serial number {serial.as_int():x} of {_name(issuer.raw)}, by {how}"


def _name(data: bytes) -> str:
    """An X.500 name by itself, which cryptography does not read."""
    parts = []
    for relative in der.read(data, "name").children():
        for attribute in relative.children():
            dotted, value = attribute.items(der.SEQUENCE, 2)[:2]
            oid = dotted.as_oid()
            label = NAMES.get(oid, oid)
            parts.append(f"{label}={value.as_text()}")
    return ",".join(parts) or "(empty name)"


def _opened(report: Report, data: bytes, inside: Inside) -> None:
    for identity in report.context.identities:
        try:
            content = cms.decrypt(data, identity)
        except CertsError:
            continue
        report.say("opened with the key of", names.text(identity.certificate.subject))
        with report:
            inside(report, content, "decrypted content")
        return
    if report.context.identities:
        report.wrong("none of the given keys opens the envelope, or it is damaged")
