"""One drive of the simulated robot through the pipeline, online and without ground truth, and what came of it."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.signal import lfilter

from benchmarks import scores
from benchmarks.log_level import at_level
from dsg_ros import config, poses
from dsg_ros.commands._run_teaching import with_teaching
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.theta import SPECS
from dsg_ros.interface import Estimate, Frame, Parameter, ReferencePosition, RunResult
from dsg_ros.io.logs import frames
from dsg_ros.io.records import Record
from dsg_ros.learning.guards import LEARNED
from dsg_ros.learning.parameters import PLACES
from dsg_ros.parameter_file import apply_assignments
from dsg_ros.pipeline import Slam
from dsg_ros.report.evaluation import Track, score
from dsg_ros.simulation.robot import Robot
from dsg_ros.simulation.truth import assumed_base, true_parameters

INCREMENTS = ((0.26, 0.0), (0.32, 0.0), (0.26, 0.1), (0.2, 0.2), (0.16, 0.32), (0.13, 0.26))
"""Way [m] and turn [rad] from one keyframe to the next, for which the told deviations are right."""
SPEED, TURN_RATE = 1.2, 0.8
"""Of the robot [m/s, rad/s]: in arcs every second scan is a keyframe."""
WHEELS = config.SimulatedWheels(
    scale=1 / 1.04, rotation_gain=1 / 0.97, turn_per_metre=0.0, time_offset=0.06,
    noise_translation=0.01, noise_rotation=0.005, noise_rotation_turning=0.02,
)  # fmt: skip
MOUNTING = config.SimulatedMounting(x=0.05, y=-0.03, yaw=math.radians(2.0))
SCANNER = config.SimulatedScanner(rate=5.0)
ANTENNA = np.array([0.3, 0.1, 0.5])
"""Of the receiver, in the base [m]."""
SETTLE = 120
"""Keyframes after a jump at which the scale is looked at."""


@dataclass(frozen=True)
class Case:
    """What to drive: ``told`` is how many times too large the told deviations of the odometry are, ``jump`` the share
    by which the wheels' scale jumps halfway, ``settings`` and ``robot`` assignments NAME=VALUE to the settings of the
    pipeline and of the simulation.  With ``fixes`` [m] it is positions with this deviation that teach, ``fix_rate`` a
    second, instead of the scans; their errors are white, or with ``fix_memory`` [s] a Gauss-Markov process.
    """

    seed: int
    world: str = "office"
    metres: float = 200.0
    told: float = 3.0
    jump: float = 0.0
    settings: tuple[str, ...] = ()
    robot: tuple[str, ...] = ()
    fixes: float = 0.0
    fix_rate: float = 5.0
    fix_memory: float = 0.0

    def simulation(self) -> config.Simulation:
        """The robot of the case."""
        plain = config.Simulation(
            drive=config.SimulatedDrive(self.metres, SPEED, TURN_RATE),
            scanner=SCANNER,
            # By positions alone the angle is not told apart from where the antenna is.
            mounting=dataclasses.replace(MOUNTING, yaw=0.0) if self.fixes else MOUNTING,
            wheels=dataclasses.replace(WHEELS, scale_jump=self.jump),
        )
        named: config.Simulation = config.replace(plain, {"world": self.world, "seed": self.seed})
        return apply_assignments(named, self.robot, "--robot")

    def pipeline(self, told: float) -> config.Slam:
        """Settings with deviations ``told`` times those of the wheels.

        The mounting's angle is learned too, of scans; what only a finished run needs is off.
        """
        learning = config.Learning(parameters=f"{config.Learning().parameters}, odometry.lever.rz")
        plain = config.Slam(
            odometry=told_noise(self.simulation().wheels, told),
            learning=config.Learning(teacher="reference") if self.fixes else learning,
            refinement=config.Refinement(enabled=False),
            grid=config.Grid(enabled=False),
        )
        return apply_assignments(plain, self.settings)


@dataclass(frozen=True)
class Learned:
    """A parameter at the end: as told, and what it is in truth."""

    value: float
    sigma: float
    status: str
    unit: str
    truth: float
    start: float

    @property
    def error(self) -> float:
        """Told minus true."""
        return self.value - self.truth

    @property
    def within(self) -> bool:
        """Whether it is within three of its standard deviations of the truth."""
        return abs(self.error) <= 3.0 * self.sigma


@dataclass(frozen=True)
class Outcome:
    """What a drive came to.

    ``theta_nees`` is the squared error of the ``theta_numbers`` parameters learned, normalised by their covariance;
    ``pose_nees`` and ``nis`` (of all blocks, of the second half) are means a direction, 1 where deviations are right.
    ``noise``: mean told deviation of a keyframe's odometry over the true one, in translation and rotation, at the end.
    ``ate`` [m] with learning, with the true calibration given, and of the odometry; empty in the corridor, where the
    way along it is nobody's to know.  ``alarms``: keyframes after the
    jump (negative: before it) at which a change was detected, None where the learner does not look for changes;
    ``settled``: the error of the scale `SETTLE` keyframes after the jump, as a share of the jump.
    """

    seed: int
    metres: float
    keyframes: int
    parameters: Mapping[str, Learned]
    theta_nees: float
    theta_numbers: int
    pose_nees: float
    nis: float
    nis_second_half: float
    noise: Mapping[str, float]
    ate: Mapping[str, float]
    alarms: Sequence[int] | None
    settled: float | None
    seconds: float


class Recording:
    """A drive as a `dsg_ros.io.records.Log`, which has no reference in it."""

    paired = False
    tells_odometry = True

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.name, self.counts = "simulation", dict[str, int]()

    def __len__(self) -> int:
        return self._robot.sweeps

    def __iter__(self) -> Iterator[Record]:
        for _, record in self._robot.sensed():
            yield record


def told_noise(wheels: config.SimulatedWheels, factor: float) -> config.Odometry:
    """Deviations ``factor`` times those of ``wheels``, for increments from keyframe to keyframe.

    A random walk grows with the square root of way and turn, `config.Odometry` adds deviations that grow with each: the
    best fit to `INCREMENTS`, by relative error.
    """
    way, turn = np.array(INCREMENTS).T
    parts = np.stack([np.ones_like(way), way, turn], axis=1)

    def fitted(a_metre: float, a_radian: float) -> list[float]:
        true = np.sqrt(a_metre**2 * way + a_radian**2 * turn)
        shares = nnls(parts / true[:, None], np.ones_like(true))[0] if true.all() else np.zeros(3)
        return (factor * np.maximum(shares, [1e-5, 0.0, 0.0])).tolist()

    translation = fitted(wheels.noise_translation, wheels.noise_translation_turning)
    rotation = fitted(wheels.noise_rotation, wheels.noise_rotation_turning)
    return config.Odometry(*translation, *rotation)


def fixes(case: Case, robot: Robot) -> list[ReferencePosition]:
    """Positions of an antenna at `ANTENNA` in the base, which is believed to be where the mounting has it."""
    random = np.random.default_rng([case.seed, 7])
    seconds = np.arange(0.3 / case.fix_rate, robot.sweeps / case.simulation().scanner.rate, 1.0 / case.fix_rate)
    base = poses.compose(robot.truth(seconds), assumed_base(case.simulation().mounting))
    places = poses.compose(base, np.concatenate([ANTENNA, poses.IDENTITY[3:]]))[:, :3]
    kept = math.exp(-1.0 / (case.fix_rate * case.fix_memory)) if case.fix_memory else 0.0
    drawn = random.standard_normal(places.shape)
    drawn[1:] *= math.sqrt(1.0 - kept**2)
    places = places + case.fixes * lfilter([1.0], [1.0, -kept], drawn, axis=0)
    covariance = case.fixes**2 * np.eye(3)
    return [
        ReferencePosition(round(1e9 * at), place, covariance, ANTENNA)
        for at, place in zip(seconds.tolist(), places, strict=True)
    ]


def drive(case: Case) -> Outcome:
    """Simulate, map and learn, and compare."""
    with at_level("dsg_ros", logging.ERROR):  # what goes wrong in a hundred drives is a figure here
        return _driven(case)


def _driven(case: Case) -> Outcome:
    began = time.perf_counter()
    enable_cache()
    simulation = case.simulation()
    robot = Robot(simulation)
    settings = case.pipeline(case.told)
    seen = list(frames(Recording(robot), settings.input))
    if case.fixes:
        seen = list(with_teaching(seen, fixes(case, robot), 0.0))
    slam, estimates = mapped(settings, seen)
    result = slam.finish()
    kept = slam.saved_map()
    truth = true_parameters(simulation, jumped=bool(case.jump))
    learned = {p.name: _learned(p, t) for p in kept.parameters for t in truth if p.name == t.name}
    squared, numbers = scores.theta_nees(kept, {name: p.error for name, p in learned.items() if p.status == LEARNED})
    keyframes = scores.Keyframes.of(estimates, robot, simulation)
    nis = np.array([step.nis for step in result.learning])
    after = [k for k, way in enumerate(keyframes.metres) if way > 0.5 * robot.metres]
    return Outcome(
        seed=case.seed,
        metres=robot.metres,
        keyframes=len(keyframes.stamps),
        parameters=learned,
        theta_nees=squared,
        theta_numbers=numbers,
        pose_nees=scores.pose_nees(keyframes),
        nis=float(nis.mean()) if len(nis) else math.nan,
        nis_second_half=float(nis[len(nis) // 2 :].mean()) if len(nis) else math.nan,
        noise=scores.noise_ratios(keyframes, robot, simulation, settings, result.parameters),
        ate=_ate(case, robot, simulation, seen, result) if case.world != "corridor" and not case.fixes else {},
        alarms=scores.alarms(keyframes.estimates, after[0]),
        settled=_settled(keyframes, after[0], simulation) if case.jump else None,
        seconds=time.perf_counter() - began,
    )


def mapped(
    settings: config.Slam, seen: Sequence[Frame], parameters: Sequence[Parameter] = ()
) -> tuple[Slam, list[Estimate]]:
    """The pipeline after ``seen``, in one pass, and what it said on the way."""
    slam = Slam(settings, parameters)
    return slam, [slam.process(frame) for frame in seen]


def _learned(parameter: Parameter, truth: Parameter) -> Learned:
    leaf, position = PLACES[parameter.name]
    start = SPECS[leaf][position].physical(0.0)
    return Learned(parameter.value, parameter.sigma, parameter.status, parameter.unit, truth.value, start)


def _ate(
    case: Case, robot: Robot, simulation: config.Simulation, seen: Sequence[Frame], result: RunResult
) -> dict[str, float]:
    """RMSE [m] of all scans on the final graph, as learned and with the true calibration and deviations given."""
    settings: config.Slam = config.replace(case.pipeline(1.0), {"learning.enabled": False})
    # In front of a jump another calibration is true than behind: no single one can be given.
    told = mapped(settings, seen, true_parameters(simulation))[0].finish()
    truth = Track(result.stamps, scores.truth_at(robot, simulation, result.stamps))
    tracks = {"learned": result.trajectory, "given": told.trajectory, "odometry": result.odometry}
    return {name: score(Track(result.stamps, track), truth).ate_rmse for name, track in tracks.items()}


def _settled(keyframes: scores.Keyframes, jump: int, simulation: config.Simulation) -> float | None:
    """Error of the scale in use `SETTLE` keyframes after the ``jump``, as a share of what it jumped by."""
    if jump + SETTLE >= len(keyframes.stamps):
        return None
    before, after = (scores.value("odometry.scale", true_parameters(simulation, jumped=j)) for j in (False, True))
    found = scores.value("odometry.scale", keyframes.estimates[jump + SETTLE].parameters)
    return abs(found - after) / abs(after - before)
