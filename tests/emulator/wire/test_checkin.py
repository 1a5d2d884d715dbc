"""Check-in messages: the goldens, the captured ones, round trips, and one exact error for each kind of damage."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import checkin, plist
from emulator.wire.checkin import (
    MESSAGES,
    Authenticate,
    CheckOut,
    DeclarativeManagement,
    GetBootstrapToken,
    GetToken,
    Message,
    ReturnToService,
    SetBootstrapToken,
    TokenUpdate,
    UserAuthenticate,
    decode,
    encode,
)
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.index import facts
from tests.emulator.wire.strategies import text
from tests.support import GOLDENS, VECTORS, needs_vectors

UDID = "00008110-001A34D90E38801E"
TOPIC = "com.apple.mgmt.External.3f2c9a1e-5f1b-4d0e-9f7a-6f0c9f5a2b10"
ALL_F = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"

GOLDEN: dict[str, Message] = {
    "Authenticate.plist": Authenticate(
        udid=UDID,
        topic=TOPIC,
        os_version="18.1",
        build_version="22B83",
        product_name="iPhone14,5",
        serial_number="F7K2Q9XW4M",
        imei="35 391805 123456 1",
        meid="35391805123456",
    ),
    "TokenUpdate.plist": TokenUpdate(
        udid=UDID,
        topic=TOPIC,
        token=bytes.fromhex("abcdef123456789abcdef123456789abcdef123456789abcdef123456789abcd"),
        push_magic="7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D",
        unlock_token=bytes(range(64)),
        awaiting_configuration=True,
    ),
    "TokenUpdate-user.plist": TokenUpdate(
        udid="00008101-000C2D8A3C40001E",
        user_id=ALL_F,
        user_short_name="pupil@school.example",
        topic=TOPIC,
        token=bytes.fromhex("0123456789abcdef" * 4),
        push_magic="0D0A7F3C-5E53-4C38-8C0C-2E1B7C1C9A11",
    ),
    "CheckOut-user-enrollment.plist": CheckOut(
        enrollment_id="5C2A6F5E-3F0B-4C3B-9A55-0A8E5C1D7B21", topic=TOPIC
    ),
    "GetToken.plist": GetToken(udid=UDID, token_service_type="com.apple.maid"),
}

maybe_text = st.none() | text
maybe_flag = st.none() | st.booleans()
data = st.binary(max_size=40)


def senders(kind: type[Any], **own: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Messages of a kind from either sort of enrollment."""
    users = {
        name: maybe_text
        for name in ("user_id", "user_short_name", "user_long_name", "enrollment_user_id")
    }
    return st.builds(kind, udid=text, **users, **own) | st.builds(
        kind, enrollment_id=text, **users, **own
    )


messages = st.one_of(
    senders(
        Authenticate,
        topic=text,
        os_version=maybe_text,
        build_version=maybe_text,
        product_name=maybe_text,
        serial_number=maybe_text,
        imei=maybe_text,
        meid=maybe_text,
        device_name=maybe_text,
        model=maybe_text,
        model_name=maybe_text,
        challenge=st.none() | data,
    ),
    senders(
        TokenUpdate,
        topic=text,
        token=data,
        push_magic=text,
        unlock_token=st.none() | data,
        awaiting_configuration=maybe_flag,
        not_on_console=maybe_flag,
    ),
    senders(CheckOut, topic=maybe_text),
    senders(
        GetToken,
        token_service_type=text,
        token_parameters=st.none() | st.dictionaries(text, text, max_size=2),
    ),
    senders(SetBootstrapToken, bootstrap_token=st.none() | data, awaiting_configuration=maybe_flag),
    senders(GetBootstrapToken),
    senders(UserAuthenticate, digest_response=maybe_text).filter(lambda m: m.is_user_channel),
    senders(DeclarativeManagement, endpoint=text, data=st.none() | data),
    senders(ReturnToService),
)


@settings(max_examples=80)
@given(messages)
def test_decoding_undoes_encoding(message: Message) -> None:
    assert decode(encode(message)) == message


@settings(max_examples=50)
@given(garbage)
def test_garbage_is_a_malformed_message(noise: bytes) -> None:
    survives(decode, noise)


@settings(max_examples=50)
@given(damaged((GOLDENS / "wire" / "TokenUpdate.plist").read_bytes()))
def test_a_damaged_message_is_malformed_or_another_message(noise: bytes) -> None:
    survives(decode, noise)


@pytest.mark.parametrize("name", GOLDEN)
def test_goldens_are_written_byte_for_byte_and_read_back(name: str) -> None:
    golden = (GOLDENS / "wire" / name).read_bytes()
    assert encode(GOLDEN[name]) == golden
    assert decode(golden) == GOLDEN[name]


def test_every_message_type_of_the_table_has_a_dataclass() -> None:
    assert set(MESSAGES) == {
        "Authenticate",
        "TokenUpdate",
        "CheckOut",
        "DeclarativeManagement",
        "GetToken",
        "ReturnToService",
        "SetBootstrapToken",
        "GetBootstrapToken",
        "UserAuthenticate",
    }


