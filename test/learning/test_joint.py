"""One theta from several simulated drives, and which of them disagree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from robots import TOLD, Robot, drive, links_of
from scipy.stats import kstest

from dsg_ros import config, poses
from dsg_ros.interface import Parameter
from dsg_ros.learning.agreement import score_test
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.evidence import CHUNK, DriveEvidence, Evidence, Question, total
from dsg_ros.learning.joint import Joint, Span, newton
from dsg_ros.learning.leave_one_out import Together, learn_together

SETTINGS = config.replace(config.Slam(), {**TOLD, "learning.noise": False})
SIZE = SETTINGS.learning.every_keyframes
LEARNED = len(SETTINGS.learning.parameters.split(","))
"""How many numbers are learned by default."""

TRUE = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.05, lever=(0.09, 0.0))
TRUTH = {
    "odometry.scale": 0.96,
    "odometry.rotation_gain": 1.03,
    "odometry.turn_per_metre": 0.05,
    "odometry.lever.x": 0.09,
    "odometry.lever.y": 0.0,
}


def numbers(*first: float) -> np.ndarray:
    """Deviations (K,) of what is learned by default: those given, then zeros."""
    return np.pad(np.array(first), (0, LEARNED - len(first)))


class Drives:
    """Drives held here; counts what is asked."""

    def __init__(self, links: list[list[Link]], settings: config.Slam = SETTINGS) -> None:
        self.held = [DriveEvidence(each, settings, ()) for each in links]
        self.spans = [Span(number, 0, len(each)) for number, each in enumerate(self.held)]
        self.metres = [sum(float(np.linalg.norm(link.measured[:3])) for link in each) for each in links]
        self.joint = Joint(self.ask, settings)

    def ask(self, question: Question, spans: list[Span]) -> list[Evidence]:
        return [self.held[span.log].at(question, span.first, span.last) for span in spans]

    def learn(self) -> Together:
        return learn_together(self.joint, self.spans, self.metres, lambda what: None)


def rooms(robot: Robot, seed: int, blocks: int = 12) -> list[Link]:
    return links_of(robot, drive("rooms", blocks * SIZE), seed)


def by_name(drives: Drives, together: Together) -> dict[str, Parameter]:
    return {p.name: p for p in drives.joint.parameters(together.estimate)}


@pytest.fixture(scope="module")
def alike() -> tuple[Drives, Together]:
    drives = Drives([rooms(TRUE, seed) for seed in (1, 2, 3)])
    return drives, drives.learn()


def test_theta_of_three_drives_is_the_robots(alike: tuple[Drives, Together]) -> None:
    drives, together = alike
    found = by_name(drives, together)
    for name, value in TRUTH.items():
        assert abs(found[name].value - value) < 3 * found[name].sigma
        assert found[name].status == ("learned" if name != "odometry.lever.y" else "frozen")
    for each in together.drives:
        assert each.agrees
        assert each.used
        # Three drives know more than one or two.
        assert (together.estimate.sigmas < each.others.sigmas).all()
        assert (each.others.sigmas < each.own.sigmas).all()


def test_what_is_learned_foretells_the_drive_left_out(alike: tuple[Drives, Together]) -> None:
    _, together = alike
    for each in together.drives:
        assert each.loss_others < 0.5 * each.loss_start
        assert each.loss_others == pytest.approx(each.loss_all, rel=0.05)
    assert together.held_out_after < 0.5 * together.held_out_before


def test_at_the_optimum_the_gradients_cancel_the_prior(alike: tuple[Drives, Together]) -> None:
    drives, together = alike
    at = together.estimate.deviation
    slope = total(drives.joint.ask(at, drives.spans)).gradient + drives.joint.prior @ at
    np.testing.assert_allclose(slope / np.sqrt(np.diag(drives.joint.prior)), 0.0, atol=1e-3)


def test_one_drive_in_a_batch_agrees_with_learning_live() -> None:
    links = rooms(TRUE, 4, 30)
    live = Calibration(SETTINGS)
    for key, link in enumerate(links, 1):
        live.add(key, link)
        if key % SIZE == 0:
            live.step(key, 0.3 * key)
    drives = Drives([links])
    found = by_name(drives, drives.learn())
    for parameter in live.parameters():
        assert found[parameter.name].value == pytest.approx(parameter.value, abs=parameter.sigma)


def test_a_drive_of_another_robot_is_left_out_and_changes_nothing(alike: tuple[Drives, Together]) -> None:
    other = dataclasses.replace(TRUE, scale=1.02, turn_per_metre=-0.02)
    links = [rooms(TRUE, seed) for seed in (1, 2, 3)]
    drives = Drives([links[0], rooms(other, 9), *links[1:]])
    together = drives.learn()
    assert [each.used for each in together.drives] == [True, False, True, True]
    assert [each.agrees for each in together.drives] == [True, False, True, True]
    np.testing.assert_allclose(together.estimate.used, alike[1].estimate.used, atol=1e-12)
    stranger = together.drives[1]
    assert stranger.test.p_value < 1e-3
    own = dict(zip(drives.joint.names, drives.joint.physical(stranger.own.deviation), strict=True))
    assert own["odometry.scale"] == pytest.approx(1.02, abs=0.01)


def test_of_two_that_disagree_nothing_is_learned() -> None:
    drives = Drives([rooms(TRUE, 1), rooms(dataclasses.replace(TRUE, turn_per_metre=-0.05), 2)])
    together = drives.learn()
    assert not together.estimate.used.any()
    assert [each.agrees for each in together.drives] == [False, False]
    assert "learned" not in {p.status for p in by_name(drives, together).values()}
    assert "disagree" in by_name(drives, together)["odometry.scale"].reason


def test_p_values_of_a_theta_that_is_right_are_uniform() -> None:
    """Against the true theta, known exactly: neither too many drives nor too few are called another robot's."""
    drives = Drives([rooms(TRUE, 100 + seed, CHUNK) for seed in range(40)])
    truth = numbers(-0.04, 0.03, 0.05, 0.09)
    prior = np.array([spec.prior_sigma for spec in drives.joint.specs])
    told = drives.joint.ask(truth, drives.spans)
    found = [score_test(each, np.zeros((LEARNED, LEARNED)), prior, 0.0) for each in told]
    assert {test.directions for test in found} == {LEARNED}
    p_values = [test.p_value for test in found]
    # The scatter is taken for no less than what the information says: that errs to the side of agreement.
    assert kstest(p_values, "uniform", alternative="greater").pvalue > 0.01
    assert 0.4 < np.mean(p_values) < 0.9
    assert min(p_values) < 0.5


