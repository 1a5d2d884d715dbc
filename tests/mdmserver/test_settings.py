"""Settings files and name templates: every mistake at once, in words (rules 62, 67, 70)."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.errors import ConfigurationError
from mdmserver import naming
from mdmserver.settings import Settings, load, read_certificates
from tests.mdmserver.harness import world

MISTAKES = """
organization: ""
topic: com.example.mdm
port: 70000
public_url: http://mdm.example
name_template: "{{SERIAL}}-{{USER}}"
access_rights: 2
acme_key_size: 521
challenge_minutes: 0
identity_days: inf
colour: red
setup_commands:
  - Queries: [UDID]
"""


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(MISTAKES)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    found = {mistake.partition(":")[0]: mistake for mistake in caught.value.mistakes}
    assert set(found) == {
        "organization",
        "topic",
        "port",
        "public_url",
        "name_template",
        "access_rights",
        "acme_key_size",
        "challenge_minutes",
        "identity_days",
        "colour",
        "setup_commands",
    }
    assert found["topic"] == "topic: must start with com.apple.mgmt."
    assert found["name_template"] == "name_template: has the unknown variable {{USER}}"
    assert found["setup_commands"] == "setup_commands: command 1 needs a request_type"


def test_commands_keep_the_types_of_yaml_and_paths_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "organization: 0123\nlocked: false\nprofile_list_every_s: 60\n"
        "machine_info_roots: [roots/apple.pem]\n"
        "setup_commands:\n  - {request_type: X, Count: 3, Flag: true, Text: '3'}\n"
    )
    loaded = load(path)
    assert loaded.organization == "0123"
    assert loaded.locked is False
    assert loaded.machine_info_roots == (tmp_path / "roots" / "apple.pem",)
    assert loaded.setup_commands == ({"request_type": "X", "Count": 3, "Flag": True, "Text": "3"},)


@pytest.mark.ade(67)
def test_new_profiles_hold_devices_until_they_are_configured() -> None:
    fresh = Settings()
    assert (fresh.await_configuration, fresh.locked, fresh.supervised) == (True, True, True)


async def test_a_locked_profile_is_always_assigned_as_supervised() -> None:
    async with world(locked=True, supervised=False) as w:
        profile = w.server.assignment_profile()
        assert (profile["is_mdm_removable"], profile["is_supervised"]) == (False, True)
        assert profile["url"] == w.server.url + "/ade"
        assert len(profile["anchor_certs"]) == 1
    async with world(locked=False, supervised=False, await_configuration=False) as w:
        profile = w.server.assignment_profile()
        assert (profile["is_mdm_removable"], profile["is_supervised"]) == (True, False)
        assert profile["await_device_configured"] is False


def test_device_configured_is_no_setup_command() -> None:
    with pytest.raises(ValueError, match="is sent by itself"):
        Settings(setup_commands=({"request_type": "DeviceConfigured"},))


def test_every_unreadable_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigurationError) as caught:
        read_certificates([tmp_path / "absent.pem", tmp_path / "empty.pem"], "machine_info_roots")
    assert len(caught.value.mistakes) == 2


@pytest.mark.ade(70)
@pytest.mark.parametrize(
    ("template", "mistake"),
    [
        ("x" * 63, None),
        ("x" * 64, "is 64 characters long"),
        ("{{DEVICETYPE}}-{{SERIAL}}", None),
        ("{{SERIAL}}" * 6, "expands to 72 bytes"),
        ("{{SERIAL}}" * 7, "is 70 characters long"),
        ("{{SERIAL}}" + "é" * 30, "expands to 72 bytes"),
        ("{{NAME}}", "unknown variable {{NAME}}"),
        ("{{SERIAL", "not closed"),
        ("SERIAL}}", "not closed"),
        ("a\nb", "control character"),
        (" a", "starts or ends with a space"),
        ("", None),
    ],
)
def test_a_template_is_checked_as_typed_and_as_expanded(template: str, mistake: str | None) -> None:
    if mistake is None:
        assert naming.check(template) == template
    else:
        with pytest.raises(ValueError, match=mistake):
            naming.check(template)


@pytest.mark.ade(70)
@pytest.mark.parametrize(
    ("product", "name"),
    [("iPad13,18", "iPad-S1"), ("iPhone14,5", "iPhone-S1"), ("iPod9,1", "iPhone-S1")],
)
def test_a_name_has_device_type_and_serial(product: str, name: str) -> None:
    assert naming.expand("{{DEVICETYPE}}-{{SERIAL}}", product=product, serial="S1") == name


@settings(max_examples=60)
@given(template=st.text(max_size=70), serial=st.text(alphabet="ABC{}", max_size=12))
def test_no_accepted_template_makes_a_name_that_is_too_long(template: str, serial: str) -> None:
    try:
        naming.check(template)
    except ValueError:
        return
    name = naming.expand(template, product="iPhone14,5", serial=serial)
    assert name is None or len(name.encode()) <= naming.MAX_BYTES


def test_a_serial_that_looks_like_a_variable_stays_what_it_is() -> None:
    name = naming.expand("{{SERIAL}}{{DEVICETYPE}}", product="iPad1,1", serial="{{DEVICETYPE}}")
    assert name == "{{DEVICETYPE}}iPad"


def test_a_name_for_an_unusually_long_serial_is_refused() -> None:
    with pytest.raises(naming.NameTooLong, match="64 bytes"):
        naming.expand("{{SERIAL}}", product="iPad1,1", serial="x" * 64)


def test_every_setting_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "mdmserver" / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in guide] == []
