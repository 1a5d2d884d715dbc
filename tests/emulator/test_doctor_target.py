"""Looking at a server before a run: each thing that can be wrong, and what the finding tells to do."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from certs.ca import CertificateAuthority, issue_server_identity
from certs.clock import Clock, SimulatedClock, SystemClock
from certs.hosts import HostMap
from certs.identity import Identity
from certs.keys import generate
from certs.tls import server_context
from certs.trust import verify_chain
from emulator.apple.pki import SimPKI
from emulator.doctor import Finding
from emulator.doctor_target import Target, target_findings
from emulator.http import TrustSet
from emulator.wire import machineinfo, profile
from tests.emulator.device.enrollment_profiles import scep_profile

CLOCK = SystemClock()
Handler = Callable[[web.Request], "web.Response"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose simulated PKI is there already."""
    folder = tmp_path_factory.mktemp("state")
    SimPKI.open(folder / "apple", CLOCK)
    return folder


@pytest.fixture(scope="module")
def ca() -> CertificateAuthority:
    return CertificateAuthority.create("Hospital CA", clock=CLOCK)


@asynccontextmanager
async def server(
    ca: CertificateAuthority,
    answer: web.Response | None = None,
    *,
    trusts: x509.Certificate | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    identity: Identity | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[str]:
    """Gives a profile to whom it trusts (None: to everybody), or always `answer`."""
    body = profile.encode(scep_profile("https://mdm.example.com"))

    async def enroll(request: web.Request) -> web.Response:
        signed = machineinfo.verify(await request.read())
        sent = headers or {}
        if answer is not None:
            return web.Response(
                status=answer.status, body=answer.body, headers={**answer.headers, **sent}
            )
        if trusts is not None:
            others = [one for one in signed.certificates if one != signed.signer]
            try:
                verify_chain(signed.signer, others, [trusts], at=None)
            except Exception:
                return web.Response(status=403, text="signer not trusted", headers=sent)
        kind = {"Content-Type": "application/x-apple-aspen-config"}
        return web.Response(body=body, headers={**kind, **sent})

    app = web.Application()
    app.router.add_post("/enroll", enroll)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    own = identity or issue_server_identity(ca, hosts, generate("p256"))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(own)).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/enroll"
    finally:
        await runner.cleanup()


def target(
    url: str,
    state: Path,
    *roots: x509.Certificate,
    clock: Clock = CLOCK,
    maps: tuple[str, ...] = (),
) -> Target:
    return Target(
        url=url,
        hosts=HostMap.parse(list(maps)),
        trust=TrustSet().with_roots(*roots),
        state=state,
        clock=clock,
    )


