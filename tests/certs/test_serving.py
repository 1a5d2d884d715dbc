"""`mdm-certs serve`: the doors of a CA folder on loopback, tried by our clients, by openssl, and as a program."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from certs import crl, csr, names
from certs.acme.client import AcmeClient
from certs.acme.http01 import LoopbackFetcher
from certs.acme.policy import AcmePolicy
from certs.attestation import AttestationAuthority
from certs.authorize import StaticChallenge
from certs.cli import app
from certs.clock import SystemClock
from certs.devices_file import AnyAttestedDevice
from certs.errors import AcmeProblem, ScepFailure
from certs.folder import CaFolder
from certs.keys import FreshKeys, generate
from certs.scep.client import ScepClient
from certs.serving import CertsServer, ServeOptions
from emulator.http import HttpDoor, HttpSession, TrustSet
from tests.certs.acme.test_dns_orders import web_server
from tests.certs.serving_program import program
from tests.support import rsa_key

CLOCK = SystemClock()
CHALLENGE = "s3cret"
UDID = "00008120-000000000000001E"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for all tests here."""
    made = tmp_path_factory.mktemp("ca") / "mdm-ca"
    CaFolder.open(made, "Test CA", ["127.0.0.1", "localhost"], clock=CLOCK)
    return made


@pytest.fixture(scope="module")
def authority() -> AttestationAuthority:
    return AttestationAuthority.create(CLOCK)


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[tuple[CertsServer, HttpSession]]:
    chosen = {"challenges": StaticChallenge(CHALLENGE), "devices": AnyAttestedDevice(), **options}
    ca = await asyncio.to_thread(
        CaFolder.open, folder, "Test CA", ["127.0.0.1", "localhost"], clock=CLOCK
    )
    async with CertsServer(ca, ServeOptions(**chosen), clock=CLOCK) as server:
        trust = TrustSet().with_roots(ca.ca.certificate)
        async with HttpDoor(clock=CLOCK).session(trust=trust) as session:
            yield server, session


@pytest.fixture(autouse=True)
def key() -> None:
    """Made before the loop runs."""
    for number in (60, 61):
        rsa_key(number)


async def by_scep(
    server: CertsServer, session: HttpSession, challenge: str | None, key: int = 60
) -> Any:
    client = ScepClient(
        session, server.scep_url, clock=CLOCK, keys=FreshKeys(), signer="same-key", retries=0
    )
    request = csr.build(
        rsa_key(key), names.from_subject([[["CN", "scep device"]]]), challenge=challenge
    )
    return await client.enroll(rsa_key(key), request)


async def by_acme(
    server: CertsServer, session: HttpSession, authority: AttestationAuthority, **said: Any
) -> Any:
    key = generate("p256")

    async def attest(freshness: bytes) -> list[bytes]:
        facts = {"serial_number": "SIM0000001", "udid": UDID, "freshness": freshness, **said}
        chain = authority.issue(key.public_key(), **facts)
        return [one.public_bytes(Encoding.DER) for one in chain]

    client = AcmeClient(session, server.acme_directory, clock=CLOCK, keys=FreshKeys())
    request = csr.build(key, names.from_subject([[["CN", UDID]]]))
    return await client.enroll(request, identifier=UDID, attest=attest)


async def test_scep_over_http_asks_for_the_one_challenge(folder: Path) -> None:
    async with served(folder) as (server, session):
        assert server.scep_url.startswith("http://127.0.0.1:")
        leaf, *_ = await by_scep(server, session, CHALLENGE)
        assert names.common_name(leaf.subject) == "scep device"
        for wrong in ("S3cret", None):
            with pytest.raises(ScepFailure):
                await by_scep(server, session, wrong, key=61)


async def test_acme_over_https_takes_who_is_attested_as_the_identifier(
    folder: Path, authority: AttestationAuthority
) -> None:
    async with served(folder, attestation_roots=(authority.root,)) as (server, session):
        assert server.acme_directory.startswith("https://127.0.0.1:")
        leaf, *_ = await by_acme(server, session, authority)
        assert names.common_name(leaf.subject) == UDID
        with pytest.raises(AcmeProblem, match="attested device is not the one"):
            await by_acme(server, session, authority, udid="00008120-000000000000002E")
        foreign = AttestationAuthority.create(CLOCK)
        with pytest.raises(AcmeProblem, match="badAttestationStatement"):
            await by_acme(server, session, foreign)


async def by_name(directory: str, session: HttpSession, files: dict[str, str]) -> Any:
    async def publish(token: str, authorization: str) -> None:
        files[token] = authorization

    client = AcmeClient(session, directory, clock=CLOCK, keys=FreshKeys())
    wanted = [x509.DNSName("a.example")]
    request = csr.build(generate("p256"), x509.Name([]), alternative_names=wanted)
    return await client.enroll_names(request, names=["a.example"], publish=publish)


