"""The benchmark on recordings of robots whose calibration was published."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import graphs, lego, published
from dsg_ros.errors import UserError
from dsg_ros.learning.calibrators.models import DIFF_DRIVE


def test_a_factor_counts_up_and_down():
    ratios = np.array([0.25, 1.0, 3.0])
    assert published.apart(ratios) == 4
    assert published.span(ratios) == "0.25 to 3.00"


def test_wrong_starts_are_ten_percent_off_and_turned():
    values = np.arange(1.0, 7.0)
    up, down = (published.wrong_start(values, sign) for sign in (1, -1))
    assert tuple(up) == DIFF_DRIVE.names
    np.testing.assert_allclose(list(up.values())[:3], [1.1, 1.8, 3.3])
    assert (up["laser_yaw"], down["laser_yaw"]) == (6 + 1.57, 6 - 1.57)


def test_recordings_that_are_not_there_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(graphs.VARIABLE, str(tmp_path / "pose_graphs"))
    assert list(published.run()) == []
    assert capsys.readouterr().out.count("is not there") == 3


def test_a_folder_without_its_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(graphs.VARIABLE, str(tmp_path / "pose_graphs"))
    folder = tmp_path / "odometry_calibration" / "khepera"
    folder.mkdir(parents=True)
    (folder / "l90_results.json").write_text("{}")
    with pytest.raises(UserError, match=rf"{folder}: l90\.tuple\.xz, .* missing: put the whole recording there"):
        next(published.run())


def test_l90_beside_what_was_published(shared, monkeypatch):
    folder = shared / "data" / "odometry_calibration" / "khepera"
    if not folder.is_dir():
        pytest.skip(f"the Khepera recordings are not on this machine ({folder})")
    monkeypatch.setattr(published, "RESAMPLED", 3)
    rows, details = next(published.khepera(folder))
    verdicts = {row.what: row.reached for row in rows}
    assert verdicts["axle and diameters: worst off"]
    assert verdicts["laser's pose: worst off, published sigmas"]
    # docs/learning.md says why: what is published for l90 is ten times its scatter.
    assert verdicts["sigmas / published"] is False
    plain = np.array(details["plain"]) / details["published"]["sigmas"]
    assert published.apart(plain) < 2


def test_the_lego_robot_finds_its_gauge_from_what_was_measured(shared):
    folder = shared / "data" / "odometry_calibration" / "lego"
    if not folder.is_dir():
        pytest.skip(f"the Lego robot's recording is not on this machine ({folder})")
    ((row,), details) = next(published.lego_robot(folder))
    assert row.reached
    assert "learned" in row.note
    assert details["values"][1:3] == [lego.WHEEL, lego.WHEEL]
