"""The `acme` package of certbot at our server as `mdm-certs serve` runs it: accounts, http-01, download, revocation (certificates.md 4.5)."""

import asyncio
import datetime
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from acme import challenges, client, errors, messages, standalone
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding
from josepy.jwa import ES256, ES384, ES512, RS256
from josepy.jwk import JWKEC, JWKRSA

from certs import csr
from certs.acme.device_attest import freshness, response
from certs.acme.http01 import LoopbackFetcher
from certs.acme.jws import base64url
from certs.acme.policy import AcmePolicy
from certs.attestation import AttestationAuthority
from certs.authorize import StaticChallenge
from certs.ca import CertificateAuthority
from certs.clock import SystemClock
from certs.devices_file import AnyAttestedDevice
from certs.folder import CaFolder
from certs.keys import PrivateKey, generate, spki_der
from certs.serving import CertsServer, ServeOptions
from tests.certs.serving_program import program
from tests.support import rsa_key

pytestmark = pytest.mark.peer

UDID = "00008120-000000000000001E"
CLOCK = SystemClock()
TIMEOUT_S = 20


class Peer:
    """One client of the package, with its account, and the web server that proves its names."""

    def __init__(self, directory: str, root: Path, resources: set[Any], key: Any, alg: Any) -> None:
        self.resources = resources
        net = client.ClientNetwork(
            key,
            alg=alg,
            verify_ssl=str(root),  # type: ignore[arg-type]  # what requests takes
            timeout=TIMEOUT_S,
        )
        net.session.headers["Connection"] = "close"  # none outlives its request
        self.net = net
        self.acme = client.ClientV2(client.ClientV2.get_directory(directory, net), net)

    def register(self) -> messages.RegistrationResource:
        wanted = messages.NewRegistration.from_data(
            email="someone@example.org", terms_of_service_agreed=True
        )
        return self.acme.new_account(wanted)

    def prove(self, order: messages.OrderResource) -> None:
        for authorization in order.authorizations:
            (offered,) = authorization.body.challenges
            assert isinstance(offered.chall, challenges.HTTP01)
            answer, validation = offered.response_and_validation(self.net.key)
            self.resources.add(
                standalone.HTTP01RequestHandler.HTTP01Resource(
                    chall=offered.chall, response=answer, validation=validation
                )
            )
            self.acme.answer_challenge(offered, answer)

    def certificate(self, *names: str, alternatives: bool = False) -> messages.OrderResource:
        order = self.acme.new_order(request(*names))
        self.prove(order)
        order = self.acme.poll_authorizations(order, deadline())
        return self.acme.finalize_order(order, deadline(), alternatives)


def deadline() -> datetime.datetime:
    return datetime.datetime.now() + datetime.timedelta(seconds=TIMEOUT_S)


def request(*names: str, key: PrivateKey | None = None) -> bytes:
    der = csr.build(
        key or rsa_key(31), x509.Name([]), alternative_names=[x509.DNSName(one) for one in names]
    )
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)


@contextmanager
def web_server() -> Iterator[tuple[int, set[Any]]]:
    """The package's own."""
    resources: set[Any] = set()
    server = standalone.HTTP01Server(("127.0.0.1", 0), resources)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1], resources
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CaFolder:
    rsa_key(31)
    made = tmp_path_factory.mktemp("ca") / "mdm-ca"
    return CaFolder.open(made, "Test CA", ["127.0.0.1", "localhost"], clock=CLOCK)


@asynccontextmanager
async def peer(
    folder: CaFolder,
    *,
    key: Any = None,
    alg: Any = RS256,
    roots: tuple[x509.Certificate, ...] = (),
    **policy: Any,
) -> AsyncIterator[Peer]:
    with web_server() as (port, resources):
        options = ServeOptions(
            challenges=StaticChallenge("x"),
            devices=AnyAttestedDevice(),
            attestation_roots=roots,
            acme=AcmePolicy(http01=LoopbackFetcher(port), **policy),
        )
        async with CertsServer(folder, options, clock=CLOCK) as server:
            made = await asyncio.to_thread(
                Peer,
                server.acme_directory,
                folder.root,
                resources,
                key or JWKRSA(key=rsa_key(30)),
                alg,
            )
            try:
                yield made
            finally:
                made.net.session.close()