def root_of(state: Path) -> x509.Certificate:
    pem = (state / "apple" / "root" / "certificate.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem)


async def look(wanted: Target) -> dict[str, Finding]:
    return {finding.subject: finding for finding in await target_findings(wanted)}


def says(finding: Finding, pattern: str) -> bool:
    return re.search(pattern, finding.text) is not None


async def test_a_server_in_order_is_found_so(ca: CertificateAuthority, state: Path) -> None:
    async with server(ca, trusts=root_of(state)) as url:
        found = await look(target(url, state, ca.certificate))
    assert list(found) == ["name", "tcp", "tls", "clock", "anchors", "signer"]
    assert [finding.text for finding in found.values() if not finding.good] == []
    assert says(found["tls"], r"trusted, issued by .*Hospital CA.*, valid until \d{4}-\d\d-\d\d$")
    assert says(
        found["anchors"], r"signed under .*Sim Apple Root CA.*: a profile of \d+ bytes came"
    )


async def test_a_server_that_trusts_another_root_is_told_which_to_add(
    ca: CertificateAuthority, state: Path
) -> None:
    async with server(ca, trusts=ca.certificate) as url:
        found = await look(target(url, state, ca.certificate))
    assert not found["anchors"].good
    assert says(found["anchors"], "HTTP 403: signer not trusted: if it does not trust ")
    assert found["anchors"].text.endswith(f"({state}/apple/root/certificate.pem)")
    assert "signer" not in found


async def test_a_server_that_trusts_anybody_is_bad(ca: CertificateAuthority, state: Path) -> None:
    async with server(ca) as url:
        found = await look(target(url, state, ca.certificate))
    assert found["anchors"].good
    assert not found["signer"].good
    assert says(found["signer"], "does not check the signer")


@pytest.mark.parametrize(
    ("answer", "good", "words"),
    [
        (web.Response(body=b"<html>"), False, "HTTP 200, but no profile .*automated enrollment"),
        (web.Response(status=404), False, "HTTP 404.*the URL to which devices POST"),
        (web.Response(status=500, text="oops"), False, "HTTP 500: oops: the server's log"),
        (
            web.Response(status=401, headers={"WWW-Authenticate": 'Bearer method="x"'}),
            True,
            r"it asks for a login \(Bearer\)",
        ),
        (web.Response(status=401, text="no"), False, "HTTP 401: no: if it does not trust"),
        (
            web.Response(
                status=403,
                body=b'{"code":"com.apple.softwareupdate.required","details":{"OSVersion":"26.0"}}',
                headers={"Content-Type": "application/json"},
            ),
            False,
            "com.apple.softwareupdate.required",
        ),
    ],
)
async def test_each_answer_to_an_introduction_has_its_finding(
    ca: CertificateAuthority, state: Path, answer: web.Response, good: bool, words: str
) -> None:
    async with server(ca, answer) as url:
        found = await look(target(url, state, ca.certificate))
    assert found["anchors"].good is good
    assert says(found["anchors"], words)


@pytest.mark.parametrize(("seconds", "good"), [(30, True), (-7200, False), (7200, False)])
async def test_a_clock_that_differs_is_told(
    ca: CertificateAuthority, state: Path, seconds: int, good: bool
) -> None:
    still = SimulatedClock(CLOCK.now().replace(microsecond=0))  # however long the looking takes
    date = format_datetime(still.now() + timedelta(seconds=seconds), usegmt=False)
    async with server(ca, trusts=root_of(state), headers={"Date": date}) as url:
        found = await look(target(url, state, ca.certificate, clock=still))
    assert found["clock"].good is good
    side = "ahead" if seconds > 0 else "behind"
    assert good or says(found["clock"], rf"the server is 7200 s {side}: set both clocks")


@pytest.mark.parametrize("date", ["yesterday", "Thu, 01 Jan 2026 00:00:00"])
async def test_a_date_that_cannot_be_read_is_no_verdict(
    ca: CertificateAuthority, state: Path, date: str
) -> None:
    async with server(ca, trusts=root_of(state), headers={"Date": date}) as url:
        found = await look(target(url, state, ca.certificate))
    assert found["clock"].good


# ---- the way to the server ----


async def test_an_unknown_authority_is_named(ca: CertificateAuthority, state: Path) -> None:
    async with server(ca) as url:
        found = await look(target(url, state))
    assert list(found) == ["name", "tcp", "tls"]
    assert not found["tls"].good
    assert says(found["tls"], r"\(issued by .*Hospital CA.*\): give that authority.* --ca FILE")


async def test_a_certificate_for_another_name_says_which_names_it_has(
    ca: CertificateAuthority, state: Path
) -> None:
    async with server(ca, hosts=("mdm.example.com", "10.0.0.1")) as url:
        found = await look(target(url, state, ca.certificate))
        assert says(found["tls"], "is for mdm.example.com, 10.0.0.1, not for 127.0.0.1")
        port = url.split(":")[2].partition("/")[0]
        assert says(found["tls"], f"--map NAME=127.0.0.1:{port}")
        mapped = (f"mdm.example.com=127.0.0.1:{port}",)
        wanted = target("https://mdm.example.com/enroll", state, ca.certificate, maps=mapped)
        found = await look(wanted)
    assert found["tls"].good
    assert found["anchors"].good


async def test_an_expired_certificate_is_told_with_its_day(
    ca: CertificateAuthority, state: Path
) -> None:
    later = SimulatedClock(CLOCK.now() + timedelta(days=3000))
    async with server(ca) as url:
        found = await look(target(url, state, ca.certificate, clock=later))
    assert not found["tls"].good
    assert says(found["tls"], "server certificate expired on .*: renew it")


async def test_a_certificate_that_ends_soon_is_good_with_a_warning(
    ca: CertificateAuthority, state: Path
) -> None:
    identity = issue_server_identity(ca, ["127.0.0.1"], generate("p256"))
    end = identity.certificate.not_valid_after_utc
    near = SimulatedClock(end - timedelta(days=3, hours=1))
    async with server(ca, identity=identity) as url:
        found = await look(target(url, state, ca.certificate, clock=near))
    assert found["tls"].good
    assert says(found["tls"], ", in 3 days: renew it soon")


async def test_a_port_that_speaks_no_tls_is_told(state: Path) -> None:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        found = await look(target(f"https://127.0.0.1:{port}/enroll", state))
    finally:
        await runner.cleanup()
    assert not found["tls"].good
    assert says(found["tls"], "speak")


async def test_a_mapped_plain_port_needs_no_tls(state: Path) -> None:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        maps = (f"https://mdm.example.com=http://127.0.0.1:{runner.addresses[0][1]}",)
        found = await look(target("https://mdm.example.com/enroll", state, maps=maps))
    finally:
        await runner.cleanup()
    assert says(found["tls"], "none: ")
    assert says(found["anchors"], "HTTP 404")


async def test_a_closed_port_is_told(state: Path) -> None:
    found = await look(target("https://127.0.0.1:1/enroll", state))
    assert list(found) == ["name", "tcp"]
    assert says(found["tcp"], r"no connection to 127.0.0.1:1 \(.*refused\): start the server")


async def test_a_name_without_an_address_is_told(state: Path) -> None:
    found = await look(target("https://nowhere.invalid/enroll", state))
    assert list(found) == ["name"]
    assert says(found["name"], "nowhere.invalid has no address .*--map nowhere.invalid=HOST:PORT")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mdm.example.com", "expected http:// or https:// and a host"),
        ("https://", "expected http:// or https:// and a host"),
        ("https://iprofiles.apple.com/x", "is a real Apple host: map it"),
    ],
)
async def test_a_url_that_leads_nowhere_is_told(state: Path, url: str, words: str) -> None:
    found = await look(target(url, state))
    assert list(found) == ["target"]
    assert words in found["target"].text


async def test_a_state_folder_with_something_else_is_told(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "apple").write_text("a file")
    async with server(ca) as url:
        found = await look(replace(target(url, tmp_path, ca.certificate)))
    assert not found["anchors"].good
    assert says(found["anchors"], "cannot be opened")
