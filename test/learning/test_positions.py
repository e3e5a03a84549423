"""Learning from positions alone: what a leg of them says, how fixes become legs, and what is not believed."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from typing import Any

import numpy as np
import pytest
from robots import SECONDS, TOLD, Robot, drive, frozen, links_of

from dsg_ros import config, poses
from dsg_ros.core.theta import Theta, specs, to_float64
from dsg_ros.interface import OdometryTrack, Parameter, ReferencePosition
from dsg_ros.learning import leg_loss, leg_work, parameters, snooping
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.leg import Fix, Leg, make_leg
from dsg_ros.learning.links import Links
from dsg_ros.learning.snooping import snoop

STEP = round(1e9 * SECONDS)
TRUE = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.02, lever=(0.09, -0.05))
SETTINGS = config.replace(config.Slam(), TOLD)
CHOSEN = parameters.chosen(SETTINGS.learning.parameters)
NAMES = tuple(spec.name for spec in specs(CHOSEN))
PRIOR = np.array([spec.prior_sigma for spec in specs(CHOSEN)])
START = to_float64(Theta.neutral())
TRUTH = np.array([-0.04, 0.03, 0.02, 0.09, -0.05, 0.0])
ANTENNA = np.array([0.3, 0.1, 0.0])


def model(deviation: np.ndarray) -> leg_loss.Model:
    return leg_loss.model_at(START, deviation, NAMES)


def chain(links: list[Link]) -> np.ndarray:
    """Where the base was (n + 1, 7), in a frame that lies anywhere."""
    found = [poses.from_planar(20.0, -3.0, 1.0)]
    for link in links:
        found.append(poses.compose(found[-1], link.relative))
    return np.stack(found)


def leg(count: int, sigma: float, seed: int, scans: bool = False, memory: float = 0.0) -> Leg:
    """With a fix in every link, somewhere in it; scans err by what links_of gives them."""
    links, rng = links_of(TRUE, drive("rooms", count), seed), np.random.default_rng(seed + 100)
    where, told = chain(links), []
    for i, link in enumerate(links):
        share = (0.37 * i) % 1.0
        at = poses.compose(where[i], poses.exp(share * poses.log(link.relative)))
        place = poses.transform(at, ANTENNA[None])[0, :2] + sigma * rng.standard_normal(2)
        part = share * poses.log(link.measured)
        told.append(
            (i, Fix(place, sigma**2 * np.eye(2), ANTENNA[:2], part, share * link.rate, share * SECONDS, i * SECONDS))
        )
    return make_leg(links, told, SETTINGS.odometry, scans, memory)


@pytest.mark.parametrize("scans", [False, True])
def test_the_gradient_is_that_of_central_differences(scans: bool) -> None:
    made, at, width = leg(60, 0.02, 0, scans), TRUTH + np.array([0.01, -0.01, 0.01, -0.04, 0.02, 0.01]), 3.0
    lower = leg_loss.foretell(made, model(at)).lower
    found, step = leg_loss.score(made, model(at), width, lower), 1e-6
    costs = [
        [float(leg_loss.score(made, model(at + sign * step * unit), width, lower).cost) for sign in (1, -1)]
        for unit in np.eye(len(NAMES))
    ]
    numeric = np.array([(up - down) / (2 * step) for up, down in costs])
    np.testing.assert_allclose(found.gradient, numeric, atol=1e-7 * np.abs(numeric).max(), rtol=0)
    assert np.linalg.eigvalsh(found.hessian)[0] > 0


def test_the_told_spread_is_the_one_there_is() -> None:
    """Odometry's errors add up along the way, and each counts once: chi squared is what it should be."""
    told = [float(leg_loss.score(leg(40, 0.02, seed), model(TRUTH), 3.0).nis) for seed in range(30)]
    assert np.mean(told) == pytest.approx(1.0, abs=0.12)


def test_errors_that_last_are_those_of_a_gauss_markov_process() -> None:
    """Positions alone, of a robot whose odometry does not err: the spread is that of what was drawn."""
    made = leg(30, 0.5, 2, memory=10.0)
    exact = dataclasses.replace(made, sigma_translation=0 * made.sigma_translation + 1e-9, sigma_rotation=made.seen * 0)
    lower = leg_loss.foretell(exact, model(TRUTH)).lower
    spread = (lower @ lower.T)[::2, ::2]
    apart = SECONDS * np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    np.testing.assert_allclose(spread, 0.25 * (np.eye(30) + np.exp(-apart / 10.0)), atol=1e-6)


