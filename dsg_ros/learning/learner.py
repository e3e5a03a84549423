"""The outer update: Gauss-Newton on theta, accumulated over blocks.

Each block adds the quadratic ``0.5 theta^T H theta - b^T theta`` of its held-out cost, with ``b = H theta_0 -
gradient`` at the theta_0 where it was linearised.  With the prior they make normal equations in theta: adding a block
is a step of the Kalman filter in information form (Thrun et al., "Probabilistic robotics", 2005, section 3.5),
without any learning rate.

The newest blocks are kept whole, so that they can be linearised again when theta has moved; older ones are folded
into sums of fixed size, so memory and time do not grow with the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from dsg_ros.learning.at_once import each
from dsg_ros.learning.block import Block
from dsg_ros.learning.leg import Leg
from dsg_ros.learning.losses import Score
from dsg_ros.state import State, nested, part

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass
class Quadratic:
    """One block's cost around ``at`` (K,), in deviations of theta from the prior's mean."""

    block: Block | Leg
    at: Vector
    hessian: Matrix
    linear: Vector


class Accumulator:
    """Normal equations of theta, in deviations (K,) from where learning started; the prior is ``sigmas`` (K,) around
    ``centre``: zero, until `reopen`.

    ``score(block, deviation)`` evaluates a block; ``keep`` newest blocks stay linearisable.
    """

    def __init__(self, sigmas: Vector, score: Callable[[Block | Leg, Vector], Score], keep: int) -> None:
        self._score = score
        self._keep = keep
        self._recent: deque[Quadratic] = deque()
        self._sigmas = sigmas
        self.prior, self.centre = np.diag(1 / sigmas**2), np.zeros(len(sigmas))
        size = len(sigmas)
        self._hessian, self._linear = np.zeros((size, size)), np.zeros(size)
        # Second moments of (H, b) over folded blocks: from them the sum of squared gradients at any theta comes out
        # exactly.
        self._moments = np.zeros((size * size + size,) * 2)

    def add(self, block: Block | Leg, at: Vector, scored: Score | None = None) -> bool:
        """Linearise ``block`` at a deviation, where it may have been ``scored`` already, and take it in; False, and
        nothing done, if its numbers are not finite.
        """
        quadratic = self._linearised(block, at, scored)
        if quadratic is None:
            return False
        self._recent.append(quadratic)
        if len(self._recent) > self._keep:
            self._fold(self._recent.popleft())
        return True

    @property
    def recent(self) -> int:
        """Blocks that are still kept whole."""
        return len(self._recent)

    def drop_newest(self) -> None:
        """Forget the block that came last."""
        self._recent.pop()

    def relinearise(self, at: Vector, tolerance: float, limit: int) -> int:
        """Linearise again, newest first, at most ``limit`` blocks that were linearised farther away from ``at`` than
        ``tolerance`` prior deviations.  Returns how many were."""
        newest_first = reversed(range(len(self._recent)))
        far = [i for i in newest_first if np.max(np.abs(self._recent[i].at - at) / self._sigmas) > tolerance][:limit]
        anew = each([partial(self._linearised, self._recent[i].block, at) for i in far])
        for i, found in zip(far, anew, strict=True):
            self._recent[i] = found or self._recent[i]
        return len(far)

    def state(self) -> State:
        """As `dsg_ros.state` says: what is folded, and the blocks that are kept whole."""
        sums = {
            "prior": self.prior, "centre": self.centre, "hessian": self._hessian, "linear": self._linear,
            "moments": self._moments,
        }  # fmt: skip
        folded: State = {name: array.copy() for name, array in sums.items()}
        if not self._recent:
            return folded
        blocks = [jax.tree.leaves(q.block) for q in self._recent if isinstance(q.block, Block)]
        kept: State = {f"recent.block.{i}": np.stack(leaves) for i, leaves in enumerate(zip(*blocks, strict=True))}
        for i, q in enumerate(self._recent):
            if isinstance(q.block, Leg):
                kept |= nested(**{f"recent.leg.{i}": q.block.state()})
        for name in ("at", "hessian", "linear"):
            kept[f"recent.{name}"] = np.stack([getattr(q, name) for q in self._recent])
        return folded | kept

    def restore(self, state: Mapping[str, Any], like: Block) -> None:
        """Take a state over; its blocks are shaped like ``like``."""
        self.prior, self.centre = np.array(state["prior"]), np.array(state["centre"])
        for name, array in (("hessian", self._hessian), ("linear", self._linear), ("moments", self._moments)):
            array[...] = state[name]
        self._recent.clear()
        leaves, tree = jax.tree.flatten(like)
        blocks = 0  # before this one; the others are legs, of their own lengths
        for i in range(len(state.get("recent.at", ()))):
            block: Block | Leg
            if leg := part(state, f"recent.leg.{i}"):
                block = Leg.of(leg)
            else:
                given = [
                    np.asarray(state[f"recent.block.{n}"][blocks], leaf.dtype).reshape(np.shape(leaf))
                    for n, leaf in enumerate(leaves)
                ]
                block, blocks = jax.tree.unflatten(tree, given), blocks + 1
            quadratic = (np.array(state[f"recent.{name}"][i]) for name in ("at", "hessian", "linear"))
            self._recent.append(Quadratic(block, *quadratic))

    def normal(self) -> tuple[Matrix, Vector]:
        """Information (K, K) and right-hand side (K,), prior included."""
        hessian = self.prior + self._hessian + sum(q.hessian for q in self._recent)
        return hessian, self.prior @ self.centre + self._linear + sum(q.linear for q in self._recent)

    def reopen(self, centre: Vector, covariance: Matrix, blocks: int) -> None:
        """Begin again from a new prior, of ``covariance`` (K, K) around ``centre`` (K,), and the newest ``blocks``."""
        self.prior, self.centre = np.asarray(np.linalg.inv(covariance), np.float64), centre.copy()
        while len(self._recent) > blocks:
            self._recent.popleft()
        for sums in (self._hessian, self._linear, self._moments):
            sums[...] = 0.0

    def sandwich(self, at: Vector) -> Matrix:
        """`robust_covariance` (K, K) of theta at a deviation."""
        size = len(at)
        information = self.normal()[0]
        # gradient = H at - b, linear in (H, b): as a matrix on the vector (H.ravel(), b).
        to_gradient = np.concatenate([np.kron(np.eye(size), at), -np.eye(size)], axis=1)
        scatter = to_gradient @ self._moments @ to_gradient.T
        for q in self._recent:
            gradient = q.hessian @ at - q.linear
            scatter += np.outer(gradient, gradient)
        return robust_covariance(information, scatter, self.prior)

    def _linearised(self, block: Block | Leg, at: Vector, scored: Score | None = None) -> Quadratic | None:
        s = scored or self._score(block, at)
        hessian, gradient = np.asarray(s.hessian), np.asarray(s.gradient)
        if not (np.isfinite(s.cost) and np.isfinite(hessian).all() and np.isfinite(gradient).all()):
            return None
        return Quadratic(block, at.copy(), hessian, hessian @ at - gradient)

    def _fold(self, q: Quadratic) -> None:
        self._hessian += q.hessian
        self._linear += q.linear
        row = np.concatenate([q.hessian.ravel(), q.linear])
        self._moments += np.outer(row, row)


def robust_covariance(information: Matrix, scatter: Matrix, prior: Matrix) -> Matrix:
    """Covariance (K, K) of theta from the scatter of the blocks' gradients (Huber 1967; White 1980), never below the
    formal one; ``information`` includes the ``prior``, ``scatter`` is the sum of the gradients' outer products.

    The formal covariance believes that all noise is white and of the told size; this one only that blocks are
    independent.
    """
    formal = np.linalg.inv(information)
    robust = formal @ (scatter + prior) @ formal
    scale = np.sqrt(np.maximum(np.diag(robust), np.diag(formal)) / np.diag(robust))
    return scale[:, None] * robust * scale


def minimiser(information: Matrix, right: Vector, free: NDArray[np.bool_], held: Vector) -> Vector:
    """Deviation (K,) that solves the normal equations with the numbers that are not ``free`` as in ``held`` (K,)."""
    out = held.copy()
    if free.any():
        wanted = right[free] - information[np.ix_(free, ~free)] @ held[~free]
        out[free] = np.linalg.solve(information[np.ix_(free, free)], wanted)
    return out
