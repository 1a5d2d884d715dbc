"""The settings of `apple serve`: text stays text, every mistake at once, and what only the whole file shows."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.apple import serve_file
from emulator.apple.portal import Portal, describe
from emulator.apple.registry import Registry
from emulator.apple.serve_file import AppleFile, read
from emulator.errors import ConfigurationError
from emulator.wire import bypass_code
from tests.emulator.apple.support import der, pki
from tests.emulator.apple.test_portal import NOW

SERVER: dict[str, Any] = {"name": "main"}
TOKEN = {"organization": "A", "server": "main", "file": "t.p7m"}


def written(folder: Path, **content: Any) -> Path:
    file = folder / "apple.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def organizations(**server: Any) -> list[dict[str, Any]]:
    return [{"name": "A", "servers": [SERVER | server]}]


def mistakes(folder: Path, **content: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        read(written(folder, **content))
    assert refused.value.source.endswith("apple.yaml")
    return refused.value.mistakes


def test_a_file_with_every_section(tmp_path: Path) -> None:
    file = tmp_path / "apple.yaml"
    file.write_text(
        """
port: 1443
proxy_port: off
names: [apple.test]
organizations:
  - name: Example Inc
    servers:
      - {name: main, devices: ["0123456"]}
devices:
  - {serial_number: "0123456", color: RED}
tokens:
  - {organization: Example Inc, server: main, file: tokens/main.json, format: json}
activation: {mode: lite, check_time: false}
cloud_configuration: {legacy: true}
assignment: {oauth: keys, page_default: 10}
push: {mode: compat, plain_port: 0}
faults:
  assignment:
    post /devices/sync: [{response: {status: 503}}]
  devices:
    sim1: [{step: attestation, action: drop}]
