"""The SCEP payload is obeyed key by key, and its failures are told in Apple's words (certificates.md 1.8, 1.11)."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import csr
from certs.clock import SystemClock
from certs.faults import Action
from certs.keys import KeySpec, PrivateKey
from certs.scep import client
from certs.scep.approval import TimedApproval
from certs.scep.message import PkiRequest
from emulator.device.device import Device
from emulator.device.install_errors import chain_of
from emulator.device.setup_assistant import ProfileEnrollment, set_up
from emulator.device.state import State
from emulator.errors import EmulatorError
from emulator.wire import profile
from emulator.wire.profile import ScepPayload
from tests.emulator.device.enrollment_profiles import (
    enrollment_profile,
    mdm_payload,
    root_payload,
    scep_payload,
)
from tests.emulator.device.world import (
    CLOCK,
    CachedKeys,
    ScriptedMdm,
    make_device,
    mdm_authority,
    scripted_mdm,
    surroundings,
)

INVALID_RESPONSE = "The SCEP server returned an invalid response."


class RecordingClock(SystemClock):
    """Sleeps at once and remembers how long it should have been."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def enroll(mdm: ScriptedMdm, around: Any = None, **changes: Any) -> Device:
    device = make_device()
    payload = scep_payload(mdm.url, **changes)
    served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
    await set_up(device, around or surroundings(), ProfileEnrollment(profile.encode(served)))
    return device


async def refused(mdm: ScriptedMdm, around: Any = None, **changes: Any) -> list[Any]:
    """The ErrorChain of an enrollment that fails."""
    device = make_device()
    payload: ScepPayload = replace(scep_payload(mdm.url), **changes)
    served = enrollment_profile(root_payload(), payload, mdm_payload(mdm.url))
    with pytest.raises(EmulatorError) as failure:
        await set_up(device, around or surroundings(), ProfileEnrollment(profile.encode(served)))
    assert device.state is State.FAILED
    return list(chain_of(failure.value))


async def test_subject_and_names_are_those_of_the_payload() -> None:
    subject = ((("C", "US"),), (("O", "Example"), ("OU", "Lab")), (("2.5.4.5", "SIM1"),))
    names = {
        "rfc822Name": "a@example.com",
        "dNSName": ["a.example.com", "b.example.com"],
        "uniformResourceIdentifier": "https://example.com/a",
        "ntPrincipalName": "a@corp.example.com",
    }
    async with scripted_mdm() as mdm:
        await enroll(mdm, subject=subject, subject_alt_name=names)
        (leaf,) = mdm.challenges.issued_to
    assert [{one.value for one in rdn} for rdn in leaf.subject.rdns] == [
        {"US"},
        {"Example", "Lab"},
        {"SIM1"},
    ]
    given = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert given.get_values_for_type(x509.RFC822Name) == ["a@example.com"]
    assert given.get_values_for_type(x509.DNSName) == ["a.example.com", "b.example.com"]
    assert given.get_values_for_type(x509.UniformResourceIdentifier) == ["https://example.com/a"]
    assert len(given.get_values_for_type(x509.OtherName)) == 1


