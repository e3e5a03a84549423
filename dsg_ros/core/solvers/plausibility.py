"""Whether relative poses that may be false are likely to be right, given what others say of the poses they join.

The innovation of a relative pose is its error e where it was not taken into account; if it is right, its covariance is
``S = s (Omega^-1 + C)``, with its own information Omega, the covariance C of the relative pose by all others, and one
factor s for how much smaller errors are than all claim.  If it is false, e is the difference to a relative pose of
poses picked at random, whose second moment is Lambda, and has the covariance ``S + Lambda``.  The logarithm of the
ratio of both likelihoods tells them apart, and is near 0 where C is as large as the map: there nothing can be told.

All covariances are in the tangent of the second pose (translation, rotation), and errors linear in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from dsg_ros import poses as se3
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.solvers.sparse import SparseFactor

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SAMPLES = 60
"""Covariances between poses that no row joins are those of so many samples: within about 20 %, for as many
back-substitutions.  To have them exactly, the rows would have to be in the factorisation, where a few hundred false
loops between far places make that of sphere2500 ten times as expensive."""
PAIRS = 2000
"""Random pairs of poses that Lambda is made of."""
SHARPEST = 0.1, 10
"""The rows whose C is smallest, by which s is judged: their fraction, and how many they are at least."""
QUARTER = 0.25
"""s is no less than what the best quarter of all rows asks for."""
TAIL = 0.99
"""Once rows are kept, s is what the quantile of theirs asks for."""
OWN = 1e-6
"""The share of others in what is known of a direction, at least: less is lost in rounding."""
LEAST = 1e-12
"""s where nothing errs at all."""


def chi2_quantile(probability: float, dof: NDArray[np.int64] | int) -> Floats:
    """What chi-squared numbers of ``dof`` degrees of freedom stay below with this probability."""
    return np.asarray(2.0 * gammaincinv(np.asarray(dof) / 2.0, probability))


def degrees_of_freedom(sqrt_info: Floats) -> NDArray[np.int64]:
    """(n,) in how many directions rows with ``sqrt_info`` (n, d, d) tell anything; 1 where they tell nothing."""
    return np.maximum(np.any(sqrt_info != 0, axis=1).sum(axis=1), 1)


def mahalanobis(error: Floats, information: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """``e^T (Omega^-1 + C)^-1 e`` and ``log det(I + C Omega)`` (n,) of (n, d), (n, d, d) and (n, d, d) or (d, d).

    Omega need not have an inverse.
    """
    matrix = np.eye(error.shape[1]) + covariance @ information
    squared = (information @ error[..., None]).swapaxes(1, 2) @ np.linalg.solve(matrix, error[..., None])
    return squared[:, 0, 0], np.linalg.slogdet(matrix)[1]


class Plausibility:
    """Judges the relative poses ``doubtful`` (R,) of ``rows``: these are ``rows`` (n,) of them.

    ``scale`` is s, 0 until it is found.
    """

    def __init__(self, rows: HostRows, doubtful: Mask) -> None:
        edges = rows.relative
        self._rows, self._axes = rows, rows.axes
        self._poses = np.unique(edges.ends)
        self._edges = edges.chosen(np.flatnonzero(doubtful[edges.row]))
        root = self._edges.sqrt_info
        information = rows.weights[self._edges.row, None, None] * (root.swapaxes(1, 2) @ root)
        self._information = information[:, self._axes[:, None], self._axes]
        self._dof = degrees_of_freedom(root[:, :, self._axes])
        self._random = np.random.default_rng(0)
        self.scale = 0.0
        self.rows = self._edges.row

    def look(self, poses: Floats, factor: SparseFactor | None) -> None:
        """Judge at ``poses`` (P, 7) by the rows in ``factor``, or by those of the last time where that is None.

        What ``factor`` contains itself is judged by `leave_one_out`.
        """
        edges, axes = self._edges, self._axes
        relative = se3.between(poses[edges.ends[:, 0]], poses[edges.ends[:, 1]])
        self._error = se3.log(se3.between(edges.measured, relative))[:, axes]
        self._adjoint = _adjoint_of_inverse(relative)[:, axes[:, None], axes]
        pairs = self._poses[np.random.default_rng(1).integers(len(self._poses), size=(2, PAIRS))]
        away = se3.log(se3.between(poses[pairs[0]], poses[pairs[1]]))[:, axes]
        self._spread = away.T @ away / PAIRS
        if factor is not None:
            self._sampled = self._sample(factor)
        self._covariance = self._sampled.copy()
        self.squared, self._log_det = mahalanobis(self._error, self._information, self._covariance)

    def _sample(self, factor: SparseFactor) -> Floats:
        """Covariances (n, d, d) of the relative poses."""
        samples = factor.sampled(self._random.standard_normal((len(self._rows.free), SAMPLES)))
        moving, width = int(self._rows.moving.sum()), len(self._axes)
        by_pose = np.zeros((moving + 1, width, SAMPLES))  # the last one is for poses that are held
        by_pose[:-1] = samples[: moving * width].reshape(moving, width, SAMPLES)
        away = by_pose[self._edges.numbers[:, 1]] - self._adjoint @ by_pose[self._edges.numbers[:, 0]]
        return np.asarray(away @ away.swapaxes(1, 2) / SAMPLES)

    def leave_one_out(self, factor: SparseFactor, kept: Mask) -> None:
        """Judge the rows ``kept`` (n,) that ``factor`` contains, each by the others: exactly.

        A row adds its H to what the others say of the relative pose, so that the covariance by all, C', gives theirs,
        ``C = (C'^-1 - H)^-1``; its gradient there is g, and without it the pose would be off by another ``C g``.
        H is taken from the equations and is not quite Omega, with which the difference need not be positive.
        """
        width, rows = len(self._axes), self.rows[kept]
        second = slice(width, 2 * width)
        hessian, gradient = factor.linearised.hessian[rows, second, second], factor.linearised.gradient[rows, second]
        both = factor.row_covariances()[rows, : 2 * width, : 2 * width]
        jacobian = np.concatenate([-self._adjoint[kept], np.broadcast_to(np.eye(width), hessian.shape)], axis=2)
        by_all = jacobian @ both @ jacobian.swapaxes(1, 2)
        values, vectors = np.linalg.eigh(hessian)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        own, turn = np.linalg.eigh(root.swapaxes(1, 2) @ by_all @ root)
        rest = np.maximum(1.0 - own, OWN)
        alone = by_all @ root @ turn
        alone = by_all + alone / rest[:, None] @ alone.swapaxes(1, 2)
        off = (alone @ gradient[..., None])[..., 0]
        fitted = np.einsum("ni,nij,nj->n", self._error[kept], self._information[kept], self._error[kept])
        self.squared[kept] = fitted + np.einsum("ni,ni->n", gradient, off)
        self._log_det[kept] = -np.log(rest).sum(axis=1)
        self._covariance[kept], self._error[kept] = alone, self._error[kept] + off

    def scale_by_kept(self, kept: Mask) -> None:
        """Judge by how much smaller than claimed the errors of the rows ``kept`` (n,) are; s is 1 at most."""
        if kept.any():
            asked = np.quantile(self.squared[kept] / chi2_quantile(TAIL, self._dof[kept]), TAIL)
            self.scale = float(np.clip(asked, LEAST, 1.0))

    def scale_by_sharpest(self) -> None:
        """Judge by how much smaller errors are than claimed, as far as they are: s is 1 at most.

        The rows with the smallest C are looked at, of which few are false, and which the map's size does not bound.
        """
        share, least = SHARPEST
        sharpest = np.argsort(self._log_det)[: max(least, int(share * len(self._log_det)))]
        typical = np.median(self.squared[sharpest] / chi2_quantile(0.5, self._dof[sharpest]))
        small = np.quantile(self.squared / chi2_quantile(QUARTER, self._dof), QUARTER)
        self.scale = float(np.clip(max(typical, small), LEAST, 1.0))

    def log_likelihood_ratio(self) -> Floats:
        """(n,) logarithm of how much likelier each row's innovation is if it is right than if it is false."""
        scale = self.scale
        false, log_det = mahalanobis(self._error, self._information / scale, self._spread + scale * self._covariance)
        return np.asarray(0.5 * (false - self.squared / scale) + 0.5 * (log_det - self._log_det))

    def by_chance(self) -> Floats:
        """(n,) probability that a row that is false comes as close to the estimate as this one."""
        false, _ = mahalanobis(self._error, self._information / self.scale, self._spread)
        return np.asarray(gammainc(self._dof / 2.0, false / 2.0))


def _adjoint_of_inverse(pose: Floats) -> Floats:
    """``Ad(T^-1) = [R^T, -R^T [t]x; 0, R^T]`` (n, 6, 6) of poses (n, 7): moving the first pose of a relative pose T by
    x moves T by ``-Ad(T^-1) x``.
    """
    matrix = se3.matrix(pose)
    turn, t = matrix[:, :3, :3].swapaxes(1, 2), matrix[:, :3, 3]
    out = np.zeros((len(pose), 6, 6))
    out[:, :3, :3] = out[:, 3:, 3:] = turn
    out[:, :3, 3:] = np.cross(t[:, None], turn)  # of a row r of R^T, -r [t]x = t x r
    return out