def test_where_a_leg_lies_and_what_heading_it_has_says_nothing() -> None:
    made = leg(30, 0.02, 3)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    moved = dataclasses.replace(made, position=made.position @ turn.T + [500.0, -800.0])
    one, other = (leg_loss.score(each, model(TRUTH), 3.0) for each in (made, moved))
    assert float(other.cost) == pytest.approx(float(one.cost), rel=1e-8)
    np.testing.assert_allclose(other.hessian, one.hessian, rtol=1e-6, atol=1e-6 * np.abs(one.hessian).max())


def test_scans_beside_positions_count_once() -> None:
    """Scans that know everything leave nothing for the positions to say of theta; scans that know nothing, all."""
    made = leg(30, 0.02, 3, scans=True)
    alone = leg_loss.score(leg(30, 0.02, 3), model(TRUTH), 3.0).hessian
    sure = dataclasses.replace(made, information=np.tile(1e12 * np.eye(3), (30, 1, 1)))
    blind = dataclasses.replace(made, information=np.tile(1e-9 * np.eye(3), (30, 1, 1)))
    assert np.abs(leg_loss.score(sure, model(TRUTH), 3.0).hessian).max() < 1e-6 * np.abs(alone).max()
    np.testing.assert_allclose(leg_loss.score(blind, model(TRUTH), 3.0).hessian, alone, rtol=1e-5)


def test_the_fix_that_jumps_is_the_one_left_out() -> None:
    made = leg(40, 0.02, 5)
    position = made.position.copy()
    position[17] += [0.3, 0.0]
    found = snoop(dataclasses.replace(made, position=position), model(np.zeros(len(NAMES))), PRIOR)
    assert (found.dropped, found.wrong) == (1, "")
    assert not (found.leg.position == position[17]).all(axis=1).any()
    assert snoop(made, model(np.zeros(len(NAMES))), PRIOR).dropped == 0