state: kept
"""
    )
    settings = read(file)
    assert settings.portal.organizations[0].servers[0].devices == ("0123456",)
    assert (settings.port, settings.proxy_port, settings.push.port) == (1443, None, 9445)
    assert settings.tokens[0].file == tmp_path / "tokens" / "main.json"
    assert settings.state == tmp_path / "kept"
    assert settings.activation.mode == "lite"
    assert settings.cloud_configuration.legacy is True
    assert settings.assignment.page_default == 10
    assert list(settings.faults.assignment) == ["POST /devices/sync"]
    assert list(settings.faults.devices) == ["SIM1"]


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, port=1, push={"port": 2, "mode": "compat"}, state="kept")
    settings = read(file, port=3, push_port=4, state=Path("elsewhere"), proxy_port="off")
    assert (settings.port, settings.push.port, settings.push.mode) == (3, 4, "compat")
    assert settings.state == Path("elsewhere")
    assert settings.proxy_port is None


def test_without_a_file_there_are_defaults() -> None:
    assert read(None) == AppleFile()
    assert read(None, push_port=5).push.port == 5


def test_unknown_keys_and_wrong_values_are_told_together_with_duplicates(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        colour="red",
        push={"mode": "loose"},
        cloud_configuration={"provisional_start": "never"},
        devices=[{"serial_number": "A"}, {"serial_number": "a"}],
    )
    places = [mistake.partition(": ")[0] for mistake in found]
    assert sorted(places) == [
        "cloud_configuration.provisional_start",
        "colour",
        "devices.1.serial_number",
        "push.mode",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"tokens": [TOKEN]}, "tokens.0: there is no server 'main' of 'A'"),
        (
            {"tokens": [TOKEN], "organizations": organizations()},
            "which has none: give it one, or choose format json",
        ),
        (
            {
                "tokens": [TOKEN | {"format": "json"}, TOKEN | {"format": "json"}],
                "organizations": organizations(),
            },
            "t.p7m is named twice",
        ),
        ({"port": 7, "admin_port": 7}, "the ports must differ"),
        ({"port": 7, "push": {"port": 7}}, "the ports must differ"),
        ({"host": "192.0.2.1"}, "with host 192.0.2.1 say off"),
    ],
)
def test_what_only_the_whole_file_shows(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    (mistake,) = mistakes(tmp_path, **content)
    assert words in mistake


def test_a_host_that_is_not_loopback_needs_no_proxy(tmp_path: Path) -> None:
    assert read(written(tmp_path, host="192.0.2.1", proxy_port="off")).proxy_port is None
    assert read(written(tmp_path, host="0.0.0.0")).proxy_port == 9446


def test_a_server_with_a_certificate_may_have_a_p7m(tmp_path: Path) -> None:
    certificate = base64.b64encode(der(pki().root)).decode()
    file = written(tmp_path, tokens=[TOKEN], organizations=organizations(certificate=certificate))
    assert read(file).tokens[0].format == "p7m"


def test_the_file_of_the_readme_is_a_good_one(tmp_path: Path) -> None:
    readme = Path(serve_file.__file__).with_name("README.md").read_text()
    example = readme.partition("## As a program")[2].partition("```yaml\n")[2].partition("```")[0]
    certificate = base64.b64encode(der(pki().root)).decode()
    file = tmp_path / "apple.yaml"
    file.write_text(example.replace("-----BEGIN CERTIFICATE-----…", certificate))
    settings = read(file)
    for section in AppleFile.model_fields.keys() - {"names", "admin_port", "proxy_port"}:
        assert section in settings.model_fields_set, section
    assert len(settings.faults.push) == len(settings.faults.devices) == 1


# ---- single devices ----

CODE = "000H4-0R40M-30F2-0918-5HR3-8F17"


def applied(folder: Path, *devices: dict[str, Any]) -> Registry:
    owned = organizations(devices=["SIM1", "SIM2"])
    registry = Registry()
    file = written(folder, organizations=owned, devices=list(devices))
    read(file).portal.apply(registry, NOW)
    return registry


def test_what_is_known_of_a_device_goes_into_the_registry_and_comes_back(tmp_path: Path) -> None:
    facts = {
        "serial_number": "SIM1",
        "product_type": "iPhone14,5",
        "asset_tag": "0123",
        "migration_deadline": "2026-12-01T10:00:00Z",
    }
    lock = {"login": "a@example.com", "password": "secret"}
    registry = applied(tmp_path, facts | {"activation_lock": lock}, {"serial_number": "SIM2"})
    record = registry.record("SIM1")
    assert record.purchase is not None
    assert (record.purchase.asset_tag, record.purchase.color) == ("0123", None)
    assert record.activation_lock is not None
    assert record.activation_lock.account == ("a@example.com", "secret")
    shown = describe(registry)
    assert shown["devices"] == [facts]
    assert Portal.from_content(shown).devices[0].asset_tag == "0123"


def test_a_lock_with_a_bypass_code_keeps_only_its_hash(tmp_path: Path) -> None:
    lock = {"bypass_code": CODE, "message": "Ward 3"}
    registry = applied(tmp_path, {"serial_number": "SIM1", "activation_lock": lock})
    found = registry.record("SIM1").activation_lock
    assert found is not None
    assert found.escrow_hash == bypass_code.escrow_hash(bytes(range(16)))
    assert (found.account, found.message) == (None, "Ward 3")


def test_a_portal_that_says_less_leaves_the_rest(tmp_path: Path) -> None:
    registry = applied(tmp_path, {"serial_number": "SIM1", "color": "RED", "asset_tag": "1"})
    owned = organizations(devices=["SIM1"])
    changed = [{"serial_number": "SIM1", "asset_tag": "2"}]
    Portal.from_content({"organizations": owned, "devices": changed}).apply(registry, NOW)
    purchase = registry.record("SIM1").purchase
    assert purchase is not None
    assert (purchase.color, purchase.asset_tag) == ("RED", "2")


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ({}, "give login and password, a bypass_code, or both"),
        ({"login": "a"}, "login and password belong together"),
        ({"bypass_code": "ABC"}, "expected the 26 characters of a bypass code"),
    ],
)
def test_a_lock_that_nothing_opens_is_a_mistake(
    tmp_path: Path, lock: dict[str, str], words: str
) -> None:
    devices = [{"serial_number": "SIM1", "activation_lock": lock}]
    (mistake,) = mistakes(tmp_path, devices=devices)
    assert words in mistake
    assert "ABC" not in mistake
