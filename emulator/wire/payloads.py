"""The payloads of a configuration profile: MDM, certificates, and those that enrollment does not care about (mdm.md 2.2, 2.5).

Those that give a device an identity have a file of their own.

Here a payload's keys are read and their types checked. Whether the values make sense together (https, topic prefix, access
rights, key sizes) is judged by the device, which answers with Apple's error codes.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from cryptography import x509

from certs.errors import MalformedMessage
from emulator.wire.fields import (
    Fields,
    optional,
    optional_list,
    present,
    required,
)

COMMON_KEYS: Final = frozenset(
    (
        "PayloadType",
        "PayloadIdentifier",
        "PayloadUUID",
        "PayloadVersion",
        "PayloadDisplayName",
        "PayloadDescription",
        "PayloadOrganization",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadHeader:
    """The keys that every payload has."""

    identifier: str
    uuid: str
    version: int = 1
    display_name: str | None = None
    description: str | None = None
    organization: str | None = None

    def header_fields(self) -> Fields:
        return present(
            {
                "PayloadIdentifier": self.identifier,
                "PayloadUUID": self.uuid,
                "PayloadVersion": self.version,
                "PayloadDisplayName": self.display_name,
                "PayloadDescription": self.description,
                "PayloadOrganization": self.organization,
            }
        )


def header(fields: Fields, where: str = "") -> dict[str, Any]:
    """The arguments of `PayloadHeader` as they came."""
    return {
        "identifier": required(fields, "PayloadIdentifier", str, where),
        "uuid": required(fields, "PayloadUUID", str, where),
        "version": whole(fields, "PayloadVersion", where),
        "display_name": optional(fields, "PayloadDisplayName", str, where),
        "description": optional(fields, "PayloadDescription", str, where),
        "organization": optional(fields, "PayloadOrganization", str, where),
    }


def whole(fields: Fields, key: str, where: str = "") -> int:
    """An integer; profiles exist whose writer put `<real>1</real>`, and devices install them."""
    value = fields.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return required(fields, key, int, where)


@dataclass(frozen=True, slots=True, kw_only=True)
class MdmPayload(PayloadHeader):
    """Which server manages the device, and what it may do (2.2)."""

    payload_type: ClassVar[str] = "com.apple.mdm"

    identity_certificate_uuid: str  # the PayloadUUID of an identity in the same profile
    topic: str
    server_url: str
    check_in_url: str | None = None  # server_url when absent
    sign_message: bool = False
    access_rights: int | None = None
    use_development_apns: bool = False
    check_out_when_removed: bool = False
    server_capabilities: tuple[str, ...] = ()
    managed_apple_id: str | None = None
    assigned_managed_apple_id: str | None = None
    enrollment_mode: str | None = None  # BYOD or ADDE
    server_url_pinning_certificate_uuids: tuple[str, ...] = ()
    check_in_url_pinning_certificate_uuids: tuple[str, ...] = ()
    pinning_revocation_check_required: bool = False
    required_app_id_for_mdm: int | None = None
    prompt_user_to_allow_bootstrap_token_for_authentication: bool = False

    def to_fields(self) -> Fields:
        return {
            **self.header_fields(),
            **present(
                {
                    "PayloadType": self.payload_type,
                    "IdentityCertificateUUID": self.identity_certificate_uuid,
                    "Topic": self.topic,
                    "ServerURL": self.server_url,
                    "CheckInURL": self.check_in_url,
                    "SignMessage": self.sign_message,
                    "AccessRights": self.access_rights,
                    "UseDevelopmentAPNS": self.use_development_apns or None,
                    "CheckOutWhenRemoved": self.check_out_when_removed,
                    "ServerCapabilities": list(self.server_capabilities) or None,
                    "ManagedAppleID": self.managed_apple_id,
                    "AssignedManagedAppleID": self.assigned_managed_apple_id,
                    "EnrollmentMode": self.enrollment_mode,
                    "ServerURLPinningCertificateUUIDs": list(
                        self.server_url_pinning_certificate_uuids
                    )
                    or None,
                    "CheckInURLPinningCertificateUUIDs": list(
                        self.check_in_url_pinning_certificate_uuids
                    )
                    or None,
                    "PinningRevocationCheckRequired": self.pinning_revocation_check_required
                    or None,
                    "RequiredAppIDForMDM": self.required_app_id_for_mdm,
                    "PromptUserToAllowBootstrapTokenForAuthentication": (
                        self.prompt_user_to_allow_bootstrap_token_for_authentication or None
                    ),
                }
            ),
        }

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        def flag(key: str) -> bool:
            return optional(fields, key, bool, where) or False

        def texts(key: str) -> tuple[str, ...]:
            return optional_list(fields, key, str, where) or ()

        return cls(
            **header(fields, where),
            identity_certificate_uuid=required(fields, "IdentityCertificateUUID", str, where),
            topic=required(fields, "Topic", str, where),
            server_url=required(fields, "ServerURL", str, where),
            check_in_url=optional(fields, "CheckInURL", str, where),
            sign_message=flag("SignMessage"),
            access_rights=optional(fields, "AccessRights", int, where),
            use_development_apns=flag("UseDevelopmentAPNS"),
            check_out_when_removed=flag("CheckOutWhenRemoved"),
            server_capabilities=texts("ServerCapabilities"),
            managed_apple_id=optional(fields, "ManagedAppleID", str, where),
            assigned_managed_apple_id=optional(fields, "AssignedManagedAppleID", str, where),
            enrollment_mode=optional(fields, "EnrollmentMode", str, where),
            server_url_pinning_certificate_uuids=texts("ServerURLPinningCertificateUUIDs"),
            check_in_url_pinning_certificate_uuids=texts("CheckInURLPinningCertificateUUIDs"),
            pinning_revocation_check_required=flag("PinningRevocationCheckRequired"),
            required_app_id_for_mdm=optional(fields, "RequiredAppIDForMDM", int, where),
            prompt_user_to_allow_bootstrap_token_for_authentication=flag(
                "PromptUserToAllowBootstrapTokenForAuthentication"
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePayload(PayloadHeader):
    """One certificate, DER or PEM: a trust anchor when the type is `com.apple.security.root` (2.5)."""

    payload_type: str  # com.apple.security.root, .pem or .pkcs1
    content: bytes
    file_name: str | None = None

    def certificate(self) -> x509.Certificate:
        """The certificate. Raises MalformedMessage: writers mix up DER and PEM, so both are tried for each type."""
        load = (
            x509.load_pem_x509_certificate
            if b"-----BEGIN" in self.content
            else x509.load_der_x509_certificate
        )
        try:
            return load(self.content)
        except ValueError as error:
            raise MalformedMessage("PayloadContent", "a certificate", str(error)) from error

    def to_fields(self) -> Fields:
        return present(
            {
                **self.header_fields(),
                "PayloadType": self.payload_type,
                "PayloadContent": self.content,
                "PayloadCertificateFileName": self.file_name,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        return cls(
            **header(fields, where),
            payload_type=required(fields, "PayloadType", str, where),
            content=required(fields, "PayloadContent", bytes, where),
            file_name=optional(fields, "PayloadCertificateFileName", str, where),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPayload(PayloadHeader):
    """A payload that enrollment does not care about: Wi-Fi, restrictions…, kept as it came."""

    payload_type: str
    fields: Fields = field(default_factory=dict, repr=False)  # all keys beside the common ones

    def to_fields(self) -> Fields:
        return {**self.fields, **self.header_fields(), "PayloadType": self.payload_type}

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        return cls(
            **header(fields, where),
            payload_type=required(fields, "PayloadType", str, where),
            fields={key: value for key, value in fields.items() if key not in COMMON_KEYS},
        )
