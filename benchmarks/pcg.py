"""Conjugate gradients against sparse Cholesky, on whatever device JAX finds.

``python -m benchmarks pcg`` gives a row for each graph; ``python -m benchmarks.pcg`` a longer table, with a choice of
preconditioners and sizes.

Both solve the same graphs from the same initial values, the chordal relaxation where it applies.  Conjugate gradients
run on JAX's default device, a GPU where its wheel is installed (``pip install "jax[cuda12]"``), sparse Cholesky on the
host.  Compilation is timed apart; seconds are those of the solve alone, the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from benchmarks import graphs
from benchmarks.measuring import stopwatch
from benchmarks.table import Row
from dsg_ros.core.factors import Registration
from dsg_ros.core.initialise import chordal
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers import ConjugateGradient, LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.conjugate_gradient import IterativeFactor
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.world import Capacity, WorldModel
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PLANAR_AXES, PoseGraph

GRAPHS = ("sphere2500", "torus3D")
SAME = 1e-6
"""Costs this close, relative to the lower, are one optimum."""


@dataclass(frozen=True)
class Run:
    """One solver on one graph: ``inner`` are iterations of conjugate gradients, over all steps; ``bytes`` what the
    program needs besides its arguments, by XLA's account."""

    graph: str
    poses: int
    edges: int
    solver: str
    device: str
    result: str
    cost: float
    steps: int
    inner: int | None
    seconds: float
    compiling: float | None
    bytes: int | None


class _Counted(ConjugateGradient):
    """Tells how many iterations each step took."""

    def step(self, factor: IterativeFactor, gradient: Float[Array, " D"], mismatch: Float[Array, ""]) -> Any:
        found = self.solve_step(factor, gradient, mismatch)
        jax.debug.callback(lambda n: _iterations.append(int(n)), found.iterations)
        return factor.scale * found.answer, found.met


_iterations: list[int] = []


def run(names: Sequence[str], repeats: int) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """A row for each graph: seconds of conjugate gradients, and of sparse Cholesky in the place of a peer."""
    for name in names:
        problem, theta = problem_of(graphs.load(name))
        by_cholesky = direct(name, problem, theta, repeats)
        found = iterative(name, problem, theta, _Counted(), repeats)
        there = found.cost <= by_cholesky.cost * (1 + SAME)
        note = f"on {found.device}, {found.steps} steps, {found.inner} iterations"
        if not there:
            note += f"; ends at cost {found.cost:.6f}, not {by_cholesky.cost:.6f}"
        seconds = found.seconds if there else None
        row = Row("pcg", name, "to the optimum", seconds, by_cholesky.seconds, "s", None, note)
        yield [row], {"graph": name, "runs": [asdict(by_cholesky), asdict(found)]}


def problem_of(graph: PoseGraph) -> tuple[Problem, Theta]:
    """The graph as a problem of its own size, chordal initial values in place of its own where there are any."""
    world, theta = WorldModel(), to_float64(Theta.neutral())
    world.add_poses(graph.poses)
    world.add_rows(
        Registration, first=graph.first, second=graph.second, measured=graph.measured, sqrt_info=graph.sqrt_info
    )
    room = Capacity(len(graph.keys), 1, {Registration: len(graph.first)})
    axes = PLANAR_AXES if graph.planar else range(6)
    problem = world.snapshot(fixed=graph.held.tolist(), axes=axes, capacity=room)
    values = chordal(HostRows(problem, theta), np.asarray(problem.state.poses))
    if values is None:
        return problem, theta
    world.set_poses(np.arange(len(graph.keys)), values)
    return world.snapshot(fixed=graph.held.tolist(), axes=axes, capacity=room), theta


