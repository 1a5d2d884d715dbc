"""CMS files in words: signed, enveloped, certificates alone. What SCEP adds is told by `pki_messages`."""

from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, der, names, trust
from certs.algorithms import CIPHER_BY_OID, RSA_ENCRYPTION, RSAES_OAEP
from certs.cms import SignedData
from certs.errors import CertsError, InvalidSignature, MalformedMessage
from certs.inspection import pki_messages, x509_objects
from certs.inspection.report import Inside, Report, blob, moment
from certs.scep import message

WEAK: Final = {"des": "single DES", "sha1": "SHA-1"}


def signed(report: Report, data: bytes, inside: Inside) -> None:
    """A ContentInfo with SignedData. Raises MalformedMessage."""
    found = cms.decode_signed(data)
    if not found.signers:
        _degenerate(report, data, found)
        return
    scep = message.MESSAGE_TYPE in (found.signers[0].attributes or {})
    report.say("SCEP pkiMessage" if scep else "signed message (CMS SignedData)")
    with report:
        report.say("encoding", "BER, indefinite lengths" if data[1:2] == b"\x80" else "DER")
        _signer(report, found)
        if scep:
            pki_messages.describe(report, data, found)
        if found.content is None and not scep:
            report.say("content", "none: a detached signature, good for its body alone")
        elif found.content:
            report.say("content", f"{len(found.content)} bytes")
            before = report.message_type
            report.message_type = pki_messages.kind_of(found) if scep else ""
            with report:
                inside(report, found.content, "signed content")
            report.message_type = before
        for one in found.certificates:
            with report:
                x509_objects.certificate(report, one.public_bytes(Encoding.DER))


def _degenerate(report: Report, data: bytes, found: SignedData) -> None:
    """Certificates, and the revocation lists that answer a GetCRL."""
    fields = der.read(data).items(der.SEQUENCE, 2)[1].items(0xA0, 1)[0].children()
    lists = [one.raw for field in fields if field.tag == 0xA1 for one in field.children()]
    report.say("certificates alone (degenerate SignedData)")
    with report:
        x509_objects.chain(report, list(found.certificates))
        for one in lists:
            x509_objects.revocation_list(report, one)
    if not found.certificates and not lists:
        report.wrong("the message holds neither certificates nor revocation lists")


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
        # Servers of Microsoft leave their certificate out: it may be among those given.
        certificate = cms.verify_signed(found, candidates=report.context.roots)
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
        recipients = fields[1].expect(der.SET, field="recipientInfos").children()
        for recipient in recipients:
            report.say("for", _recipient(recipient))
        if not recipients:
            report.wrong("the envelope is for nobody: no recipientInfos")
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
    return f"serial number {serial.as_int():x} of {pki_messages.name(issuer.raw)}, by {how}"


def _opened(report: Report, data: bytes, inside: Inside) -> None:
    for identity in report.context.identities:
        try:
            content = cms.decrypt(data, identity)
        except CertsError:
            continue
        report.say("opened with the key of", names.text(identity.certificate.subject))
        with report:
            if not pki_messages.content(report, content):
                inside(report, content, "decrypted content")
        return
    if report.context.identities:
        report.wrong("none of the given keys opens the envelope, or it is damaged")
