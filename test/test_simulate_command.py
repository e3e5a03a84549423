"""`python -m dsg_ros simulate`: a bag with exact truth, and what `run` makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from dsg_ros import cli, config
from dsg_ros.commands import run, simulate
from dsg_ros.errors import UserError
from dsg_ros.io.learned import read_learned
from dsg_ros.io.logs import frames, open_log
from dsg_ros.io.trajectories import read_tum
from dsg_ros.learning.parameters import starting_theta

ROOT = Path(__file__).resolve().parents[1]
DRIVE = config.Simulation(drive=config.SimulatedDrive(metres=22.4), lidar=config.SimulatedLidar(columns=450))
"""22 m: out of the hall, along the corridor and half up the ramp."""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bag = tmp_path_factory.mktemp("simulated") / "bag"
    assert simulate.main(simulate.Options(bag, DRIVE)) == 0
    return bag


def test_the_bag_holds_a_robots_topics_and_the_truth(bag: Path) -> None:
    log = open_log(bag)
    found = list(frames(log, config.Input(max_range=100.0)))
    assert len(found) == len(log) > 100
    stamps, poses = read_tum(bag.with_name("bag.tum"))
    assert (np.diff(stamps) > 0).all()
    assert {frame.stamp for frame in found} <= set(stamps.tolist())
    assert 22.3 < np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1).sum() < 22.5
    for frame in found[::20]:
        assert not frame.planar
        assert len(frame.points) == 450 * 16
        assert frame.times is not None
        assert 0.099 < frame.times.max() < 0.1
        assert frame.odometry.stamps[-1] >= frame.stamp + 1e9 * float(frame.times.max())
        np.testing.assert_allclose(frame.base_from_sensor[:3], [0.1, 0.0, 0.7])


def test_the_same_settings_make_the_same_bag(bag: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(DRIVE, drive=config.SimulatedDrive(metres=1.1))
    for name in ("one", "two"):
        simulate.main(simulate.Options(tmp_path / name, short))
    records = [list(open_log(tmp_path / name)) for name in ("one", "two")]
    assert len(records[0]) == len(records[1]) > 50
    for one, two in zip(*records, strict=True):
        assert one.stamp == two.stamp
        for field in ("points", "times", "pose"):
            assert np.array_equal(getattr(one, field, None), getattr(two, field, None))


def test_a_3d_run_is_mapped_to_centimetres(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = run.Options(bag, tmp_path / "out", reference=bag.with_name("bag.tum"), json=True)
    assert run.main(options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["compilations_after_warm_up"] == 0
    assert told["counts"]["matches_in_doubt"] < 0.1 * told["scans"], "without being told, the settings are those for 3D"
    assert told["ate"]["odometry"] > 0.2
    assert told["ate"]["trajectory"] < 0.022, "0.1 % of the way"
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["evaluation"]["scores"]
    for ours, wheels in zip(scores["trajectory"]["relative"], scores["odometry"]["relative"], strict=True):
        assert ours["translation_median"] < 0.5 * wheels["translation_median"]


def test_a_scanner_in_an_office_with_errors_and_the_calibration_that_undoes_them(tmp_path: Path) -> None:
    flags = "--world office --drive.metres 6 --scanner.beams 181 --scanner.field-of-view 3.14159 --wheels.scale 0.9"
    more = "--wheels.time-offset 0.06 --wheels.scale-jump 0.04 --mounting.x 0.05"
    assert cli.main(["simulate", str(tmp_path / "bag"), *flags.split(), *more.split()]) == 0
    found = list(frames(open_log(tmp_path / "bag"), config.Input()))
    assert len(found) > 30
    for frame in found:
        assert frame.planar
        assert frame.times is not None
        assert 0.045 < frame.times.max() < 0.051, "half a turn of the mirror, at 10 Hz"
        assert 150 < len(frame.points) <= 181
        np.testing.assert_allclose(frame.base_from_sensor[:3], [0.1, 0.0, 0.7])
    truth = read_learned(tmp_path / "bag.truth.yaml")
    starting_theta(truth.parameters)  # `run --freeze-theta` takes it
    values = {parameter.name: parameter.value for parameter in truth.parameters}
    assert values["odometry.scale"] == pytest.approx(1 / 0.9)
    assert values["odometry.lever.x"] == pytest.approx(0.05)
    assert values["odometry.time_offset"] == 0.06
    assert truth.provenance["second_half"]["odometry.scale"] == pytest.approx(1 / 0.9 / 1.04)
    assert truth.provenance["simulation"]["scanner.beams"] == 181


def test_options_have_flags_and_the_outcome_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--drive.metres", "1.1", "--lidar.columns", "36", "--lidar.beams", "4", "--wheels.scale", "1.1", "--json"]
    reference = tmp_path / "truth.tum"
    assert cli.main(["simulate", str(tmp_path / "bag"), *flags, "--reference", str(reference)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["settings"]["wheels.scale"] == 1.1
    assert told["topics"]["/points"] * 36 * 4 == told["points"]
    assert reference.is_file()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--lidar.columns", "7"], "lidar.columns"),
        (["--wheels.scale", "nan"], "wheels.scale"),
        (["--drive.metres", "-1"], "drive.metres"),
        (["--reference", "."], "is a folder"),
        (["--truth", "."], "is a folder"),
        (["--world", "corridor", "--drive.metres", "70"], "ends after 60 m"),
        (["--drive.metres", "0.0001"], "before the first sweep"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", str(tmp_path / "bag"), *flags]) == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_not_written_over(bag: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        simulate.main(simulate.Options(bag, DRIVE))
