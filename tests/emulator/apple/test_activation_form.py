"""A1, A2 and A8 of apple-services.md 9.1: who may ask, in which form, and with which certificate request."""

import base64
from dataclasses import replace
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from emulator.wire import activation, plist
from tests.emulator.apple.support import (
    Client,
    Device,
    ec_key,
    full,
    record_of,
)

MALFORMED = (400, "MALFORMED", "text/plain")
FORM = activation.FORM_CONTENT_TYPE


# ---- A1, A2 ----


async def test_a1_refuses_an_unknown_agent(client: Client, device: Device) -> None:
    answer = await client.activate(await full(client, device), user_agent="curl/8.5")
    assert answer.refusal == (403, "UNKNOWN_AGENT", "text/plain")


async def test_a2_takes_multipart_with_a_bare_dict_as_host_tools_send_it(
    client: Client, device: Device
) -> None:
    document = activation.encode_activation_info(await full(client, device))
    bare = document[document.index(b"<dict>") : document.rindex(b"</plist>")].rstrip()
    body = (
        b'--X\r\nContent-Disposition: form-data; name="InStoreActivation"\r\n\r\nfalse\r\n'
        b'--X\r\nContent-Disposition: form-data; name="activation-info"\r\n\r\n'
        + bare
        + b"\r\n--X--\r\n"
    )
    answer = await client.post(
        activation.ACTIVATION_PATH, body, content_type="multipart/form-data; boundary=X"
    )
    record_of(answer)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"other=1"),
        (FORM, b""),
        (FORM, b"activation-info=%3Cdict%3E"),
        (FORM, b"activation-info=" + b"\xff"),
        ("multipart/form-data", b"--X\r\n\r\n--X--"),
        ("multipart/form-data; boundary=X", b"nothing"),
        ("multipart/form-data; boundary=X", b"--X\r\n\r\nno name\r\n--X--\r\n"),
        ("application/xml", b"<plist/>"),
    ],
)
async def test_a2_refuses_what_holds_no_activation_info(
    client: Client, content_type: str, body: bytes
) -> None:
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=content_type)
    assert answer.refusal == MALFORMED


@pytest.mark.parametrize(
    "key",
    [
        "ActivationInfoXML",
        "FairPlayCertChain",
        "FairPlaySignature",
        "RKCertification",
        "RKSignature",
        "signActRequest",
        "serverKP",
    ],
)
async def test_a2_refuses_a_request_without_one_of_the_seven_keys(
    client: Client, device: Device, key: str
) -> None:
    fields = (await full(client, device)).to_fields()
    del fields[key]
    body = urlencode({activation.FORM_FIELD: plist.dumps(fields)}).encode()
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=FORM)
    assert answer.refusal == MALFORMED


async def test_a2_refuses_a_body_over_256_kilobytes(client: Client) -> None:
    body = b"activation-info=" + b"a" * 256 * 1024
    answer = await client.post(activation.ACTIVATION_PATH, body, content_type=FORM)
    assert answer.refusal == (413, "TOO_LARGE", "text/plain")


async def test_a2_refuses_a_signed_xml_that_is_no_activation_info(
    client: Client, device: Device
) -> None:
    xml = plist.dumps({"DeviceID": {"SerialNumber": 7}})
    signature = device.factory_key.sign(xml, padding.PKCS1v15(), hashes.SHA256())
    request = replace(
        await full(client, device), activation_info_xml=xml, fair_play_signature=signature
    )
    assert (await client.activate(request)).refusal == MALFORMED


# ---- A8: the certificate request ----


# By `openssl genrsa 512` and `openssl req -new`: our own libraries make no key this short.
SHORT_KEY_REQUEST = b"""-----BEGIN CERTIFICATE REQUEST-----
MIHFMHECAQAwDDEKMAgGA1UEAwwBWDBcMA0GCSqGSIb3DQEBAQUAA0sAMEgCQQDU
bTXRShwACavuNFejrMh72+FBYXuOX/WHj63CnvhvlYtkiaQB8RbVnPsyU9zulGgL
pldEJBLQfHTnS9QnBQYLAgMBAAGgADANBgkqhkiG9w0BAQsFAANBAF6YdK8V0loL
pqEYzYfae9x6alPXvDmZ+AXfvKnAz4XJrcQrOXI1UgJw0Zqx5ynIvHuMmGhQaU5b
8byc/RXZ384=
-----END CERTIFICATE REQUEST-----
"""


@pytest.mark.parametrize("damage", ["der", "key", "short", "signature", "garbage"])
async def test_a8_refuses_a_certificate_request(
    client: Client, device: Device, damage: str
) -> None:
    good = device.certificate_request()
    middle = base64.b64decode(b"".join(good.splitlines()[1:-1]))
    requests = {
        "der": middle,
        "key": device.certificate_request(ec_key(3)),
        "short": SHORT_KEY_REQUEST,
        "signature": good.splitlines()[0]
        + b"\n"
        + base64.encodebytes(middle[:-1] + bytes([middle[-1] ^ 1]))
        + good.splitlines()[-1],
        "garbage": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    }
    request = await full(client, device, device_cert_request=requests[damage])
    assert (await client.activate(request)).refusal == MALFORMED
