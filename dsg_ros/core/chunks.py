"""The whole graph in pieces of fixed shape: rows are linearised in chunks, so that a growing graph compiles nothing.

Rows of each factor type are cut into large chunks and, for what is left, small ones, padded with neutral rows; values
are gathered on the host.  Two programs a factor type and operation are all there is, whatever the size of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import Factor, base
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind, State

LARGE, SMALL = 1024, 256
"""Rows of a chunk.  Up to three small ones are cheaper than one large one mostly filled with padding."""


@dataclass(frozen=True)
class ThetaShape:
    """How theta is laid out in one array of all its numbers (K,)."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(theta: Theta) -> ThetaShape:
        """The layout of this one."""
        leaves, structure = jax.tree.flatten(theta)
        return ThetaShape(structure, tuple(np.shape(leaf) for leaf in leaves))

    def numbers(self, theta: Theta) -> NDArray[np.float64]:
        """All numbers of theta."""
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(theta)])

    def theta(self, numbers: Any) -> Theta:
        """Theta from its numbers (NumPy, or traced)."""
        borders = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = [numbers[stop - math.prod(s) : stop].reshape(s) for s, stop in zip(self.shapes, borders, strict=True)]
        theta: Theta = jax.tree.unflatten(self.structure, parts)
        return theta


@jax.jit
def _linearise(factor: Factor, theta: Theta, values: base.Values) -> tuple[Any, Any, Any]:
    row = jax.vmap(base.row_linearise, in_axes=(0, None, 0))(factor, theta, values)
    hessian = jnp.einsum("nra,nrb->nab", row.jacobian, row.jacobian)
    return jnp.sum(row.cost), hessian, jnp.einsum("nrd,nr->nd", row.jacobian, row.residual)


@jax.jit
def _hessian_product(factor: Factor, theta: Theta, values: base.Values, vector: Any) -> Any:
    return jax.vmap(base.row_hessian_product, in_axes=(0, None, 0, 0))(factor, theta, values, vector)


@partial(jax.jit, static_argnames="shape")
def _theta_vjp(total: Any, factor: Factor, theta: Any, values: base.Values, vector: Any, shape: ThetaShape) -> Any:
    """``total`` (K,) with what these rows add, for the numbers (K,) of theta: one array in, one out, and sums stay on
    the device, so that nothing waits for a chunk.
    """

    def product(numbers: Any) -> Any:
        t = shape.theta(numbers)
        return jnp.sum(jax.vmap(base.row_theta_product, in_axes=(0, None, 0, 0))(factor, t, values, vector))

    return total + jax.grad(product)(theta)


@jax.jit
def _theta_jacobian(factor: Factor, theta: Theta, values: base.Values, ways: Theta) -> Any:
    return jax.vmap(base.row_theta_jacobian, in_axes=(0, None, 0, None))(factor, theta, values, ways)


@dataclass(frozen=True)
class Rows:
    """All rows of one type: ``keys`` (n, number of keys), positions in the problem, and ``local`` (n, d), the
    places of their numbers in the tangent."""

    cls: type[Factor]
    keys: NDArray[np.int64]
    local: NDArray[np.int64]


@dataclass(frozen=True)
class _Chunk:
    factor: Factor
    keys: NDArray[np.int64]
    rows: int


