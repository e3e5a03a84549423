"""``python -m dsg_ros learn``: several logs, one theta, and which of them can be believed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from carmen_logs import write_log, write_standing

from dsg_ros.commands import learn, run
from dsg_ros.errors import UserError
from dsg_ros.io.learned import read_learned

Learn = Callable[..., dict]
Told = tuple[Path, dict, str, str]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three drives of a robot whose wheels over-read by 5 %."""
    folder = tmp_path_factory.mktemp("days")
    return [write_log(folder / f"day_{i}.clf", seed=i, begin=1e3 + 1e4 * i) for i in range(3)]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Learn:
    def called(*logs: Path, **options: object) -> dict:
        assert learn.main(learn.Options(logs, tmp_path / "learned.yaml", json=True, **options)) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return called


@pytest.fixture(scope="module")
def told(days: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """As a user starts it, a log of another robot among the others: learned.yaml, the JSON object, and what is said."""
    folder = tmp_path_factory.mktemp("out")
    out, stranger = folder / "learned.yaml", write_log(folder / "stranger.clf", scale=0.93, turn_per_metre=0.05, seed=7)
    command = [sys.executable, "-m", "dsg_ros", "learn", *map(str, [*days, stranger]), "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return out, json.loads(last), "\n".join(lines), done.stderr


def test_the_robots_calibration_is_found(told: Told) -> None:
    _, found, lines, _ = told
    scale = found["parameters"]["odometry.scale"]
    assert scale["status"] == "learned"
    assert scale["value"] == pytest.approx(1 / 1.05, abs=max(4 * scale["sigma"], 0.003))
    assert found["held_out_after"] < 0.8 * found["held_out_before"]
    used = [log for log in found["logs"] if log["used"]]
    assert [Path(log["log"]).name for log in used] == ["day_0.clf", "day_1.clf", "day_2.clf"]
    assert found["metres"] == pytest.approx(sum(log["metres"] for log in used))
    for log in used:
        assert log["agrees"]
        assert log["held_out_others"] < log["held_out_start"]
        assert log["own"]["odometry.scale"]["value"] == pytest.approx(scale["value"], abs=0.02)
        assert Path(log["log"]).name in lines
    assert "agrees (p = " in lines


def test_a_log_of_another_robot_is_named(told: Told) -> None:
    _, found, _, errors = told
    assert [log["agrees"] for log in found["logs"]] == [True, True, True, False]
    assert [log["used"] for log in found["logs"]] == [True, True, True, False]
    assert "stranger.clf: contradicts the others: odometry." in errors
    assert found["parameters"]["odometry.scale"]["value"] == pytest.approx(1 / 1.05, abs=0.006)


def test_the_file_says_where_it_comes_from(told: Told) -> None:
    out, found, *_ = told
    provenance = yaml.safe_load(out.read_text())["provenance"]
    assert [log["log"] for log in provenance["logs"]] == [
        "day_0.clf", "day_1.clf", "day_2.clf", "stranger.clf",
    ]  # fmt: skip
    assert [log["used"] for log in provenance["logs"]] == [True, True, True, False]
    assert provenance["loss_before"] == found["held_out_before"]
    assert provenance["loss_after"] == found["held_out_after"]
    assert provenance["metres"] == found["metres"]
    assert {"created", "versions", "held_out"} <= set(provenance)


def test_a_run_takes_what_was_learned(
    told: Told, days: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {p.name: p.value for p in read_learned(told[0]).parameters}
    frozen = run.Options(days[0], tmp_path / "a", freeze_theta=told[0], limit=60, json=True)
    assert run.main(frozen) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"]
    assert found["odometry.scale"]["value"] == pytest.approx(values["odometry.scale"], rel=1e-12)
    assert found["odometry.scale"]["status"] == "frozen"
    started = run.Options(days[0], tmp_path / "b", set=(f"learning.start={told[0]}",), limit=20, json=True)
    assert run.main(started) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"]
    assert found["odometry.scale"]["value"] == pytest.approx(values["odometry.scale"], rel=1e-12)


def test_a_single_log_is_held_out_in_parts(days: list[Path], call: Learn) -> None:
    found = call(days[0])
    assert "parts of the only log" in found["held_out"]
    assert found["held_out_after"] < found["held_out_before"]
    assert found["parameters"]["odometry.scale"]["value"] == pytest.approx(1 / 1.05, abs=0.01)


def test_logs_of_no_use_are_named_and_the_others_used(
    days: list[Path], tmp_path: Path, call: Learn, caplog: pytest.LogCaptureFixture
) -> None:
    packed = tmp_path / "packed.clf"
    shutil.copy(days[0], packed)
    still = write_standing(tmp_path / "still.clf")
    short = write_log(tmp_path / "short.clf", scans=15)
    found = call(days[0], days[1], days[0], packed, still, short)
    reasons = {Path(log["log"]).name: log["reason"] for log in found["logs"] if not log["used"]}
    assert "the same drive as" in reasons["packed.clf"]
    assert "nothing moves" in reasons["still.clf"]
    assert "too short" in reasons["short.clf"]
    assert "given twice" in reasons["day_0.clf"]
    for name in reasons:
        assert f"{name}: not used" in caplog.text
    assert [log["used"] for log in found["logs"]] == [True, True, False, False, False, False]
    assert found["parameters"]["odometry.scale"]["status"] == "learned"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"logs": ()}, "which logs"),
        ({"logs": (Path("missing.clf"),)}, "missing.clf: there is no such file"),
        ({"set": ("learning.enabled=false",)}, "learning.enabled is off"),
        ({"set": ("learning.start=missing.yaml",)}, "missing.yaml: cannot be read"),
        ({"out": Path("nowhere/learned.yaml")}, "there is no folder"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(days: list[Path], tmp_path: Path, arguments: dict, said: str) -> None:
    options = {"logs": tuple(days), "out": tmp_path / "learned.yaml"} | arguments
    with pytest.raises(UserError, match=said):
        learn.main(learn.Options(**options))
    assert not (tmp_path / "learned.yaml").exists()


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    still = write_standing(tmp_path / "still.clf")
    with pytest.raises(UserError, match=r"nothing to learn from: .*still\.clf: nothing moves"):
        learn.main(learn.Options((still,), tmp_path / "learned.yaml"))
    assert not (tmp_path / "learned.yaml").exists()
