"""The portal: YAML whose text stays text, the assignment API's limits, every mistake at once, and what the registry learns."""

import base64
from pathlib import Path
from typing import Any

import pytest

from certs.clock import SimulatedClock
from emulator.apple.portal import Portal, describe
from emulator.apple.records import ProfileStatus
from emulator.apple.registry import Registry
from emulator.errors import ConfigurationError
from tests.emulator.apple.support import der, pki

NOW = SimulatedClock().now()
YAML = """
organizations:
  - name: Example Inc
    phone: 555-0100
    servers:
      - name: Production
        profile:
          url: https://mdm.example.com/enroll
          is_supervised: true
          is_mdm_removable: false
          skip_setup_items: [Siri, Privacy]
        devices: ["0123456", sim0000001]
    unassigned: [1E5, SIM0000003]
"""


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        Portal.parse(text, source="portal.yaml")
    assert refused.value.source == "portal.yaml"
    return refused.value.mistakes


def profile_with(**keys: Any) -> dict[str, Any]:
    profile = {"url": "https://mdm.example.com", **keys}
    return {"organizations": [{"name": "A", "servers": [{"name": "S", "profile": profile}]}]}


def mistake_in_profile(**keys: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Portal.from_content(profile_with(**keys))
    (mistake,) = refused.value.mistakes
    return mistake.removeprefix("organizations.0.servers.0.profile.")


def test_scalars_stay_text_and_serials_become_upper_case() -> None:
    portal = Portal.parse(YAML)
    organization = portal.organizations[0]
    assert organization.servers[0].devices == ("0123456", "SIM0000001")
    assert organization.unassigned == ("1E5", "SIM0000003")
    assert organization.phone == "555-0100"


def test_a_file_with_three_mistakes_reports_all_three() -> None:
    text = YAML.replace("https://mdm", "http://mdm").replace("is_supervised: true\n", "\n")
    text = text.replace("SIM0000003", "SIM0000001")
    mistakes = mistakes_of(text)
    assert mistakes == [
        "organizations.0.servers.0.profile.url: expected an https:// URL",
        "organizations.0.servers.0.profile.is_mdm_removable: false requires is_supervised true (FLAGS_INVALID)",
        "organizations.0.unassigned.1: SIM0000001 stands in organizations.0.servers.0.devices.1 already",
    ]


def test_what_is_no_yaml_is_one_mistake() -> None:
    (mistake,) = mistakes_of("organizations: [")
    assert mistake.startswith("is not YAML: ")


@pytest.mark.parametrize("text", ["- a", "just text"])
def test_what_is_no_mapping_is_one_mistake(text: str) -> None:
    assert mistakes_of(text) == ["top level: expected keys and values"]


def test_an_empty_file_is_an_empty_portal() -> None:
    assert Portal.parse("") == Portal()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="portal.yaml: 1 mistake"):
        Portal.read(tmp_path / "portal.yaml")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "portal.yaml").write_text(YAML)
    assert Portal.read(tmp_path / "portal.yaml") == Portal.parse(YAML)


def test_a_locked_profile_must_be_supervised() -> None:
    wrong = "is_mdm_removable: false requires is_supervised true (FLAGS_INVALID)"
    assert mistake_in_profile(is_mdm_removable="false") == wrong
    assert mistake_in_profile(is_mdm_removable="false", is_supervised="false") == wrong
    Portal.from_content(profile_with(is_mdm_removable="false", is_supervised="true"))


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"url": "mdm.example.com"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://x/" + "a" * 2000}, "url"),
        ({"configuration_web_url": "http://x"}, "configuration_web_url"),
        ({"org_magic": ""}, "org_magic"),
        ({"org_magic": "m" * 257}, "org_magic"),
        ({"department": "d" * 126}, "department"),
        ({"support_phone_number": "5" * 51}, "support_phone_number"),
        ({"support_email_address": "e" * 251}, "support_email_address"),
        ({"profile_name": ""}, "profile_name"),
        ({"profile_name": "n" * 126}, "profile_name"),
        ({"anchor_certs": ["AAAA"]}, "anchor_certs.0"),
        ({"supervising_host_certs": ["?"]}, "supervising_host_certs.0"),
        ({"allow_pairing": "perhaps"}, "allow_pairing"),
        ({"is_multi_user": "true", "is_return_to_service": "true"}, "is_return_to_service"),
        ({"supervised": "true"}, "supervised"),
    ],
)
def test_a_profile_is_held_to_the_limits_of_the_api(keys: dict[str, Any], key: str) -> None:
    assert mistake_in_profile(**keys).startswith(f"{key}: ")