class Chunks:
    """A problem's rows (those with weight) in chunks, on the device; values and results on the host."""

    def __init__(self, problem: Problem) -> None:
        self.dof = problem.state.dof
        self.poses = len(problem.free_poses)
        self.free = np.concatenate([np.ravel(problem.free_poses), np.repeat(problem.free_voxels, 3)])
        self.rows: list[Rows] = []
        self._chunks: list[list[_Chunk]] = []
        for factor in problem.factors:
            used = np.flatnonzero(np.asarray(factor.weight) > 0)
            if not len(used):
                continue
            cls = type(factor)
            keys = np.stack([np.asarray(getattr(factor, f.name))[used] for f in base.key_fields(cls)], axis=1)
            keys = keys.astype(np.int64)
            self.rows.append(Rows(cls, keys, self._places(cls, keys)))
            columns = {name: np.asarray(getattr(factor, name))[used] for name in base.data_fields(cls)}
            self._chunks.append(list(_cut(cls, keys, columns)))

    def linearise(self, theta: Theta, state: State) -> tuple[float, list[NDArray[np.float64]], NDArray[np.float64]]:
        """Cost, the rows' Hessians (n, d, d) by type in the order of ``rows``, and the gradient (D,)."""
        cost, parts = self._linearise(theta, state)
        return cost, [hessian for hessian, _ in parts], self._summed([gradient for _, gradient in parts])

    def row_linearise(self, theta: Theta, state: State) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Cost, Hessians (n, d, d) and gradients (n, d) of the rows, which are of one type."""
        cost, ((hessian, gradient),) = self._linearise(theta, state)
        return cost, hessian, gradient

    def _linearise(
        self, theta: Theta, state: State
    ) -> tuple[float, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
        pending = [[_linearise(c.factor, theta, self._values(c, state)) for c in chunks] for chunks in self._chunks]
        cost = float(sum(float(c) for results in pending for c, _, _ in results))
        parts = [
            (_joined(chunks, [h for _, h, _ in out]), _joined(chunks, [g for _, _, g in out]))
            for chunks, out in zip(self._chunks, pending, strict=True)
        ]
        return cost, parts

    def hessian_product(self, theta: Theta, state: State, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """The exact Hessian times ``vector`` (D,), free numbers only."""
        pending = [
            [
                _hessian_product(c.factor, theta, self._values(c, state), local)
                for c, local in zip(chunks, _cut_local(chunks, (vector * self.free)[rows.local]), strict=True)
            ]
            for rows, chunks in zip(self.rows, self._chunks, strict=True)
        ]
        return self._summed([_joined(chunks, out) for chunks, out in zip(self._chunks, pending, strict=True)])

    def theta_vjp(self, theta: Theta, state: State, vector: NDArray[np.float64]) -> Theta:
        """``vector^T d gradient / d theta``."""
        state, shape = jax.tree.map(np.asarray, state), ThetaShape.of(theta)
        numbers = shape.numbers(theta)
        total: Any = np.zeros_like(numbers)
        for rows, chunks in zip(self.rows, self._chunks, strict=True):
            for c, local in zip(chunks, _cut_local(chunks, (vector * self.free)[rows.local]), strict=True):
                total = _theta_vjp(total, c.factor, numbers, self._values(c, state), local, shape)
        return shape.theta(np.asarray(total))

    def theta_jacobian(self, theta: Theta, state: State, ways: Theta) -> NDArray[np.float64]:
        """``d gradient / d theta`` (D, K) along K directions."""
        count = len(ways.scale)
        total = np.zeros((self.dof, count))
        for rows, chunks in zip(self.rows, self._chunks, strict=True):
            parts = [_theta_jacobian(c.factor, theta, self._values(c, state), ways) for c in chunks]
            np.add.at(total, rows.local.ravel(), _joined(chunks, parts).transpose(0, 2, 1).reshape(-1, count))
        return total * self.free[:, None]

    def _places(self, cls: type[Factor], keys: NDArray[np.int64]) -> NDArray[np.int64]:
        places = []
        for i, kind in enumerate(base.kinds(cls)):
            start = keys[:, i] * 6 if kind is Kind.POSE else self.poses * 6 + keys[:, i] * 3
            places.append(start[:, None] + np.arange(kind.dof))
        return np.concatenate(places, axis=1)

    def _values(self, chunk: _Chunk, state: State) -> base.Values:
        kinds = base.kinds(type(chunk.factor))
        stores = [state.poses if kind is Kind.POSE else state.voxels for kind in kinds]
        values: tuple[Any, ...] = tuple(np.asarray(store)[chunk.keys[:, i]] for i, store in enumerate(stores))
        return values

    def _summed(self, stacks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        total = np.zeros(self.dof)
        for rows, local in zip(self.rows, stacks, strict=True):
            total += np.bincount(rows.local.ravel(), weights=local.ravel(), minlength=self.dof)
        return total * self.free


def _sizes(rows: int) -> list[int]:
    """Chunk sizes that hold ``rows`` rows."""
    large, rest = divmod(rows, LARGE)
    small = -(-rest // SMALL)
    return [LARGE] * (large + (small > 3)) + [SMALL] * (small if small <= 3 else 0)


def _cut(cls: type[Factor], keys: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> Iterator[_Chunk]:
    start = 0
    for size in _sizes(len(keys)):
        part = slice(start, min(start + size, len(keys)))
        rows = part.stop - part.start
        padded = cls.stack(size)
        for name, column in columns.items():
            getattr(padded, name)[:rows] = column[part]
        positions = np.zeros((size, keys.shape[1]), np.int64)
        positions[:rows] = keys[part]
        yield _Chunk(padded, positions, rows)
        start += size


def _cut_local(chunks: list[_Chunk], local: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    start = 0
    for chunk in chunks:
        padded = np.zeros((len(chunk.keys), local.shape[1]))
        padded[: chunk.rows] = local[start : start + chunk.rows]
        yield padded
        start += chunk.rows


def _joined(chunks: list[_Chunk], parts: list[Any]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(part)[: chunk.rows] for chunk, part in zip(chunks, parts, strict=True)])
