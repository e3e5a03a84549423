"""The factor graph of a run: keyframes and voxels in, optimised keyframes and voxels out.

A scan enters in two forms: as a registration, its marginal over the local map, and as voxel observations.  The window
solves for poses and voxels together, each form with its share of the scan's information; the whole graph solves for
poses over registrations and closures, and the voxels follow their observations.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import Loop, OdomSE3, PosePrior, Registration, VoxelSensorObs
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.factors.odometry import noise
from dsg_ros.core.native import plain, se3
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers import window as window_solver
from dsg_ros.core.solvers.window_stacks import chosen as chosen_rows
from dsg_ros.core.solvers.window_stacks import joined, rows_of
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping import joint, window_kernel
from dsg_ros.mapping.association import Statistics
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.mapping.loop_rows import LoopRows, square_root
from dsg_ros.mapping.sightings import Sightings
from dsg_ros.state import State, nested, packed, part, unpacked

ANCHOR_SIGMA = 1e-3
"""Deviation [m, rad] of the first keyframe: the gauge."""

WINDOW_TOLERANCE = 1e-6
"""Of the cost: what a further step of a window's solve must promise."""

LISTED = 5
"""Variables that a warning names, at most."""

OF_SIGHTINGS = ("extrinsic", "voxel_noise")
"""What sightings depend on in theta."""

GRAPH_TYPES = (PosePrior, OdomSE3, Registration, Loop)

NOTHING = np.zeros(0, np.int64)

Window = tuple[window_solver.WindowSolution, NDArray[np.int64], NDArray[np.int64]]
"""A solved window, and the keys of its poses and voxels that are free."""

WITHDRAWALS = 5
"""Closures that one solve of the whole graph withdraws, at most: each is followed by a solve without it."""

GAP_SIGMAS = np.repeat([0.5, 0.2], 3)
"""Deviations [m, rad] of the link over a gap: it keeps the chain together, and what was found in the map decides."""

_log = logging.getLogger(__name__)


