"""Which variables the rows do not determine, by name, and what a solution without a factorisation refuses."""

from __future__ import annotations

import equinox as eqx
import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.core import theta as th
from dsg_ros.core.factors import FACTOR_TYPES, Registration, VoxelSensorObs
from dsg_ros.core.implicit import implicit_jacobian, implicit_vjp
from dsg_ros.core.solution import Free, Result, free_variables, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import ConjugateGradient, LevenbergMarquardt, SchurVoxels, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import Capacity, WorldModel

ROOM = Capacity(8, 4, dict.fromkeys(FACTOR_TYPES, 8))
THETA = to_float64(Theta.neutral())
SOLVERS = {
    name: LevenbergMarquardt(linear)
    for name, linear in (("schur", SchurVoxels()), ("sparse", SparseCholesky()), ("iterative", ConjugateGradient()))
}


def world(heading: float, along: float) -> WorldModel:
    """Four poses, and two voxels seen from the third; what the last edge knows of the heading, and of the second voxel
    in one direction.
    """
    out, step = WorldModel(), poses.from_planar(1.0, 0.0, 0.0)
    for key in range(4):
        out.add_pose(poses.from_planar(1.1 * key, 0.1, 0.0))
        if key:
            root = np.diag([10, 10, 10, 10, 10, heading if key == 3 else 10.0])
            out.add(Registration, first=key - 1, second=key, measured=step, sqrt_info=root)
    for key, root in enumerate([np.eye(3), np.diag([1, 1, along])]):
        out.add_voxel([2, key, 0])
        out.add(VoxelSensorObs, pose=2, voxel=key, point=[0, key, 0], sqrt_info=root)
    return out


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(
    ("knows", "free"),
    [((0.0, 1.0), Free(Kind.POSE, 3, False, True)), ((1.0, 0.0), Free(Kind.VOXEL, 1, True, False))],
)
def test_what_is_not_determined_is_named(name, knows, free):
    solution = solve(world(*knows).snapshot(fixed=[0], capacity=ROOM), THETA, SOLVERS[name])
    assert solution.code is Result.SINGULAR
    assert free_variables(solution) == [free]
    assert solution.underconstrained == ((free.kind, free.key),)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("strength", [1.0, 1e3])
def test_all_of_several_directions_are_named_however_strongly_the_rest_is_held(name, strength):
    """Damping is a multiple of the diagonal: of these two directions one has 1, the other the strength's square."""
    several = world(0.0, 0.0)
    tied = np.diag([0, 0, 0, 0, 0, strength])
    several.add(Registration, first=3, second=several.add_pose(poses.IDENTITY), measured=poses.IDENTITY, sqrt_info=tied)
    found = solve(several.snapshot(fixed=[0], capacity=ROOM), THETA, SOLVERS[name])
    assert found.code is Result.SINGULAR
    assert (Kind.POSE, 3) in found.underconstrained
    assert (Kind.POSE, 4) in found.underconstrained
    assert (Kind.VOXEL, 1) in found.underconstrained


@pytest.mark.parametrize("name", SOLVERS)
def test_keys_are_the_worlds(name):
    part = world(0.0, 1.0).snapshot([2, 3], [0, 1], fixed=[1], capacity=ROOM)
    assert solve(part, THETA, SOLVERS[name]).underconstrained == ((Kind.POSE, 3),)


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_is_named_where_all_is_determined(name):
    solution = solve(world(1.0, 1.0).snapshot(fixed=[0], capacity=ROOM), THETA, SOLVERS[name])
    assert solution.code is Result.CONVERGED
    assert solution.underconstrained == ()


def test_a_solution_without_a_factorisation_says_so():
    snapshot = world(0.0, 1.0).snapshot(fixed=[0], capacity=ROOM)
    found = solve(snapshot, THETA, SOLVERS["sparse"])
    # As where even damped equations cannot be factorised: not finite, say.
    solution = eqx.tree_at(lambda s: s.factorisation, found, None)
    assert solution.underconstrained == ()
    with pytest.raises(ValueError, match=r"marginal covariance: this solution \(SINGULAR\) has no factorisation"):
        marginal_covariance(solution, 1)
    for call in (
        lambda: implicit_vjp(snapshot, THETA, solution, solution.state),
        lambda: implicit_jacobian(snapshot, THETA, solution, th.mask(THETA, "scale")),
    ):
        with pytest.raises(ValueError, match=r"derivative of the solution: this solution .* has no factorisation"):
            call()
