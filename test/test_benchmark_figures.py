"""Figures of the benchmarks: measured, kept, and held to the baseline."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import baseline, graphs, measuring
from benchmarks.options import COMPARISONS
from benchmarks.peer_cache import PeerCache
from benchmarks.table import Row, from_json, render
from dsg_ros.errors import UserError


def row(graph: str, value: float | None, peer: float | None = 1.0, **fields: Any) -> Row:
    return Row("batch", graph, "to the optimum", value, peer, "s", **fields)


# Measured


def test_memory_is_the_most_that_there_was() -> None:
    measuring.forget_peak()
    before = measuring.peak_memory()
    block = np.ones(2**24)
    del block
    assert measuring.peak_memory() - before > 0.9 * 8 * 2**24


def test_cores_are_given_back() -> None:
    before = measuring.cores()
    with measuring.confined(1) as environment:
        assert measuring.cores() == 1
        assert environment["OMP_NUM_THREADS"] == "1"
    assert measuring.cores() == before


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 6), (0.001, 25), (2.0, 5), (15.0, 3), (100.0, 1)])
def test_long_runs_are_repeated_less_and_short_ones_more(seconds: float, count: int) -> None:
    assert measuring.times(seconds, 5) == count
    assert measuring.times(seconds, 1) == 1


# Kept


def test_kept_figures_are_measured_once_and_anew_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"seconds": calls[-1]}

    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    assert PeerCache(path).get("a", measure).result == PeerCache(path).get("a", measure).result == {"seconds": 0}
    fresh = PeerCache(path, fresh=True)
    assert fresh.get("a", measure).result == fresh.get("a", measure).result == {"seconds": 1}
    assert PeerCache(path).get("b", measure).result == {"seconds": 2}


def test_short_measurements_are_of_the_same_run(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"value": calls[-1]}

    path = tmp_path / "peers.json"
    for run in range(2):
        cache = PeerCache(path)
        assert cache.get("times", measure).result == cache.get("times", measure).result == {"value": run}
    assert PeerCache(path).get("times", measure, timed=False).result == {"value": 1}


def test_figures_of_another_day_say_how_fast_the_machine_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    notes = []
    for seconds in (0.040, 0.041, 0.060):
        monkeypatch.setattr("benchmarks.peer_cache.reference_loop", lambda seconds=seconds: seconds)
        kept = PeerCache(path).get("a", lambda: {"seconds": 1})
        notes.append(kept.note)
    assert notes[:2] == ["", "kept; reference loop 40.0 ms then, 41.0 ms now"]
    assert "DISTURBED" in notes[2]
    assert kept.measured() == {"in_this_run": False, "reference_ms": 40.0, "reference_ms_now": 60.0}


def test_kept_figures_of_another_machine_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    PeerCache(path).get("a", lambda: {"seconds": 1})
    monkeypatch.setattr("benchmarks.peer_cache.machine", lambda: "another")
    assert PeerCache(path).get("a", lambda: {"seconds": 2}).result == {"seconds": 2}


def test_damaged_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"peers\.json"):
        PeerCache(path)


# Table, baseline, gate


def test_table_shows_ratio_goal_and_verdict() -> None:
    rows = [
        row("sphere2500", 0.2, 0.4, goal=0.67, note="GTSAM GN"),
        row("torus3D", None, 2.0, goal=0.67, note="ends elsewhere"),
        Row("growth", "city", "memory", 1.7, None, "GiB", 1.5, alone=True),
    ]
    first, second, third, fourth = render(rows).splitlines()
    assert first.split() == ["graph", "what", "ours", "peer", "unit", "ratio", "goal"]
    assert " ".join(second.split()) == "sphere2500 to the optimum 0.2 0.4 s 0.500 0.67 ok, GTSAM GN"
    assert " ".join(third.split()) == "torus3D to the optimum - 2 s 0.67 no answer, ends elsewhere"
    assert " ".join(fourth.split()) == "city memory 1.7 - GiB 1.5 short of it"
    assert [from_json(json.loads(json.dumps(each.as_json()))) for each in rows] == rows


def test_baseline_keeps_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert baseline.load(path) == {}
    assert baseline.write([row("a", 0.5), row("b", 0.6), row("c", None)], path) == 2
    assert baseline.write([row("b", 0.7)], path) == 1
    assert baseline.load(path) == {"batch/a/to the optimum": 0.5, "batch/b/to the optimum": 0.7}


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": "x"}'])
def test_damaged_baseline_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"baseline\.json.*--write-baseline"):
        baseline.load(path)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.50, 0), (0.40, 0), (0.57, 0), (0.58, 1), (None, 1)],
    ids=["same", "better", "slack", "worse", "lost"],
)
def test_gate(
    value: float | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "baseline.json"
    baseline.write([row("a", 0.5), row("left out", 0.5)], stored)
    monkeypatch.setattr(baseline, "load", lambda path=stored, load=baseline.load: load(stored))

    def comparison(name: str, cores: int, arguments: Sequence[str], out: Path) -> list[Row]:
        assert (name, cores) == ("batch", 2)
        assert arguments[-2:] == ["--graphs", "a"]
        return [row("a", value), row("new", 3.0)]

    arguments = ["batch", "--gate", "--json", "--cores", "2", "--graphs", "a"]
    assert command.main(arguments, comparison) == code
    output = capsys.readouterr().out
    assert ("WORSE: batch/a" in output) == bool(code)
    assert "not in the baseline, so not checked: batch/new" in output
    assert json.loads(output.splitlines()[-1])["batch/a/to the optimum"]["ours"] == value


GATED = (
    row("a", 0.5),
    row("b", 0.5),
    Row("window", "hall", "p99 update", 8.0, None, "ms", 10.0, alone=True),
    Row("robust", "a", "cost above optimum", 1e-12, 1e-11, "", 0.01, alone=True),
    Row("robust", "a", "false loops kept", 0, 0, "", 0, alone=True),
    Row("growth", "city", "p99 update at 100,000 / 1,000 poses", 1.5, None, "", None, alone=True),
)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Run the gate against `GATED`, with these rows measured: the exit code, and which benchmarks were asked for."""
    stored = tmp_path / "baseline.json"
    assert baseline.write(GATED, stored) == len(GATED)
    monkeypatch.setattr(baseline, "load", lambda path=stored, load=baseline.load: load(stored))

    def run(measured: Sequence[Row], *arguments: str) -> tuple[int, list[str]]:
        asked: list[str] = []

        def comparison(name: str, cores: int, told: Sequence[str], out: Path) -> list[Row]:
            asked.append(name)
            return [each for each in measured if each.benchmark == name]

        return command.main([*arguments, "--gate"], comparison), asked

    return run