class BackEnd:
    """Owns the WorldModel.  Keyframe and voxel numbers are the world's keys.

    ``axes`` are the tangent directions in which poses move: x, y, yaw for planar scans.  Free in all six, closing a
    loop would find it cheaper to fold the trajectory out of the plane, of which such a scan says nothing, than to bend
    it within.
    """

    def __init__(self, settings: config.Slam, *, axes: tuple[int, ...]) -> None:
        self._settings = settings
        self._axes = axes
        self.world = WorldModel()
        self.sightings = Sightings(settings, self.world, planar=len(axes) == 3)
        self.loops = LoopRows(settings.loops, self.world)
        self.counts = {"window_solves": 0, "graph_solves": 0, "solves_refused": 0}
        self.metrics: dict[str, float] = {}
        self._moving = np.diag(np.isin(np.arange(6), axes).astype(float))
        self._covariance, self._held = self._moving * ANCHOR_SIGMA**2, (np.eye(6) - self._moving) * ANCHOR_SIGMA**2
        self._linear = SparseCholesky()
        self._graph_solver = LevenbergMarquardt(self._linear, max_iterations=30, tolerance=1e-6)
        self._joint_solver = LevenbergMarquardt(self._linear, max_iterations=30, tolerance=1e-5)
        self._keyframe_count = 0
        self._links = Rows(2, dtype=np.int64)
        self._told: Theta | None = None
        self._split: tuple[Theta, Theta]
        self._window: Window | None = None

    @property
    def trajectory(self) -> NDArray[np.float64]:
        """Keyframe poses (k, 7), base in map."""
        return self.world.poses

    @property
    def nbytes(self) -> int:
        """Bytes of the graph between poses: all of the world that is not the sightings'."""
        own = {Kind.VOXEL, VoxelSensorObs}
        return self._links.nbytes + sum(size for of, size in self.world.nbytes.items() if of not in own)

    def pose(self, key: int) -> NDArray[np.float64]:
        """Pose (7,) of one keyframe; -1 is the newest."""
        return self.world.get_pose(key % self._keyframe_count)

    def add_keyframe(self, pose: NDArray[np.float64]) -> int:
        """A new pose variable; the first one is anchored."""
        key = self.world.add_pose(pose)
        self._keyframe_count += 1
        if key == 0:
            self.world.add(PosePrior, pose=key, mean=pose, sqrt_info=np.eye(6) / ANCHOR_SIGMA)
        return key

    def add_link(
        self,
        key: int,
        increment: NDArray[np.float64],
        seconds: float,
        relative: NDArray[np.float64],
        information: NDArray[np.float64],
        doubtful: bool = False,
        rate: NDArray[np.float64] | None = None,
    ) -> None:
        """What ties ``key`` to the keyframe before: raw odometry ``increment`` (7,) over ``seconds`` with its ``rate``
        (6,), and the scan matcher's opinion ``relative`` (7,) with its ``information`` (6, 6).

        A ``doubtful`` increment may be outvoted by the scans.  All others may not: where the ground bends the scans, it
        is the odometry that is right.
        """
        o = self._settings.odometry
        fields = noise(increment, o.translation, o.rotation) | {"rate": np.zeros(6) if rate is None else rate}
        odometry = self.world.add(
            OdomSE3, previous=key - 1, current=key, duration=seconds,
            kernel=int(Kernel.CAUCHY if doubtful else Kernel.NONE), kernel_width=o.robust_scale, **fields,
        )  # fmt: skip
        sigmas = np.repeat([fields["sigma_translation"].sum(), fields["sigma_rotation"].sum()], 3)
        self._tie(odometry, key, relative, information, np.diag(sigmas**-2.0))

    def add_seen_link(
        self,
        key: int,
        expected: NDArray[np.float64],
        sigmas: NDArray[np.float64],
        relative: NDArray[np.float64],
        information: NDArray[np.float64],
    ) -> None:
        """What ties ``key`` to the keyframe before where no odometry tells of the way: the scan matcher's opinion
        ``relative`` (7,) with its ``information`` (6, 6), and where that is nothing the motion ``expected`` (7,), to
        deviations ``sigmas`` (6,).
        """
        prior = np.diag(sigmas**-2.0)
        away = se3.log(se3.between(plain(relative), plain(expected)))
        toward: NDArray[np.float64] = np.linalg.inv(prior + information) @ prior @ away
        both = se3.compose(plain(relative), se3.exp(toward))
        self._tie(self._no_odometry(key, both), key, both, prior + information, np.zeros((6, 6)))

    def _no_odometry(self, key: int, relative: NDArray[np.float64]) -> int:
        """Every link has a row of odometry; this one has no weight."""
        return self.world.add(OdomSE3, previous=key - 1, current=key, weight=0.0, **noise(relative))

    def _tie(
        self,
        odometry: int,
        key: int,
        relative: NDArray[np.float64],
        information: NDArray[np.float64],
        besides: NDArray[np.float64],
    ) -> None:
        """The other row of the link of ``odometry``, which has ``besides`` (6, 6) of information."""
        self._pair(odometry, key, relative, square_root(information))
        link = np.linalg.inv(besides + information)
        self._covariance = se3.carried(plain(relative), plain(self._covariance)) + self._moving @ link @ self._moving

    def _pair(self, odometry: int, key: int, relative: NDArray[np.float64], sqrt_info: NDArray[np.float64]) -> None:
        registration = self.world.add(Registration, first=key - 1, second=key, measured=relative, sqrt_info=sqrt_info)
        self._links.append([odometry, registration])

    def add_gap(self, closure: Closure) -> None:
        """Tie the newest keyframe to the map where no odometry leads to it from the one before: by ``closure``, which
        is where it was found, and loosely by where the two lie.
        """
        key = closure.newer
        relative = poses.between(self.pose(key - 1), self.pose(key))
        self._pair(self._no_odometry(key, relative), key, relative, np.diag(1.0 / GAP_SIGMAS))
        axes = np.ix_(self._axes, self._axes)
        found = np.zeros((6, 6))
        # Both rows tie it: where the place shows nothing, as along a corridor, the loose one is left.
        found[axes] = np.linalg.inv((closure.information + np.diag(GAP_SIGMAS**-2.0))[axes])
        self._covariance = self._covariance + found
        self.loops.add([closure])

    def problem(self) -> Problem:
        """The graph over all keyframes, as it is now: odometry, registrations and closures."""
        return self.world.snapshot(types=GRAPH_TYPES, axes=self._axes)

    def solve_graph(self, theta: Theta) -> Statistics:
        """All keyframes over odometry, registrations and closures; the voxels follow their sightings, of which this
        tells what is known.

        New closures act first as they are (`LoopRows`).  Then all are Cauchy, so that one that disagrees with the
        others is voted out; those that are, are withdrawn, the worst first.
        """
        self.counts["graph_solves"] += 1
        if self.loops.fresh:
            self._adopt_graph(solve(self.problem(), theta, self._graph_solver))
        self.loops.settle()
        for _ in range(WITHDRAWALS + 1):
            if not (self._adopt_graph(solve(self.problem(), theta, self._graph_solver)) and self.loops.withdraw(theta)):
                break
        self._linear.forget()  # the next graph is another
        return self.sightings.regroup()

    def _adopt_graph(self, solution: Solution) -> bool:
        self.metrics["graph_cost"], self.metrics["graph_iterations"] = float(solution.cost), float(solution.iterations)
        # The state of a singular graph is a minimum too, but where its free variables stand there is chance, and the
        # covariance is that of a damped system: it would be published as if it were known.
        if solution.code in (Result.DIVERGED, Result.SINGULAR):
            self._refuse(_reason(solution.underconstrained))
            return False
        try:
            covariance = marginal_covariance(solution, self._keyframe_count - 1)
        except ValueError as error:  # regular where the last step began, it is factorised only here, where that ended
            self._refuse(str(error))
            return False
        self.world.adopt(solution)
        self._covariance = covariance
        return True

    def _refuse(self, why: str) -> None:
        self.counts["solves_refused"] += 1
        _log.warning("the graph of %d keyframes is left as it was: %s", self._keyframe_count, why)

    def solve_jointly(self, theta: Theta) -> Statistics:
        """All keyframes and the surfaces they saw, together (`dsg_ros.mapping.joint`), after `solve_graph`; the voxels
        follow as there.
        """
        problem = joint.with_surfaces(self.problem(), self.sightings.surfaces())
        shared = _split(theta, self._settings.refinement.voxel_share)
        solution = solve(problem, shared, self._joint_solver)
        self.metrics["joint_cost"], self.metrics["joint_iterations"] = float(solution.cost), float(solution.iterations)
        if solution.code in (Result.DIVERGED, Result.SINGULAR):
            self._refuse(_reason(solution.underconstrained))
        else:
            self.world.set_poses(np.arange(self._keyframe_count), solution.state.poses[: self._keyframe_count])
        self._linear.forget()
        return self.sightings.regroup()

    def adopt_keyframes(self, trajectory: NDArray[np.float64]) -> Statistics:
        """Take over keyframe poses (k, 7) that were found elsewhere; the voxels follow as in `solve_graph`."""
        self.world.set_poses(np.arange(self._keyframe_count), trajectory)
        return self.sightings.regroup()

    def start_window(self, theta: Theta) -> None:
        """Solve for the newest keyframes and the voxels they saw, together; `settle_window` takes the answer over.

        The oldest of these keyframes, and voxels known from before, are held.
        """
        window, newest = self._settings.window, self._keyframe_count
        first = newest - window.keyframes
        if not window.enabled or first < 0:
            return
        theta, of_sightings = self._shared(theta)
        held, first_seen = self.sightings.window, self.sightings.first_seen.values
        rows = held.at(of_sightings)
        over = rows.keys[:, 0] < first
        if over.any():
            held.keep(~over)
            rows = held.rows
        chosen = window_kernel.choose(rows.keys, first_seen, first, window.voxels, window.observations)
        keys = np.arange(first, newest)
        odometry, registrations = self._links.values[first : newest - 1].T
        stacks = self.world.stack(OdomSE3, odometry), self.world.stack(Registration, registrations)
        links = joined([rows_of(stack, theta) for stack in stacks])
        system = window_solver.System(
            pose_keys=keys,
            poses=self.world.get_poses(keys),
            free_poses=keys > first,
            voxel_keys=chosen.voxels,
            voxels=self.world.get_voxels(chosen.voxels),
            free_voxels=chosen.free,
            links=links._replace(keys=links.keys - first),
            seen=chosen_rows(rows, chosen.sightings)._replace(keys=chosen.keys),
            prior=None,
        )
        solution = window_solver.solve(system, self._axes, window.iterations, WINDOW_TOLERANCE)
        self._window = solution, keys[1:], chosen.voxels[chosen.free]

    def settle_window(self) -> NDArray[np.int64]:
        """Adopt the window solved last, if it still waits; returns the voxels that moved."""
        if self._window is None:
            return NOTHING
        (solution, keys, voxels), self._window = self._window, None
        self.counts["window_solves"] += 1
        self.metrics["window_cost"] = solution.cost
        self.metrics["window_iterations"] = float(solution.iterations)
        if solution.result in (Result.DIVERGED, Result.SINGULAR):
            self.counts["solves_refused"] += 1
            _log.warning(
                "a window up to keyframe %d is left as it was: %s", keys[-1], _reason(solution.underconstrained)
            )
            return NOTHING
        self.world.set_poses(keys, solution.poses[1:])
        self.world.set_voxels(voxels, solution.voxels[solution.free_voxels])
        return voxels

    def _shared(self, theta: Theta) -> tuple[Theta, Theta]:
        """Theta as `_split` has it for windows; once for the rows between poses, and once for sightings: another object
        only where these would be others.
        """
        if theta is not self._told:
            shared = _split(theta, self._settings.window.voxel_share)
            former = self._split[1] if self._told is not None else shared
            alike = all(np.array_equal(getattr(former, name), getattr(shared, name)) for name in OF_SIGHTINGS)
            self._told, self._split = theta, (shared, former if alike else shared)
        return self._split

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        facts = {
            "counts": self.counts,
            "metrics": self.metrics,
        }
        window, sightings = _window_state(self._window), self.sightings.state()
        return nested(world=self.world.state(), sightings=sightings, window=window, loops=self.loops.state()) | {
            "covariance": self._covariance.copy(),
            "links": self._links.values,
            "facts": packed(facts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over; ValueError or KeyError for what is none."""
        facts = unpacked(state["facts"])
        self.world.restore(part(state, "world"))
        self._keyframe_count = len(self.world.poses)
        self._covariance = np.array(state["covariance"])
        self.sightings.restore(part(state, "sightings"))
        self._links.load(state["links"])
        self.loops.restore(part(state, "loops"))
        if len(self._links) != max(0, self._keyframe_count - 1):
            raise ValueError("links of other keyframes than there are")
        self.counts, self.metrics = facts["counts"], facts["metrics"]
        self._window = _window_of(part(state, "window"))

    def covariance(self, relative: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariance (6, 6) of the pose at ``relative`` (7,) to the newest keyframe, in its own tangent.

        Between global solves it is carried along the chain; it is that of the graph's factorisation after each, of
        registrations and closures alone: what `solve_jointly` moves, it does not narrow.
        Directions that are held have the anchor's deviation: filters downstream take no singular matrix.
        """
        return se3.carried(plain(relative), plain(self._covariance)) + self._held


def _split(theta: Theta, share: float) -> Theta:
    """Theta with a scan's information split between its registration and its voxel observations, which get ``share``;
    on the host.

    Both come from the same points.  Shares that sum to one keep the fusion of correlated estimates consistent,
    whatever their correlation (covariance intersection; Julier and Uhlmann, 1997).
    """
    host: Theta = jax.tree.map(np.asarray, theta)
    return host.replace(
        registration_noise=host.registration_noise - 0.5 * np.log(1.0 - share),
        voxel_noise=host.voxel_noise - 0.5 * np.log(share),
    )


def _window_state(window: Window | None) -> State:
    """A window that was solved and waits to be settled."""
    if window is None:
        return {}
    solution, keys, voxels = window
    facts = {
        "result": int(solution.result), "cost": solution.cost, "iterations": int(solution.iterations),
        "underconstrained": [[kind.value, key] for kind, key in solution.underconstrained],
    }  # fmt: skip
    return {
        "poses": np.array(solution.poses), "voxels": np.array(solution.voxels),
        "free": np.array(solution.free_voxels), "keys": keys, "voxel_keys": voxels, "facts": packed(facts),
    }  # fmt: skip


def _window_of(state: Mapping[str, Any]) -> Window | None:
    if not state:
        return None
    facts = unpacked(state["facts"])
    solution = window_solver.WindowSolution(
        state["poses"], state["voxels"], state["free"], Result(facts["result"]), facts["cost"], facts["iterations"],
        tuple((Kind(kind), key) for kind, key in facts["underconstrained"]),
    )  # fmt: skip
    return solution, state["keys"], state["voxel_keys"]


def _reason(free: tuple[tuple[Kind, int], ...]) -> str:
    """Why a solve is refused whose rows do not determine the variables ``free``, or any otherwise."""
    if not free:
        return "no step lowers its cost, or it is not finite"
    named = ", ".join(f"{kind.value} {key}" for kind, key in free[:LISTED])
    more = f" and {len(free) - LISTED} more" if len(free) > LISTED else ""
    return f"its rows do not determine {named}{more}"