async def run(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


KEYS = [
    (lambda: JWKRSA(key=rsa_key(30)), RS256),
    (lambda: JWKEC(key=generate("p256")), ES256),
    (lambda: JWKEC(key=generate("p384")), ES384),
    (lambda: JWKEC(key=generate("p521")), ES512),
]


@pytest.mark.parametrize(("key", "alg"), KEYS, ids=["RS256", "ES256", "ES384", "ES512"])
async def test_an_ordinary_program_gets_a_certificate(
    folder: CaFolder, key: Callable[[], Any], alg: Any
) -> None:
    rsa_key(30)
    names = ["a.example", "b.example"]

    def work(made: Peer) -> messages.OrderResource:
        made.register()
        return made.certificate(*names)

    async with peer(folder, key=key(), alg=alg) as made:
        order = await run(lambda: work(made))
    leaf, *issuers = x509.load_pem_x509_certificates(order.fullchain_pem.encode())
    leaf.verify_directly_issued_by(issuers[0])
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == names
    assert issuers == [folder.ca.certificate]


async def test_a_slow_server_with_other_chains_is_waited_for(folder: CaFolder) -> None:
    rsa_key(30)
    other = CertificateAuthority.create("Another Root", clock=CLOCK).certificate

    def work(made: Peer) -> messages.OrderResource:
        made.register()
        return made.certificate("a.example", alternatives=True)

    async with peer(folder, slow_validation=1, slow_finalize=1, alternate_chains=[[other]]) as made:
        order = await run(lambda: work(made))
    (alternative,) = order.alternative_fullchains_pem
    assert x509.load_pem_x509_certificates(alternative.encode())[1] == other


async def test_an_account_lives_its_whole_life(folder: CaFolder) -> None:
    rsa_key(30)

    def work(made: Peer) -> None:
        account = made.register()
        assert account.body.contact == ("mailto:someone@example.org",)
        made.net.account = None
        with pytest.raises(errors.ConflictError):  # so it calls an account that exists
            made.register()
        made.net.account = account
        assert made.acme.query_registration(account).body.status == "valid"
        changed = account.body.update(contact=("mailto:other@example.org",))
        assert made.acme.update_registration(account, changed).body.contact == changed.contact
        gone = made.acme.deactivate_registration(account)
        assert gone.body.status == "deactivated"
        with pytest.raises(messages.Error) as caught:
            made.acme.new_order(request("a.example"))
        assert caught.value.code == "unauthorized"

    async with peer(folder) as made:
        await run(lambda: work(made))


async def test_a_certificate_is_revoked_and_a_second_time_refused(folder: CaFolder) -> None:
    rsa_key(30)

    def work(made: Peer) -> x509.Certificate:
        made.register()
        order = made.certificate("a.example")
        leaf = x509.load_pem_x509_certificates(order.fullchain_pem.encode())[0]
        with pytest.raises(messages.Error) as caught:
            made.acme.revoke(leaf, 7)
        assert caught.value.code == "badRevocationReason"
        made.acme.revoke(leaf, 4)
        with pytest.raises(messages.Error) as caught:
            made.acme.revoke(leaf, 4)
        assert caught.value.code == "alreadyRevoked"
        return leaf

    async with peer(folder) as made:
        leaf = await run(lambda: work(made))
    assert folder.ca.is_revoked(leaf)


async def test_problems_are_understood_with_their_subproblems(folder: CaFolder) -> None:
    rsa_key(30)

    def work(made: Peer) -> None:
        made.register()
        with pytest.raises(messages.Error) as caught:
            made.acme.new_order(request("*.example", "*.example.org"))
        assert caught.value.code == "rejectedIdentifier"
        subproblems = caught.value.subproblems or ()
        assert [one.identifier.value for one in subproblems if one.identifier] == [
            "*.example",
            "*.example.org",
        ]
        order = made.acme.new_order(request("a.example"))
        offered = order.authorizations[0].body.challenges[0]
        made.acme.answer_challenge(offered, offered.response(made.net.key))  # shown nowhere
        with pytest.raises(errors.ValidationError):
            made.acme.poll_authorizations(order, deadline())

    async with peer(folder) as made:
        await run(lambda: work(made))


async def test_an_authorization_is_given_up(folder: CaFolder) -> None:
    rsa_key(30)

    def work(made: Peer) -> str:
        made.register()
        order = made.acme.new_order(request("a.example"))
        updated = made.acme.deactivate_authorization(order.authorizations[0])
        return str(updated.body.status.name)

    async with peer(folder) as made:
        assert await run(lambda: work(made)) == "deactivated"


async def test_an_external_account_is_bound(folder: CaFolder) -> None:
    rsa_key(30)
    mac_key = bytes(range(32))

    def work(made: Peer) -> messages.RegistrationResource:
        assert made.acme.external_account_required()
        with pytest.raises(messages.Error) as caught:
            made.register()
        assert caught.value.code == "externalAccountRequired"
        binding = messages.ExternalAccountBinding.from_data(
            JWKRSA(key=rsa_key(30)).public_key(),
            "key-1",
            base64url(mac_key),
            made.acme.directory,
        )
        return made.acme.new_account(
            messages.NewRegistration(terms_of_service_agreed=True, external_account_binding=binding)
        )

    async with peer(folder, eab_keys={"key-1": mac_key}) as made:
        account = await run(lambda: work(made))
    assert account.body.status == "valid"


async def test_an_external_account_of_a_file_is_bound_by_the_program(tmp_path: Path) -> None:
    """`mdm-certs serve --eab`: the right key, a wrong one, and none."""
    account, mac_key = JWKRSA(key=rsa_key(30)), bytes(range(40))
    listed = tmp_path / "eab.yaml"
    listed.write_text(f"- {{key_id: team-a, hmac_key: {base64url(mac_key)}}}\n")

    def new_account(made: Peer, hmac_key: bytes) -> messages.RegistrationResource:
        binding = messages.ExternalAccountBinding.from_data(
            account.public_key(), "team-a", base64url(hmac_key), made.acme.directory
        )
        return made.acme.new_account(
            messages.NewRegistration(terms_of_service_agreed=True, external_account_binding=binding)
        )

    def work(directory: str) -> messages.RegistrationResource:
        made = Peer(directory, tmp_path / "ca" / "root.pem", set(), account, RS256)
        try:
            assert made.acme.external_account_required()
            with pytest.raises(messages.Error) as caught:
                made.register()
            assert caught.value.code == "externalAccountRequired"
            with pytest.raises(messages.Error) as caught:
                new_account(made, bytes(40))
            assert caught.value.code == "unauthorized"
            return new_account(made, mac_key)
        finally:
            made.net.session.close()

    with program("--folder", str(tmp_path / "ca"), "--eab", str(listed)) as said:
        bound = await run(lambda: work(said["ACME directory"]))
    assert bound.body.status == "valid"


class Answer:
    """A payload as the package sends it."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self._payload = payload

    def json_dumps(self, **options: Any) -> str:
        return json.dumps(self._payload, **options)


async def test_a_device_is_attested_by_hand(folder: CaFolder) -> None:
    """The package knows neither the identifier nor the challenge; certificates.md 4.5 says how far it goes."""
    rsa_key(30)
    authority, key = AttestationAuthority.create(CLOCK), generate("p384")
    permanent = messages.IdentifierType.POSSIBLE_NAMES.get(
        "permanent-identifier"
    ) or messages.IdentifierType("permanent-identifier")

    def work(made: Peer) -> x509.Certificate:
        made.register()
        acme, directory = made.acme, made.acme.directory
        wanted = messages.NewOrder(
            identifiers=[messages.Identifier(typ=permanent, value=UDID)], profile=""
        )
        placed = acme._post(directory["newOrder"], wanted)
        order = messages.Order.from_json(placed.json())
        shown = acme._post_as_get(order.authorizations[0]).json()
        authorization = messages.Authorization.from_json(shown)
        (offered,) = authorization.challenges
        assert isinstance(offered.chall, challenges.UnrecognizedChallenge)
        token = offered.chall.jobj["token"]
        chain = authority.issue(
            key.public_key(), serial_number=None, udid=UDID, freshness=freshness(token)
        )
        attested = Answer(response([one.public_bytes(Encoding.DER) for one in chain]))
        judged = acme._post(shown["challenges"][0]["url"], attested).json()
        assert judged["status"] == "valid"
        resource = messages.OrderResource(
            body=order,
            uri=placed.headers["Location"],
            authorizations=[],
            csr_pem=x509.load_der_x509_csr(csr.build(key, x509.Name([]))).public_bytes(
                serialization.Encoding.PEM
            ),
        )
        final = acme.finalize_order(resource, deadline())
        return x509.load_pem_x509_certificates(final.fullchain_pem.encode())[0]

    async with peer(folder, roots=(authority.root,)) as made:
        leaf = await run(lambda: work(made))
    assert spki_der(leaf.public_key()) == spki_der(key.public_key())
