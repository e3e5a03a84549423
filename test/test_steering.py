"""What is asked of the pipeline while it maps: to optimise now, to learn or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import worlds

from dsg_ros import config, poses
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame
from dsg_ros.pipeline import Slam

TRUTH = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 0.75))
ODOMETRY = worlds.biased(TRUTH, scale=1.03, turn_per_metre=0.02)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(worlds.frames(worlds.block(), TRUTH, ODOMETRY))


def driven(frames: list[Frame], at: int, ask: Callable[[Slam], object]) -> tuple[Slam, list[Estimate]]:
    """A pipeline that is asked something after so many frames, and its estimates."""
    slam = Slam(config.Slam())
    slam.warm_up(planar=True)
    estimates = []
    for number, frame in enumerate(frames):
        if number == at:
            ask(slam)
        estimates.append(slam.process(frame))
    return slam, estimates


def test_optimising_on_the_way_gives_a_better_map_and_mapping_goes_on(frames: list[Frame]) -> None:
    told: list[Estimate] = []
    at = len(frames) // 2
    _, estimates = driven(frames, at, lambda slam: told.append(slam.optimize()))
    truth = poses.between(TRUTH[0], TRUTH)
    answer, before = told[0], estimates[at - 1]
    assert answer.stamp == before.stamp
    assert answer.path is not None
    assert answer.counts["graph_solves"] == before.counts["graph_solves"] + 1
    keyframes = [frame.stamp for frame in frames if frame.stamp in set(answer.path.stamps.tolist())]
    where = truth[np.array(keyframes) // (worlds.SECOND // 10)]
    assert np.linalg.norm(answer.path.poses[:, :3] - where[:, :3], axis=1).max() < 0.05
    assert np.linalg.norm(estimates[-1].pose[:3] - truth[-1, :3]) < 0.15
    assert estimates[-1].metrics["compilations_after_warm_up"] == 0


def test_there_is_nothing_to_optimise_before_the_first_scan() -> None:
    with pytest.raises(UserError, match="no map yet"):
        Slam(config.Slam()).optimize()


def test_learning_is_switched_off_and_on(frames: list[Frame]) -> None:
    def off(slam: Slam) -> None:
        slam.switch_learning(False)

    at = len(frames) // 3
    slam, estimates = driven(frames, at, off)
    before, after = ({p.name: p for p in estimates[i].parameters} for i in (at - 1, -1))
    assert {p.status for p in before.values()} != {"frozen"}
    assert {(p.status, p.reason) for p in after.values()} == {("frozen", "learning is off")}
    assert {name: p.value for name, p in after.items()} == {name: p.value for name, p in before.items()}
    learned = len(slam.result().learning)
    assert learned == len(Slam.result(slam).learning) > 0

    def off_and_on(slam: Slam) -> None:
        slam.switch_learning(False)
        slam.switch_learning(True)

    again, estimates = driven(frames, at, off_and_on)
    assert len(again.result().learning) > learned
    assert estimates[-1].counts["links_refused"] == 0
