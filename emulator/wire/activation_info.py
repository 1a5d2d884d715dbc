"""ActivationInfoXML: what a device says of itself when it asks to be activated (apple-services.md 2.4).

Two shapes: the sections of the session form, and the flat dictionary of the legacy form.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

from emulator.wire import plist
from emulator.wire.fields import Fields, optional, present, required

State = Literal["Unactivated", "Activated"]

UNACTIVATED: Final = "Unactivated"
ACTIVATED: Final = "Activated"


@dataclass(frozen=True, slots=True, kw_only=True)
class BasebandRequestInfo:
    """The cellular half; Wi-Fi models leave the section out, devices without a SIM its second part."""

    imei: str  # 15 digits
    imei2: str | None = None
    meid: str | None = None
    chip_id: int | None = None
    master_key_hash: str | None = None  # 64 hex digits
    serial_number: bytes | None = None  # 12 bytes, the baseband's own
    ticket_version: str = "V2"
    requires_activation_ticket: bool = True
    sim_status: str = "kCTSIMSupportSIMStatusNotInserted"
    supports_postponement: bool = True
    postponement_pri_version: str | None = None
    postponement_provisioning_state: bool = False
    iccid: str | None = None  # 20 digits, with a SIM only, as are all below
    imsi: str | None = None
    imsi_override: bool | None = None
    phone_number: str | None = None
    gid1: str | None = None
    gid2: str | None = None
    sim_gid1: bytes | None = None
    sim_gid2: bytes | None = None
    pri_version: tuple[int, int, int] | None = None  # major, minor, release

    def to_fields(self) -> Fields:
        major, minor, release = self.pri_version or (None, None, None)
        return present(
            {
                "ActivationRequiresActivationTicket": self.requires_activation_ticket,
                "BasebandActivationTicketVersion": self.ticket_version,
                "BasebandChipID": self.chip_id,
                "BasebandMasterKeyHash": self.master_key_hash,
                "BasebandSerialNumber": self.serial_number,
                "GID1": self.gid1,
                "GID2": self.gid2,
                "IntegratedCircuitCardIdentity": self.iccid,
                "InternationalMobileEquipmentIdentity": self.imei,
                "InternationalMobileEquipmentIdentity2": self.imei2,
                "InternationalMobileSubscriberIdentity": self.imsi,
                "InternationalMobileSubscriberIdentityOverride": self.imsi_override,
                "MobileEquipmentIdentifier": self.meid,
                "PRIVersion_Major": major,
                "PRIVersion_Minor": minor,
                "PRIVersion_ReleaseNo": release,
                "PhoneNumber": self.phone_number,
                "SIMGID1": self.sim_gid1,
                "SIMGID2": self.sim_gid2,
                "SIMStatus": self.sim_status,
                "SupportsPostponement": self.supports_postponement,
                "kCTPostponementInfoPRIVersion": self.postponement_pri_version,
                "kCTPostponementInfoServiceProvisioningState": self.postponement_provisioning_state,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        where = "BasebandRequestInfo."

        def text(key: str) -> str | None:
            return optional(fields, key, str, where)

        def flag(key: str) -> bool:
            return optional(fields, key, bool, where) or False

        major = optional(fields, "PRIVersion_Major", int, where)
        return cls(
            imei=required(fields, "InternationalMobileEquipmentIdentity", str, where),
            imei2=text("InternationalMobileEquipmentIdentity2"),
            meid=text("MobileEquipmentIdentifier"),
            chip_id=optional(fields, "BasebandChipID", int, where),
            master_key_hash=text("BasebandMasterKeyHash"),
            serial_number=optional(fields, "BasebandSerialNumber", bytes, where),
            ticket_version=text("BasebandActivationTicketVersion") or "V2",
            requires_activation_ticket=flag("ActivationRequiresActivationTicket"),
            sim_status=text("SIMStatus") or "kCTSIMSupportSIMStatusNotInserted",
            supports_postponement=flag("SupportsPostponement"),
            postponement_pri_version=text("kCTPostponementInfoPRIVersion"),
            postponement_provisioning_state=flag("kCTPostponementInfoServiceProvisioningState"),
            iccid=text("IntegratedCircuitCardIdentity"),
            imsi=text("InternationalMobileSubscriberIdentity"),
            imsi_override=optional(
                fields, "InternationalMobileSubscriberIdentityOverride", bool, where
            ),
            phone_number=text("PhoneNumber"),
            gid1=text("GID1"),
            gid2=text("GID2"),
            sim_gid1=optional(fields, "SIMGID1", bytes, where),
            sim_gid2=optional(fields, "SIMGID2", bytes, where),
            pri_version=None
            if major is None
            else (
                major,
                required(fields, "PRIVersion_Minor", int, where),
                required(fields, "PRIVersion_ReleaseNo", int, where),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """Model and system; the flat form carries only the first four."""

    build_version: str
    device_class: str  # iPhone, iPad or iPod
    product_type: str
    product_version: str
    device_variant: str | None = None  # one letter
    model_number: str | None = None
    os_type: str | None = None  # iPhone OS
    region_code: str | None = None
    region_info: str | None = None  # such as LL/A
    regulatory_model_number: str | None = None
    signing_fuse: bool | None = None
    unique_chip_id: int | None = None  # the ECID

    def to_fields(self) -> Fields:
        return present(
            {
                "BuildVersion": self.build_version,
                "DeviceClass": self.device_class,
                "DeviceVariant": self.device_variant,
                "ModelNumber": self.model_number,
                "OSType": self.os_type,
                "ProductType": self.product_type,
                "ProductVersion": self.product_version,
                "RegionCode": self.region_code,
                "RegionInfo": self.region_info,
                "RegulatoryModelNumber": self.regulatory_model_number,
                "SigningFuse": self.signing_fuse,
                "UniqueChipID": self.unique_chip_id,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "DeviceInfo.") -> Self:
        return cls(
            build_version=required(fields, "BuildVersion", str, where),
            device_class=required(fields, "DeviceClass", str, where),
            product_type=required(fields, "ProductType", str, where),
            product_version=required(fields, "ProductVersion", str, where),
            device_variant=optional(fields, "DeviceVariant", str, where),
            model_number=optional(fields, "ModelNumber", str, where),
            os_type=optional(fields, "OSType", str, where),
            region_code=optional(fields, "RegionCode", str, where),
            region_info=optional(fields, "RegionInfo", str, where),
            regulatory_model_number=optional(fields, "RegulatoryModelNumber", str, where),
            signing_fuse=optional(fields, "SigningFuse", bool, where),
            unique_chip_id=optional(fields, "UniqueChipID", int, where),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UIKCertification:
    """The hardware section; the proof itself is a substitute (9.1)."""

    board_id: int
    chip_id: int
    wifi_address: str
    bluetooth_address: str
    ethernet_mac_address: str | None = None
    certification: bytes = b"\x30\x00"  # a DER SEQUENCE

    def to_fields(self) -> Fields:
        return present(
            {
                "BluetoothAddress": self.bluetooth_address,
                "BoardId": self.board_id,
                "ChipID": self.chip_id,
                "EthernetMacAddress": self.ethernet_mac_address,
                "UIKCertification": self.certification,
                "WifiAddress": self.wifi_address,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        where = "UIKCertification."
        return cls(
            board_id=required(fields, "BoardId", int, where),
            chip_id=required(fields, "ChipID", int, where),
            wifi_address=required(fields, "WifiAddress", str, where),
            bluetooth_address=required(fields, "BluetoothAddress", str, where),
            ethernet_mac_address=optional(fields, "EthernetMacAddress", str, where),
            certification=required(fields, "UIKCertification", bytes, where),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationInfo:
    """Everything a device says when it asks for its record."""

    activation_randomness: str  # upper-case UUID; comes back in the AccountToken
    serial_number: str
    udid: str
    device_cert_request: bytes  # PEM PKCS#10
    device_info: DeviceInfo
    activation_state: str = UNACTIVATED
    fmip_account_exists: bool = False
    baseband: BasebandRequestInfo | None = None
    uik: UIKCertification | None = None
    software_update_enabled: bool = True

    @property
    def imei(self) -> str | None:
        """15 digits; None for Wi-Fi models."""
        return self.baseband.imei if self.baseband else None

    @property
    def meid(self) -> str | None:
        """14 hex digits, where the hardware has one."""
        return self.baseband.meid if self.baseband else None

    def to_fields(self) -> Fields:
        variant = self.device_info.device_variant
        return present(
            {
                "ActivationRequestInfo": {
                    "ActivationRandomness": self.activation_randomness,
                    "ActivationState": self.activation_state,
                    "FMiPAccountExists": self.fmip_account_exists,
                },
                "BasebandRequestInfo": self.baseband.to_fields() if self.baseband else None,
                "DeviceCertRequest": self.device_cert_request,
                "DeviceID": {"SerialNumber": self.serial_number, "UniqueDeviceID": self.udid},
                "DeviceInfo": self.device_info.to_fields(),
                "RegulatoryImages": None if variant is None else {"DeviceVariant": variant},
                "SoftwareUpdateRequestInfo": {"Enabled": self.software_update_enabled},
                "UIKCertification": self.uik.to_fields() if self.uik else None,
            }
        )

    def to_flat_fields(self) -> Fields:
        """The legacy form: one level, with the baseband's keys beside the others."""
        return {
            **(self.baseband.to_fields() if self.baseband else {}),
            "ActivationRandomness": self.activation_randomness,
            "ActivationState": self.activation_state,
            "BuildVersion": self.device_info.build_version,
            "DeviceCertRequest": self.device_cert_request,
            "DeviceClass": self.device_info.device_class,
            "ProductType": self.device_info.product_type,
            "ProductVersion": self.device_info.product_version,
            "SerialNumber": self.serial_number,
            "UniqueDeviceID": self.udid,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        if "DeviceID" not in fields:
            return cls._from_flat_fields(fields)
        request = required(fields, "ActivationRequestInfo", dict)
        identity = required(fields, "DeviceID", dict)
        update = optional(fields, "SoftwareUpdateRequestInfo", dict) or {}
        baseband = optional(fields, "BasebandRequestInfo", dict)
        uik = optional(fields, "UIKCertification", dict)
        where = "ActivationRequestInfo."
        return cls(
            activation_randomness=required(request, "ActivationRandomness", str, where),
            activation_state=required(request, "ActivationState", str, where),
            fmip_account_exists=optional(request, "FMiPAccountExists", bool, where) or False,
            baseband=None if baseband is None else BasebandRequestInfo.from_fields(baseband),
            device_cert_request=required(fields, "DeviceCertRequest", bytes),
            serial_number=required(identity, "SerialNumber", str, "DeviceID."),
            udid=required(identity, "UniqueDeviceID", str, "DeviceID."),
            device_info=DeviceInfo.from_fields(required(fields, "DeviceInfo", dict)),
            software_update_enabled=optional(update, "Enabled", bool, "SoftwareUpdateRequestInfo.")
            is not False,
            uik=None if uik is None else UIKCertification.from_fields(uik),
        )

    @classmethod
    def _from_flat_fields(cls, fields: Fields) -> Self:
        cellular = "InternationalMobileEquipmentIdentity" in fields
        return cls(
            activation_randomness=required(fields, "ActivationRandomness", str),
            activation_state=required(fields, "ActivationState", str),
            baseband=BasebandRequestInfo.from_fields(fields) if cellular else None,
            device_cert_request=required(fields, "DeviceCertRequest", bytes),
            serial_number=required(fields, "SerialNumber", str),
            udid=required(fields, "UniqueDeviceID", str),
            device_info=DeviceInfo.from_fields(fields, ""),
        )


def encode(info: ActivationInfo, *, flat: bool = False) -> bytes:
    """The XML that gets signed: sections for a session, flat for the legacy form."""
    return plist.dumps(info.to_flat_fields() if flat else info.to_fields())


def decode(data: bytes) -> ActivationInfo:
    """Read either shape. Raises MalformedMessage."""
    return ActivationInfo.from_fields(plist.loads(data, "ActivationInfoXML"))