def test_many_that_jump_are_left_out_without_laying_the_leg_anew_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leg has up to 400 fixes: a decomposition for each that is left out took seconds."""
    made, laid = leg(80, 0.02, 5), []
    wrong, position = np.arange(3, 75, 6), made.position.copy()
    position[wrong] += np.random.default_rng(1).uniform(0.15, 0.3, (12, 2))

    def counted(*given: Any) -> leg_loss.Foretold:
        laid.append(given)
        return leg_loss.foretell(*given)

    monkeypatch.setattr(snooping, "foretell", counted)
    found = snoop(dataclasses.replace(made, position=position), model(np.zeros(len(NAMES))), PRIOR)
    assert (found.dropped, found.wrong, len(found.leg.link)) == (12, "", 68)
    np.testing.assert_array_equal(found.leg.position, np.delete(made.position, wrong, axis=0))
    assert len(laid) <= 3


def test_what_is_left_is_foretold_as_if_the_dropped_had_never_been_there() -> None:
    made, at, dropped = leg(40, 0.02, 5), model(TRUTH), (17, 4, 30)
    rest = snooping._Rest(made, at, PRIOR)
    for fix in dropped:
        rest.drop(int(np.flatnonzero(np.delete(np.arange(40), rest.dropped) == fix)[0]))
    anew = snooping._Rest(made.without(dropped), at, PRIOR)
    np.testing.assert_allclose(rest.squared(), anew.squared(), rtol=1e-2)  # laid at another heading


def test_a_leg_that_steps_in_the_middle_teaches_nothing() -> None:
    made = leg(40, 0.02, 5)
    position = made.position.copy()
    position[20:] += [3.0, 3.0]
    assert snoop(dataclasses.replace(made, position=position), model(np.zeros(len(NAMES))), PRIOR).wrong


def test_a_leg_that_goes_nowhere_or_is_not_finite_costs_more_than_all() -> None:
    made = leg(20, 0.02, 5)
    still = dataclasses.replace(made, measured=0 * made.measured, part=0 * made.part, antenna=0 * made.antenna)
    wild = dataclasses.replace(made, part=np.full_like(made.part, np.inf))
    for each in (still, wild):
        assert not np.isfinite(float(leg_loss.score(each, model(TRUTH), 3.0).cost))
        assert "how they lie" in snoop(each, model(TRUTH), PRIOR).wrong


class Drive:
    """A drive with its odometry, its fixes ``every`` some links, and a `Calibration` that hears both."""

    def __init__(self, count: int, seed: int, sigma: float = 0.02, every: int = 2, **more: object) -> None:
        self.links = links_of(TRUE, drive("rooms", count), seed)
        lie = poses.from_planar(0.1, 0.1, 0.1)
        where, raw = chain(self.links), [poses.IDENTITY]
        for link in self.links:
            raw.append(poses.compose(raw[-1], link.measured))
        self.raw = np.stack(raw)
        rng = np.random.default_rng(seed)
        covariance = np.diag([sigma**2, sigma**2, 1.0])
        self.fixes: dict[int, ReferencePosition] = {}
        for i in range(0, count, every):  # a fifth of a second behind a keyframe
            at = poses.interpolate(where[i], where[i + 1], 0.4)
            place = poses.transform(at, ANTENNA[None])[0] + sigma * rng.standard_normal(3)
            self.fixes[i + 1] = ReferencePosition(i * STEP + round(0.4 * STEP), place, covariance, ANTENNA)
        self.links = [dataclasses.replace(k, relative=lie, information=np.zeros((6, 6))) for k in self.links]
        self.calibration = Calibration(config.replace(SETTINGS, {"learning.teacher": "reference"} | more))

    def learn(self, first: int = 1, last: int | None = None) -> dict[str, Parameter]:
        for key in range(first, (last or len(self.links)) + 1):
            stamps = np.array([key - 1, key], np.int64) * STEP
            told = [self.fixes[key]] if key in self.fixes else []
            self.calibration.hear(told, key * STEP, OdometryTrack(stamps, self.raw[key - 1 : key + 1]))
            self.calibration.add(key, self.links[key - 1], *stamps.tolist())
            if key % 10 == 0:
                self.calibration.step(key * STEP, 0.3 * key)
                self.calibration.settle()
        return {p.name: p for p in self.calibration.parameters()}


def until_a_leg_is_begun(made: Drive) -> int:
    """The key of the next link."""
    key = 1
    while not made.calibration._legs.begun:
        made.learn(first=key, last=key + 9)
        key += 10
    return key


def right(found: dict[str, Parameter], *names: str) -> None:
    for name, value in zip(NAMES, TRUTH, strict=True):
        told, ratio = found[name], 1.0 if name.endswith(("scale", "gain")) else 0.0
        assert abs(told.value - value - ratio) < 3 * told.sigma or told.status != "learned", told
        assert told.status == "learned" or name not in names, told


def test_fixes_to_the_centimetre_teach_what_blind_scans_cannot() -> None:
    made = Drive(600, seed=3)
    found = made.learn()
    right(found, "odometry.scale", "odometry.rotation_gain", "odometry.turn_per_metre", "odometry.lever.x")
    assert found["odometry.scale"].sigma < 0.004
    counts = made.calibration.counts
    assert counts["reference_positions"] == 300
    assert not sum(counts[k] for k in ("reference_not_used", "reference_missing", "positions_jump", "legs_refused"))


def test_no_scan_waits_for_a_leg(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is snooped and scored in another thread, until the next step; so is what theta it makes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    made, scans, threads = Drive(200, seed=3), threading.current_thread(), list[threading.Thread]()
    began, may_end = threading.Event(), threading.Event()

    def slow(*given: Any) -> snooping.Snooped:
        threads.append(threading.current_thread())
        began.set()
        assert threads[-1] is scans or may_end.wait(30.0)
        return snoop(*given)

    monkeypatch.setattr(leg_work, "snoop", slow)
    key = until_a_leg_is_begun(made)  # a step, which waits for nothing
    assert began.wait(30.0)
    assert threads != [scans]
    assert not made.calibration.history
    assert not made.calibration.unsettled
    may_end.set()
    made.learn(first=key, last=key + 8)
    made.calibration.step(key * STEP, 0.3 * key)
    assert len(made.calibration.history) == 1
    assert not made.calibration.unsettled  # or the scan would wait for it


def test_the_last_leg_counts_too() -> None:
    made = Drive(200, seed=3)
    until_a_leg_is_begun(made)
    made.calibration.conclude(200 * STEP, 60.0)
    assert len(made.calibration.history) == 1


def test_a_leg_that_is_complete_at_the_end_counts_though_nobody_began_it() -> None:
    made, key = Drive(200, seed=3), 1
    positions = made.calibration._links._positions
    assert positions is not None
    while not positions._done:
        made.learn(first=key, last=key)
        key += 1
    known = len(made.calibration.history) + made.calibration._legs.begun
    made.calibration.conclude(key * STEP, 0.3 * key)
    assert len(made.calibration.history) == known + 1


def test_fixes_to_the_metre_do_not_know_the_rotation_gain() -> None:
    found = Drive(600, seed=4, sigma=1.0, **{"learning.leg_length": 50.0}).learn()
    right(found)
    assert found["odometry.rotation_gain"].status == "unobservable"
    assert found["odometry.lever.x"].status == "unobservable"


def test_what_makes_no_sense_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    made = Drive(300, seed=6)
    fixes = made.fixes
    for key in (41, 43, 45):  # it stands still to the last digit
        fixes[key] = dataclasses.replace(fixes[key], position=fixes[39].position)
    fixes[61] = dataclasses.replace(fixes[61], position=np.full(3, np.nan))
    fixes[81] = dataclasses.replace(fixes[81], stamp=fixes[79].stamp)
    fixes[101] = dataclasses.replace(fixes[101], stamp=10**18)
    fixes[121] = dataclasses.replace(fixes[121], position=fixes[121].position + np.array([0.5, 0.0, 0.0]))
    with caplog.at_level(logging.WARNING):
        right(made.learn(), "odometry.scale")
    assert made.calibration.counts["reference_not_used"] == 6
    assert made.calibration.counts["positions_jump"] == 1
    for said in ("to the last digit", "is none", "is not newer", "has not come", "jump away"):
        assert said in caplog.text


def test_fixes_that_do_not_come_are_waited_for_and_then_missed() -> None:
    made = Drive(100, seed=6)
    late = {key + 24: fix for key, fix in made.fixes.items()}  # twelve seconds
    made.fixes = {1: made.fixes[1]} | late
    made.learn()
    assert made.calibration.counts["reference_missing"] > 60
    assert made.calibration.counts["reference_not_used"] > 20


def test_a_keyframe_that_is_missing_ends_a_leg() -> None:
    made = Drive(200, seed=6)
    made.links[30] = dataclasses.replace(made.links[30], measured=np.full(7, np.nan))
    right(made.learn(), "odometry.scale")
    assert 1 <= made.calibration.counts["links_refused"] < 40


def test_a_robot_in_space_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    made, counts = Drive(60, seed=6), dict[str, int]()
    links = Links(config.replace(SETTINGS, {"learning.teacher": "reference"}), counts)
    links.choose(planar=False)
    with caplog.at_level(logging.WARNING):
        for key, link in enumerate(made.links, 1):
            stamps = np.array([key - 1, key], np.int64) * STEP
            told = [made.fixes[key]] if key in made.fixes else []
            links.hear(told, key * STEP, OdometryTrack(stamps, made.raw[key - 1 : key + 1]))
            links.add(key, link, *stamps.tolist(), made.calibration.predict)
    assert links.leg() is None
    assert "a robot in 3D: not built" in caplog.text


@pytest.mark.parametrize("last", [3, 55, 200])
@pytest.mark.parametrize("teacher", ["reference", "both"])
def test_a_calibration_goes_on_from_its_state_with_the_leg_begun(teacher: str, last: int) -> None:
    """To the last bit, and with nothing lost; fixes come late, so that some links wait for them."""
    made, other = (Drive(240, seed=7, **{"learning.teacher": teacher}) for _ in range(2))
    for each in (made, other):
        each.fixes = {key + 3: fix for key, fix in each.fixes.items()}
    made.learn(last=last)
    other.calibration.restore(frozen(made.calibration.state()))
    assert other.calibration.parameters() == made.calibration.parameters()
    for each in (made, other):
        each.learn(first=last + 1)
    assert other.calibration.counts == made.calibration.counts
    assert not other.calibration.counts["reference_missing"] + other.calibration.counts["reference_dropped"]
    assert other.calibration.parameters() == made.calibration.parameters()
    np.testing.assert_array_equal(other.calibration.information(), made.calibration.information())


def test_a_leg_that_loses_its_place_is_counted_by_its_own_name(caplog: pytest.LogCaptureFixture) -> None:
    """Interrupted, or anchored anew elsewhere: then fixes before and after are of two frames."""
    made, moved = Drive(60, seed=7), np.array([4000.0, 300.0, 0.0])
    made.learn(last=8)
    made.calibration.interrupt()
    assert made.calibration.counts["reference_dropped"] == 8
    made = Drive(300, seed=7)
    for key, fix in made.fixes.items():
        shift, origin = (moved, (48.0, 11.0, 0.0)) if key > 8 else (0 * moved, (0.0, 0.1, 0.0))
        made.fixes[key] = dataclasses.replace(fix, position=fix.position + shift, origin=origin)
    right(made.learn(), "odometry.scale")
    assert made.calibration.counts["reference_dropped"] == 8
    assert not made.calibration.counts["positions_jump"] + made.calibration.counts["legs_refused"]
    assert "another frame" in caplog.text
