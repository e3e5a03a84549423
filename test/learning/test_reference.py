"""Learning from poses that come from elsewhere: instead of scans, beside them, late, and wrong."""

from __future__ import annotations

import dataclasses
import logging
from itertools import pairwise

import numpy as np
import pytest
from robots import SCAN_SIGMAS, TOLD, Robot, drive, frozen, links_of

from dsg_ros import config, poses
from dsg_ros.interface import Parameter, ReferencePose
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration

TRUE = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.05, lever=(0.09, 0.0))
STEP = 500_000_000
"""Nanoseconds between keyframes."""
COVARIANCE = np.diag([*(0.5 * SCAN_SIGMAS[[0, 1, 1]] ** 2), *(0.5 * SCAN_SIGMAS[[2, 2, 2]] ** 2)])


def settings(teacher: str, **more: object) -> config.Slam:
    return config.replace(config.Slam(), TOLD | {"learning.teacher": teacher} | more)


def where(links: list[Link]) -> list[ReferencePose]:
    """The keyframes as the scan matcher places them, in a frame that lies anywhere."""
    chain = [poses.from_planar(20.0, -3.0, 1.0)]
    for link in links:
        chain.append(poses.compose(chain[-1], link.relative))
    return [ReferencePose(k * STEP, pose, COVARIANCE) for k, pose in enumerate(chain)]


def blind(links: list[Link]) -> list[Link]:
    """Links of a robot whose scans say nothing, and wrongly."""
    lie = poses.from_planar(0.1, 0.1, 0.1)
    return [dataclasses.replace(k, relative=lie, information=np.zeros((6, 6))) for k in links]


def learn(
    calibration: Calibration, links: list[Link], told: dict[int, list[ReferencePose]], first: int = 1
) -> dict[str, Parameter]:
    """Feed links as the pipeline does; before the one to keyframe k what is ``told`` then."""
    size = config.Learning().every_keyframes
    for key, link in enumerate(links[first - 1 :], first):
        calibration.hear(told.get(key, []), key * STEP)
        calibration.add(key, link, (key - 1) * STEP, key * STEP)
        if key % size == 0:
            calibration.step(key * STEP, 0.3 * key)
            calibration.settle()
    return {p.name: p for p in calibration.parameters()}


def in_time(reference: list[ReferencePose]) -> dict[int, list[ReferencePose]]:
    return {k: [pose] for k, pose in enumerate(reference) if k} | {1: reference[:2]}


def right(found: dict[str, Parameter], robot: Robot = TRUE) -> None:
    for name, value in (("odometry.scale", robot.scale), ("odometry.rotation_gain", robot.rotation_gain)):
        assert found[name].status == "learned", found[name]
        assert abs(found[name].value - value) < 3 * found[name].sigma, found[name]
        assert found[name].sigma < 0.01


def test_poses_teach_what_blind_scans_cannot() -> None:
    links = links_of(TRUE, drive("rooms", 300), seed=3)
    calibration = Calibration(settings("reference"))
    right(learn(calibration, blind(links), in_time(where(links))))
    assert calibration.counts["reference_poses"] == 301
    assert not calibration.counts["reference_missing"] + calibration.counts["reference_disagrees"]
    alone = learn(Calibration(settings("scans")), blind(links), in_time(where(links)))
    assert alone["odometry.scale"].value == 1.0


def test_both_know_more_than_one() -> None:
    links = links_of(TRUE, drive("rooms", 300), seed=4)
    one = learn(Calibration(settings("scans")), links, {})
    both = learn(Calibration(settings("both")), links, in_time(where(links)))
    right(both)
    assert both["odometry.scale"].sigma < one["odometry.scale"].sigma


def test_with_both_the_scans_go_on_where_the_reference_is_silent() -> None:
    links = links_of(TRUE, drive("rooms", 300), seed=4)
    silent = Calibration(settings("both", **{"learning.reference_patience": 0.0}))
    found, alone = learn(silent, links, {}), learn(Calibration(settings("scans")), links, {})
    assert silent.counts["reference_missing"] == 300
    assert found["odometry.scale"].value == pytest.approx(alone["odometry.scale"].value, abs=1e-6)


