"""The bench runs, prints a ratio for each workload, and gives no figure for a run in which anything was wrong."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from certs import csr, keys, names
from certs.faults import Action
from tests.support import rsa_key
from tools.bench import __main__ as bench
from tools.bench import floor, groups, primitives, report
from tools.bench.counter import OperationCounter
from tools.bench.figure import Bound, Figure, Measurement, MeasurementFailed, Unit, calmest
from tools.bench.operation import Operation
from tools.bench.workload import WORKLOADS, Workload
from tools.bench.world import make_keys

NAMES = [one.name for one in WORKLOADS]


def named(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


def test_a_quick_bench_prints_a_ratio_for_each_workload(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert bench.main(["road", "--quick", "--json", str(file)]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    for name in NAMES:
        assert any(row[:1] == [name] and len(row) == 9 for row in rows)
    content = json.loads(file.read_text())
    assert content["failed"] is False
    for record in content["workloads"]:
        assert record["ratio"] > 0
        assert record["keys"] in ("pool", "fresh")
        assert record["ratio"] == pytest.approx(record["client_ms"] / record["floor_ms"])
        assert record["server_ms"] > 0
    requests = {record["workload"]: record["requests"] for record in content["workloads"]}
    assert {requests[name] for name in NAMES if named(name).way != "enroll"} == {2}


@pytest.mark.parametrize("name", ["scep", "cycle-p256", "connect-p256"])
def test_any_failure_voids_the_figure(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    def drop_the_last_idle(side: str, step: str, message: object, n: int) -> Action | None:
        return Action(name="drop-request") if step == "idle" and n > FIRST_IDLES[name] else None

    assert bench.main([name, "--quick"], faults=drop_the_last_idle) == 1
    out = capfd.readouterr().out
    assert f"FAILED {name}: " in out
    assert "fault drop-request" in out
    assert next(line for line in out.splitlines() if line.startswith(name)).split()[3] == "void"


# How many Idles of one HTTP session are let through.
FIRST_IDLES = {"scep": 0, "cycle-p256": 3, "connect-p256": 0}


def test_a_floor_that_lists_too_few_operations_fails_the_run() -> None:
    one = named("cycle-p256")
    lower = replace(one, steps=(floor._step("idle", "one signature less", p256_private=1),))
    result = asyncio.run(bench.measure(lower, make_keys(3), count=1, quick=True))
    assert result.failures == ["p256 private: 20 made, 10 listed"]
    assert "ratio" not in report.as_record(result)


def test_the_counter_sees_what_builders_and_chain_checks_do() -> None:
    counter = OperationCounter()
    subject = names.from_subject([[["CN", "a device"]]])
    key = rsa_key()
    with counter.counting():
        csr.decode(csr.build(key, subject))
        made = keys.generate("p384")
        certificate = primitives._authority().issue(made.public_key(), subject)
        counter.reset()
        certificate.verify_directly_issued_by(primitives._authority().certificate)
        assert counter.done == {Operation("p256", "public"): 1}
        key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        again = keys.load_own(keys.to_der(key))
        csr.build(again, subject)
    assert counter.done == {
        Operation("p256", "public"): 1,
        Operation("rsa2048", "private"): 2,
        Operation("rsa2048", "first use"): 1,  # the loaded copy: the other had worked before
    }


def test_the_counter_leaves_everything_as_it_was() -> None:
    before = [type(rsa_key()).sign, ec.generate_private_key]
    with OperationCounter().counting():
        assert [type(rsa_key()).sign, ec.generate_private_key] != before
    assert [type(rsa_key()).sign, ec.generate_private_key] == before


def test_differences_name_both_numbers_whichever_is_larger() -> None:
    sign, verify = Operation("rsa2048", "private"), Operation("p256", "public")
    done, listed = Counter({sign: 5}), Counter({sign: 2, verify: 1})
    assert floor.differences(done, listed, 2) == [
        "p256 public: 0 made, 2 listed",
        "rsa2048 private: 5 made, 4 listed",
    ]


def test_an_unknown_workload_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["scep", "scpe"]) == 2
    assert "no scpe; there are road, scep" in capsys.readouterr().err


def test_the_group_of_certs_gives_each_figure_beside_its_primitive(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert bench.main(["certs", "--quick", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert content["failures"] == {}
    figures = {record["name"]: record for record in content["figures"]}
    assert list(figures) == [
        "pkcsreq same-key",
        "pkcsreq apple",
        "pkioperation",
        "pkioperation rsa-ca",
        "pkioperation http",
        "acme p256",
        "acme p384",
    ]
    build = figures["pkcsreq same-key"]
    # The CSR, the certificate that signs, the message; the envelope and the look at the CSR that is sent.
    assert build["primitive"].endswith("3 × rsa2048 private + 2 × rsa2048 public")
    assert build["ratio"] == pytest.approx(build["value"] / build["primitive_value"])
    assert figures["acme p256"]["scaled"] == pytest.approx(
        figures["acme p256"]["value"] * figures["acme p256"]["rsa2048_signature_ms"] / 0.30
    )
    assert "pkioperation" in capfd.readouterr().out


def test_the_group_of_push_counts_each_push_that_came(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert bench.main(["push", "--quick", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert content["failures"] == {}
    awake, stored, memory = content["figures"]
    assert (awake["name"], stored["name"], memory["name"]) == (
        "push awake",
        "push stored",
        "push memory",
    )
    assert awake["note"].startswith("push to connect p50 ")
    assert stored["note"] == ""  # nobody was woken
    assert memory["value"] > memory["primitive_value"] > 0


def test_the_group_of_apple_syncs_what_the_portal_has(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert bench.main(["apple", "--quick", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert content["failures"] == {}
    names = [record["name"] for record in content["figures"]]
    assert names == ["full sync memory", "delta of 10", "oauth verification"]
    assert content["figures"][0]["note"].startswith("2000 devices, ")


def figure(value: float, bound: Bound | None, unit: Unit = "ms") -> Figure:
    return Figure(
        name="one",
        value=value,
        unit=unit,
        primitive="rsa2048 private",
        primitive_value=2.0,
        reference_ms=0.6,
        bound=bound,
    )


@pytest.mark.parametrize(
    ("value", "bound", "unit", "holds"),
    [
        (9.0, None, "ms", True),
        (4.0, Bound("ratio", 2.0), "ms", True),
        (4.1, Bound("ratio", 2.0), "ms", False),
        (4.0, Bound("scaled", 2.0), "ms", True),
        (4.1, Bound("scaled", 2.0), "ms", False),
        (75.0, Bound("scaled", 150, at_least=True), "per s and core", True),
        (74.0, Bound("scaled", 150, at_least=True), "per s and core", False),
        (300.0, Bound("value", 300), "MB", True),
        (301.0, Bound("value", 300), "MB", False),
    ],
)
def test_a_bound_is_judged_by_its_own_side(
    value: float, bound: Bound | None, unit: Unit, holds: bool
) -> None:
    assert figure(value, bound, unit).holds is holds


@pytest.mark.parametrize(("quick", "code"), [([], 1), (["--quick"], 0)])
def test_a_missed_bound_fails_the_run_unless_it_is_a_quick_one(
    quick: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def slow(quick: bool) -> list[Figure]:
        return [figure(9.0, Bound("ratio", 2.0))]

    measurement = Measurement(name="slow", what="slow", measure=slow)
    monkeypatch.setitem(groups.GROUPS, "slow", (measurement,))
    assert bench.main(["slow", *quick]) == code
    assert (" NO" in capsys.readouterr().out) is (code == 1)


def test_a_measurement_that_fails_has_no_figure_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(quick: bool) -> list[Figure]:
        raise MeasurementFailed("pkiStatus 2")

    measurement = Measurement(name="broken", what="broken", measure=broken)
    monkeypatch.setitem(groups.GROUPS, "broken", (measurement,))
    assert bench.main(["broken"]) == 1
    assert "FAILED broken: pkiStatus 2" in capsys.readouterr().out


def test_the_calmest_round_is_chosen_by_what_was_measured_and_not_by_its_primitive() -> None:
    def figure(value: float, reference_ms: float, unit: Unit = "ms") -> Figure:
        return Figure(
            name="x",
            value=value,
            unit=unit,
            primitive="rsa2048 private",
            primitive_value=reference_ms,
            reference_ms=reference_ms,
        )

    disturbed_reference = figure(1.5, 0.9)
    calm = figure(1.4, 0.3)
    assert calmest([disturbed_reference, calm, figure(2.0, 0.3)]) is calm
    fast = figure(160.0, 0.3, "per s and core")
    assert calmest([figure(120.0, 0.9, "per s and core"), fast]) is fast
