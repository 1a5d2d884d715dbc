"""The management API: guarded, exact about mistakes, and what it shows is what devices said."""

import json
from typing import Any

import pytest

from certs.hosts import HostMap
from certs.transport import HttpResponse
from emulator.http import HttpDoor, TrustSet
from emulator.wire import plist
from emulator.wire.command import Command, decode_command, encode_command
from mdmserver.admin_json import MAX_DEPTH, from_json, to_json
from tests.mdmserver.harness import RawDevice, World, world

SHAPE = {
    "udid",
    "serial",
    "model",
    "os_version",
    "build",
    "state",
    "identity",
    "certificate_sha256",
    "issuer",
    "supervised",
    "locked",
    "name",
    "expected_name",
    "last_seen",
    "enrolled_at",
    "policy",
}


def error(answer: HttpResponse) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]


async def test_without_the_token_nothing_is_shown() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        for token in ("", "wrong-" + w.server.token):
            answer = await w.admin("GET", "/v1/devices", token=token)
            assert answer.status == 401
            assert device.udid.encode() not in answer.body
        refused = await w.admin("POST", f"/v1/devices/{device.udid}/unenroll", token="x")
        assert refused.status == 401
        assert (await device.shown())["unenroll"] is False


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("evil.example", None, 421),
        ("localhost", "https://evil.example", 403),
        ("localhost", None, 200),
    ],
)
async def test_other_hosts_and_origins_are_refused(
    host: str, origin: str | None, status: int
) -> None:
    async with world() as w:
        port = w.server.admin_url.rpartition(":")[2]
        rebound = HostMap.parse([f"{host}=127.0.0.1:{port}"])  # a name that leads to our address
        headers = {"Authorization": f"Bearer {w.server.token}"}
        if origin is not None:
            headers["Origin"] = origin
        door = HttpDoor(clock=w.clock, hosts=rebound)
        async with door.session(trust=TrustSet()) as session:
            answer = await session.request(
                "GET", f"http://{host}:{port}/v1/devices", step="admin", headers=headers
            )
        assert answer.status == status


async def test_the_management_api_is_not_on_the_device_port() -> None:
    async with world() as w:
        device = w.device()
        answer = await device.send(
            "GET", "/v1/devices", b"", "application/json", tls=None, sign=None
        )
        assert answer.status == 404
        answer = await device.send("GET", "/healthz", b"", "text/plain", tls=None, sign=None)
        assert (answer.status, answer.body) == (200, b'{"status": "ok"}')


async def test_devices_are_listed_in_the_agreed_shape() -> None:
    async with world() as w:
        device = w.device()
        assert json.loads((await w.admin("GET", "/v1/devices")).body) == {"devices": []}
        await device.enroll(awaiting=True)
        early = await device.shown()
        assert set(early) >= SHAPE
        assert (early["supervised"], early["locked"], early["name"], early["policy"]) == (
            None,
            None,
            None,
            [],
        )
        await device.session()
        (shown,) = json.loads((await w.admin("GET", "/v1/devices")).body)["devices"]
        assert shown == await device.shown()
        for rule in shown["policy"]:
            assert set(rule) >= {"rule", "wanted", "reported", "state", "last_enforced"}
        assert [r["rule"] for r in shown["policy"]] == ["identity", "lock", "name", "supervision"]
        assert shown["enrolled_at"] == "2026-01-01T00:00:00Z"


async def test_a_command_and_its_result_can_be_read_back() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        await device.session()
        uuid = await device.enqueue(
            "InstallProfile", Payload={"base64": "PHgvPg=="}, Flag=True, N=3
        )
        first = await device.idle()
        assert first.status == 200
        queued = json.loads((await w.admin("GET", f"/v1/commands/{uuid}")).body)
        assert (queued["state"], queued["result"]) == ("queued", None)
        sent = await _next(device, "InstallProfile")
        assert sent.fields == {"Payload": b"<x/>", "Flag": True, "N": 3}
        await device.answer(sent, Odd=b"\x00\x01")
        shown = json.loads((await w.admin("GET", f"/v1/commands/{uuid}")).body)
        assert shown["state"] == "acknowledged"
        assert shown["result"]["Odd"] == {"base64": "AAE="}
        assert shown["result"]["Status"] == "Acknowledged"
        listed = json.loads((await w.admin("GET", f"/v1/devices/{device.udid}/commands")).body)
        assert shown in listed["commands"]


