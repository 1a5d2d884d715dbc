"""One CA over the years: the newest generation issues, earlier ones stay accepted until their certificates end.

    {name}/, {name}-2/, {name}-3/ …     one CertificateAuthority each (see `ca`), in a common folder

A roll-over makes the next folder; whoever opens the generations afterwards finds it. Devices keep what an earlier one issued.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from certs.ca import CertificateAuthority
from certs.ca_certificate import ORGANIZATION
from certs.clock import Clock
from certs.keys import KeySpec, generate


@dataclass(frozen=True, slots=True)
class Generations:
    """All of them, oldest first; never empty."""

    name: str
    all: tuple[CertificateAuthority, ...]

    @property
    def newest(self) -> CertificateAuthority:
        """The one that issues."""
        return self.all[-1]

    @property
    def number(self) -> int:
        """The newest one's, from 1."""
        return len(self.all)

    def labelled(self) -> Iterator[tuple[str, CertificateAuthority]]:
        """Each with the name of its folder."""
        for number, authority in enumerate(self.all, start=1):
            yield label(self.name, number), authority

    @classmethod
    def open(
        cls,
        folder: Path | None,
        name: str,
        common_name: str,
        *,
        clock: Clock,
        organization: str = ORGANIZATION,
        spec: KeySpec = "p256",
    ) -> Self:
        """Those that are there, at least the first, which is made on first use; None keeps it in memory. Off the event loop."""
        if folder is None:
            made = CertificateAuthority.create(
                common_name, key=generate(spec), clock=clock, organization=organization
            )
            return cls(name, (made,))
        return cls(
            name,
            tuple(
                _open(folder, name, number, common_name, clock, organization, spec)
                for number in range(1, max(1, _how_many(folder, name)) + 1)
            ),
        )


def roll_over(
    folder: Path,
    name: str,
    common_name: str,
    *,
    clock: Clock,
    organization: str = ORGANIZATION,
    spec: KeySpec = "p256",
) -> CertificateAuthority:
    """Make the next generation. Off the event loop. Raises FileNotFoundError where there is no first one."""
    number = _how_many(folder, name)
    if number == 0:
        raise FileNotFoundError(2, "holds no CA that could be rolled over", str(folder / name))
    return _open(folder, name, number + 1, common_name, clock, organization, spec)


def label(name: str, number: int) -> str:
    """The folder of a generation, and what else is called after it."""
    return name if number == 1 else f"{name}-{number}"


def _how_many(folder: Path, name: str) -> int:
    return next(
        n - 1 for n in count(1) if not (folder / label(name, n) / "certificate.pem").is_file()
    )


def _open(
    folder: Path,
    name: str,
    number: int,
    common_name: str,
    clock: Clock,
    organization: str,
    spec: KeySpec,
) -> CertificateAuthority:
    # A name of its own: who finds an issuer by its name alone shall not find the wrong key.
    return CertificateAuthority.open(
        folder / label(name, number),
        common_name if number == 1 else f"{common_name} G{number}",
        clock=clock,
        spec=spec,
        organization=organization,
    )
