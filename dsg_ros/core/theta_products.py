"""``vector^T d gradient / d theta`` on the host: what a derivative by the implicit function theorem asks of the rows.

Rows that are relative poses are differentiated by compiled loops in their measurements and weights, and from there in
theta by `Factor.pull_back`; all others by JAX, in chunks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks, ThetaShape
from dsg_ros.core.factors import Factor, base
from dsg_ros.core.linearisation import CompiledGroup, Group
from dsg_ros.core.native import plain
from dsg_ros.core.native.relative_products import relative_products
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


def theta_vjp(
    problem: Problem, theta: Theta, state: State, vector: NDArray[np.float64], groups: Sequence[Group]
) -> Theta:
    """The product for a ``vector`` (D,) in the state's tangent, of which what is held is left out.

    ``groups`` are the problem's rows at ``theta`` (`linearisation.groups_of`).
    """
    leaves, structure = jax.tree.flatten(theta)
    total = {f.name: np.zeros(np.shape(leaf)) for f, leaf in zip(dataclasses.fields(theta), leaves, strict=True)}
    moved = plain(vector[: problem.free_poses.size].reshape(-1, 6) * np.asarray(problem.free_poses))
    chunked: set[type[Factor]] = set()
    for group in groups:
        added = _compiled(group, theta, plain(np.asarray(state.poses)), moved)
        if added is None:
            chunked.add(group.cls)
        else:
            total |= {name: total[name] + value for name, value in added.items()}
    compiled: Theta = jax.tree.unflatten(structure, total.values())
    if not chunked:
        return compiled
    factors = tuple(factor for factor in problem.factors if type(factor) in chunked)
    others = Chunks(dataclasses.replace(problem, factors=factors)).theta_vjp(theta, state, vector)
    shape = ThetaShape.of(theta)
    return shape.theta(shape.numbers(compiled) + shape.numbers(others))


def _compiled(
    group: Group, theta: Theta, poses: NDArray[np.float64], moved: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]] | None:
    """Gradient in leaves of theta, None for rows that are no relative poses."""
    if not isinstance(group, CompiledGroup) or not isinstance(group.form, base.RelativePoses):
        return None
    by_measured, by_columns = np.empty((len(group.keys), 6)), np.empty((len(group.keys), 6))
    relative_products(poses, group.keys, moved, *group.told, by_measured, by_columns)
    return group.stack.pull_back(theta, by_measured, by_columns)
