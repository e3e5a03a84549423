"""The callbacks of all input topics, for messages that nobody should send, with the account of each message."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import mutations
import numpy as np
import pytest
from callbacks import Robot

from dsg_ros import config
from dsg_ros.interface import ReferencePosition
from dsg_ros.ros.frames import TransformTree
from dsg_ros.ros.initial_pose import InitialPose
from dsg_ros.ros.inputs import Account
from dsg_ros.ros.reference_input import ReferenceInput
from dsg_ros.ros.what_if import WhatIfOutput

TAUGHT = config.replace(config.Node(), {"learning.teacher": "reference"})
SATELLITES = config.replace(TAUGHT, {"reference_message": "navsat"})
SENSORS = ("odom", "scan", "points")
FLAWS = ("not_finite", "far_away", "zero_quaternion", "huge_quaternion", "wrong_stamp")
"""Of odometry that is not used; a stamp that came before, or is too old, is found when it is."""


class Questions(WhatIfOutput):
    """`~/what_if` on a node of its own, with the small pipeline behind it; counts its answers."""

    answers = 0

    def _tell(self, *answer: Any) -> None:
        super()._tell(*answer)
        self.answers += 1


class Callbacks:
    """The callbacks of all input topics, with what they hand on."""

    def __init__(self, questions: Questions) -> None:
        self.robot = Robot()
        self.robot.sensors._frames = tree = TransformTree()
        self.hints: list[Any] = []

        def say(level: str, text: str) -> None:
            self.robot.said.append((level, text))

        pose = InitialPose("map", self.hinted, say)
        self.reference = ReferenceInput(lambda: TAUGHT, tree, lambda: mutations.BASE, say)
        self.receiver = ReferenceInput(lambda: SATELLITES, tree, lambda: mutations.BASE, say)
        self.accounts = {
            "tf": Account("tf", tree.take, say),
            "initialpose": pose.account,
            "reference": self.reference.account,
            "fix": self.receiver.account,
            "what_if": questions.account,
        }
        self.questions = questions
        self.tree = tree
        self.used = 0
        """Odometry that was put in its place, or was there already."""
        self.told = dict.fromkeys(("reference", "fix"), 0)
        """What went along with frames."""
        self.looked = 0
        use = self.robot.sensors.synchroniser._use

        def counted(sample: Any) -> Any:
            self.used += 1
            return use(sample)

        self.robot.sensors.synchroniser._use = counted  # type: ignore[method-assign]

    def hinted(self, hint: Any) -> Future[None]:
        """The worker's part, which is done at once."""
        self.hints.append(hint)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def take(self, topic: str, message: Any) -> None:
        if topic in SENSORS:
            self.robot.take(topic, message)
        else:
            self.accounts[topic](message)

    def check(self) -> None:
        sensors, counts = self.robot.sensors, self.robot.sensors.synchroniser.counts
        assert not any("unexpected" in i.refused for i in sensors.inputs.values()), self.robot.text()
        assert all("unexpected" not in account.refused for account in self.accounts.values()), self.robot.text()
        odom, scans = sensors.inputs["odom"], [sensors.inputs["scan"], sensors.inputs["points"]]
        assert odom.received == counts["odometry_received"] + sum(odom.refused.values())
        flaws = sum(counts[f"odometry_{flaw}"] for flaw in FLAWS)
        waiting = sensors.synchroniser._doubted.held is not None
        assert counts["odometry_received"] == self.used + flaws + waiting
        ends = "scans_repeated_stamp scans_without_odometry scans_too_old"
        dropped = sum(counts[cause] for cause in (*ends.split(), "dropped_queue_full", "dropped_clock_jump"))
        refused = sum(sum(each.refused.values()) for each in scans)
        received = sum(each.received for each in scans)
        assert received == len(self.robot.frames) + sensors.waiting + dropped + refused
        for frame in self.robot.frames[self.looked :]:
            for topic, source in (("reference", self.reference), ("fix", self.receiver)):
                attached = source.attached(frame)
                self.told[topic] += len(attached.reference)
                check_frame(attached)
        self.looked = len(self.robot.frames)
        for topic, source in (("reference", self.reference), ("fix", self.receiver)):
            kept = self.told[topic] + len(source._waiting)
            assert source.account.received == kept + sum(source.account.refused.values())
        pose = self.accounts["initialpose"]
        assert pose.received == len(self.hints) + sum(pose.refused.values())
        asked = self.questions.account
        assert asked.received == self.questions.answers + sum(asked.refused.values())
        assert all(mutations.poses.LEAST_NORM < abs(pose[3:]).max() <= 1.0 for _, pose in self.tree._parents.values())


def check_frame(frame: Any) -> None:
    """What the pipeline may rely on."""
    assert frame.points.dtype == np.float32
    assert np.isfinite(frame.points).all()
    assert np.isfinite(frame.base_from_sensor).all()
    assert np.isfinite(frame.odometry.poses).all()
    assert (np.diff(frame.odometry.stamps) > 0).all()
    for told in frame.reference:
        if isinstance(told, ReferencePosition):
            assert all(np.isfinite(part).all() for part in (told.position, told.covariance, told.antenna))
            continue
        assert np.isfinite(told.pose).all()
        assert np.isfinite(told.covariance).all()
        assert np.linalg.norm(told.pose[3:]) == pytest.approx(1.0)
    assert frame.times is None or (len(frame.times) == len(frame.points) and np.isfinite(frame.times).all())
