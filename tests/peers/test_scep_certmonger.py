"""certmonger at our SCEP server: its helper scep-submit alone, and the whole service on a bus of its own (certificates.md 4.2)."""

import base64
import shlex
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.scep.message import PkiStatus, encode_request
from certs.serving import CertsServer
from tests.certs.scep.support import request_for
from tests.certs.test_cms_signed import RSA
from tests.peers.programs import needed, run
from tests.peers.scep_world import CHALLENGE, our_server
from tests.support import rsa_key

pytestmark = pytest.mark.peer

LIBRARY = Path("/usr/lib/certmonger")
NAME = "cmdev.example.com"


@pytest.fixture(autouse=True)
def keys() -> None:
    """Made before the loop runs."""
    rsa_key(1)


def helper(name: str) -> str:
    return needed(str(LIBRARY / name))


def certificate_files(server: CertsServer, folder: Path) -> dict[str, str]:
    """The service wants whole paths."""
    certificates = {"ra": server.folder.ra.certificate, "ca": server.folder.ca.certificate}
    for name, certificate in certificates.items():
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return {name: str(folder / f"{name}.pem") for name in certificates}


async def test_the_helper_reads_capabilities_and_certificates(tmp_path: Path) -> None:
    submit = helper("scep-submit")
    async with our_server(tmp_path) as server:
        said = await run(submit, "-u", server.scep_url, "-c", folder=tmp_path)
        assert said.status == 0
        assert {b"Renewal", b"POSTPKIOperation", b"AES"} <= set(said.output.split())
        said = await run(submit, "-u", server.scep_url, "-C", folder=tmp_path)
        assert said.status == 0
        assert set(x509.load_pem_x509_certificates(said.output)) == {
            server.folder.ra.certificate,
            server.folder.ca.certificate,
        }


@pytest.mark.parametrize(
    ("challenge", "status"), [(CHALLENGE, PkiStatus.SUCCESS), ("wrong", PkiStatus.FAILURE)]
)
async def test_the_helper_carries_a_message_and_checks_its_answer(
    tmp_path: Path, challenge: str, status: PkiStatus
) -> None:
    submit = helper("scep-submit")
    async with our_server(tmp_path) as server:
        files = certificate_files(server, tmp_path)
        message = encode_request(
            request_for(1, challenge=challenge),
            message_type="19",
            transaction_id="7" * 77,
            sender_nonce=bytes(16),
            signer=RSA,
            recipients=[server.folder.ra.certificate],
        )
        (tmp_path / "message.pem").write_text(
            f"-----BEGIN PKCS7-----\n{base64.encodebytes(message).decode()}-----END PKCS7-----\n"
        )
        said = await run(
            *(submit, "-u", server.scep_url, "-R", files["ca"], "-r", files["ra"]),
            *("-N", files["ca"], "-p", "message.pem", "-v"),
            folder=tmp_path,
        )
        issued = server.folder.ca.index.count - 2  # without RA and TLS
        assert issued == (status is PkiStatus.SUCCESS)
        assert said.status == (0 if issued else 2), said.said
        assert said.output


async def test_the_service_enrolls_and_renews(tmp_path: Path) -> None:
    getcert, bus = needed("getcert"), needed("dbus-run-session")
    (tmp_path / "home").mkdir()
    certificate, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    async with our_server(tmp_path) as server:
        files = certificate_files(server, tmp_path)
        authority = (*("-R", files["ca"]), *("-r", files["ra"]), *("-N", files["ca"]))
        wanted = ("-N", "CN=cmdev,O=Test", "-D", NAME, "-L", CHALLENGE)
        commands: list[tuple[str, ...]] = [  # the bus starts the service, which ends with the bus
            (getcert, "add-scep-ca", "-s", "-c", "OurCA", "-u", server.scep_url, *authority),
            (getcert, "request", "-s", "-c", "OurCA", "-f", certificate, "-k", key, *wanted, "-w"),
            ("cp", certificate, "first.pem"),
            (getcert, "rekey", "-s", "-f", certificate, "-w"),
            (getcert, "list", "-s"),
        ]
        script = "\n".join(shlex.join(command) for command in commands)
        said = await run(
            bus, "--", "sh", "-c", script, folder=tmp_path, HOME=str(tmp_path / "home")
        )
        assert b"status: MONITORING" in said.output, said.output.decode() + said.said
        first, last = (
            x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
            for name in ("first.pem", "c.pem")
        )
        assert first != last
        for leaf in (first, last):
            leaf.verify_directly_issued_by(server.folder.ca.certificate)
            assert {one.value for one in leaf.subject} == {"cmdev", "Test"}
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [NAME]