def test_a_profile_needs_a_url() -> None:
    text = "organizations: [{name: A, servers: [{name: S, profile: {is_supervised: true}}]}]"
    assert mistakes_of(text) == ["organizations.0.servers.0.profile.url: field required"]


@pytest.mark.parametrize("serial", ["", "SIM-1", "S" * 21, "ÄÖÜ"])
def test_a_serial_number_is_letters_and_digits(serial: str) -> None:
    (mistake,) = mistakes_of(f'organizations: [{{name: A, unassigned: ["{serial}"]}}]')
    assert mistake.startswith("organizations.0.unassigned.0: ")


def test_names_and_uuids_are_unique() -> None:
    text = """
organizations:
  - name: A
    servers:
      - {name: S, uuid: 00112233445566778899AABBCCDDEEFF}
      - {name: S, uuid: 00112233-4455-6677-8899-aabbccddeeff}
  - name: A
"""
    assert mistakes_of(text) == [
        "organizations.0.servers.1.name: 'S' is the name of organizations.0.servers.0 already",
        "organizations.0.servers.1.uuid: '00112233-4455-6677-8899-aabbccddeeff' is the uuid of organizations.0.servers.0 already",
        "organizations.1.name: 'A' is the name of organizations.0 already",
    ]


def test_certificates_come_as_pem_or_base64_and_are_kept_as_base64() -> None:
    certificate = pki().tls_ca.certificate
    text = base64.b64encode(der(certificate)).decode()
    pem = pki().pems()["sim-tls-ca.pem"]
    portal = Portal.from_content(profile_with(anchor_certs=[text, pem]))
    profile = portal.organizations[0].servers[0].profile
    assert profile is not None
    assert profile.anchor_certs == (text, text)


def test_applying_tells_the_registry_who_owns_what_before_devices_exist() -> None:
    registry = Registry()
    Portal.parse(YAML).apply(registry, NOW)
    assigned, unassigned = registry.get("SIM0000001"), registry.get("SIM0000003")
    assert assigned is not None
    assert unassigned is not None
    assert assigned.hardware is None
    assert assigned.profile_status is ProfileStatus.ASSIGNED
    assert assigned.profile is not None
    assert assigned.profile.fields["skip_setup_items"] == ["Siri", "Privacy"]
    assert unassigned.organization is not None
    assert (unassigned.server, unassigned.profile) == (None, None)
    assert unassigned.profile_status is ProfileStatus.EMPTY


def test_a_server_without_profile_assigns_nothing() -> None:
    registry = Registry()
    text = "organizations: [{name: A, servers: [{name: S, devices: [SIM1]}]}]"
    Portal.parse(text).apply(registry, NOW)
    record = registry.get("SIM1")
    assert record is not None
    assert record.server is not None
    assert record.profile is None


def test_a_serial_that_is_no_longer_listed_has_no_owner() -> None:
    registry = Registry()
    Portal.parse(YAML).apply(registry, NOW)
    Portal().apply(registry, NOW)
    assert registry.records == {}


def test_uuids_are_the_same_each_time_a_portal_is_read_and_new_for_a_new_profile() -> None:
    first, second = Portal.parse(YAML), Portal.parse(YAML.replace("Siri", "Location"))
    servers = [
        portal.organizations[0].to_organization().servers["Production"]
        for portal in (first, Portal.parse(YAML), second)
    ]
    assert servers[0] == servers[1]
    assert servers[0].uuid == servers[2].uuid
    assert len(servers[0].uuid) == 32
    profiles = [server.profile for server in servers]
    assert profiles[0] is not None
    assert profiles[2] is not None
    assert profiles[0].uuid != profiles[2].uuid


def test_a_portal_read_back_is_the_portal_that_was_applied() -> None:
    registry = Registry()
    Portal.parse(YAML).apply(registry, NOW)
    described = describe(registry)
    again = Registry()
    Portal.from_content(described).apply(again, NOW)
    assert describe(again) == described
    assert described["organizations"][0]["servers"][0]["devices"] == ["0123456", "SIM0000001"]
