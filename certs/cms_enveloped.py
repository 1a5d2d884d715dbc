"""EnvelopedData (RFC 5652, section 6): RSA key transport around a CBC cipher, written for one recipient or several.

Reading is tolerant: several recipients, PKCS#1 v1.5 or OAEP, content as primitive or constructed [0] (Go peers write
the latter), BER. Whatever is wrong with key or content ends in the same `CannotDecrypt` on the same path, because a
peer that can tell the cases apart can decrypt by asking.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher as CipherContext
from cryptography.hazmat.primitives.ciphers.modes import CBC

from certs import der
from certs.algorithms import (
    CIPHER_BY_OID,
    CIPHERS,
    HASHES,
    MGF1,
    PKCS1_V15,
    RSA_ENCRYPTION,
    RSAES_OAEP,
    Cipher,
    ContentCipher,
    UnsupportedAlgorithm,
    digest_identifier,
    oid_of,
    read_digest,
    read_mask,
)
from certs.certificate_parts import issuer_and_serial, rsa_public_key, subject_key_identifier
from certs.errors import CannotDecrypt, CertsError, MalformedMessage
from certs.identity import Identity

DATA = "1.2.840.113549.1.7.1"
ENVELOPED_DATA = "1.2.840.113549.1.7.3"
ENVELOPE = "EnvelopedData"
OF_DATA = der.oid(DATA)
OF_ENVELOPED_DATA = der.oid(ENVELOPED_DATA)
VERSION_0 = der.integer(0)

Oaep = Literal["sha1", "sha256"]


def encrypt(
    content: bytes,
    recipients: Sequence[x509.Certificate],
    cipher: Cipher = "aes128",
    *,
    ber: bool = False,
    constructed: bool = False,
    oaep: Oaep | None = None,
) -> bytes:
    """A ContentInfo with EnvelopedData that each of `recipients` can open. Raises MalformedMessage for a key not RSA.

    `ber` writes the outer levels with indefinite lengths and the content constructed, as Apple's portal does;
    `constructed` the content alone, as Go peers do. `oaep` is the digest of RSAES-OAEP; None means PKCS#1 v1.5, which is all
    that Apple's clients take.
    """
    chosen = CIPHERS[cipher]
    drawn = os.urandom(chosen.key_size + chosen.block_size)
    key, iv = drawn[: chosen.key_size], drawn[chosen.key_size :]
    context = CipherContext(chosen.new(key), CBC(iv)).encryptor()
    missing = chosen.block_size - len(content) % chosen.block_size
    encrypted = context.update(content + bytes((missing,)) * missing) + context.finalize()
    write = der.indefinite if ber else der.tlv
    algorithm = der.sequence(der.oid(chosen.oid), der.octet_string(iv))
    if ber:
        octets = der.indefinite(0xA0, der.octet_string(encrypted))
    elif constructed:
        octets = der.context(0, der.octet_string(encrypted))
    else:
        octets = der.context(0, encrypted, constructed=False)
    recipient_infos = der.set_of(
        *(_key_transport(recipient, key, oaep) for recipient in recipients)
    )
    enveloped = write(
        der.SEQUENCE,
        VERSION_0,
        recipient_infos,
        write(der.SEQUENCE, OF_DATA, algorithm, octets),
    )
    return write(der.SEQUENCE, OF_ENVELOPED_DATA, write(0xA0, enveloped))


def _key_transport(recipient: x509.Certificate, key: bytes, oaep: Oaep | None) -> bytes:
    """KeyTransRecipientInfo version 0."""
    public = rsa_public_key(recipient)
    if public is None:
        raise MalformedMessage("recipient certificate", "an RSA key")
    if oaep is None:
        algorithm, encrypted = _PKCS1, public.encrypt(key, PKCS1_V15)
    else:
        algorithm, encrypted = _oaep(oaep), public.encrypt(key, _oaep_padding(HASHES[oaep]))
    return der.sequence(
        VERSION_0,
        issuer_and_serial(recipient),
        algorithm,
        der.octet_string(encrypted),
    )


_PKCS1 = der.sequence(der.oid(RSA_ENCRYPTION), der.null())


def _oaep_padding(digest: hashes.HashAlgorithm) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(digest), digest, None)


def _oaep(digest: Oaep) -> bytes:
    """AlgorithmIdentifier of RSAES-OAEP (RFC 4055, section 4.1); SHA-1 is the default of both fields."""
    if digest == "sha1":
        return der.sequence(der.oid(RSAES_OAEP), der.sequence())
    identifier = digest_identifier(digest)
    mask = der.sequence(der.oid(MGF1), identifier)
    parameters = der.sequence(der.context(0, identifier), der.context(1, mask))
    return der.sequence(der.oid(RSAES_OAEP), parameters)


def decrypt(data: bytes, identity: Identity) -> bytes:
    """The content, if the envelope is for `identity`.

    Raises CannotDecrypt for a wrong key and for damage alike, and UnsupportedAlgorithm for a cipher or key transport
    that we do not speak (both are named in the clear).
    """
    try:
        return _open(data, identity)
    except UnsupportedAlgorithm:
        raise
    except CertsError:
        raise CannotDecrypt(ENVELOPE) from None


def cipher_of(data: bytes) -> Cipher | None:
    """Which cipher an envelope names; None when it is unreadable or names one we do not speak."""
    try:
        return _envelope(data).cipher.name
    except CertsError:
        return None


class _Envelope(NamedTuple):
    """The parts of an EnvelopedData, the last two not looked at yet."""

    recipients: der.Node
    cipher: ContentCipher
    algorithm: list[der.Node]
    content: der.Node


@lru_cache(maxsize=4)
def _envelope(data: bytes) -> _Envelope:
    """Looked at for the cipher first, and again to be opened."""
    content_type, *content = der.read(data, ENVELOPE).items(der.SEQUENCE, 2)
    if content_type.as_oid() != ENVELOPED_DATA:
        raise MalformedMessage(ENVELOPE, "content type envelopedData", content_type.as_oid())
    fields = content[0].items(0xA0, 1)[0].items(der.SEQUENCE, 3)
    if fields[1].tag == 0xA0:  # originatorInfo
        del fields[1]
    if len(fields) < 3:
        raise MalformedMessage(ENVELOPE, "recipientInfos and encryptedContentInfo")
    _, identifier, encrypted = fields[2].items(der.SEQUENCE, 3)[:3]
    algorithm = identifier.items(der.SEQUENCE, 1)
    dotted = algorithm[0].as_oid()
    try:
        cipher = CIPHER_BY_OID[dotted]
    except KeyError:
        raise UnsupportedAlgorithm(ENVELOPE, "DES, 3DES or AES in CBC mode", dotted) from None
    return _Envelope(fields[1], cipher, algorithm, encrypted)


def _open(data: bytes, identity: Identity) -> bytes:
    envelope = _envelope(data)
    cipher = envelope.cipher
    recipient = _own_recipient(envelope.recipients, identity)
    if len(envelope.algorithm) < 2:
        raise CannotDecrypt(ENVELOPE)
    iv = envelope.algorithm[1].expect(der.OCTET_STRING).content
    encrypted = envelope.content.expect(0x80, 0xA0).octets()
    if len(iv) != cipher.block_size or not encrypted or len(encrypted) % cipher.block_size:
        raise CannotDecrypt(ENVELOPE)
    # From here on a wrong key, a damaged key and damaged content all take the same steps: a key that did not come out
    # is replaced by a random one (RFC 3218, section 2.3.2) and the padding then decides.
    key = _unwrap(recipient, identity, cipher.key_size)
    context = CipherContext(cipher.new(key), CBC(iv)).decryptor()
    padded = context.update(encrypted) + context.finalize()
    missing = padded[-1]
    if not 1 <= missing <= cipher.block_size or padded[-missing:] != bytes((missing,)) * missing:
        raise CannotDecrypt(ENVELOPE)
    return padded[:-missing]


def _own_recipient(recipients: der.Node, identity: Identity) -> list[der.Node]:
    """The KeyTransRecipientInfo that names our certificate, wherever it stands among the others."""
    own = issuer_and_serial(identity.certificate)
    for recipient in recipients.expect(der.SET).children():
        if recipient.tag != der.SEQUENCE:  # key agreement and other kinds
            continue
        info = recipient.items(der.SEQUENCE, 4)
        rid = info[1]
        if rid.raw == own or (rid.tag == der.SEQUENCE and der.sequence(rid.content) == own):
            return info
        if rid.tag in (0x80, 0xA0) and rid.octets() == subject_key_identifier(identity.certificate):
            return info
    raise CannotDecrypt(ENVELOPE)


def _unwrap(recipient: list[der.Node], identity: Identity, size: int) -> bytes:
    """The content key, or a random one in its place."""
    scheme = _transport_scheme(recipient[2])
    wrapped = recipient[3].expect(der.OCTET_STRING, 0x24).octets()
    substitute = os.urandom(size)
    if not isinstance(identity.key, rsa.RSAPrivateKey):
        raise CannotDecrypt(ENVELOPE)
    try:
        key = identity.key.decrypt(wrapped, scheme)
    except ValueError:
        return substitute
    return key if len(key) == size else substitute


def _transport_scheme(algorithm: der.Node) -> padding.PKCS1v15 | padding.OAEP:
    dotted = oid_of(algorithm)
    if dotted == RSA_ENCRYPTION:
        return PKCS1_V15
    if dotted != RSAES_OAEP:
        raise UnsupportedAlgorithm(ENVELOPE, "RSA key transport", dotted)
    parts = algorithm.children()
    # RFC 4055, section 4.1: [0] digest, [1] mask, [2] label; an empty SEQUENCE means SHA-1 in both places.
    parameters = parts[1].children() if len(parts) > 1 and parts[1].tag == der.SEQUENCE else []
    tagged = {node.tag: node.items(node.tag, 1)[0] for node in parameters}
    digest: hashes.HashAlgorithm = HASHES["sha1"]
    mask: hashes.HashAlgorithm = HASHES["sha1"]
    if 0xA0 in tagged:
        digest = HASHES[read_digest(tagged[0xA0])]
    if 0xA1 in tagged:
        mask = HASHES[read_mask(tagged[0xA1])]
    label = None
    if 0xA2 in tagged:
        label = tagged[0xA2].items(der.SEQUENCE, 2)[1].expect(der.OCTET_STRING).content or None
    return padding.OAEP(padding.MGF1(mask), digest, label)
