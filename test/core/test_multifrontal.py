"""Ordering, fronts and the multifrontal factorisation against dense linear algebra, on random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from dsg_ros.core.native import marginals, multifrontal, plan, row_sums, substitution
from dsg_ros.core.native.elimination import fronts_of
from dsg_ros.core.native.ordering import minimum_degree
from dsg_ros.core.native.tree import RowHessians

Array = NDArray[np.float64]
NONE, EMPTY = np.zeros(1, np.int64), np.zeros(0, np.int64)


def random_keys(rng: np.random.Generator, count: int, extra: int, held: int = 0) -> NDArray[np.int64]:
    """Rows of a connected graph: a chain, and ``extra`` pairs; some ends are held (-1)."""
    chain = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    loops = rng.integers(0, count, (extra, 2))
    loops = loops[loops[:, 0] != loops[:, 1]]
    keys = np.concatenate([chain, loops, [[0, -1]]]).astype(np.int64)
    if held and len(loops):
        keys[len(chain) : len(chain) + held, 0] = -1
    return keys


def rows_of(rng: np.random.Generator, keys: NDArray[np.int64], dims: NDArray[np.int64]) -> RowHessians:
    """Random positive definite rows; what stands at a held key is not used."""
    most = 2 * int(dims.max())
    local = np.zeros_like(keys)
    local[:, 1] = np.where(keys[:, 0] >= 0, dims[keys[:, 0]], 3)
    root = rng.normal(size=(len(keys), most + 2, most))
    return RowHessians(keys, local, root.swapaxes(1, 2) @ root, rng.normal(size=(len(keys), most)))


def dense(rows: RowHessians, dims: NDArray[np.int64]) -> tuple[Array, Array]:
    offset = np.cumsum(dims) - dims
    matrix, gradient = np.zeros((dims.sum(), dims.sum())), np.zeros(dims.sum())
    for keys, local, hessian, g in zip(*rows[:4], strict=True):
        used = [(k, at) for k, at in zip(keys, local, strict=True) if k >= 0]
        for a, la in used:
            gradient[offset[a] : offset[a] + dims[a]] += g[la : la + dims[a]]
            for b, lb in used:
                matrix[offset[a] : offset[a] + dims[a], offset[b] : offset[b] + dims[b]] += hessian[
                    la : la + dims[a], lb : lb + dims[b]
                ]
    return matrix, gradient


graphs = st.tuples(st.integers(0, 2**32), st.integers(2, 60), st.integers(0, 80), st.booleans())


@given(graphs)
@settings(deadline=None)
def test_factor_solve_and_marginals_agree_with_dense_algebra(graph: tuple[int, int, int, bool]) -> None:
    seed, count, extra, mixed = graph
    rng = np.random.default_rng(seed)
    keys = random_keys(rng, count, extra, held=2)
    dims = rng.choice([3, 6], count) if mixed else np.full(count, 3)
    dims = dims.astype(np.int64)
    rows = rows_of(rng, keys, dims)
    matrix, gradient = dense(rows, dims)
    tree = plan.tree_of(plan.analyse(keys, count, int(dims.max())), keys, dims)
    order, forward = np.arange(len(tree.panel)), np.zeros(dims.sum())
    damping = rng.uniform(0, 1, dims.sum())
    place = np.zeros(count, np.int64)
    for added in (damping, np.zeros_like(damping)):  # twice in the same memory
        assert multifrontal.factorise(tree, rows, order, added, forward, place, 1e-13) == (-1, -1)
        step = np.zeros(dims.sum())
        substitution.substitute_back(tree, order, forward, step)
        assert_allclose((matrix + np.diag(added)) @ step, -gradient, atol=1e-7 * np.abs(matrix).max())
    columns = rng.normal(size=(3, dims.sum()))
    solved = columns.copy()
    substitution.solve(tree, order, solved)
    inverse = np.linalg.inv(matrix)
    assert_allclose(solved, columns @ inverse, atol=1e-8 * np.abs(inverse).max())
    variable = int(rng.integers(count))
    block = np.empty((dims[variable], dims[variable]))
    marginals.marginal(tree, variable, block)
    at = slice(tree.offset[variable], tree.offset[variable] + dims[variable])
    assert_allclose(block, inverse[at, at], atol=1e-8 * np.abs(inverse).max())


@given(graphs)
@settings(deadline=None)
def test_diagonal_and_gradient_are_those_of_the_sum(graph: tuple[int, int, int, bool]) -> None:
    seed, count, extra, _ = graph
    rng = np.random.default_rng(seed)
    keys, dims = random_keys(rng, count, extra, held=1), np.full(count, 3, np.int64)
    rows = rows_of(rng, keys, dims)
    matrix, gradient = dense(rows, dims)
    offset, out = np.cumsum(dims) - dims, np.empty(dims.sum())
    row_sums.diagonal(rows, offset, dims, out)
    assert_allclose(out, np.diag(matrix))
    row_sums.gradient_of(rows, offset, dims, out)
    assert_allclose(out, gradient, atol=1e-12)


@given(graphs, st.integers(0, 10))
@settings(deadline=None)
def test_every_row_lies_in_a_front_and_every_separator_in_its_parent(
    graph: tuple[int, int, int, bool], late: int
) -> None:
    seed, count, extra, as_cliques = graph
    rng = np.random.default_rng(seed)
    keys = random_keys(rng, count, extra)
    pairs = keys[(keys >= 0).all(axis=1)]
    pointers, neighbours = plan.neighbours_of(pairs, count)
    cliques, members = NONE, EMPTY
    if as_cliques:  # the same graph, given as cliques of two
        pointers, neighbours = np.zeros(count + 1, np.int64), EMPTY
        cliques, members = np.arange(0, 2 * len(pairs) + 1, 2), pairs.ravel().copy()
    stages = np.zeros(count, np.int64)
    stages[rng.choice(count, min(late, count), replace=False)] = rng.integers(1, 4, min(late, count))
    order = minimum_degree(pointers, neighbours, cliques, members, stages)
    assert sorted(order) == list(range(count))
    assert (np.diff(stages[order]) >= 0).all()
    fronts = fronts_of(order, pointers, neighbours, cliques, members, 3)
    sets = [set(fronts.members[a:b]) for a, b in zip(fronts.starts[:-1], fronts.starts[1:], strict=True)]
    home = {}
    for s, (start, own) in enumerate(zip(fronts.starts, fronts.fronts, strict=False)):
        home |= dict.fromkeys(fronts.members[start : start + own].tolist(), s)
        separator = set(fronts.members[start + own : fronts.starts[s + 1]].tolist())
        parent = fronts.parents[s]
        assert (parent < 0) == (not separator)
        assert parent < 0 or (parent > s and separator <= sets[parent])
    assert len(home) == count
    assert all({int(a), int(b)} <= sets[min(home[a], home[b])] for a, b in pairs)


def test_minimum_degree_keeps_a_grid_sparse() -> None:
    """A 30 x 30 grid: by columns its factor has 30 blocks a variable, by minimum degree far fewer."""
    side = 30
    number = np.arange(side * side).reshape(side, side)
    keys = np.concatenate(
        [
            np.stack([number[:-1].ravel(), number[1:].ravel()], 1),
            np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1),
        ]
    )
    pointers, neighbours = plan.neighbours_of(keys, side * side)
    sizes = []
    for order in (
        np.arange(side * side),
        minimum_degree(pointers, neighbours, NONE, EMPTY, np.zeros(side * side, np.int64)),
    ):
        fronts = fronts_of(order, pointers, neighbours, NONE, EMPTY, 3)
        sizes.append(int((fronts.fronts * (fronts.fronts + 1) // 2 + fronts.fronts * fronts.separators).sum()))
    assert sizes[1] < 0.5 * sizes[0]


def test_the_variable_that_is_not_determined_is_named() -> None:
    keys = np.array([[0, 1], [1, 2], [3, -1]], np.int64)  # 0, 1, 2 hang together, but on nothing
    dims = np.full(4, 2, np.int64)
    hessian = np.zeros((3, 4, 4))
    pair = np.array([[1.0, -1.0], [-1.0, 1.0]])
    hessian[:2] = np.kron(pair, np.eye(2))
    hessian[2, :2, :2] = np.eye(2)
    rows = RowHessians(keys, np.tile([0, 2], (3, 1)), hessian, np.zeros((3, 4)))
    tree = plan.tree_of(plan.analyse(keys, 4, 2), keys, dims)
    order = np.arange(len(tree.panel))
    _, variable = multifrontal.factorise(tree, rows, order, np.zeros(8), np.zeros(8), np.zeros(4, np.int64), 1e-13)
    assert variable in (0, 1, 2)


@pytest.mark.parametrize("count", [1, 2])
def test_few_variables(count: int) -> None:
    rng = np.random.default_rng(0)
    keys, dims = random_keys(rng, count, 0), np.full(count, 6, np.int64)
    rows = rows_of(rng, keys, dims)
    tree = plan.tree_of(plan.analyse(keys, count, 6), keys, dims)
    order, forward, step = np.arange(len(tree.panel)), np.zeros(6 * count), np.zeros(6 * count)
    multifrontal.factorise(tree, rows, order, np.zeros(6 * count), forward, np.zeros(count, np.int64), 1e-13)
    substitution.substitute_back(tree, order, forward, step)
    matrix, gradient = dense(rows, dims)
    assert_allclose(matrix @ step, -gradient, atol=1e-8)
