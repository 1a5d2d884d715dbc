"""Good files of our own making for the fuzzer to start from; made once per process, with fixed clock and cached keys."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs import cms, csr, names
from certs.acme import jws
from certs.acme.device_attest import AttestationObject
from certs.attestation import AttestationAuthority
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock
from certs.identity import Identity
from certs.keys import PrivateKey, PublicKey, generate, spki_der
from certs.scep import message
from emulator.wire import (
    activation,
    activation_info,
    attestation,
    device_request,
    envelope,
    machineinfo,
    profile,
)
from emulator.wire.activation import (
    ActivationRequest,
    HandshakeRequest,
    IngestBody,
    SessionProof,
)
from emulator.wire.activation_info import (
    ActivationInfo,
    BasebandRequestInfo,
    DeviceInfo,
    UIKCertification,
)
from emulator.wire.attestation import AttestationAnswer, AttestationRequest
from emulator.wire.envelope import Envelope
from emulator.wire.machineinfo import MachineInfo
from emulator.wire.profile import AcmePayload, MdmPayload, Profile, ScepPayload

CLOCK: Final = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))
NONCE: Final = bytes(16)


@cache
def _rsa(number: int) -> rsa.RSAPrivateKey:
    key = generate("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@cache
def _ca() -> CertificateAuthority:
    ca = CertificateAuthority.create("Fuzz CA", clock=CLOCK)
    ca.crl_url = "http://127.0.0.1/crl/ca.crl"
    return ca


@cache
def _authority() -> AttestationAuthority:
    return AttestationAuthority.create(CLOCK)


@cache
def roots() -> tuple[x509.Certificate, ...]:
    return (_ca().certificate, _authority().root)


@cache
def ra() -> Identity:
    """Opens envelopes, signs answers."""
    return _ca().issue_identity(_rsa(1), names.from_subject([[["CN", "RA"]]]))


@cache
def device() -> Identity:
    return _ca().issue_identity(_rsa(2), names.from_subject([[["CN", "device"]]]))


@cache
def account_key() -> PublicKey:
    return generate("p256").public_key()


def requests() -> tuple[bytes, ...]:
    """PKCS#10, RSA and EC, with everything in them."""
    found = []
    for key in (_rsa(2), generate("p256"), generate("p384")):
        found.append(
            csr.build(
                key,
                names.from_subject([[["O", "Example"]], [["CN", "device"]]]),
                challenge="challenge",
                key_usage=names.key_usage(5),
                alternative_names=names.alternative_names(
                    {"dNSName": "d.example", "rfc822Name": "a@b.example", "ntPrincipalName": "n"}
                ),
                extended_key_usage=[x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2")],
            )
        )
    return tuple(found)


def signed() -> tuple[bytes, ...]:
    """SignedData in every form that devices and servers write."""
    forms = [
        cms.sign(b"content", device()),
        cms.sign(b"content", device(), ber=True),
        cms.sign(b"content", device(), digest="sha1", signed_attributes=False),
        cms.sign(b"body", device(), detached=True),
        cms.sign(b"content", _ec_identity(), digest="sha384", signing_time=CLOCK.now()),
    ]
    return (*forms, *pki_requests(), *answers())


@cache
def _ec_identity() -> Identity:
    return _ca().issue_identity(generate("p384"), names.from_subject([[["CN", "device"]]]))


def envelopes() -> tuple[bytes, ...]:
    both = [ra().certificate, device().certificate]
    return (
        cms.encrypt(requests()[0], [ra().certificate]),
        cms.encrypt(b"content", both, "des3"),
        cms.encrypt(b"content", both, "des"),
        cms.encrypt(b"content", both, "aes256"),
    )


@cache
def pki_requests() -> tuple[bytes, ...]:
    return tuple(
        message.encode_request(
            requests()[0],
            message_type=kind,
            transaction_id="TRANSACTION",
            sender_nonce=NONCE,
            signer=device(),
            recipients=[ra().certificate],
            signing_time=CLOCK.now(),
        )
        for kind in ("19", "17", "20")
    )


@cache
def answers() -> tuple[bytes, ...]:
    return (
        message.encode_success(
            device().certificate,
            device().certificate,
            transaction_id="T",
            sender_nonce=NONCE,
            recipient_nonce=NONCE,
            signer=ra(),
        ),
        message.encode_failure(
            "2",
            "no",
            transaction_id="T",
            sender_nonce=NONCE,
            recipient_nonce=NONCE,
            signer=ra(),
        ),
        message.encode_pending(
            transaction_id="T", sender_nonce=NONCE, recipient_nonce=NONCE, signer=ra()
        ),
    )


def certs_only() -> tuple[bytes, ...]:
    chain = _attested(generate("p384"))
    return (cms.certs_only([device().certificate, *roots()]), cms.certs_only(list(chain)))


def _attested(key: PrivateKey) -> tuple[x509.Certificate, ...]:
    return _authority().issue(
        key.public_key(),
        serial_number="SIM0000001",
        udid="00008110-001A34D90E38801E",
        freshness=bytes(range(32)),
        os_version="18.1",
        software_update_device_id="iPhone14,5",
    )


@cache
def certificates() -> tuple[bytes, ...]:
    found = (device().certificate, *roots(), *_attested(generate("p384")))
    return tuple(one.public_bytes(Encoding.DER) for one in found)


def attestations() -> tuple[bytes, ...]:
    chain = tuple(one.public_bytes(Encoding.DER) for one in _attested(generate("p256")))
    return (AttestationObject("apple", chain).encode(), AttestationObject("none").encode())


def revocation_lists() -> tuple[bytes, ...]:
    empty = _ca().crl()
    _ca().revoke(_ca().issue(account_key(), names.from_subject([[["CN", "x"]]])))
    return (empty, _ca().crl())


def jws_requests() -> tuple[bytes, ...]:
    found = []
    for key in (generate("p256"), generate("p384"), generate("p521"), _rsa(2)):
        for payload in (b'{"termsOfServiceAgreed": true}', b""):
            found.append(jws.sign(key, payload, url="https://127.0.0.1/acme/x", nonce="bm9uY2U"))
    found.append(
        jws.sign(generate("p256"), b"{}", url="https://h/x", nonce="bm9u", kid="https://h/1")
    )
    return tuple(found)


def profiles() -> tuple[bytes, ...]:
    """Enrollment profiles, unsigned and signed."""
    scep = ScepPayload(
        identifier="p.scep",
        uuid="IDENTITY",
        url="https://h/scep",
        subject=((("CN", "device"),),),
        challenge="c",
    )
    acme = AcmePayload(
        identifier="p.acme",
        uuid="IDENTITY",
        directory_url="https://h/acme",
        client_identifier="c",
        key_type="ECSECPrimeRandom",
        key_size=384,
        hardware_bound=True,
        subject=((("CN", "c"),),),
        attest=True,
    )
    mdm = MdmPayload(
        identifier="p.mdm",
        uuid="MDM",
        identity_certificate_uuid="IDENTITY",
        topic="com.apple.mgmt.x",
        server_url="https://h/mdm",
        access_rights=8191,
    )
    encoded = [
        profile.encode(Profile(identifier="p", uuid="P", payloads=(identity, mdm)))
        for identity in (scep, acme)
    ]
    return (*encoded, *(cms.sign(one, ra()) for one in encoded))


def machine_infos() -> tuple[bytes, ...]:
    info = MachineInfo(
        udid="00008110-001A34D90E38801E",
        serial="SIM0000001",
        product="iPhone14,5",
        version="22B83",
        os_version="18.1",
        language="en",
    )
    return tuple(
        machineinfo.sign(info, device(), form=form)
        for form in ("der", "ber", "sha1-ber", "no-attributes")
    )


def attestation_requests() -> tuple[bytes, ...]:
    request = AttestationRequest(
        serial_number="S",
        udid="U",
        public_key=spki_der(account_key()),
        freshness=bytes(32),
        os_version="18.1",
        user_enrollment=True,
    )
    return (attestation.encode_request(request),)


def attestation_answers() -> tuple[bytes, ...]:
    return (attestation.encode_answer(AttestationAnswer(x5c=_attested(generate("p256")))),)


def factory_requests() -> tuple[bytes, ...]:
    device_ = {
        "serial_number": "S",
        "udid": "U",
        "product_type": "iPhone14,5",
        "os_version": "18.1",
        "build": "22B83",
        "wifi_mac": "aa:bb",
        "bluetooth_mac": "aa:bb",
        "ecid": 1,
        "model_number": "M",
        "factory_public_key": "MFkw",
        "attestation_public_key": "MFkw",
    }
    return (json.dumps({"devices": [device_]}).encode(),)


def activation_infos() -> tuple[bytes, ...]:
    return (
        activation_info.encode(
            ActivationInfo(
                serial_number="SIM0000001",
                udid="00008110-001A34D90E38801E",
                activation_randomness="3F2C9A1E-5F1B-4D0E-9F7A-6F0C9F5A2B10",
                device_cert_request=b"-----BEGIN CERTIFICATE REQUEST-----\n",
                device_info=DeviceInfo(
                    build_version="22B83",
                    device_class="iPhone",
                    product_type="iPhone14,5",
                    product_version="18.1",
                    device_variant="A",
                    model_number="MLPF3",
                    os_type="iPhone OS",
                    region_code="LL",
                    region_info="LL/A",
                    regulatory_model_number="A2482",
                    signing_fuse=True,
                    unique_chip_id=7382938475,
                ),
                baseband=BasebandRequestInfo(imei="353918051234561"),
                uik=UIKCertification(
                    board_id=12,
                    chip_id=0x8110,
                    wifi_address="aa:bb:cc:dd:ee:01",
                    bluetooth_address="aa:bb:cc:dd:ee:02",
                ),
            )
        ),
    )


def activation_requests() -> tuple[bytes, ...]:
    proof = SessionProof(
        rk_certification=b"0\0", rk_signature=b"0\6", server_kp=bytes(85), sign_act_request=NONCE
    )
    requests_ = [
        ActivationRequest(
            activation_info_xml=activation_infos()[0],
            fair_play_cert_chain=b"0\0",
            fair_play_signature=b"signature",
            session=session,
        )
        for session in (proof, None)
    ]
    return tuple(activation.encode_activation_info(request) for request in requests_)


def handshakes() -> tuple[bytes, ...]:
    body = IngestBody(
        serial_number="SIM0000001",
        udid="00008110-001A34D90E38801E",
        product_type="iPhone14,5",
        os_version="18.1",
        os_build="22B83",
        imei="353918051234561",
    )
    request = HandshakeRequest(
        udid="00008110-001A34D90E38801E",
        ingest_body=body.encode(),
        sig_key=b"\x04" + bytes(64),
        signature=b"0\6",
        handshake_request_message=activation.handshake_request_message(CLOCK.now(), NONCE),
    )
    return (activation.encode_handshake_request(request),)


def json_envelopes() -> tuple[bytes, ...]:
    payload = device_request.encode_request(
        device_request.DeviceRequest(serial_number="SIM0000001", udid="00008110-001A34D90E38801E")
    )
    own = device().der
    return (
        envelope.encode(
            Envelope(payload=payload, payload_signature=b"s", sign_cert=own, intermediate_cert=own)
        ),
    )


def der_files() -> tuple[bytes, ...]:
    return (*requests(), *envelopes(), *certificates(), *certs_only())


def everything(captured: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """For a reader of any file."""
    return (
        *captured,
        *der_files(),
        *signed(),
        *attestations(),
        *jws_requests(),
        *profiles(),
        *revocation_lists(),
        device().to_pem(),
        device().to_pkcs12("password"),
    )
