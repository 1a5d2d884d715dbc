"""A10: the activation lock, its form, who may pass, and how often somebody may try (apple-services.md 2.8 and 9.1)."""

from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from certs.clock import SimulatedClock
from emulator.apple.activation_lock import WRONG_CREDENTIALS
from emulator.apple.memory import Memory
from emulator.apple.records import ActivationLock
from emulator.wire import activation, bypass_code
from emulator.wire.activation import ActivationRecord, ActivationRefused
from tests.emulator.apple.support import Client, Device, Reply

CODE = "000H4-0R40M-30F2-0918-5HR3-8F17"
HASH = "c5ced1d0c51459c1a887866a5868dd3e9e6f4fc4a8c244f3f9eb9383c0f8aecb"
LOCK = ActivationLock(account=("owner@example.com", "correct horse"))


def lock(client: Client, device: Device, value: ActivationLock | None = LOCK) -> None:
    record = client.services.registry.get(device.serial_number)
    assert record is not None
    record.activation_lock = value


async def locked_form(client: Client, device: Device) -> ActivationRefused:
    request = device.activation_request(await client.session(device))
    return form_of(await client.activate(request))


def form_of(answer: Reply) -> ActivationRefused:
    assert (answer.status, answer.content_type) == (200, "application/x-buddyml")
    refused = activation.decode_answer("application/x-buddyml", answer.body)
    assert isinstance(refused, ActivationRefused)
    assert refused.form is not None
    return refused


def is_record(answer: Reply) -> bool:
    return answer.status == 200 and isinstance(
        activation.decode_answer(answer.content_type or "", answer.body), ActivationRecord
    )


async def submit(client: Client, form: ActivationRefused, login: str, password: str) -> Reply:
    """Post the rows and, verbatim, the serverInfo, as every client does."""
    assert form.form is not None
    body = urlencode({"login": login, "password": password, **form.form.server_info})
    return await client.post(
        activation.ACTIVATION_PATH, body.encode(), content_type=activation.FORM_CONTENT_TYPE
    )


async def test_a_locked_device_gets_the_form(client: Client, device: Device) -> None:
    lock(client, device)
    session = await client.session(device)
    answer = await client.activate(device.activation_request(session))
    form = form_of(answer).form
    assert form is not None
    assert [(row.id, row.secure) for row in form.rows] == [("login", False), ("password", True)]
    session_id = session.server_kp[1:17].hex()
    assert form.server_info == {"isAuthRequired": "true", "sessionId": session_id}
    assert form.description == "This device is linked to an account."
    assert form.alert is None
    assert "ARS" not in answer.headers


async def test_the_form_has_the_paths_that_host_tools_read(client: Client, device: Device) -> None:
    lock(client, device, replace(LOCK, message='Lost: call <b> & "me"'))
    answer = await client.activate(device.activation_request(await client.session(device)))
    root = ElementTree.fromstring(answer.body)
    bar = root.find("page/navigationBar")
    assert bar is not None
    assert bar.get("title") == "Activation Lock"
    assert root.findtext("page/tableView/section/footer") == 'Lost: call <b> & "me"'
    assert root.find("serverInfo") is not None
    assert root.find("navigationBar") is None


async def test_the_accounts_pair_opens_the_lock(client: Client, device: Device) -> None:
    lock(client, device)
    form = await locked_form(client, device)
    answer = await submit(client, form, "owner@example.com", "correct horse")
    assert is_record(answer)
    # The activation is over: the same answer does nothing more.
    again = await submit(client, form, "owner@example.com", "correct horse")
    assert again.refusal == (401, "SESSION", "text/plain")


@pytest.mark.parametrize("typed", [CODE, CODE.lower(), CODE.replace("-", "")])
async def test_the_bypass_code_opens_the_lock_without_a_login(
    client: Client, device: Device, typed: str
) -> None:
    lock(client, device, ActivationLock(escrow_hash=bytes.fromhex(HASH)))
    form = await locked_form(client, device)
    assert is_record(await submit(client, form, "", typed))


