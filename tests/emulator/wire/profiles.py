"""The profiles of the golden files, as values."""

from emulator.wire.profile import (
    AcmePayload,
    CertificatePayload,
    MdmPayload,
    Profile,
    ScepPayload,
)
from tests.support import GOLDENS

UUID = "0B6F1A52-7C0A-4E0F-8C3F-5D9A40B1C00"
ENROLLMENT = Profile(
    identifier="org.example.enroll",
    uuid=UUID + "0",
    display_name="Enrollment",
    organization="Example Inc",
    removal_disallowed=True,
    payloads=(
        CertificatePayload(
            payload_type="com.apple.security.root",
            identifier="org.example.enroll.root",
            uuid=UUID + "1",
            content=bytes.fromhex("30030101ff"),
        ),
        AcmePayload(
            identifier="org.example.enroll.acme",
            uuid=UUID + "2",
            directory_url="https://mdm.example.org/acme/directory",
            client_identifier="one-time-code",
            key_type="ECSECPrimeRandom",
            key_size=384,
            hardware_bound=True,
            attest=True,
            subject=((("O", "Example"),), (("CN", "F7K2Q9XW4M"),)),
            usage_flags=1,
            extended_key_usage=("1.3.6.1.5.5.7.3.2",),
        ),
        MdmPayload(
            identifier="org.example.enroll.mdm",
            uuid=UUID + "3",
            identity_certificate_uuid=UUID + "2",
            topic="com.apple.mgmt.External.3f2c9a1e-5f1b-4d0e-9f7a-6f0c9f5a2b10",
            server_url="https://mdm.example.org/mdm",
            check_in_url="https://mdm.example.org/checkin",
            access_rights=8191,
            check_out_when_removed=True,
            sign_message=True,
            server_capabilities=("com.apple.mdm.token",),
        ),
    ),
)
SCEP = Profile(
    identifier="org.example.identity",
    uuid=UUID + "5",
    payloads=(
        ScepPayload(
            identifier="org.example.enroll.scep",
            uuid=UUID + "4",
            url="https://mdm.example.org/scep",
            name="CA-IDENT",
            challenge="once",
            keysize=2048,
            key_usage=5,
            retries=2,
            retry_delay_s=7,
            ca_fingerprint=bytes(range(20)),
            subject=((("O", "Example"),), (("2.5.4.5", "F7K2Q9XW4M"),)),
            subject_alt_name={
                "dNSName": ["a.example.org", "b.example.org"],
                "rfc822Name": "it@example.org",
            },
        ),
    ),
)
GOLDEN = {"enrollment-acme.mobileconfig": ENROLLMENT, "scep-payload.mobileconfig": SCEP}


def golden(name: str = "enrollment-acme.mobileconfig") -> bytes:
    return (GOLDENS / "wire" / name).read_bytes()
