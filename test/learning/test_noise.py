"""The odometry's noise, learned from held-out registrations."""

from __future__ import annotations

import numpy as np
import pytest
from robots import TOLD, Robot, drive, links_of, noise_of

from dsg_ros import config
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.learning.calibration import Calibration

SETTINGS = config.replace(config.Slam(), TOLD | {"learning.noise": True, "learning.noise_of_translation": True})
SIZE = SETTINGS.learning.every_keyframes


@pytest.mark.parametrize("ratio", [1 / 3, 3.0])
def test_noise_told_three_times_wrong_is_corrected(ratio: float) -> None:
    """The deviation of a typical increment, floor and growth together, comes out near the true one."""
    robot = Robot(noise=ratio * 2.0)
    told = {name: value * 2.0 for name, value in TOLD.items()}
    settings = config.replace(SETTINGS, told)
    calibration = Calibration(settings)
    calibration.warm_up(planar=True)
    links = links_of(robot, drive("rooms", 200 * SIZE), seed=1)
    before = noise_of(calibration, settings, links[3])
    with CompileCounter() as compilations:
        for key, link in enumerate(links, 1):
            calibration.add(key, link)
            if key % SIZE == 0:
                calibration.step(key, 0.3 * key)
                calibration.settle()
    assert compilations.count == 0
    after = noise_of(calibration, settings, links[3])
    assert before[5] * ratio == pytest.approx(after[5], rel=0.35)
    assert before[0] * ratio == pytest.approx(after[0], rel=0.5)
    noise = [p for p in calibration.parameters() if p.name.startswith("noise.")]
    assert len(noise) == 6
    assert all(np.isfinite([p.value, p.sigma]).all() and p.sigma > 0 for p in noise)


def test_without_translation_only_heading_is_learned() -> None:
    settings = config.replace(SETTINGS, {"learning.noise_of_translation": False})
    calibration = Calibration(settings)
    links = links_of(Robot(noise=3.0), drive("rooms", 20 * SIZE), seed=1)
    before = noise_of(calibration, settings, links[3])
    for key, link in enumerate(links, 1):
        calibration.add(key, link)
        if key % SIZE == 0:
            calibration.step(key, 0.3 * key)
            calibration.settle()
    after = noise_of(calibration, settings, links[3])
    assert after[0] == pytest.approx(before[0], rel=0.05)
    assert after[5] > 1.2 * before[5]
    names = {p.name for p in calibration.parameters() if p.name.startswith("noise.")}
    assert len(names) == 3
    assert all("rotation" in name for name in names)