def iterative(name: str, problem: Problem, theta: Theta, linear: ConjugateGradient, repeats: int) -> Run:
    """By conjugate gradients on JAX's default device."""
    solver = LevenbergMarquardt(linear)
    problem, theta = jax.device_put((problem, theta))
    compiling, program = stopwatch(lambda: jax.jit(solver.solve).lower(problem, theta).compile())
    memory = program.memory_analysis()

    def solve() -> Solution:
        _iterations.clear()
        solution: Solution = jax.block_until_ready(program(problem, theta))
        jax.effects_barrier()
        return solution

    seconds, solution = _median(solve, repeats)
    return _run(
        name,
        problem,
        solution,
        solver=f"conjugate gradients, {linear.segments} segments",
        device=_device(),
        inner=sum(_iterations),
        seconds=seconds,
        compiling=compiling,
        bytes=memory.temp_size_in_bytes if memory is not None else None,
    )


def direct(name: str, problem: Problem, theta: Theta, repeats: int) -> Run:
    """By sparse Cholesky on the host, symbolic analysis included."""
    solve(problem, theta)
    seconds, solution = _median(lambda: solve(problem, theta), repeats)
    return _run(
        name,
        problem,
        solution,
        solver="sparse Cholesky",
        device="host",
        inner=None,
        seconds=seconds,
        compiling=None,
        bytes=None,
    )


def solve(problem: Problem, theta: Theta) -> Solution:
    """With a solver of its own: nothing is kept from another run."""
    return LevenbergMarquardt(SparseCholesky()).solve(problem, theta)


def _median(call: Any, repeats: int) -> tuple[float, Solution]:
    """The median of the seconds of some calls, and what the last one returned."""
    runs = [stopwatch(call) for _ in range(repeats)]
    return statistics.median(seconds for seconds, _ in runs), runs[-1][1]


def _run(name: str, problem: Problem, solution: Solution, **more: Any) -> Run:
    edges = sum(int((np.asarray(factor.weight) > 0).sum()) for factor in problem.factors)
    return Run(
        graph=name,
        poses=len(problem.pose_keys),
        edges=edges,
        result=solution.code.name,
        cost=float(solution.cost),
        steps=int(solution.iterations),
        **more,
    )


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.platform} {device.device_kind}"


_HEAD = (
    f"{'graph':<12} {'edges':>7} {'solver':<34} {'result':<14} {'cost':>16} {'steps':>5} "
    f"{'inner':>6} {'s':>8} {'compiling':>9}"
)


def _line(run: Run) -> str:
    inner = "" if run.inner is None else str(run.inner)
    compiling = "" if run.compiling is None else f"{run.compiling:.1f}"
    return (
        f"{run.graph:<12} {run.edges:>7} {run.solver:<34} {run.result:<14} {run.cost:>16.6f} {run.steps:>5} "
        f"{inner:>6} {run.seconds:>8.2f} {compiling:>9}"
    )


def main() -> int:
    """Measure, print a table and, as the last line, JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pcg", description=__doc__)
    parser.add_argument("--graphs", nargs="*", default=list(GRAPHS), help="by name (default: %(default)s)")
    parser.add_argument(
        "--poses", type=int, metavar="N", help="a simulated city of about N poses as well (whole thousands)"
    )
    parser.add_argument("--segments", nargs="+", type=int, default=[ConjugateGradient().segments])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-direct", action="store_true", help="leave sparse Cholesky out")
    parser.add_argument("--out", type=Path, help="write the JSON into this file as well")
    options = parser.parse_args()
    names = options.graphs + ([f"city-{max(1, round(options.poses / 1000))}k"] if options.poses else [])
    print(f"device: {_device()}\n{_HEAD}")
    runs: list[Run] = []

    def add(run: Run) -> None:
        runs.append(run)
        print(_line(run), flush=True)

    for name in names:
        try:
            problem, theta = problem_of(graphs.load(name))
        except UserError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        if not options.no_direct:
            add(direct(name, problem, theta, options.repeats))
        for segments in options.segments:
            add(iterative(name, problem, theta, _Counted(segments=segments), options.repeats))
    text = json.dumps({"device": _device(), "jax": jax.__version__, "runs": [asdict(run) for run in runs]})
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    return 0 if runs else 2


if __name__ == "__main__":
    sys.exit(main())