class AskedKeys(CachedKeys):
    """Remembers which kinds of keys were wanted; gives 2048 bits, as a TLS server refuses 1024 and 4096 take long."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[KeySpec] = []

    async def take(self, spec: KeySpec) -> PrivateKey:
        self.asked.append(spec)
        return await super().take("rsa2048")


@pytest.mark.parametrize("keysize", [1024, 2048, 4096])
async def test_the_key_is_as_long_as_the_payload_says(keysize: int) -> None:
    keys = AskedKeys()
    async with scripted_mdm() as mdm:
        await enroll(mdm, surroundings(keys=keys), keysize=keysize)
    assert keys.asked[0] == f"rsa{keysize}"


@pytest.mark.parametrize(
    ("asked", "signing", "encryption"),
    [(0, True, True), (1, True, False), (4, False, True), (5, True, True)],
)
async def test_the_request_asks_for_the_key_usage(
    asked: int, signing: bool, encryption: bool
) -> None:
    requests: list[bytes] = []

    def watch(side: str, step: str, message: object, n: int) -> Action | None:
        if step == "pki_operation" and isinstance(message, bytes):
            requests.append(message)  # the CSR, before it is sent
        return None

    async with scripted_mdm() as mdm:
        await enroll(mdm, surroundings(faults=watch), key_usage=asked)
    usage = csr.decode(requests[0]).key_usage
    assert usage is not None
    assert (usage.digital_signature, usage.key_encipherment) == (signing, encryption)


@pytest.mark.parametrize("digest", [hashlib.md5, hashlib.sha1, hashlib.sha256])
async def test_the_fingerprint_decides_whom_to_believe(digest: Callable[[bytes], Any]) -> None:
    ca, *_ = mdm_authority()
    fingerprint = digest(ca.certificate.public_bytes(Encoding.DER)).digest()
    async with scripted_mdm() as mdm:
        await enroll(mdm, ca_fingerprint=fingerprint)
        wrong = bytes((fingerprint[0] ^ 1,)) + fingerprint[1:]
        chain = await refused(mdm, ca_fingerprint=wrong)
        assert chain[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)
        assert len(mdm.challenges.issued_to) == 1


@pytest.mark.parametrize(("retries", "delay_s"), [(1, 10), (3, 7)])
async def test_it_polls_as_often_and_as_slowly_as_it_is_told(retries: int, delay_s: int) -> None:
    clock = RecordingClock()
    asked: list[str] = []

    def watch(side: str, step: str, message: object, n: int) -> Action | None:
        if isinstance(message, PkiRequest):
            asked.append(message.message_type)
        return None

    approval = TimedApproval(CLOCK, polls=3)
    async with scripted_mdm(scep_faults=watch, approval=approval) as mdm:
        around = surroundings(clock=clock)
        settings: dict[str, Any] = {"retries": retries, "retry_delay_s": delay_s}
        if retries == 3:
            await enroll(mdm, around, **settings)
        else:
            chain = await refused(mdm, around, **settings)
            assert chain[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)
    assert asked == ["19", *["20"] * retries]
    assert clock.slept.count(delay_s) == retries - 1  # the first poll comes at once


FAULTS: dict[str, Action] = {
    "failure": Action(name="fail", arguments={"fail_info": "2"}),
    "web page": Action(name="body", arguments={"body": "<html>busy</html>"}),
    "empty": Action(name="body", arguments={"body": ""}),
    "error": Action(name="status", arguments={"status": 500}),
    "nonce": Action(name="wrong-recipient-nonce"),
    "transaction": Action(name="wrong-transaction-id"),
}


@pytest.mark.ade(116)
@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_the_server_does_wrong_the_device_says_one_sentence(fault: str) -> None:
    def misbehave(side: str, step: str, message: object, n: int) -> Action | None:
        return FAULTS[fault] if step == "pki_operation" else None

    async with scripted_mdm(scep_faults=misbehave) as mdm:
        chain = await refused(mdm)
        assert chain[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)
        assert chain[0][1] == 4001
        assert mdm.challenges.issued_to == [] or fault in ("nonce", "transaction")


@pytest.mark.ade(116)
@pytest.mark.parametrize("step", ["get_ca_cert", "pki_operation"])
async def test_an_answer_that_comes_too_late_is_the_same_sentence(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    late = Action(name="delay", arguments={"seconds": 1})
    async with scripted_mdm(scep_faults=lambda side, at, *_: late if at == step else None) as mdm:
        chain = await refused(mdm)
    assert chain[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)


@pytest.mark.ade(116)
async def test_a_connection_that_ends_after_get_ca_cert_is_the_same_sentence() -> None:
    def cut(side: str, step: str, message: object, n: int) -> Action | None:
        return Action(name="drop-response") if step == "pki_operation" else None

    async with scripted_mdm() as mdm:
        around = surroundings(faults=cut)
        assert (await refused(mdm, around))[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)


@pytest.mark.ade(116)
async def test_a_refused_challenge_is_the_same_sentence_and_a_good_one_works_after_it() -> None:
    async with scripted_mdm() as mdm:
        for challenge in ("late", None):
            chain = await refused(mdm, challenge=challenge)
            assert chain[-1] == ("MCSCEPErrorDomain", 22013, INVALID_RESPONSE)
        await enroll(mdm)
        assert len(mdm.challenges.issued_to) == 1
