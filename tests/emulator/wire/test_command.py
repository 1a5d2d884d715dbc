"""The command channel: goldens, captured commands and answers, round trips, damage."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.command import (
    RESERVED,
    Command,
    ErrorItem,
    MalformedCommand,
    Response,
    Status,
    decode_command,
    decode_response,
    encode_command,
    encode_response,
)
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.index import facts
from tests.emulator.wire.strategies import text, values
from tests.support import GOLDENS, VECTORS, needs_vectors

UDID = "00008110-001A34D90E38801E"
INVALID = "“FooBar” is not a valid request type."

RESPONSES = {
    "Idle.plist": Response(udid=UDID, status=Status.IDLE),
    "Error-unknown-request-type.plist": Response(
        udid=UDID,
        status=Status.ERROR,
        command_uuid="B2DA2591-A2E5-45E5-8DD8-0FFB050D8407",
        error_chain=(
            ErrorItem(
                code=12021,
                domain="MCMDMErrorDomain",
                localized_description=INVALID,
                us_english_description=INVALID,
            ),
        ),
    ),
}
COMMAND = Command(
    command_uuid="0001_DeviceInformation",
    request_type="DeviceInformation",
    fields={"Queries": ["DeviceName", "IsSupervised"]},
    requires_network_tether=True,
)


def parameters(reserved: frozenset[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(text.filter(lambda key: key not in reserved), values, max_size=3)


commands = st.builds(
    Command,
    command_uuid=text,
    request_type=text,
    fields=parameters(frozenset(("RequestType", "RequestRequiresNetworkTether"))),
    requires_network_tether=st.booleans(),
)
error_items = st.builds(
    ErrorItem,
    code=st.integers(-(1 << 31), 1 << 31),
    domain=text,
    localized_description=st.none() | text,
    us_english_description=st.none() | text,
)
responses = st.builds(
    Response,
    udid=text,
    user_id=st.none() | text,
    user_short_name=st.none() | text,
    status=st.sampled_from(Status),
    command_uuid=text,
    fields=parameters(RESERVED),
    error_chain=st.lists(error_items, max_size=2).map(tuple),
    request_type=st.none() | text,
)


@settings(max_examples=50)
@given(commands)
def test_decoding_undoes_encoding_a_command(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


@settings(max_examples=50)
@given(responses)
def test_decoding_undoes_encoding_a_response(response: Response) -> None:
    assert decode_response(encode_response(response)) == response


@settings(max_examples=50)
@given(garbage | damaged((GOLDENS / "wire" / "DeviceInformation-command.plist").read_bytes()))
def test_garbage_is_a_malformed_command(noise: bytes) -> None:
    survives(decode_command, noise, (MalformedCommand,))


@settings(max_examples=50)
@given(garbage | damaged((GOLDENS / "wire" / "Error-unknown-request-type.plist").read_bytes()))
def test_garbage_is_a_malformed_response(noise: bytes) -> None:
    survives(decode_response, noise)


@pytest.mark.parametrize("name", RESPONSES)
def test_golden_responses_are_written_byte_for_byte_and_read_back(name: str) -> None:
    golden = (GOLDENS / "wire" / name).read_bytes()
    assert encode_response(RESPONSES[name]) == golden
    assert decode_response(golden) == RESPONSES[name]


def test_the_golden_command_is_written_byte_for_byte_and_read_back() -> None:
    golden = (GOLDENS / "wire" / "DeviceInformation-command.plist").read_bytes()
    assert encode_command(COMMAND) == golden
    assert decode_command(golden) == COMMAND


def test_statuses_have_the_wire_spelling() -> None:
    assert {status.value for status in Status} == {
        "Idle",
        "Acknowledged",
        "Error",
        "CommandFormatError",
        "NotNow",
    }


@pytest.mark.parametrize(
    ("fields", "sentence", "uuid"),
    [
        ({"CommandUUID": "u"}, "Command: expected dictionary", "u"),
        (
            {"CommandUUID": "u", "Command": []},
            "Command: expected dictionary, got 'array'",
            "u",
        ),
        ({"CommandUUID": "u", "Command": {}}, "Command.RequestType: expected string", "u"),
        (
            {"CommandUUID": "u", "Command": {"RequestType": 1}},
            "Command.RequestType: expected string, got 'integer'",
            "u",
        ),
        (
            {
                "CommandUUID": "u",
                "Command": {"RequestType": "X", "RequestRequiresNetworkTether": "yes"},
            },
            "Command.RequestRequiresNetworkTether: expected boolean, got 'string'",
            "u",
        ),
        ({"Command": {"RequestType": "X"}}, "CommandUUID: expected string", None),
        (
            {"CommandUUID": 7, "Command": {"RequestType": "X"}},
            "CommandUUID: expected string, got 'integer'",
            None,
        ),
    ],
)
def test_a_malformed_command_keeps_the_uuid_for_the_answer(
    fields: dict[str, Any], sentence: str, uuid: str | None
) -> None:
    with pytest.raises(MalformedCommand) as caught:
        decode_command(plist.dumps(fields))
    assert str(caught.value) == sentence
    assert caught.value.command_uuid == uuid


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Status": None}, "Status: expected string"),
        (
            {"Status": "Done"},
            "Status: expected Idle or Acknowledged or Error or CommandFormatError or NotNow, got 'Done'",
        ),
        ({"CommandUUID": None}, "CommandUUID: expected string"),
        ({"UDID": None}, "UDID: expected either UDID or EnrollmentID"),
        ({"EnrollmentID": "e"}, "UDID: expected either UDID or EnrollmentID"),
        ({"ErrorChain": {}}, "ErrorChain: expected array, got 'dictionary'"),
        ({"ErrorChain": ["x"]}, "ErrorChain[0]: expected dictionary, got 'string'"),
        (
            {"ErrorChain": [{"ErrorDomain": "d"}]},
            "ErrorChain[0].ErrorCode: expected integer",
        ),
        (
            {"ErrorChain": [{"ErrorDomain": "d", "ErrorCode": "1"}]},
            "ErrorChain[0].ErrorCode: expected integer, got 'string'",
        ),
    ],
)
def test_one_damaged_key_of_a_response_gives_one_exact_error(
    change: dict[str, Any], sentence: str
) -> None:
    fields = plist.loads((GOLDENS / "wire" / "Error-unknown-request-type.plist").read_bytes())
    for key, value in change.items():
        if value is None:
            del fields[key]
        else:
            fields[key] = value
    with pytest.raises(MalformedMessage) as caught:
        decode_response(plist.dumps(fields))
    assert str(caught.value) == sentence


def test_result_keys_never_overrule_who_answers_what() -> None:
    response = Response(
        udid=UDID, status=Status.ACKNOWLEDGED, command_uuid="u", fields={"Status": "Idle"}
    )
    assert decode_response(encode_response(response)).status is Status.ACKNOWLEDGED


# ---- captured commands and answers ----


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "wanted"), [(name, row) for name, row in facts("commands") if "CommandUUID" in row]
)
def test_captured_commands_decode_to_the_facts_of_their_index(
    name: str, wanted: dict[str, str]
) -> None:
    wire = (VECTORS / "commands" / name).read_bytes()
    command = decode_command(wire)
    assert command.command_uuid == wanted["CommandUUID"]
    assert command.request_type == wanted["RequestType"]
    assert plist.loads(encode_command(command)) == plist.loads(wire)


@needs_vectors
@pytest.mark.vectors
def test_a_captured_install_profile_carries_its_payload() -> None:
    command = decode_command((VECTORS / "commands" / "InstallProfile-micromdm.plist").read_bytes())
    assert list(command.fields) == ["Payload"]
    assert isinstance(command.fields["Payload"], bytes)


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize("name", [name for name, _ in facts("commands", "manifest-")])
def test_an_application_manifest_is_no_command(name: str) -> None:
    with pytest.raises(MalformedCommand):
        decode_command((VECTORS / "commands" / name).read_bytes())


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(("name", "wanted"), facts("responses"))
def test_captured_responses_decode_to_the_facts_of_their_index(
    name: str, wanted: dict[str, str]
) -> None:
    wire = (VECTORS / "responses" / name).read_bytes()
    response = decode_response(wire)
    assert response.udid == wanted["UDID"]
    assert response.status.value == wanted["Status"]
    assert response.command_uuid == wanted.get("CommandUUID")
    assert response.request_type == wanted.get("RequestType")
    assert plist.loads(encode_response(response)) == plist.loads(wire)


@needs_vectors
@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("Errors-commandment-error_invalid_request_type.plist", [12021]),
        ("Errors-commandment-iOS-11.3.1-RemoveProfile-Unmanaged.plist", [12013]),
        ("Errors-commandment-iOS-11.3.1-CommandFormatError.plist", []),
    ],
)
def test_captured_refusals_carry_their_chain(name: str, codes: list[int]) -> None:
    response = decode_response((VECTORS / "responses" / name).read_bytes())
    assert [item.code for item in response.error_chain] == codes
    assert {item.domain for item in response.error_chain} <= {"MCMDMErrorDomain"}
    assert response.fields == {}


@needs_vectors
@pytest.mark.vectors
def test_the_captured_messages_are_all_looked_at() -> None:
    assert len(facts("responses")) == 31
    assert len(facts("commands", "manifest-")) == 3
