"""The folder that `mdm-certs init` makes: a root CA, an RSA registration authority for SCEP, a TLS server identity.

    ca/key.pem, ca/certificate.pem, ca/issued.jsonl    the CA (see `ca`)
    ra/identity.pem                                    key, certificate, chain
    tls/identity.pem                                   key, certificate, chain
    root.pem                                           what others trust: every generation, newest first
    ca-2/ …                                            the next generation, after a roll-over (see `generations`)

Opening it again keeps all that is there and makes what is missing; an identity that is about to expire, or a TLS identity for
other hosts, is replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs import generations
from certs.ca import CertificateAuthority, issue_server_identity
from certs.ca_certificate import ca_name
from certs.certificate_profile import host_name
from certs.clock import Clock
from certs.errors import CertsError, MalformedMessage
from certs.generations import Generations, label
from certs.identity import Identity
from certs.keys import KeySpec, generate
from certs.names import common_name
from certs.whole_file import write_whole

RENEW_BEFORE: Final = timedelta(days=30)
RA_DAYS: Final = 1825
# RSA, as scepclient encrypts to every certificate that GetCACert gives, and strongSwan may come without elliptic curves.
CA_KEY: Final[KeySpec] = (
    "rsa2048"  # what every SCEP client can use; p256 signs twelve times as fast
)


class ForeignFolder(CertsError):
    """The folder holds something that is not ours."""

    def __init__(self, folder: Path, found: str) -> None:
        self.folder = folder
        self.found = found
        super().__init__(f"{folder} {found}: name an empty or new folder with --folder")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the folder, for the table."""

    what: str
    path: Path
    state: str  # "made", "kept" or "renewed"


@dataclass(frozen=True, slots=True)
class CaFolder:
    """All that a SCEP, ACME or TLS server of ours needs."""

    generations: Generations
    ra: Identity
    tls: Identity
    entries: tuple[Entry, ...]
    root: Path  # the file of what others trust

    @property
    def ca(self) -> CertificateAuthority:
        """The CA that issues."""
        return self.generations.newest

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        hosts: Sequence[str],
        *,
        clock: Clock,
        roll_over: bool = False,
        ca_key: KeySpec = CA_KEY,
    ) -> "CaFolder":
        """The folder, made or completed; `roll_over` gives a CA that is there its next generation, with a `ca_key`.

        Off the event loop. Raises ForeignFolder, MalformedMessage, or OSError; ValueError for an unfit name or host.
        """
        if not (folder / "ca" / "key.pem").is_file():
            _only_ours(folder)
        wanted = [host_name(host) for host in hosts]
        ca_name(name)  # refuses what no certificate can hold before anything is written
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        had_certificate = (folder / "ca" / "certificate.pem").exists()
        authorities = Generations.open(folder, "ca", name, clock=clock, spec=ca_key)
        if roll_over and had_certificate:
            own_name = common_name(authorities.all[0].certificate.subject) or name
            generations.roll_over(folder, "ca", own_name, clock=clock, spec=ca_key)
            authorities = Generations.open(folder, "ca", own_name, clock=clock, spec=ca_key)
        ca = authorities.newest
        ra, ra_state = _identity(
            folder / "ra" / "identity.pem",
            ca,
            clock,
            make=lambda: ca.issue_identity(
                generate("rsa2048"), _ra_name(ca.certificate), days=RA_DAYS, extended_key_usage=()
            ),
        )
        tls, tls_state = _identity(
            folder / "tls" / "identity.pem",
            ca,
            clock,
            make=lambda: issue_server_identity(ca, hosts, generate("p256")),
            wanted=wanted,
        )
        root = folder / "root.pem"
        pem = b"".join(one.root.public_bytes(Encoding.PEM) for one in reversed(authorities.all))
        root_state = "kept" if root.exists() and root.read_bytes() == pem else "made"
        if root_state == "made":
            write_whole(root, pem, 0o644)
        ca_state = "kept" if had_certificate and not roll_over else "made"
        own = folder / label("ca", authorities.number)
        entries = (
            Entry("CA certificate", own / "certificate.pem", ca_state),
            Entry("CA key", own / "key.pem", ca_state),
            Entry("issued and revoked", own / "issued.jsonl", ca_state),
            Entry("SCEP RA identity", folder / "ra" / "identity.pem", ra_state),
            Entry("TLS server identity", folder / "tls" / "identity.pem", tls_state),
            Entry("root for others to trust", root, root_state),
        )
        return cls(authorities, ra, tls, entries, root)


def _only_ours(folder: Path) -> None:
    """Nothing may be there yet but what a start that was killed has left."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ForeignFolder(folder, "is not a folder")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name != "ca")
    found += sorted(
        f"ca/{entry.name}"
        for entry in (folder / "ca").glob("*")
        if not entry.name.startswith(".key.pem.")
    )
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise ForeignFolder(folder, f"holds {found[0]}{more}, but no CA")


def _identity(
    path: Path,
    ca: CertificateAuthority,
    clock: Clock,
    *,
    make: Callable[[], Identity],
    wanted: Sequence[x509.GeneralName] | None = None,
) -> tuple[Identity, str]:
    """The identity of a file, as long as it is ours, current and for the wanted names; else a new one there."""
    state = "made"
    if path.exists():
        try:
            identity = Identity.from_own_pem(path.read_bytes())
        except MalformedMessage as error:
            raise MalformedMessage(str(path), error.expected, error.got) from error
        if _still_fits(identity.certificate, ca, clock, wanted):
            return identity, "kept"
        state = "renewed"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = make()
    write_whole(path, identity.to_pem())
    return identity, state


def _still_fits(
    certificate: x509.Certificate,
    ca: CertificateAuthority,
    clock: Clock,
    wanted: Sequence[x509.GeneralName] | None,
) -> bool:
    if certificate.issuer != ca.certificate.subject:
        return False
    if clock.now() + RENEW_BEFORE >= certificate.not_valid_after_utc:
        return False
    if wanted is None:
        return True
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) == set(wanted)


def _ra_name(ca: x509.Certificate) -> x509.Name:
    """The CA's own name with RA after it."""
    own = common_name(ca.subject) or "CA"
    others = [a for a in ca.subject if a.oid != NameOID.COMMON_NAME]
    return x509.Name([*others, x509.NameAttribute(NameOID.COMMON_NAME, f"{own:.61} RA")])
