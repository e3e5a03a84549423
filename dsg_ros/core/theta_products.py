"""``vector^T d gradient / d theta`` on the host: what a derivative by the implicit function theorem asks of the rows.

Rows that are relative poses are differentiated by compiled loops in their measurements and weights, and from there in
theta by `Factor.pull_back`; all others by JAX, in chunks.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks, ThetaShape
from dsg_ros.core.factors import Factor, base
from dsg_ros.core.linearisation import CompiledGroup, used_rows
from dsg_ros.core.native import plain
from dsg_ros.core.native.relative_products import relative_products
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


def theta_vjp(problem: Problem, theta: Theta, state: State, vector: NDArray[np.float64]) -> Theta:
    """The product for a ``vector`` (D,) in the state's tangent, of which what is held is left out."""
    total = {f.name: np.zeros(np.shape(getattr(theta, f.name))) for f in dataclasses.fields(theta)}
    chunked: list[Factor] = []
    moved = vector[: problem.free_poses.size].reshape(-1, 6) * np.asarray(problem.free_poses)
    for factor in problem.factors:
        added = _compiled(factor, theta, state, moved)
        if added is None:
            chunked.append(factor)
        else:
            total |= {name: total[name] + value for name, value in added.items()}
    compiled = theta.replace(**total)
    if not chunked:
        return compiled
    others = Chunks(dataclasses.replace(problem, factors=tuple(chunked))).theta_vjp(theta, state, vector)
    shape = ThetaShape.of(theta)
    return shape.theta(shape.numbers(compiled) + shape.numbers(others))


def _compiled(
    factor: Factor, theta: Theta, state: State, moved: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]] | None:
    """Gradient in leaves of theta, None for rows that are no relative poses."""
    rows = used_rows(factor)
    if rows is None:
        return {}
    stack, keys, used = rows
    form = stack.host_form(theta)
    if not isinstance(form, base.RelativePoses):
        return None
    by_measured, by_columns = np.empty((len(used), 6)), np.empty((len(used), 6))
    told = CompiledGroup(stack, keys, form, used).told
    relative_products(plain(np.asarray(state.poses)), keys, plain(moved), *told, by_measured, by_columns)
    return stack.pull_back(theta, by_measured, by_columns)
