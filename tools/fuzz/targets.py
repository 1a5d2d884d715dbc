"""What is fuzzed: each decoder with its documented errors and the good files to start from.

A target goes as far as a server or device goes with what a peer sent: it decodes, verifies, opens and looks at every part.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from certs import attestation, cms, crl, csr, der, trust
from certs.acme import inner_jws, issuance, jws
from certs.acme.account import Account, AccountUpdate, NewAccount, OrdersList, check_contacts
from certs.acme.device_attest import AttestationObject, judge
from certs.acme.message import Authorization, Challenge, Directory, Order
from certs.acme.problem import decode_problem
from certs.acme.wanted import wanted_identifiers
from certs.authorize import Grant
from certs.errors import (
    AcmeProblem,
    CannotDecrypt,
    CertsError,
    InvalidSignature,
    MalformedMessage,
    UntrustedCertificate,
)
from certs.inspection import files as inspection
from certs.inspection.report import Context
from certs.scep.message import CertRep, PkiRequest
from emulator.errors import EmulatorError
from emulator.wire import (
    account_token,
    activation,
    activation_info,
    buddyml,
    checkin,
    cloudconfig,
    command,
    factory,
    machineinfo,
    plist,
    profile,
    push,
)
from emulator.wire import (
    attestation as wire_attestation,
)
from tools.fuzz import acme_goldens, goldens

AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
VECTORS: Final = Path(__file__).resolve().parents[3] / "shared" / "vectors"
OWN_VECTORS: Final = Path(__file__).resolve().parents[2] / "tests" / "vectors"
MAX_SEED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder."""

    name: str
    decode: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[type[Exception], ...] = (MalformedMessage,)


@cache
def captured(*patterns: str) -> tuple[bytes, ...]:
    """Files of others and our own goldens that match; none where the folder is absent."""
    found = []
    for root in (VECTORS, OWN_VECTORS):
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                if path.is_file() and path.stat().st_size <= MAX_SEED_BYTES:
                    found.append(path.read_bytes())
    return tuple(found)


def _der(data: bytes) -> None:
    """Every element, read as each of the things it may be."""
    open_ = [der.read(data)]
    for _ in range(2000):
        if not open_:
            return
        node = open_.pop()
        for look in (node.as_oid, node.as_int, node.as_text, node.as_time, node.octets, node.bits):
            try:
                look()
            except MalformedMessage:
                continue
        try:
            open_ += node.children()
        except MalformedMessage:
            continue


def _cms(data: bytes) -> None:
    signed = cms.decode_signed(data)
    for signer in signed.signers:
        _ = signer.signing_time
    cms.verify_signed(signed, content=None if signed.content is not None else b"body")


def _certs_only(data: bytes) -> None:
    for one in cms.decode_certs_only(data):
        trust.verify_chain(one, [], goldens.roots(), at=AT)


def _scep(data: bytes) -> None:
    request = PkiRequest.decode(data)
    _ = request.cipher, request.signing_time, request.digest
    request.verify()
    csr.decode(request.open(goldens.ra()))


def _envelope(data: bytes) -> None:
    cms.decrypt(data, goldens.ra())


def _cert_rep(data: bytes) -> None:
    answer = CertRep.decode(data)
    answer.verify([goldens.ra().certificate])
    answer.open(goldens.device())


def _attestation(data: bytes) -> None:
    found = AttestationObject.decode(data)
    attestation.verify(found.certificates, goldens.roots(), at=AT)


def _certificate(data: bytes) -> None:
    one = cms.load_certificate(data)
    trust.name_of(one)
    with suppress(MalformedMessage):
        attestation.parse(one)
    trust.verify_chain(one, [goldens.device().certificate], goldens.roots(), at=AT)


def _jws(data: bytes) -> None:
    request = jws.decode(data)
    key = jws.from_jwk(request.jwk) if request.jwk is not None else goldens.account_key()
    request.verify(key)
    request.fields()


def _acme_answer(data: bytes) -> None:
    """What a server says, as our client reads it."""
    fields = jws.json_object(data, "answer")
    decode_problem(data, 400)
    for read in (Directory, Account, Order, Authorization, Challenge, OrdersList):
        with suppress(MalformedMessage):
            read.from_fields(fields)


def _acme_payload(data: bytes) -> None:
    """What a client says, as our server reads it."""
    fields = jws.json_object(data, "payload")
    key = goldens.account_key()
    readers: tuple[Callable[[], object], ...] = (
        lambda: check_contacts(NewAccount.from_fields(fields).contact),
        lambda: AccountUpdate.from_fields(fields),
        lambda: wanted_identifiers(fields, with_dns=True),
        lambda: issuance.request_of(fields),
        lambda: _judge(fields),
        lambda: inner_jws.check_binding(fields, key, url="https://h/x", keys={"k": bytes(32)}),
        lambda: jws.decode_inner(fields).verify(key),
    )
    for read in readers:
        with suppress(MalformedMessage, InvalidSignature, AcmeProblem):
            read()


