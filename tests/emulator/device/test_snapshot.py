"""Freezing and thawing: whatever a device remembers comes back, and foreign bytes are refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs import keys
from certs.errors import MalformedMessage
from emulator.device.device import (
    After,
    Answer,
    App,
    AttestationCache,
    Device,
    DeviceSettings,
    Failure,
    Outbox,
    PendingProfile,
)
from emulator.device.profiles import InstalledPayload, InstalledProfile
from emulator.device.snapshot import freeze, thaw
from emulator.device.state import Event, State
from emulator.wire.cloudconfig import CloudConfiguration, Organization
from tests.emulator.device.managed import managed_device
from tests.emulator.device.world import make_device, mdm_authority

text = st.text(max_size=12)
flag = st.booleans()
moments = st.datetimes(
    min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC)
)
after = st.sampled_from(After)
apps = st.builds(App, identifier=text, name=text, version=text, short_version=text, managed=flag)
payloads = st.builds(
    InstalledPayload, payload_type=text, identifier=text, uuid=text, version=st.just(1)
)
profiles = st.builds(
    InstalledProfile,
    identifier=text,
    uuid=text,
    display_name=st.none() | text,
    managed=flag,
    enrollment=flag,
    signer_certificates=st.tuples(st.binary(max_size=8)) | st.just(()),
    payloads=st.tuples(payloads) | st.just(()),
)
configurations = st.builds(
    CloudConfiguration,
    organization=st.builds(Organization, name=text),
    url=st.just("https://mdm.example.com/enroll"),
    is_supervised=flag,
    is_mandatory=flag,
    is_mdm_removable=flag,
    await_device_configured=flag,
    skip_buddy_items=st.tuples(text),
    anchor_certs=st.sampled_from([(), (mdm_authority()[0].certificate,)]),
)
changes: dict[str, st.SearchStrategy[Any]] = {
    "name": text,
    "state": st.sampled_from(State),
    "cloud_configuration": st.none() | configurations,
    "settings": st.builds(
        DeviceSettings,
        locked=flag,
        passcode_present=flag,
        time_zone=text,
        store_account=st.none() | text,
    ),
    "apps": st.lists(apps, max_size=2),
    "attestation": st.none()
    | st.builds(
        AttestationCache,
        chain=st.tuples(st.binary(max_size=9)),
        nonce=st.none() | st.binary(max_size=32),
        issued_at=moments,
    ),
    "outbox": st.none()
    | st.builds(Outbox, command_uuid=text, body=st.binary(max_size=30), after=after),
    "answered": st.dictionaries(
        text,
        st.builds(Answer, request_type=text, body=st.binary(max_size=9), after=after),
        max_size=3,
    ),
    "pending": st.none()
    | st.builds(
        PendingProfile, data=st.binary(max_size=20), retry=st.sampled_from(Event), automated=flag
    ),
    "bypass_code": st.none() | st.binary(min_size=16, max_size=16),
    "failure": st.none() | st.builds(Failure, step=text, reason=text, retry=st.sampled_from(Event)),
}


@settings(max_examples=60, deadline=None)
@given(
    changed=st.fixed_dictionaries({}, optional=changes),
    installed=st.lists(profiles, max_size=3),
    managed=flag,
)
def test_a_thawed_device_equals_the_frozen_one(
    changed: dict[str, Any], installed: list[InstalledProfile], managed: bool
) -> None:
    device = managed_device() if managed else make_device(1)
    for name, value in changed.items():
        setattr(device, name, value)
    for profile in installed:
        device.profiles.install(profile)
    thawed = thaw(freeze(device))
    assert _facts(thawed) == _facts(device)
    assert list(thawed.profiles.by_identifier) == list(device.profiles.by_identifier)
    assert freeze(thawed) == freeze(device)


def _facts(device: Device) -> list[object]:
    """Every field; private keys, which compare by identity, as their DER."""
    identities = [device.factory.factory, device.factory.attestation]
    identities += [item.identity for item in device.keychain.identities.values()]
    identities += [device.keychain.device] if device.keychain.device else []
    public = [(keys.to_der(one.key), one.certificate, one.chain) for one in identities]
    others = [
        getattr(device, name) for name in Device.__slots__ if name not in ("factory", "keychain")
    ]
    return [
        *public,
        *others,
        device.factory.anchors,
        list(device.keychain.identities),
        device.keychain.certificates,
    ]


def test_a_thawed_device_can_sign_with_what_was_its_own() -> None:
    device = managed_device()
    device.keychain.device = device.factory.factory
    thawed = thaw(freeze(device))
    for before, now in (
        (device.identity, thawed.identity),
        (device.keychain.device, thawed.keychain.device),
        (device.factory.attestation, thawed.factory.attestation),
    ):
        assert before is not None
        assert now is not None
        assert keys.to_der(before.key) == keys.to_der(now.key)
        assert keys.spki_der(now.key.public_key()) == keys.spki_der(
            now.certificate.public_key()  # type: ignore[arg-type]
        )


def _row(change: Callable[[dict[str, Any]], object]) -> bytes:
    row = msgspec.msgpack.decode(freeze(managed_device()))
    change(row)
    return msgspec.msgpack.encode(row)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: b"", "a frozen device"),
        (lambda: b"\x00", "a frozen device"),
        (lambda: freeze(managed_device())[:-1], "a frozen device"),
        (lambda: freeze(managed_device()) + b"\x00", "a frozen device"),
        (lambda: _row(lambda row: row.update(version=2)), "version 1"),
        (lambda: _row(lambda row: row.update(state="asleep")), "a frozen device"),
        (lambda: _row(lambda row: row.pop("factory")), "a frozen device"),
        (lambda: _row(lambda row: row["hardware"].pop("udid")), "hardware.udid"),
        (
            lambda: _row(lambda row: row["hardware"].update(product_type="iPhone0,0")),
            "a known product type",
        ),
        (lambda: _row(lambda row: row["factory"][0].__setitem__(0, b"no key")), "a frozen device"),
        (lambda: _row(lambda row: row["factory"][0].__setitem__(1, b"none")), "a frozen device"),
    ],
)
def test_other_bytes_are_refused(data: Callable[[], bytes], words: str) -> None:
    with pytest.raises(MalformedMessage, match=words):
        thaw(data())


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_garbage_is_refused_and_nothing_else_escapes(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        thaw(data)


def test_a_snapshot_is_small() -> None:
    device = managed_device()
    device.answered = {}
    assert len(freeze(device)) < 14_000


def test_issuers_are_shared_between_devices() -> None:
    first, second = thaw(freeze(managed_device())), thaw(freeze(make_device(1)))
    assert first.factory.anchors.tls_root is second.factory.anchors.tls_root
    assert first.factory.factory.chain[0] is second.factory.factory.chain[0]


def test_freezing_leaves_the_device_alone() -> None:
    device = managed_device()
    before = replace(device.settings)
    freeze(device)
    assert device.settings == before