async def _next(device: RawDevice, request_type: str) -> Command:
    """Go through a session up to a command of this type."""
    answer = await device.idle()
    while True:
        command = decode_command(answer.body)
        if command.request_type == request_type:
            return command
        answer = await device.answer(command, **device.result(command))


@pytest.mark.parametrize("whole", [True, False])
async def test_commands_are_also_taken_as_property_lists(whole: bool) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        body = (
            encode_command(Command(command_uuid="mine", request_type="FooBar", fields={"A": b"1"}))
            if whole
            else plist.dumps({"RequestType": "FooBar", "A": b"1"})
        )
        answer = await w.admin(
            "POST", f"/v1/devices/{device.udid}/commands", body=body, content_type="application/xml"
        )
        assert answer.status == 201
        assert json.loads(answer.body)["command_uuid"] != "mine"
        sent = await _next(device, "FooBar")
        assert sent.fields == {"A": b"1"}


BAD = [
    (b"{", "command: expected a JSON object"),
    (b"[]", "command: expected a JSON object"),
    (b"{}", "request_type: expected string"),
    (b'{"request_type": 1}', "request_type: expected string"),
    (b'{"request_type": ""}', "request_type: expected a RequestType"),
    (b'{"request_type": "X", "RequestType": "Y"}', "RequestType: expected request_type alone"),
    (
        b'{"request_type": "X", "A": null}',
        "command.A: expected a value: a property list knows no null",
    ),
    (b'{"request_type": "X", "A": {"base64": "?"}}', "command.A.base64: expected standard base64"),
    (b'{"request_type": "X", "A": 99999999999999999999999}', "command: expected values that"),
    (b'{"request_type": "X", "A": "\\u0000"}', "command: expected values that"),
    (b'{"request_type": "X", "A": ' + b"[" * 50 + b"]" * 50 + b"}", "at most 32 levels"),
    (b'{"request_type": "X", "A": NaN}', "NaN is not JSON"),
    (b'{"request_type": "X", "A": 1e400}', "1e400 is beyond every number"),
    (b'{"a":' * 100_000, "command: expected a JSON object"),
]


@pytest.mark.parametrize(("body", "reason"), BAD, ids=[b[1][:30] for b in BAD])
async def test_a_command_that_is_none_gets_400_and_queues_nothing(body: bytes, reason: str) -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        answer = await w.admin("POST", f"/v1/devices/{device.udid}/commands", body=body)
        status, text = error(answer)
        assert status == 400
        assert reason in text
        assert await w.server.store.commands(device.udid) == []


async def test_errors_are_json_with_the_exact_text() -> None:
    async with world() as w:
        for method, path in (
            ("GET", "/v1/devices/none"),
            ("GET", "/v1/devices/none/commands"),
            ("POST", "/v1/devices/none/commands"),
            ("POST", "/v1/devices/none/unenroll"),
            ("POST", "/v1/devices/none/reset-window"),
        ):
            assert error(await w.admin(method, path)) == (404, "there is no device none")
        assert error(await w.admin("GET", "/v1/commands/none")) == (404, "there is no command none")
        assert error(await w.admin("GET", "/nothing")) == (404, "GET /nothing: Not Found")
        answer = await w.admin("DELETE", "/v1/devices")
        assert error(answer) == (405, "DELETE /v1/devices: Method Not Allowed")
        assert "GET" in (answer.header("allow") or "")


async def test_another_content_type_is_refused() -> None:
    async with world() as w:
        device = w.device()
        await device.enroll()
        path = f"/v1/devices/{device.udid}/commands"
        answer = await w.admin("POST", path, body=b"x", content_type="text/plain")
        assert error(answer) == (
            400,
            "Content-Type: expected application/json or application/xml, got 'text/plain'",
        )


async def test_our_own_mistake_is_a_500_without_details(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:

        async def broken(udid: str) -> Any:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(w.server.store, "device", broken)
        answer = await w.admin("GET", "/v1/devices/x")
        assert error(answer) == (500, "internal error, see the server's log")
        device: RawDevice = World(w.clock, w.apple, w.server).device()
        await device.fetch_profile()
        device.identity = await device.get_identity()
        answer = await device.idle()
        assert (answer.status, answer.body) == (500, b"internal error")


def test_json_and_property_list_values_mirror_each_other() -> None:
    fields = {"A": [b"x", 1, 1.5, True, "t", {"B": b""}]}
    assert from_json(to_json(fields)) == fields
    assert from_json({"base64": "eA==", "other": 1}) == {"base64": "eA==", "other": 1}
    assert MAX_DEPTH == 32
