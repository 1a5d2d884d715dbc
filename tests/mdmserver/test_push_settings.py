"""What turns pushing on: a certificate for the topic of the enrollment profile, a URL and its roots, all or none."""

from pathlib import Path
from typing import Any

import pytest

from certs.identity import Identity
from emulator.errors import ConfigurationError
from mdmserver.push import read_identity
from mdmserver.settings import Settings, load
from tests.emulator.apple.push_support import (
    PAYLOAD,
    TOPIC,
    Listener,
    push_identity,
    push_services,
)
from tests.emulator.apple.support import pki
from tests.mdmserver.harness import world

RAW_TOKEN = b"\x01" * 32  # of the raw device


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


async def test_a_certificate_of_another_topic_is_refused() -> None:
    async with push_services() as services, world(topic=TOPIC) as w:
        roots = [services.pki.tls_ca.certificate]
        with pytest.raises(ConfigurationError, match="com.apple.mgmt.Other, the enrollment"):
            await w.server.use_push(push_identity("com.apple.mgmt.Other"), services.push_url, roots)
        with pytest.raises(ConfigurationError, match=r"\(no UID\)"):
            await w.server.use_push(push_identity(), services.push_url, roots)


async def test_settings_name_certificate_url_and_roots(tmp_path: Path) -> None:
    identity = push_identity("com.apple.mgmt.External.FromTheCertificate")
    async with push_services() as services:
        (tmp_path / "push.pem").write_bytes(identity.to_pem())
        (tmp_path / "root.pem").write_text(pki().pems()["sim-tls-ca.pem"])
        (tmp_path / "server.yaml").write_text(
            f"push_certificate: push.pem\npush_url: {services.push_url}\npush_roots: [root.pem]\n"
        )
        settings = load(tmp_path / "server.yaml")
        assert settings.push_certificate == tmp_path / "push.pem"
        async with world(**settings.model_dump()) as w:
            assert w.server.pusher is not None
            assert w.server.topic == "com.apple.mgmt.External.FromTheCertificate"
            device = w.device()
            listener = Listener(services, RAW_TOKEN, w.server.topic)
            listener.online()
            await device.enroll()
            await w.server.pusher.settled()
            assert [push.payload for push in listener.got] == [PAYLOAD]


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"push_url": "https://localhost:1"}, "belong together"),
        ({"push_certificate": "x.pem"}, "belong together"),
        ({"push_certificate": "x.pem", "push_url": "https://localhost:1"}, "needs push_roots"),
        (
            {"push_certificate": "x", "push_url": "http://localhost", "push_roots": ("r",)},
            "must be https",
        ),
    ],
)
def test_half_a_configuration_is_a_mistake(settings: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        Settings(**settings)


def test_a_file_that_holds_no_pair_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "push.pem"
    with pytest.raises(ConfigurationError, match="no certificate with its key"):
        read_identity(path)
    path.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="no certificate with its key"):
        read_identity(path)
    one, other = push_identity(TOPIC), push_identity(TOPIC)
    path.write_bytes(Identity(one.key, other.certificate).to_pem())
    with pytest.raises(ConfigurationError, match="do not belong together"):
        read_identity(path)
    assert read_identity(None) is None