def test_poses_that_come_late_are_waited_for() -> None:
    links = links_of(TRUE, drive("rooms", 300), seed=5)
    reference = where(links)
    late = {k + 6: [pose] for k, pose in enumerate(reference)}  # three seconds
    calibration = Calibration(settings("reference"))
    right(learn(calibration, blind(links), late))
    assert not calibration.counts["reference_missing"]
    impatient = Calibration(settings("reference", **{"learning.reference_patience": 1.0}))
    assert learn(impatient, blind(links), late)["odometry.scale"].value == 1.0
    assert impatient.counts["reference_missing"] > 250


def test_a_reference_that_jumps_is_named_and_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    links = links_of(TRUE, drive("rooms", 300), seed=6)
    jumped = [
        dataclasses.replace(pose, pose=poses.compose(poses.from_planar(0.0, 0.9 * (k // 40), 0.0), pose.pose))
        for k, pose in enumerate(where(links))
    ]
    calibration = Calibration(settings("reference"))
    with caplog.at_level(logging.WARNING):
        right(learn(calibration, blind(links), in_time(jumped)))
    assert calibration.counts["reference_disagrees"] == 7
    assert "it jumps; not used" in caplog.text


def test_a_reference_that_repeats_its_last_pose_is_not_believed() -> None:
    """As motion capture does that has lost sight of the robot."""
    links = links_of(TRUE, drive("rooms", 300), seed=6)
    reference = where(links)
    frozen = [
        dataclasses.replace(pose, pose=reference[k - k % 30].pose) if k % 30 < 6 else pose
        for k, pose in enumerate(reference)
    ]
    calibration = Calibration(settings("reference"))
    right(learn(calibration, blind(links), in_time(frozen)))
    assert calibration.counts["reference_disagrees"] >= 50


def test_a_recording_that_is_played_again_begins_anew() -> None:
    links = links_of(TRUE, drive("rooms", 150), seed=5)
    calibration = Calibration(settings("reference"))
    learn(calibration, blind(links), in_time(where(links)))
    calibration.interrupt()
    right(learn(calibration, blind(links), in_time(where(links))))
    assert calibration.counts["reference_missing"] <= 2
    assert calibration.counts["reference_not_used"] == 0


def test_a_planar_robot_is_not_asked_for_height_roll_and_pitch() -> None:
    links = links_of(TRUE, drive("rooms", 200), seed=9)
    told = in_time(where(links))
    spatial, planar = Calibration(settings("reference")), Calibration(settings("reference"))
    planar.warm_up(planar=True)
    found, other = learn(planar, blind(links), told), learn(spatial, blind(links), told)
    right(found)
    name = "noise.odometry.rotation_per_radian"
    assert found[name].value > other[name].value  # axes that never err tell of no noise


def test_what_waits_when_learning_stops_is_counted() -> None:
    links = links_of(TRUE, drive("rooms", 5), seed=5)
    calibration = Calibration(settings("reference"))
    learn(calibration, blind(links), {})
    calibration.switch(False)
    assert (calibration.counts["reference_dropped"], calibration.counts["reference_missing"]) == (5, 0)


@pytest.mark.parametrize("late", [0, 3])
def test_a_calibration_that_goes_on_elsewhere_loses_nothing_that_waits(late: int) -> None:
    links = links_of(TRUE, drive("rooms", 50), seed=5)
    told = {key + late: poses_ for key, poses_ in in_time(where(links)).items()}
    one, other = Calibration(settings("reference")), Calibration(settings("reference"))
    learn(one, blind(links)[:25], told)
    other.restore(frozen(one.state()))
    for each in (one, other):
        learn(each, blind(links), told, first=26)
    assert other.counts == one.counts
    assert other.counts["reference_missing"] + other.counts["reference_dropped"] == 0
    assert other.parameters() == one.parameters()


def test_a_reference_that_disagrees_with_itself_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    links = links_of(TRUE, drive("rooms", 100), seed=7)
    reference = where(links)
    told = in_time(reference)
    again = [
        dataclasses.replace(reference[10], pose=poses.from_planar(5.0, 5.0, 0.0)),  # another pose at the same time
        ReferencePose(12 * STEP, np.array([np.nan, 0, 0, 0, 0, 0, 1.0])),
        ReferencePose(12 * STEP, np.zeros(7)),
        ReferencePose(12 * STEP, poses.IDENTITY, np.full((6, 6), np.inf)),
        ReferencePose(10**18, poses.IDENTITY),
    ]
    told[11] = [*told[11], *again]
    calibration = Calibration(settings("reference"))
    with caplog.at_level(logging.WARNING):
        learn(calibration, blind(links), told)
    assert calibration.counts["reference_not_used"] == 5
    assert "is not newer than the one before" in caplog.text
    assert "is of a time that has not come" in caplog.text
    assert not calibration.counts["reference_disagrees"]


def test_poses_between_are_interpolated_and_gaps_are_not() -> None:
    links = links_of(Robot(), drive("corridor", 40), seed=8)
    reference = where(links)
    between = [  # a quarter of a second away from every keyframe
        ReferencePose(one.stamp + STEP // 2, poses.interpolate(one.pose, other.pose, 0.5), COVARIANCE)
        for one, other in pairwise(reference)
    ]
    told = {k + 1: [pose] for k, pose in enumerate(between)}
    fine = Calibration(settings("reference", **{"learning.reference_gap": 0.5}))
    learn(fine, links, told)
    coarse = Calibration(settings("reference", **{"learning.reference_gap": 0.4}))
    learn(coarse, links, told)
    assert fine.counts["reference_missing"] == 1  # before the first
    assert coarse.counts["reference_missing"] == 39  # the last one waits


@pytest.mark.parametrize(
    "covariance",
    [np.full((6, 6), 1e300), -np.eye(6), np.ones((6, 6)), 1e-200 * np.eye(6)],
)
def test_a_covariance_that_is_none_is_not_believed(covariance: np.ndarray) -> None:
    links = links_of(TRUE, drive("rooms", 100), seed=9)
    told = in_time([dataclasses.replace(pose, covariance=covariance) for pose in where(links)])
    calibration, plain = Calibration(settings("reference")), Calibration(settings("reference"))
    found = learn(calibration, blind(links), told)
    zero = in_time([dataclasses.replace(pose, covariance=np.zeros((6, 6))) for pose in where(links)])
    assert found == learn(plain, blind(links), zero)
    assert calibration.counts["links_refused"] == 0


def test_a_pose_that_tells_no_covariance_has_the_configured_one() -> None:
    links = links_of(TRUE, drive("rooms", 200), seed=9)
    told = in_time([dataclasses.replace(pose, covariance=np.zeros((6, 6))) for pose in where(links)])
    sure = {"learning.reference_translation": 0.005, "learning.reference_rotation": 0.002}
    unsure = {"learning.reference_translation": 0.1, "learning.reference_rotation": 0.05}
    one, other = (learn(Calibration(settings("reference", **s)), blind(links), told) for s in (sure, unsure))
    assert other["odometry.scale"].sigma > 3 * one["odometry.scale"].sigma


def test_axes_without_a_variance_have_the_configured_one() -> None:
    """As of a localisation in the plane, which tells of x, y and yaw alone."""
    links = links_of(TRUE, drive("rooms", 100), seed=9)
    sigmas = {"learning.reference_translation": 0.01, "learning.reference_rotation": 0.005}
    part, full = np.diag([1e-4, 1e-4, 0, 0, 0, 2.5e-5]), np.diag([1e-4] * 3 + [2.5e-5] * 3)
    one, other = (
        learn(
            Calibration(settings("reference", **sigmas)), blind(links),
            in_time([dataclasses.replace(pose, covariance=covariance) for pose in where(links)]),
        )
        for covariance in (part, full)
    )  # fmt: skip
    assert one["odometry.scale"].value == pytest.approx(other["odometry.scale"].value, abs=1e-9)
    assert one["odometry.scale"].sigma == pytest.approx(other["odometry.scale"].sigma, rel=1e-6)