Gate = Callable[..., tuple[int, list[str]]]


def test_gate_asks_for_all_that_is_stored(gate: Gate) -> None:
    assert gate(GATED) == (0, ["batch", "robust", "growth", "window"])


@pytest.mark.parametrize(
    ("k", "value", "code"),
    [
        (2, 9.2, 0),
        (2, 9.4, 1),
        (2, None, 1),
        (3, 9e-5, 0),
        (3, 2e-4, 1),
        (3, -1e-9, 0),
        (4, 1, 1),
        (5, 1.7, 0),
        (5, 1.8, 1),
    ],
)
def test_gate_holds_own_figures_too(gate: Gate, k: int, value: float | None, code: int) -> None:
    changed = dataclasses.replace(GATED[k], ours=value)
    assert gate([*GATED[:k], changed, *GATED[k + 1 :]])[0] == code


def test_gate_fails_where_a_stored_row_was_not_measured(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(GATED[:1], "batch")[0] == 1
    assert "NOT MEASURED: batch/b/to the optimum, stored as 0.5" in capsys.readouterr().out
    assert gate(GATED[:1], "batch", "--graphs", "a")[0] == 0
    assert gate(GATED[:5], "growth")[0] == 1
    assert gate(GATED[2:3], "window", "--graphs", "a")[0] == 0


def test_gate_fails_where_nothing_was_checked(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate([], "batch")[0] == 1
    assert gate([], "batch", "--graphs", "elsewhere")[0] == 1
    assert gate([row("new", 0.1)], "batch", "--graphs", "new")[0] == 1
    assert "nothing was checked" in capsys.readouterr().out
    # Of other sizes nothing is stored.
    assert gate(GATED, "growth", "batch", "--sizes", "1000")[0] == 0


def test_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert (
        "there are node, hero, killian, clouds, scans, rates, start, maps, relocalise, keyframes, batch"
        in capsys.readouterr().err
    )


def test_stored_baseline_is_of_what_there_is() -> None:
    stored = baseline.load()
    wanted = {f"batch/{name}/to the optimum" for name in graphs.LITERATURE}
    wanted |= {f"derivative/{name}/vjp / solve" for name in graphs.LITERATURE}
    wanted |= {f"incremental/{name}/total" for name in ("sphere2500", "parking-garage", "torus3D", "city10000")}
    wanted |= {f"window/{name}/p99 update" for name in ("hall", "shaft")}
    wanted |= {"growth/city/median update at 100,000 / 1,000 poses", "growth/city/peak memory to 100,000 poses"}
    assert wanted <= set(stored)
    for key, figure in stored.items():
        benchmark, graph, what = key.split("/", 2)
        assert benchmark in COMPARISONS
        assert graph
        assert what
        assert np.isfinite(figure)
        assert benchmark != "batch" or 0 < figure < 100


def test_folders_of_figures_and_results_must_differ(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command.main(["growth", "--out", str(tmp_path), "--figures", str(tmp_path)])