def test_what_a_robot_may_differ_by_is_tolerated_and_more_is_not() -> None:
    drives = Drives([rooms(TRUE, 100, 3 * CHUNK)])
    prior = np.array([spec.prior_sigma for spec in drives.joint.specs])
    near, far = numbers(-0.035, 0.03, 0.05, 0.09), numbers()
    for away, alike, least, most in ((near, 0.0, 0.0, 0.05), (near, 0.1, 0.3, 1.0), (far, 0.1, 0.0, 1e-6)):
        (told,) = drives.joint.ask(away, drives.spans)
        assert least <= score_test(told, np.zeros((LEARNED, LEARNED)), prior, alike).p_value <= most


def test_a_corridor_shows_no_rotation_gain() -> None:
    drives = Drives([links_of(TRUE, drive("corridor", 10 * SIZE), seed) for seed in (1, 2)])
    found = by_name(drives, drives.learn())
    assert found["odometry.rotation_gain"].status == "unobservable"
    assert found["odometry.rotation_gain"].value == 1.0
    assert "m of driving" in found["odometry.rotation_gain"].reason
    assert abs(found["odometry.scale"].value - 0.96) < 3 * found["odometry.scale"].sigma


def test_noise_of_heading_is_learned_for_all() -> None:
    settings = config.replace(SETTINGS, {"learning.noise": True})
    drives = Drives([rooms(dataclasses.replace(TRUE, noise=2.0), seed, 20) for seed in (1, 2)], settings)
    found = by_name(drives, drives.learn())
    total_ratio = found["noise.odometry.rotation"].value, found["noise.odometry.rotation_per_radian"].value
    assert all(1.2 < ratio < 3.0 for ratio in total_ratio)
    assert found["noise.odometry.rotation"].status == "learned"
    assert "noise.odometry.translation" not in found


def test_evidence_of_parts_adds_up_and_padding_adds_nothing() -> None:
    links = rooms(TRUE, 5, CHUNK + 3)
    whole, short = DriveEvidence(links, SETTINGS, ()), DriveEvidence(links[: 3 * SIZE], SETTINGS, ())
    question = Question(numbers(0.01, 0.02, 0.03, 0.04, 0.05), np.zeros(6))
    parts = total([whole.at(question, 0, 3), whole.at(question, 3, len(whole))])
    everything = whole.at(question, 0, len(whole))
    first = short.at(question, 0, 3)
    for name in ("cost", "gradient", "information", "scatter", "directions", "blocks"):
        np.testing.assert_allclose(getattr(parts, name), getattr(everything, name), rtol=1e-12)
        np.testing.assert_array_equal(getattr(first, name), getattr(whole.at(question, 0, 3), name))
    assert everything.blocks == CHUNK + 3


@pytest.mark.parametrize("about", ["calibration", "noise"])
def test_gradients_are_slopes(about: str) -> None:
    """Of the calibration at fixed S, which the small step hardly moves."""
    held = DriveEvidence(rooms(TRUE, 6, 3), SETTINGS, ())
    at = Question(numbers(*np.full(5, 0.01)), np.full(6, 0.2), about)
    axis = 2 if about == "calibration" else 4
    step = 1e-5 * np.eye(LEARNED if about == "calibration" else 6)[axis]

    def cost(sign: float) -> float:
        moved = at._replace(deviation=at.deviation + sign * step) if about == "calibration" else at
        moved = moved if about == "calibration" else at._replace(noise=at.noise + sign * step)
        return held.at(moved, 0, 3).cost

    slope = (cost(1.0) - cost(-1.0)) / 2e-5
    assert held.at(at, 0, 3).gradient[axis] == pytest.approx(slope, rel=1e-3 if about == "calibration" else 1e-6)


def test_links_and_blocks_that_are_not_finite_are_left_out() -> None:
    links = rooms(TRUE, 7, 4)
    links[3] = dataclasses.replace(links[3], measured=np.full(7, np.nan))
    links[2 * SIZE + 8] = dataclasses.replace(links[2 * SIZE + 8], relative=poses.from_planar(1e200, 0.0, 0.0))
    held = DriveEvidence(links, SETTINGS, ())
    assert held.refused == 2  # a link, and the block with the step that overflows
    assert len(held) == 2
    assert np.isfinite(held.at(Question(numbers(), np.zeros(6)), 0, 2).cost)


def test_a_step_that_leads_up_is_damped() -> None:
    """A cost whose curvature is told ten times too small: full steps overshoot for ever."""

    def cost(at: np.ndarray) -> Evidence:
        away = at - 3.0
        return Evidence(float(5.0 * away @ away), 10.0 * away, np.eye(1), np.eye(1), 1.0, 1)

    found, _ = newton(cost, np.zeros((1, 1)), np.array([0.0]), np.ones(1, bool))
    assert found[0] == pytest.approx(3.0, abs=1e-4)
