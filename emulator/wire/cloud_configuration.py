"""The cloud configuration document: who owns a device and which server manages it (apple-services.md 3.3).

The device-side document has sections and hyphens; the assignment API's profile has underscores and other names for some keys.
`from_assignment` is the mapping between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from cryptography import x509

from certs.errors import MalformedMessage
from emulator.wire.fields import Fields, optional, optional_list, present, required
from emulator.wire.json_object import certificate_texts, certificates

T = TypeVar("T")

ORGANIZATION_KEYS: Final = (
    "name",
    "address",
    "address-line-1",
    "address-line-2",
    "address-line-3",
    "city",
    "region",
    "zip-code",
    "country",
    "phone",
    "magic",
    "email",
    "department",
    "support-phone-number",
    "support-email-address",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Section `org`: who owns the device."""

    name: str
    address: str | None = None
    address_line_1: str | None = None
    address_line_2: str | None = None
    address_line_3: str | None = None
    city: str | None = None
    region: str | None = None
    zip_code: str | None = None
    country: str | None = None
    phone: str | None = None
    magic: str | None = None
    email: str | None = None
    department: str | None = None
    support_phone_number: str | None = None
    support_email_address: str | None = None

    def to_fields(self) -> Fields:
        return present({key: getattr(self, key.replace("-", "_")) for key in ORGANIZATION_KEYS})

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        required(fields, "name", str, "org.")
        return cls(
            **{
                key.replace("-", "_"): required(fields, key, str, "org.")
                for key in ORGANIZATION_KEYS
                if key in fields
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentServer:
    """Section `config`, member `enrollment-server`."""

    enrollment_url: str
    enrollment_anchor_certificates: tuple[x509.Certificate, ...] = ()
    supported_features: Any = None  # its shape is not known; kept as it came

    def to_fields(self) -> Fields:
        return present(
            {
                "enrollment-url": self.enrollment_url,
                "enrollment-anchor-certificates": certificate_texts(
                    self.enrollment_anchor_certificates
                )
                or None,
                "supported-features": self.supported_features,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        where = "config.enrollment-server."
        return cls(
            enrollment_url=required(fields, "enrollment-url", str, where),
            enrollment_anchor_certificates=certificates(
                fields, "enrollment-anchor-certificates", where
            ),
            supported_features=fields.get("supported-features"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedUser:
    """Section `user`; its keys have underscores on the wire."""

    ft_maid: str | None = None  # a Managed Apple Account
    ft_token: str | None = field(default=None, repr=False)

    def to_fields(self) -> Fields:
        return present({"ft_maid": self.ft_maid, "ft_token": self.ft_token})

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            ft_maid=optional(fields, "ft_maid", str, "user."),
            ft_token=optional(fields, "ft_token", str, "user."),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConfiguration:
    """The whole document, with the wire's own meaning of each key; no `url` means no section `config`."""

    organization: Organization
    url: str | None = None
    configuration_web_url: str | None = None
    management_protocol_version: int | None = None
    is_supervised: bool = False
    allow_pairing: bool = True
    is_mandatory: bool = False
    is_mdm_removable: bool = True
    anchor_certs: tuple[x509.Certificate, ...] = ()
    supervision_host_certs: tuple[x509.Certificate, ...] = ()
    skip_buddy_items: tuple[str, ...] = ()
    is_multi_user: bool = False
    is_return_to_service: bool = False
    await_device_configured: bool = False
    auto_advance_setup: bool = False
    language: str | None = None
    region: str | None = None
    script: str | None = None
    enrollment_server: EnrollmentServer | None = None
    server_uid: str | None = None
    do_not_use_profile_from_backup: bool = False
    has_undergone_migration: bool = False
    provisional_expiry_ms: int | None = None  # Unix time in milliseconds
    migration_deadline: str | None = None  # ISO 8601 text
    user: ManagedUser | None = None

    def __post_init__(self) -> None:
        if self.is_multi_user and self.is_return_to_service:
            raise MalformedMessage(
                "config.is-return-to-service", "false when is-multi-user is true", True
            )

    @property
    def locked(self) -> bool:
        """True when the user cannot remove the MDM profile; void unless supervised (3.5)."""
        return self.is_supervised and not self.is_mdm_removable

    def to_fields(self) -> Fields:
        expiry, deadline = self.provisional_expiry_ms, self.migration_deadline
        return present(
            {
                "org": self.organization.to_fields(),
                "config": None if self.url is None else self._config_fields(),
                "enrollment": None if expiry is None else {"expiry": expiry},
                "mdm-migration": None if deadline is None else {"deadline": deadline},
                "user": self.user.to_fields() if self.user else None,
            }
        )

    def _config_fields(self) -> Fields:
        server = self.enrollment_server
        return present(
            {
                "url": self.url,
                "configuration-web-url": self.configuration_web_url,
                "management-protocol-version": self.management_protocol_version,
                "is-supervised": self.is_supervised,
                "is-mandatory": self.is_mandatory,
                "is-mdm-removable": self.is_mdm_removable,
                "allow-pairing": self.allow_pairing,
                "await-device-configured": self.await_device_configured,
                "skip-buddy-items": list(self.skip_buddy_items),
                "anchor-certs": certificate_texts(self.anchor_certs),
                "supervision-host-certs": certificate_texts(self.supervision_host_certs) or None,
                "is-multi-user": self.is_multi_user or None,
                "is-return-to-service": self.is_return_to_service or None,
                "auto-advance-setup": self.auto_advance_setup or None,
                "language": self.language,
                "region": self.region,
                "script": self.script,
                "enrollment-server": server.to_fields() if server else None,
                "server-uid": self.server_uid,
                "do-not-use-profile-from-backup": self.do_not_use_profile_from_backup or None,
                "has-undergone-migration": self.has_undergone_migration or None,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        enrollment = optional(fields, "enrollment", dict)
        migration = optional(fields, "mdm-migration", dict)
        user = optional(fields, "user", dict)
        config = optional(fields, "config", dict)
        return cls(
            organization=Organization.from_fields(required(fields, "org", dict)),
            provisional_expiry_ms=None
            if enrollment is None
            else required(enrollment, "expiry", int, "enrollment."),
            migration_deadline=None
            if migration is None
            else required(migration, "deadline", str, "mdm-migration."),
            user=None if user is None else ManagedUser.from_fields(user),
            **({} if config is None else _config(config)),
        )


def _config(fields: Fields) -> Fields:
    """The arguments of `CloudConfiguration` that section `config` gives."""
    where = "config."

    def flag(key: str, default: bool = False) -> bool:
        value = optional(fields, key, bool, where)
        return default if value is None else value

    server = optional(fields, "enrollment-server", dict, where)
    return {
        "url": required(fields, "url", str, where),
        "configuration_web_url": optional(fields, "configuration-web-url", str, where),
        "management_protocol_version": optional(fields, "management-protocol-version", int, where),
        "is_supervised": flag("is-supervised"),
        "allow_pairing": flag("allow-pairing", True),
        "is_mandatory": flag("is-mandatory"),
        "is_mdm_removable": flag("is-mdm-removable", True),
        "anchor_certs": certificates(fields, "anchor-certs", where),
        "supervision_host_certs": certificates(fields, "supervision-host-certs", where),
        "skip_buddy_items": optional_list(fields, "skip-buddy-items", str, where) or (),
        "is_multi_user": flag("is-multi-user"),
        "is_return_to_service": flag("is-return-to-service"),
        "await_device_configured": flag("await-device-configured"),
        "auto_advance_setup": flag("auto-advance-setup"),
        "language": optional(fields, "language", str, where),
        "region": optional(fields, "region", str, where),
        "script": optional(fields, "script", str, where),
        "enrollment_server": None if server is None else EnrollmentServer.from_fields(server),
        "server_uid": optional(fields, "server-uid", str, where),
        "do_not_use_profile_from_backup": flag("do-not-use-profile-from-backup"),
        "has_undergone_migration": flag("has-undergone-migration"),
    }


def from_assignment(
    profile: Mapping[str, Any],
    organization: Organization,
    *,
    server_uid: str | None = None,
    provisional_expiry_ms: int | None = None,
) -> CloudConfiguration:
    """The document for a device with this profile of the assignment API. Raises MalformedMessage naming the profile's key.

    Magic, department and support contacts come from the profile; the rest of the organization from the portal.
    """
    fields = dict(profile)

    def flag(key: str, default: bool = False) -> bool:
        value = optional(fields, key, bool)
        return default if value is None else value

    def contact(key: str, own: str | None) -> str | None:
        return optional(fields, key, str) or own

    return CloudConfiguration(
        organization=Organization(
            **{
                **{name: getattr(organization, name) for name in Organization.__slots__},
                "magic": contact("org_magic", organization.magic),
                "department": contact("department", organization.department),
                "support_phone_number": contact(
                    "support_phone_number", organization.support_phone_number
                ),
                "support_email_address": contact(
                    "support_email_address", organization.support_email_address
                ),
            }
        ),
        url=required(fields, "url", str),
        configuration_web_url=optional(fields, "configuration_web_url", str),
        is_supervised=flag("is_supervised"),
        allow_pairing=flag("allow_pairing", True),
        is_mandatory=flag("is_mandatory"),
        is_mdm_removable=flag("is_mdm_removable", True),
        anchor_certs=certificates(fields, "anchor_certs"),
        supervision_host_certs=certificates(fields, "supervising_host_certs"),
        skip_buddy_items=optional_list(fields, "skip_setup_items", str) or (),
        is_multi_user=flag("is_multi_user"),
        is_return_to_service=flag("is_return_to_service"),
        await_device_configured=flag("await_device_configured"),
        auto_advance_setup=flag("auto_advance_setup"),
        language=optional(fields, "language", str),
        region=optional(fields, "region", str),
        server_uid=server_uid,
        do_not_use_profile_from_backup=flag("do_not_use_profile_from_backup"),
        provisional_expiry_ms=provisional_expiry_ms,
    )
