"""Poses that somebody sets, faster than the worker takes them."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from dsg_ros import poses
from dsg_ros.interface import Hint
from dsg_ros.ros import convert
from dsg_ros.ros.initial_pose import InitialPose


def test_of_a_flood_the_newest_waits_and_the_others_are_counted() -> None:
    asked: list[tuple[Hint, Future[None]]] = []
    said: list[str] = []

    def request(hint: Hint) -> Future[None]:
        asked.append((hint, Future()))
        return asked[-1][1]

    pose = InitialPose("map", request, lambda level, text: said.append(text))
    flood = 2000
    for x in range(flood):
        pose.account(convert.pose_with_covariance("map", 0, poses.from_planar(x, 0.0, 0.0), np.eye(6)))
    assert len(asked) == 1
    assert pose.account.figures() == {"received": flood, "refused": {"replaced": flood - 2}}
    asked[0][1].set_exception(RuntimeError("the worker ended"))
    assert [hint.pose[0] for hint, _ in asked] == [0.0, flood - 1]
    asked[1][1].set_result(None)
    assert len(asked) == 2
    pose.account(convert.pose_with_covariance("map", 0, poses.from_planar(-1.0, 0.0, 0.0), np.eye(6)))
    assert asked[-1][0].pose[0] == -1.0
    assert len(said) < 5
