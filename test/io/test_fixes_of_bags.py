"""Fixes of a bag: whose antenna they are of, and what is no position."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.commands import run
from dsg_ros.errors import UserError
from dsg_ros.geodesy import LocalFrame
from dsg_ros.io import bags, positions
from dsg_ros.io.bagwriter import BagWriter, RunWriter, offered_qos
from dsg_ros.io.logs import base_frame
from dsg_ros.io.records import FixRecord, OdometryRecord, Topics
from dsg_ros.log_settings import settings_for

HERE = LocalFrame([48.0, 11.0, 500.0])
NOWHERE = np.array([0.0, 0.0, 0.0])
STEP = 200_000_000
WHEELS = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
ANTENNA = np.array([0.2, 0.1, 1.0, 0.0, 0.0, 0.0, 1.0])


class Run(RunWriter):
    """With two odometries: /odom of the frame "wheels", /filtered of the frame "base_link"."""

    def write(self, number: int, place: np.ndarray) -> None:
        """Both odometries, and a fix at a geodetic ``place`` (3,)."""
        stamp = (1 + number) * STEP
        self.odometry(OdometryRecord(stamp, poses.IDENTITY, "odom", "wheels"))
        topics, self._write = self._write, lambda topic, *rest: topics("/filtered", *rest)
        self.transform, told = lambda *given, **more: None, self.transform
        self.odometry(OdometryRecord(stamp, poses.IDENTITY, "odom", "base_link"))
        self._write, self.transform = topics, told
        self.transform(stamp, WHEELS, "base_link", "wheels", static=True)
        self.fix(FixRecord(stamp, place, np.ones(3), ANTENNA), "base_link")


def written(path: Path, places: list[np.ndarray]) -> Path:
    with BagWriter(path) as bag:
        run = Run(bag, fixes=True)
        bag.add_topic("/filtered", bags.ODOMETRY, offered_qos())
        for number, place in enumerate(places):
            run.write(number, place)
    return path


def along(count: int) -> list[np.ndarray]:
    return [HERE.geodetic([2.0 * k, 0.0, 0.0]) for k in range(count)]


@pytest.mark.parametrize(("topic", "antenna"), [("", [-0.3, 0.1, 1.0]), ("/filtered", [0.2, 0.1, 1.0])])
def test_the_antenna_is_in_the_frame_of_the_odometry_that_is_run(
    topic: str, antenna: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = written(tmp_path / "run", along(3)), list[positions.Positions]()

    def taken(*given: object) -> None:
        seen.append(positions.of_bag(*given))
        raise UserError("enough")

    monkeypatch.setattr(run, "read_teaching", taken)
    with pytest.raises(UserError, match="enough"):
        run.main(run.Options(path, tmp_path / "out", teach=path, odom_topic=topic))
    np.testing.assert_allclose(seen[0].told[0].antenna, antenna, atol=1e-12)


def test_what_is_no_position_does_not_anchor_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "run", [NOWHERE, HERE.geodetic([400_000.0, 0.0, 0.0]), *along(8), NOWHERE])
    found = positions.of_bag(path, "", None, partial(base_frame, path, Topics()))
    assert found.counts == {"fixes_no_position": 2, "fixes_far": 4}
    assert len(found.told) == 5
    assert len({each.origin for each in found.told[1:]}) == 1
    np.testing.assert_allclose(found.told[4].position - found.told[1].position, [6.0, 0.0, 0.0], atol=1e-3)
    for said in ("exactly zero", "400 km", "begins anew"):
        assert said in caplog.text


def test_a_bag_is_opened_once_for_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = written(tmp_path / "run", along(1)), list[Path]()

    class Counted(bags.RawBag):
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(bags, "RawBag", Counted)
    assert settings_for(path, Topics()).input.odometry != "none"
    assert opened == [path]