async def test_acme_takes_dns_names_where_it_may_look_for_their_proof(folder: Path) -> None:
    async with web_server() as shown:
        policy = AcmePolicy(http01=LoopbackFetcher(shown.port))
        async with served(folder, acme=policy) as (server, session):
            assert await by_name(server.acme_directory, session, shown.files)
    async with served(folder, acme=AcmePolicy()) as (server, session):
        with pytest.raises(AcmeProblem, match="type 'dns' cannot be proved here"):
            await by_name(server.acme_directory, session, {})
    usual = ServeOptions(challenges=StaticChallenge(None), devices=AnyAttestedDevice())
    assert usual.acme.http01 is not None


async def test_what_is_issued_leads_to_the_list_on_the_http_port(folder: Path) -> None:
    async with served(folder) as (server, session):
        leaf, *_ = await by_scep(server, session, CHALLENGE)
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        url = points[0].full_name[0].value
        assert url == f"{server.url}/crl/ca.crl"
        server.folder.ca.revoke(leaf)
        answer = await session.request("GET", url, step="crl")
        listed = crl.read(answer.body)
        assert listed.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


async def test_it_listens_on_loopback_by_itself(folder: Path) -> None:
    async with served(folder) as (server, _):
        assert server.url.startswith("http://127.0.0.1:")
    assert ServeOptions(challenges=StaticChallenge(None), devices=AnyAttestedDevice()).host == (
        "127.0.0.1"
    )


# The program


async def test_the_program_serves_and_keeps_its_challenge_in_a_closed_file(tmp_path: Path) -> None:
    folder = tmp_path / "mdm-ca"
    for _ in range(2):  # the second start finds all as it was
        with program("--folder", str(folder)) as said:
            assert said["SCEP challenge"] == f"in {folder}/challenge"
            assert said["root to trust"] == f"{folder}/root.pem"
            password = (folder / "challenge").read_text().strip()
            assert len(password) == 24
            assert (folder / "challenge").stat().st_mode & 0o777 == 0o600
            async with HttpDoor(clock=CLOCK).session(trust=TrustSet()) as session:
                answer = await session.request(
                    "GET", said["SCEP"] + "?operation=GetCACaps", step="caps"
                )
                listed = await session.request("GET", said["revocation list"], step="crl")
            assert b"POSTPKIOperation" in answer.body
            assert len(crl.read(listed.body)) == 0


async def test_the_program_looks_for_the_proof_of_a_name_at_the_port_it_is_told(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mdm-ca"
    async with web_server() as shown:
        for port in shown.port, 0:
            with program("--folder", str(folder), "--http01-port", str(port)) as said:
                root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
                trust = TrustSet().with_roots(root)
                async with HttpDoor(clock=CLOCK).session(trust=trust) as session:
                    work = by_name(said["ACME directory"], session, shown.files)
                    if port:
                        assert await work
                        continue
                    with pytest.raises(AcmeProblem, match="unsupportedIdentifier"):
                        await work


async def test_the_program_takes_a_device_that_only_its_code_names_where_it_is_told(
    tmp_path: Path,
) -> None:
    authority, key = AttestationAuthority.create(CLOCK), generate("p256")
    root, devices = tmp_path / "attestation.pem", tmp_path / "devices.yaml"
    root.write_bytes(authority.root.public_bytes(Encoding.PEM))
    devices.write_text("- {identifier: code-1}\n- {identifier: code-2, serial_number: F2L}\n")
    common = ["--folder", str(tmp_path / "ca"), "--attestation-root", str(root)]
    common += ["--devices", str(devices)]

    async def attest(freshness: bytes) -> list[bytes]:
        chain = authority.issue(
            key.public_key(), serial_number=None, udid=None, freshness=freshness
        )
        return [certificate.public_bytes(Encoding.DER) for certificate in chain]

    async def get(said: dict[str, str], identifier: str) -> str | None:
        root = x509.load_pem_x509_certificate((tmp_path / "ca" / "root.pem").read_bytes())
        async with HttpDoor(clock=CLOCK).session(trust=TrustSet().with_roots(root)) as session:
            client = AcmeClient(session, said["ACME directory"], clock=CLOCK, keys=FreshKeys())
            request = csr.build(key, names.from_subject([[["CN", identifier]]]))
            leaf, *_ = await client.enroll(request, identifier=identifier, attest=attest)
            return names.common_name(leaf.subject)

    with program(*common) as said, pytest.raises(AcmeProblem, match="badAttestationStatement"):
        await get(said, "code-1")
    with program(*common, "--user-enrollment") as said:
        assert await get(said, "code-1") == "code-1"
        with pytest.raises(AcmeProblem, match="badAttestationStatement"):
            await get(said, "code-2")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--devices", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["--eab", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["--user-enrollment"], "--user-enrollment needs --devices"),
        (["--challenge-file", "/nowhere"], "/nowhere: No such file or directory"),
        (["--attestation-root", "/nowhere"], "/nowhere: No such file or directory"),
        (["--host", "192.0.2.1"], "Cannot assign requested address"),
        (["--host", "ä.example"], "--host cannot stand in a certificate"),
        (["--challenge-file", "/dev/null"], "/dev/null: holds no password in its first line"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    folder: Path, arguments: list[str], reason: str
) -> None:
    result = CliRunner().invoke(app, ["serve", "--folder", str(folder), *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("mdm-certs: ")
    assert reason in result.stderr
