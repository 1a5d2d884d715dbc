"""A CA that was rolled over: the newest generation issues, those before stay."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from certs.clock import SimulatedClock
from certs.errors import UntrustedCertificate
from certs.generations import Generations, roll_over
from certs.keys import generate
from certs.names import common_name
from certs.trust import verify_chain

CLOCK = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])


def opened(folder: Path | None) -> Generations:
    return Generations.open(folder, "scep", "Test CA", clock=CLOCK)


def names(generations: Generations) -> list[str | None]:
    return [common_name(ca.certificate.subject) for ca in generations.all]


def test_without_a_roll_over_there_is_one(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        first = opened(folder)
        assert (first.number, names(first)) == (1, ["Test CA"])
        assert [label for label, _ in first.labelled()] == ["scep"]
    assert opened(tmp_path).newest.certificate == opened(tmp_path).newest.certificate


def test_after_a_roll_over_the_new_one_issues_and_both_are_known(tmp_path: Path) -> None:
    old = opened(tmp_path).newest
    leaf = old.issue(generate("p256").public_key(), NAME)
    made = roll_over(tmp_path, "scep", "Test CA", clock=CLOCK)
    both = opened(tmp_path)
    assert names(both) == ["Test CA", "Test CA G2"]
    assert [label for label, _ in both.labelled()] == ["scep", "scep-2"]
    assert both.newest.certificate == made.certificate
    assert both.all[0].certificate == old.certificate
    roots = [ca.certificate for ca in both.all]
    newer = both.newest.issue(generate("p256").public_key(), NAME)
    for certificate in (leaf, newer):
        verify_chain(certificate, [], roots, at=CLOCK.now())
    with pytest.raises(UntrustedCertificate):
        verify_chain(newer, [], [old.certificate], at=CLOCK.now())
    both.all[0].revoke(leaf)
    assert [ca.is_revoked(leaf) for ca in both.all] == [True, False]
    assert names(Generations.open(tmp_path, "scep", "Test CA", clock=CLOCK)) == names(both)


def test_generations_go_on_counting(tmp_path: Path) -> None:
    opened(tmp_path)
    for _ in range(2):
        roll_over(tmp_path, "scep", "Test CA", clock=CLOCK)
    assert names(opened(tmp_path))[-1] == "Test CA G3"
    assert opened(tmp_path).number == 3


def test_a_roll_over_killed_half_way_is_completed_by_the_next(tmp_path: Path) -> None:
    opened(tmp_path)
    roll_over(tmp_path, "scep", "Test CA", clock=CLOCK)
    (tmp_path / "scep-2" / "certificate.pem").unlink()  # the key alone was written
    assert opened(tmp_path).number == 1
    roll_over(tmp_path, "scep", "Test CA", clock=CLOCK)
    assert opened(tmp_path).number == 2


def test_there_must_be_something_to_roll_over(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no CA that could be rolled over"):
        roll_over(tmp_path, "scep", "Test CA", clock=CLOCK)
    assert list(tmp_path.iterdir()) == []