async def test_the_bypass_code_of_another_device_opens_nothing(
    client: Client, device: Device
) -> None:
    lock(client, device, ActivationLock(escrow_hash=bytes.fromhex(HASH)))
    form = await locked_form(client, device)
    again = form_of(await submit(client, form, "", bypass_code.encode(bytes(16))))
    assert again.form is not None
    assert again.form.alert == WRONG_CREDENTIALS


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("owner@example.com", "wrong"),
        ("other@example.com", "correct horse"),
        ("", "correct horse"),
        ("", CODE),
        ("owner@example.com", CODE),
    ],
)
async def test_wrong_credentials_bring_the_form_again_with_an_alert(
    client: Client, device: Device, login: str, password: str
) -> None:
    lock(client, device)
    form = await locked_form(client, device)
    again = form_of(await submit(client, form, login, password))
    assert again.form is not None
    assert again.form.alert == WRONG_CREDENTIALS
    assert form.form is not None
    assert again.form.server_info == form.form.server_info


async def test_five_wrong_tries_end_the_attempt_even_for_the_right_password(
    client: Client, device: Device
) -> None:
    lock(client, device)
    request = device.activation_request(await client.session(device))
    form = form_of(await client.activate(request))
    for _ in range(4):
        form_of(await submit(client, form, "owner@example.com", "wrong"))
    # Asking for the form again brings no new tries.
    form = form_of(await client.activate(request))
    fifth = await submit(client, form, "owner@example.com", "wrong")
    assert fifth.refusal == (429, "TOO_MANY_TRIES", "text/plain")
    assert 0 < int(fifth.headers["Retry-After"]) <= 900
    right = await submit(client, form, "owner@example.com", "correct horse")
    assert right.status == 429


async def test_the_stored_request_waits_fifteen_minutes(
    client: Client, device: Device, clock: SimulatedClock
) -> None:
    lock(client, device)
    early, late = await locked_form(client, device), await locked_form(client, device)
    await clock.advance(899)
    assert is_record(await submit(client, early, "owner@example.com", "correct horse"))
    await clock.advance(1)
    refused = await submit(client, late, "owner@example.com", "correct horse")
    assert refused.refusal == (401, "SESSION", "text/plain")


async def test_an_unknown_session_id_is_refused(client: Client, device: Device) -> None:
    lock(client, device)
    form = await locked_form(client, device)
    assert form.form is not None
    form.form.server_info["sessionId"] = "00" * 16
    refused = await submit(client, form, "owner@example.com", "correct horse")
    assert refused.refusal == (401, "SESSION", "text/plain")
    form.form.server_info["sessionId"] = "not hexadecimal"
    refused = await submit(client, form, "owner@example.com", "correct horse")
    assert refused.refusal == (400, "MALFORMED", "text/plain")


async def test_a_lite_activation_gets_a_fresh_session_id_each_time(
    client: Client, device: Device
) -> None:
    lock(client, device)
    forms = [form_of(await client.activate(device.activation_request(None))) for _ in range(2)]
    ids = [form.form.server_info["sessionId"] for form in forms if form.form]
    assert len(set(ids)) == 2
    answer = await submit(client, forms[1], "owner@example.com", "correct horse")
    assert is_record(answer)
    assert b"iphone-activation" in answer.body
    again = await submit(client, forms[1], "owner@example.com", "correct horse")
    assert again.refusal == (401, "SESSION", "text/plain")


async def test_a_lock_that_is_lifted_meanwhile_lets_anybody_pass(
    client: Client, device: Device
) -> None:
    lock(client, device)
    form = await locked_form(client, device)
    lock(client, device, None)
    assert is_record(await submit(client, form, "", ""))


async def test_a_device_that_is_removed_meanwhile_is_unknown(
    client: Client, device: Device
) -> None:
    lock(client, device)
    form = await locked_form(client, device)
    await client.admin("DELETE", f"/registry/devices/{device.serial_number}")
    answer = await submit(client, form, "owner@example.com", "correct horse")
    assert b"Device Unknown" in answer.body


# ---- what a service remembers ----


def test_memory_forgets_by_age_and_by_number() -> None:
    clock = SimulatedClock()
    memory: Memory[int] = Memory(timedelta(minutes=1), limit=3)
    for number in range(4):
        memory.put(bytes([number]), number, clock.now())
    assert memory.get(b"\x00", clock.now()) is None
    assert memory.get(b"\x01", clock.now()) == 1
    later = clock.now() + timedelta(minutes=1)
    assert memory.get(b"\x03", later) is None
    memory.put(b"\x09", 9, later)
    assert len(memory) == 1
