"""What activation answers: records in every wrapping, acknowledgements, and BuddyML pages."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import MalformedMessage
from emulator.wire import buddyml, plist
from emulator.wire.activation_record import (
    Acknowledgement,
    ActivationRecord,
    ActivationRefused,
    CredentialForm,
    decode_answer,
    encode_answer,
    encode_html,
)
from emulator.wire.buddyml import Row
from tests.emulator.wire.garbage import damaged, garbage, survives
from tests.emulator.wire.strategies import plist_text
from tests.support import GOLDENS

XML = "text/xml"
BUDDYML = "application/x-buddyml"
RECORD = ActivationRecord(
    account_token=b"{}",
    account_token_certificate=b"tc",
    account_token_signature=b"sig",
    device_certificate=b"dc",
    device_configuration_flags="1",
)
LOCK = CredentialForm(
    title="Activation Lock",
    description="This device is linked to an account.",
    rows=(
        Row(id="login", label="Apple Account", placeholder="example@icloud.com"),
        Row(id="password", label="Password", placeholder="Required", secure=True),
    ),
    server_info={"isAuthRequired": "true", "sessionId": "00112233445566778899aabbccddeeff"},
)

records = st.builds(
    ActivationRecord,
    account_token=st.binary(max_size=20),
    account_token_certificate=st.binary(max_size=20),
    account_token_signature=st.binary(max_size=20),
    device_certificate=st.binary(max_size=20),
    unique_device_certificate=st.none() | st.binary(max_size=20),
    fair_play_key_data=st.none() | st.binary(max_size=20),
    regulatory_info=st.none() | st.binary(max_size=20),
    device_configuration_flags=st.none() | st.sampled_from(["0", "1"]),
    unbrick=st.booleans(),
)
# XML turns line ends and tabs of attributes into spaces unless they are escaped, and text keeps its own.
words = plist_text.map(str.strip)


def golden(name: str) -> bytes:
    return (GOLDENS / "wire" / name).read_bytes()


@settings(max_examples=50)
@given(records, st.booleans())
def test_decoding_undoes_encoding_in_every_wrapping(record: ActivationRecord, old: bool) -> None:
    assert decode_answer(XML, encode_answer(record, legacy=old)) == record
    assert decode_answer("text/html", encode_html(record, legacy=old)) == record


def test_the_golden_answers_are_written_byte_for_byte_and_read_back() -> None:
    assert encode_answer(RECORD) == golden("activation-record.plist")
    assert decode_answer(XML, golden("activation-record.plist")) == RECORD
    acknowledged = Acknowledgement()
    assert encode_answer(acknowledged) == golden("activation-acknowledgement.plist")
    assert decode_answer(XML, golden("activation-acknowledgement.plist")) == acknowledged


def test_the_legacy_root_says_what_host_tools_look_for() -> None:
    root = plist.loads(encode_answer(RECORD, legacy=True))["iphone-activation"]
    assert sorted(root) == ["ack-received", "activation-record", "show-settings"]
    assert (root["ack-received"], root["show-settings"]) == (True, True)


def test_the_other_legacy_root_is_read_too() -> None:
    body = plist.dumps({"device-activation": {"activation-record": RECORD.to_fields()}})
    assert decode_answer(XML, body) == RECORD
    body = plist.dumps({"device-activation": {"ack-received": True}})
    assert decode_answer(XML, body) == Acknowledgement(show_settings=False)


@pytest.mark.parametrize(
    "content_type",
    ["text/xml", "application/xml", "application/x-apple-plist", "Text/XML; charset=utf-8"],
)
def test_every_xml_type_carries_a_record(content_type: str) -> None:
    assert decode_answer(content_type, encode_answer(RECORD)) == RECORD


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json"])
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedMessage, match="Content-Type"):
        decode_answer(content_type, encode_answer(RECORD))


def test_flags_that_came_as_a_number_are_read_as_text() -> None:
    body = plist.dumps({"ActivationRecord": {**RECORD.to_fields(), "DeviceConfigurationFlags": 1}})
    assert decode_answer(XML, body) == RECORD


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "activation answer"),
        ({"ActivationRecord": "x"}, "ActivationRecord"),
        ({"ActivationRecord": {}}, "ActivationRecord.AccountToken"),
        (
            {"ActivationRecord": {**RECORD.to_fields(), "DeviceConfigurationFlags": True}},
            "ActivationRecord.DeviceConfigurationFlags",
        ),
        (
            {"ActivationRecord": {**RECORD.to_fields(), "DeviceCertificate": "text"}},
            "ActivationRecord.DeviceCertificate",
        ),
        ({"iphone-activation": []}, "iphone-activation"),
        ({"iphone-activation": {}}, "iphone-activation.ack-received"),
        ({"iphone-activation": {"ack-received": False}}, "iphone-activation.ack-received"),
        (
            {"iphone-activation": {"activation-record": {}}},
            "iphone-activation.activation-record.AccountToken",
        ),
    ],
)
def test_a_broken_answer_names_its_key(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_answer(XML, plist.dumps(fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "tag",
    [
        b'<script id="protocol" type="text/x-apple-plist">',
        b'<SCRIPT TYPE="text/x-apple-plist" ID=protocol>',
        b"<script type='x' id = 'protocol'>",
    ],
)
def test_a_page_is_searched_for_its_script_however_it_is_written(tag: bytes) -> None:
    document = encode_answer(RECORD)
    page = b'<html><script id="other">x</script>' + tag + document[document.index(b"<plist") :]
    assert decode_answer("text/html", page + b"</script></html>") == RECORD


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html></html>",
        b'<script id="protocol">',
        b'<script id="protocol">x</script>',
        b"<script " * 40_000,
        b"<script id=" * 30_000,
    ],
)
def test_a_page_without_a_plist_is_malformed(page: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_answer("text/html", page)


@settings(max_examples=80)
@given(
    garbage
    | damaged(encode_answer(RECORD))
    | damaged(encode_html(RECORD))
    | damaged(buddyml.encode_form(LOCK)),
    st.sampled_from([XML, "text/html", BUDDYML, "image/png"]),
)
def test_garbage_and_damage_are_malformed(noise: bytes, content_type: str) -> None:
    survives(lambda data: decode_answer(content_type, data), noise)


# ---- BuddyML ----


def test_the_golden_lock_form_is_written_byte_for_byte_and_read_back() -> None:
    assert buddyml.encode_form(LOCK) == golden("activation-lock.xml")
    refused = decode_answer(BUDDYML, golden("activation-lock.xml"))
    assert refused == ActivationRefused(title="Activation Lock", form=LOCK)
    assert LOCK.is_auth_required


def test_a_wrong_password_shows_the_form_again_with_an_alert() -> None:
    again = CredentialForm(
        title=LOCK.title,
        description=LOCK.description,
        rows=LOCK.rows,
        server_info=LOCK.server_info,
        alert="Wrong password",
    )
    assert buddyml.decode(buddyml.encode_form(again)).form == again


@settings(max_examples=50)
@given(words)
def test_an_error_page_carries_its_title_whatever_is_in_it(title: str) -> None:
    refused = decode_answer(BUDDYML, buddyml.encode_error(title))
    assert refused == ActivationRefused(title=title)


@settings(max_examples=50)
@given(
    st.builds(
        CredentialForm,
        title=words.filter(bool),
        description=words,
        rows=st.lists(
            st.builds(Row, id=words.filter(bool), label=words, placeholder=words), max_size=2
        ).map(tuple),
        server_info=st.dictionaries(st.sampled_from(["a", "isAuthRequired"]), words, max_size=2),
        alert=st.none() | words,
    )
)
def test_decoding_undoes_encoding_a_form(form: CredentialForm) -> None:
    decoded = buddyml.decode(buddyml.encode_form(form)).form
    plain = form.description.replace("\r\n", "\n").replace("\r", "\n")  # XML 1.0, section 2.11
    assert decoded.description == plain
    assert (decoded.title, decoded.rows, decoded.server_info, decoded.alert) == (
        form.title,
        form.rows,
        form.server_info,
        form.alert,
    )


@pytest.mark.parametrize(
    ("inside", "answer"),
    [
        # The first of these that is there decides, whatever comes after it.
        (
            '<navigationBar title="Device Unknown"/><clientInfo ack-received="true"/><alert title="a"/>',
            ActivationRefused(title="Device Unknown"),
        ),
        ('<clientInfo ack-received="true"/><alert title="a"/>', Acknowledgement()),
        (
            '<clientInfo ack-received="false"/><page><navigationBar title="T"/></page>',
            ActivationRefused(title="T", form=CredentialForm(title="T")),
        ),
        (
            '<page><tableView><section footer="F"/></tableView></page>',
            ActivationRefused(title="", form=CredentialForm(description="F")),
        ),
        (
            '<page><tableView><section footer="F" footerLinkURL="u"><footer url="v">x</footer></section>'
            "<section><footer> G </footer></section></tableView></page>",
            ActivationRefused(title="", form=CredentialForm(description="G")),
        ),
    ],
)
def test_pages_are_read_by_the_paths_of_clients(inside: str, answer: object) -> None:
    assert decode_answer(BUDDYML, f"<xmlui>{inside}</xmlui>".encode()) == answer


ENTITY = b'<!DOCTYPE xmlui [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html/>",
        b"<xmlui/>",
        b"<xmlui>",
        b"<xmlui><page><editableTextRow/></page></xmlui>",
        ENTITY + b'<xmlui><navigationBar title="&x;"/></xmlui>',
        b'<xmlui><navigationBar title="&x;"/></xmlui>',
        b"<!DOCTYPE xmlui><xmlui><navigationBar title='t'/></xmlui>",
        b"<a>" * 100,
        b"<xmlui>" + b"<a/>" * 3000 + b"</xmlui>",
        b"<xmlui>" + b" " * 300_000 + b"</xmlui>",
    ],
)
def test_hostile_or_empty_pages_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        buddyml.decode(data)