def changed(change: dict[str, Any], *, without: str = "", golden: str = "TokenUpdate") -> bytes:
    """The golden with some keys changed and one left out."""
    fields = plist.loads((GOLDENS / "wire" / f"{golden}.plist").read_bytes())
    fields.update(change)
    fields.pop(without, None)
    return plist.dumps(fields)


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (changed({}, without="MessageType"), "MessageType: expected string"),
        (changed({}, without="Topic"), "Topic: expected string"),
        (changed({}, without="Token"), "Token: expected data"),
        (changed({}, without="PushMagic"), "PushMagic: expected string"),
        (changed({"Token": "text"}), "Token: expected data, got 'string'"),
        (changed({"UnlockToken": True}), "UnlockToken: expected data, got 'boolean'"),
        (
            changed({"AwaitingConfiguration": "false"}),
            "AwaitingConfiguration: expected boolean, got 'string'",
        ),
        (changed({}, without="UDID"), "UDID: expected either UDID or EnrollmentID"),
        (changed({"EnrollmentID": "x"}), "UDID: expected either UDID or EnrollmentID"),
        (changed({"UDID": 5}), "UDID: expected string, got 'integer'"),
        (
            changed({"MessageType": "Hello"}),
            "MessageType: expected a check-in message, got 'Hello'",
        ),
        (
            changed({"MessageType": "UserAuthenticate"}),
            "UserID: expected string",
        ),
        (changed({"MessageType": "GetToken"}), "TokenServiceType: expected string"),
        (changed({"MessageType": "DeclarativeManagement"}), "Endpoint: expected string"),
        (changed({}, golden="Authenticate", without="Topic"), "Topic: expected string"),
        (
            changed({"OSVersion": 18.1}, golden="Authenticate"),
            "OSVersion: expected string, got 'real'",
        ),
    ],
)
def test_one_damaged_key_gives_one_exact_error(wire: bytes, sentence: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(wire)
    assert str(caught.value) == sentence


def test_unknown_keys_pass_quietly() -> None:
    assert decode(changed({"FutureKey": [1, {"a": b"b"}]})) == GOLDEN["TokenUpdate.plist"]


def test_an_absent_awaiting_configuration_is_told_apart_from_false() -> None:
    absent = decode(changed({}, without="AwaitingConfiguration"))
    assert isinstance(absent, TokenUpdate)
    assert absent.awaiting_configuration is None
    assert "AwaitingConfiguration" not in plist.loads(encode(absent))


def test_tokens_do_not_show_in_a_log() -> None:
    message = GOLDEN["TokenUpdate.plist"]
    assert isinstance(message, TokenUpdate)
    shown = repr(message)
    assert message.push_magic not in shown
    assert repr(message.unlock_token) not in shown
    assert repr(message.token) not in shown


def test_the_user_channel_and_the_enrollment_are_named_by_properties() -> None:
    assert GOLDEN["TokenUpdate-user.plist"].is_user_channel
    assert not GOLDEN["TokenUpdate.plist"].is_user_channel
    assert GOLDEN["TokenUpdate.plist"].enrollment == UDID
    assert GOLDEN["CheckOut-user-enrollment.plist"].enrollment.startswith("5C2A6F5E")


# ---- captured messages ----


def captured() -> list[tuple[str, dict[str, str]]]:
    return [(name, row) for name, row in facts("checkin") if "MessageType" in row]


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(("name", "wanted"), captured())
def test_captured_messages_decode_to_the_facts_of_their_index(
    name: str, wanted: dict[str, str]
) -> None:
    wire = (VECTORS / "checkin" / name).read_bytes()
    message = decode(wire)
    assert type(message).__name__ == wanted["MessageType"]
    shown = {key: str(value) for key, value in message.to_fields().items()}
    assert {key: shown[key] for key in wanted} == wanted
    assert plist.loads(encode(message)) == plist.loads(wire)


@needs_vectors
@pytest.mark.vectors
def test_the_captured_messages_are_all_looked_at() -> None:
    assert len(captured()) == 17


@needs_vectors
@pytest.mark.vectors
def test_a_captured_ipad_token_update_keeps_its_keybag() -> None:
    message = decode((VECTORS / "checkin" / "TokenUpdate-nanomdm-1.plist").read_bytes())
    assert isinstance(message, TokenUpdate)
    assert (len(message.token), len(message.unlock_token or b"")) == (32, 1288)
    assert message.awaiting_configuration is False


@needs_vectors
@pytest.mark.vectors
def test_a_captured_message_of_an_unknown_type_is_refused() -> None:
    wire = (VECTORS / "malformed" / "checkin-unknown-messagetype-nanomdm.plist").read_bytes()
    with pytest.raises(MalformedMessage, match=r"OldManYellsAtCloud\.gif"):
        decode(wire)


def test_the_content_type_is_the_check_in_one() -> None:
    assert checkin.CONTENT_TYPE == "application/x-apple-aspen-mdm-checkin"