def _judge(fields: jws.Json) -> object:
    return judge(
        fields,
        token="token",
        identifier="SIM1",
        grant=Grant(reference="x"),
        roots=goldens.roots(),
        at=AT,
        allow_unattested=False,
        user_enrollment=True,
        accept_padding=True,
    )


def _inspect(data: bytes) -> None:
    inspection.inspect(data, Context(at=AT, roots=goldens.roots(), identities=[goldens.ra()]))


def _cloud_configuration(data: bytes) -> None:
    for status, content_type in ((200, "application/json"), (200, "text/plain"), (400, "")):
        try:
            cloudconfig.decode_answer(status, content_type, data)
        except (MalformedMessage, EmulatorError):
            continue


def _activation_answer(data: bytes) -> None:
    for content_type in ("text/xml", "application/xml", "application/x-buddyml", "text/html"):
        try:
            activation.decode_answer(content_type, data)
        except MalformedMessage:
            continue


SIGNED: Final = (MalformedMessage, InvalidSignature)
SCEP: Final = (MalformedMessage, InvalidSignature, CannotDecrypt)
CHAIN: Final = (MalformedMessage, UntrustedCertificate)

TARGETS: Final = (
    Target("der", _der, lambda: (*captured("scep/*.der", "scep/*.ber"), *goldens.der_files())),
    Target("cms", _cms, lambda: (*captured("scep/*.?er", "*/*.p7*"), *goldens.signed()), SIGNED),
    Target("certs_only", _certs_only, goldens.certs_only, CHAIN),
    Target("envelope", _envelope, lambda: (*captured("scep/*.der"), *goldens.envelopes()), SCEP),
    Target("csr", csr.decode, lambda: (*captured("*/*csr*"), *goldens.requests()), SIGNED),
    Target("scep", _scep, lambda: (*captured("scep/*PKCSReq*"), *goldens.pki_requests()), SCEP),
    Target("cert_rep", _cert_rep, lambda: (*captured("scep/*Rep*"), *goldens.answers()), SCEP),
    Target(
        "attestation",
        _attestation,
        lambda: (*captured("acme/*.cbor"), *goldens.attestations()),
        CHAIN,
    ),
    Target("certificate", _certificate, goldens.certificates, CHAIN),
    Target("crl", crl.read, goldens.revocation_lists),
    Target("jws", _jws, goldens.jws_requests, (MalformedMessage, InvalidSignature, AcmeProblem)),
    Target(
        "acme_answer", _acme_answer, lambda: (*captured("acme/problem*"), *acme_goldens.answers())
    ),
    Target("acme_payload", _acme_payload, acme_goldens.payloads),
    Target("inspect", _inspect, lambda: goldens.everything(captured("*/*")), ()),
    Target("plist", plist.loads, lambda: captured("**/*.plist", "malformed/*.bin")),
    Target(
        "profile",
        profile.decode,
        lambda: (*captured("**/*.mobileconfig"), *goldens.profiles()),
        SIGNED,
    ),
    Target(
        "machineinfo",
        machineinfo.verify,
        lambda: (*captured("activation/*.p7"), *goldens.machine_infos()),
        SIGNED,
    ),
    Target("checkin", checkin.decode, lambda: captured("checkin/*.plist", "wire/*.plist")),
    Target("command", command.decode_command, lambda: captured("commands/*.plist", "wire/*.plist")),
    Target(
        "response", command.decode_response, lambda: captured("responses/*.plist", "wire/*.plist")
    ),
    Target(
        "cloudconfig",
        _cloud_configuration,
        lambda: captured("dep/*.json", "apple/*.json", "wire/*.json"),
    ),
    Target("envelope_json", cloudconfig.decode_envelope, goldens.json_envelopes),
    Target(
        "activation_answer",
        _activation_answer,
        lambda: captured("wire/activation*", "activation/*.plist", "wire/*.plist"),
    ),
    Target(
        "activation_request",
        activation.decode_activation_info,
        lambda: (*captured("activation/*"), *goldens.activation_requests()),
    ),
    Target("activation_info", activation_info.decode, goldens.activation_infos),
    Target(
        "handshake",
        activation.decode_handshake_request,
        lambda: (*captured("activation/*"), *goldens.handshakes()),
    ),
    Target("buddyml", buddyml.decode, lambda: captured("wire/*.xml", "wire/*.plist")),
    Target("account_token", account_token.decode, lambda: captured("wire/account-token.txt")),
    Target("attestation_request", wire_attestation.decode_request, goldens.attestation_requests),
    Target("attestation_answer", wire_attestation.decode_answer, goldens.attestation_answers),
    Target("factory", factory.decode_requests, goldens.factory_requests),
    Target("push", push.decode_payload, lambda: (b'{"mdm":"MAGIC"}', b'{"mdm":"M","x":[1]}')),
)
BY_NAME: Final = {target.name: target for target in TARGETS}

__all__ = ["BY_NAME", "TARGETS", "CertsError", "Target"]
