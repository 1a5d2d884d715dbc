"""The simple hosts of `mdm-certs serve` keep nothing that grows."""

import pytest

from certs.authorize import AnyHolder, Grant, KnownDevices, StaticChallenge
from certs.ca import CertificateAuthority
from certs.clock import SimulatedClock

CA = CertificateAuthority.create("CA", clock=SimulatedClock())


@pytest.mark.parametrize("host", [StaticChallenge(None), AnyHolder(), KnownDevices({})])
async def test_what_was_issued_is_remembered_within_bounds(
    host: StaticChallenge | AnyHolder | KnownDevices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certs.authorize.MAX_REMEMBERED", 2)
    last = CA.certificate
    for _ in range(4):
        await host.issued(Grant(reference="x"), last)
    assert host.issued_to == [last, last]
