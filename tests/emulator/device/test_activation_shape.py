"""Our activation beside the captured one: the same keys, with values of the same type (apple-services.md 2.3 to 2.5)."""

import json
import re
from typing import Any

import pytest

from certs.transport import HttpResponse
from emulator.apple.activation import ActivationSettings
from emulator.apple.app import AppleServices
from emulator.device.activation import activate
from emulator.http import HttpSession
from emulator.wire import plist
from emulator.wire.activation import decode_form
from tests.emulator.device.world import CLOCK, make_device, pki, register, surroundings
from tests.support import VECTORS, needs_vectors

KINDS = {"data": bytes, "string": str, "boolean": bool, "integer": int}


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    path = VECTORS / "activation" / "activation-exchange-shape.json"
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


@pytest.fixture
async def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, HttpResponse]]:
    """Bodies sent and answers received by an iPhone that activates, in order."""
    seen: list[tuple[bytes, HttpResponse]] = []
    request = HttpSession.request

    async def listening(self: HttpSession, *arguments: Any, **facts: Any) -> HttpResponse:
        response = await request(self, *arguments, **facts)
        seen.append((facts["body"], response))
        return response

    monkeypatch.setattr(HttpSession, "request", listening)
    device = make_device()
    settings = ActivationSettings(answer="html")
    async with AppleServices(pki=pki(), clock=CLOCK, activation_settings=settings) as apple:
        register(apple, device)
        await activate(device, surroundings(apple=apple))
    return seen


def kind(described: Any) -> type:
    """Of a value in the capture's description."""
    text = described if isinstance(described, str) else described.get("type", "dictionary")
    return KINDS.get(re.split(r"[ :,(]", text)[0], dict)


def same_keys(ours: dict[str, Any], captured: dict[str, Any]) -> None:
    assert set(ours) == set(captured)
    for key, described in captured.items():
        assert isinstance(ours[key], kind(described)), key


@needs_vectors
async def test_the_handshake_has_the_captured_keys(
    shape: dict[str, Any], exchanges: list[tuple[bytes, HttpResponse]]
) -> None:
    captured = shape["handshake"]
    body, response = exchanges[0]
    sent = plist.loads(body)
    same_keys(sent, captured["request_plist"])
    blob = captured["request_plist"]["CollectionBlob"]["content"]
    collected = plist.loads(sent["CollectionBlob"])
    same_keys(collected, blob)
    # Newer devices say more, as those with two IMEIs.
    assert set(json.loads(collected["IngestBody"])) >= set(blob["IngestBody"]["content"])
    same_keys(plist.loads(response.body), captured["response_plist"])
    lengths = {key: len(value) for key, value in plist.loads(response.body).items()}
    assert (lengths["HandshakeResponseMessage"], lengths["FDRBlob"]) == (508, 32)
    assert len(sent["HandshakeRequestMessage"]) == 21


@needs_vectors
async def test_the_activation_request_has_the_captured_keys(
    shape: dict[str, Any], exchanges: list[tuple[bytes, HttpResponse]]
) -> None:
    captured = shape["activation"]["activation_info"]
    sent = plist.loads(decode_form(exchanges[1][0])["activation-info"])
    same_keys(sent, captured)
    sections = captured["ActivationInfoXML"]["content"]
    told = plist.loads(sent["ActivationInfoXML"])
    assert set(told) == set(sections)
    newer = {"InternationalMobileEquipmentIdentity2", "MobileEquipmentIdentifier"}
    for name, section in sections.items():
        if kind(section) is dict:
            ours = {key: value for key, value in told[name].items() if key not in newer}
            same_keys(ours, section)
        else:
            assert isinstance(told[name], kind(section))


@needs_vectors
async def test_the_record_comes_in_a_page_with_the_captured_keys(
    shape: dict[str, Any], exchanges: list[tuple[bytes, HttpResponse]]
) -> None:
    _, response = exchanges[1]
    assert response.header("content-type") == "text/html"
    start = response.body.index(b"<plist")
    record = plist.loads(response.body[start : response.body.index(b"</script>")])
    captured = shape["activation"]["response_protocol_plist"]
    same_keys(record, captured)
    ours = {k: v for k, v in record["ActivationRecord"].items() if k != "DeviceConfigurationFlags"}
    same_keys(ours, captured["ActivationRecord"])
    pems = ours["UniqueDeviceCertificate"].count(b"BEGIN CERTIFICATE")
    assert (pems, ours["FairPlayKeyData"][:25]) == (2, b"-----BEGIN CONTAINER-----")
