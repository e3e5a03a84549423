"""How well odometry, calibrated by theta, foretells the shape of the positions along a leg.

With x_k(theta) the antenna in the leg's own frame, from the calibrated increments chained from its beginning, the rows
are ``r_k = p_k - (t + R(psi) x_k(theta))``.  What odometry errs adds up along the way: in the leg's frame the error of
pose k is a random walk, ``xi_k = sum Ad(X_i) e_i`` over the links up to it, so that two rows share what the earlier of
them has already::

    S_jk = R [1, x_j^] C_min(j,k) [1, x_k^]^T R^T + delta_jk Sigma_k,    C_k = sum Ad(X_i) Sigma_i Ad(X_i)^T

with ``x^ = (-y, x)``.  What receivers err lasts, and they do not tell for how long: ``delta_jk Sigma_k`` are white
errors, and a Gauss-Markov process as large is added, ``exp(-|t_j - t_k| / memory)``.  Whichever of the two there is, S
is no smaller than the true one, and theta is told no surer than it is.

In ``u = L^-1 r``, ``L L^T = S``, every error counts once.  t and psi have no prior: the cost is at its minimum over
them, and what they could explain is projected out of the derivatives (the Schur complement; Golub and Pereyra, "The
differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate", 1973).  S is held
fixed in the derivative, as in `dsg_ros.learning.losses`.

Where scans teach too, they have already said of each increment what its odometry erred.  The chain is then that of both
fused, ``z + W (scan - z)`` with ``W = Sigma (Sigma + R)^-1`` and the covariance of that: it is the likelihood of the
positions given the scans, to first order, and no error of odometry counts twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from dsg_ros.core.factors.odometry import linear_map
from dsg_ros.core.theta import Theta
from dsg_ros.learning.leg import PLANAR, Leg
from dsg_ros.learning.losses import Score
from dsg_ros.learning.planar_chain import Moved, after, chain, exp, perpendicular, rotations
from dsg_ros.learning.programs import map_gained, theta_at

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ALIGNED = 1e-12
"""Turn [rad] of a step below which a leg lies as it should."""


class Model(NamedTuple):
    """Calibrated odometry at one theta, and how it changes with K numbers: ``map`` (7, 6) of `linear_map`, the time
    ``offset``, their derivatives ``map_gained`` (7, 6, K) and ``offset_gained`` (K,); ``growth`` (6,) multiplies the
    told deviations, ``gains`` (2,) are those of `losses.DILUTED`.
    """

    map: Matrix
    offset: float
    map_gained: Matrix
    offset_gained: Vector
    growth: Vector
    gains: Vector


def model_at(start: Theta, deviation: Array | Vector, names: tuple[str, ...]) -> Model:
    """At ``deviation`` (K,) of the numbers ``names`` from ``start``."""
    theta = theta_at(start, deviation, names=names)
    return Model(
        np.asarray(linear_map(theta)),
        float(theta.time_offset),
        np.asarray(map_gained(start, deviation, names=names)),
        np.array([float(name == "odometry.time_offset") for name in names]),
        np.exp(np.asarray(theta.odometry_noise)),
        1.0 + np.array([float(theta.scale), float(theta.rotation_gain)]),
    )


class Foretold(NamedTuple):
    """A leg under one theta.

    ``u`` (2m,) and its derivatives ``du`` (2m, K) are whitened by the factor ``lower`` (2m, 2m) of S, at the best t and
    psi (``heading``) and without what these explain, which ``free`` (2m, 3) spans, orthonormal.  In the leg's frame:
    ``poses`` (n + 1, 3) of the keyframes, ``antennas`` (m, 2) at the fixes.  ``covariance`` (n, 3, 3) are the links'.
    """

    u: Vector
    du: Matrix
    free: Matrix
    lower: Matrix
    heading: float
    poses: Vector
    antennas: Vector
    covariance: Vector


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused, and needs no warning besides
def foretell(leg: Leg, model: Model, lower: Matrix | None = None) -> Foretold:
    """The leg's rows, at fixed S where its factor ``lower`` (2m, 2m) is given.

    LinAlgError or ValueError where it cannot be told how the leg lies, or its numbers are not finite.
    """
    steps, parts, covariance = _increments(leg, model)
    nodes = chain(steps)
    at = after(Moved(nodes.pose[leg.link], nodes.gained[leg.link]), parts)
    arm = np.einsum("mij,mj->mi", rotations(at.pose[:, 2]), leg.antenna)
    way = at.pose[:, :2] + arm
    gained = at.gained[:, :2] + perpendicular(arm)[:, :, None] * at.gained[:, None, 2]
    heading = _first_heading(leg.position, way)
    if lower is None:
        lower = np.asarray(cholesky(_spread(leg, nodes.pose, way, covariance, heading), lower=True))
    heading, u, free = _aligned(leg.position, way, lower, heading)
    turned = -np.einsum("ij,mjk->mik", rotations(np.array(heading)), gained)
    du = solve_triangular(lower, turned.reshape(len(u), -1), lower=True)
    return Foretold(u, du - free @ (free.T @ du), free, lower, heading, nodes.pose, way, covariance)


def score(leg: Leg, model: Model, width: float, lower: Matrix | None = None) -> Score:
    """`Score` of a leg; its cost has one Cauchy kernel, ``width`` deviations a direction wide, for all of the leg: rows
    that share their errors cannot be doubted one by one (those that stand out are gone: `dsg_ros.learning.snooping`).
    """
    return score_and_dilution(leg, model, width, lower)[0]


def score_and_dilution(leg: Leg, model: Model, width: float, lower: Matrix | None = None) -> tuple[Score, Vector]:
    """`score`, and what noise in the measured increments adds to its gradient in the gains (2,), as
    `dsg_ros.learning.losses.dilution` has it.

    Where it cannot be told how the leg lies, or its numbers are not finite, the cost is infinite.
    """
    try:
        foretold = foretell(leg, model, lower)
    except (np.linalg.LinAlgError, ValueError):
        count = len(model.offset_gained)
        wrong: tuple[Any, ...] = (np.inf, np.inf, np.full(count, np.nan), np.full((count, count), np.nan), np.inf)
        return Score(*wrong), np.zeros(2)
    weight, _ = _weight(leg, foretold.u, width)
    # A^T S^-1 r: what the rows pull at each link's error, by those behind it.
    pulled = solve_triangular(foretold.lower, foretold.u, lower=True, trans=1).reshape(-1, 2)
    pulled = pulled @ rotations(np.array(foretold.heading))
    turning = np.einsum("mi,mi->m", perpendicular(foretold.antennas), pulled)
    on_walk = np.zeros((len(leg.duration), 3))
    np.add.at(on_walk, leg.link, np.column_stack([pulled, turning]))
    on_walk = np.cumsum(on_walk[::-1], axis=0)[::-1]
    at_link = np.einsum("nij,ni->nj", _adjoints(foretold.poses[1:]), on_walk)
    share = weight * np.einsum("ni,nij,nj->i", at_link, foretold.covariance, at_link)
    return _score(leg, foretold, width), np.array([share[:2].sum(), share[2]]) / model.gains


def _score(leg: Leg, foretold: Foretold, width: float) -> Score:
    u, du = foretold.u, foretold.du
    weight, cost = _weight(leg, u, width)
    freedom = max(leg.freedom, 1)
    squared = float(u @ u)
    numbers: tuple[Any, ...] = (
        2 * cost / freedom, cost, weight * (du.T @ u), weight * (du.T @ du), squared / freedom,
    )  # fmt: skip
    return Score(*numbers)


def _weight(leg: Leg, u: Vector, width: float) -> tuple[float, float]:
    squared, width2 = float(u @ u), width**2 * max(leg.freedom, 1)
    return width2 / (width2 + squared), float(0.5 * width2 * np.log1p(squared / width2))


def _increments(leg: Leg, model: Model) -> tuple[Moved, Moved, Vector]:
    """Steps of the links and of the parts up to the fixes, and the covariance (n, 3, 3) of a link's error."""
    whole = _calibrated(leg.measured, leg.rate, leg.duration, model)
    parts = _calibrated(leg.part, leg.part_rate, leg.part_duration, model)
    translation = (leg.sigma_translation * model.growth[:3]).sum(axis=1)
    rotation = (leg.sigma_rotation * model.growth[3:]).sum(axis=1)
    covariance: Vector = np.stack([translation, translation, rotation], axis=1)[:, :, None] ** 2 * np.eye(3)
    if leg.information.any():
        # Fused: (Sigma^-1 + I)^-1 and W = (Sigma^-1 + I)^-1 I, where the scans' information I may be singular.
        covariance = np.asarray(np.linalg.inv(np.linalg.inv(covariance) + leg.information), np.float64)
        share = covariance @ leg.information
        of_fix = share[leg.link] * leg.share[:, None, None]
        apart = Moved(leg.seen - whole.pose, -whole.gained)
        drawn = Moved(apart.pose[leg.link], apart.gained[leg.link])
        parts = Moved(*(one + np.einsum("nij,nj...->ni...", of_fix, by) for one, by in zip(parts, drawn, strict=True)))
        whole = Moved(*(one + np.einsum("nij,nj...->ni...", share, by) for one, by in zip(whole, apart, strict=True)))
    return exp(*whole), exp(*parts), covariance


def _calibrated(measured: Vector, rate: Vector, seconds: Vector, model: Model) -> Moved:
    """Planar tangents of calibrated increments and their derivatives."""
    told = np.column_stack([measured + model.offset * rate, seconds])
    gained = np.tensordot(told, model.map_gained[:, PLANAR], axes=1)
    gained += (rate @ model.map[:6, PLANAR])[:, :, None] * model.offset_gained
    return Moved(told @ model.map[:, PLANAR], gained)


def _adjoints(nodes: Vector) -> Vector:
    """Ad (n, 3, 3) of poses (n, 3): an error behind each as one of the leg's frame."""
    out = np.zeros((len(nodes), 3, 3))
    out[:, :2, :2], out[:, :2, 2], out[:, 2, 2] = rotations(nodes[:, 2]), -perpendicular(nodes[:, :2]), 1.0
    return out


def _spread(leg: Leg, nodes: Vector, way: Vector, covariance: Vector, heading: float) -> Matrix:
    """S (2m, 2m).  Of a link that a fix lies in, the share driven until then is behind it."""
    ad = _adjoints(nodes[1:])
    own = ad @ covariance @ ad.transpose(0, 2, 1)
    before = np.cumsum(own, axis=0) - own
    walk = before[leg.link] + leg.share[:, None, None] * own[leg.link]
    count = len(leg.link)
    turn = rotations(np.array(heading))
    rows = np.concatenate([np.tile(np.eye(2), (count, 1, 1)), perpendicular(way)[:, :, None]], axis=2)
    rows = turn @ rows
    # Fixes come in the order of the way: what the earlier of two has of the walk stands above the diagonal.
    shared = np.triu((rows @ walk).reshape(-1, 3) @ rows.reshape(-1, 3).T)
    spread: Matrix = shared + np.triu(shared, 1).T
    index = np.arange(count)
    spread.reshape(count, 2, count, 2)[index, :, index, :] += leg.covariance
    if leg.memory > 0.0:
        roots = np.linalg.cholesky(leg.covariance).reshape(-1, 2)
        alike = np.exp(-np.abs(np.subtract.outer(leg.time, leg.time)) / leg.memory)
        spread += roots @ roots.T * alike.repeat(2, axis=0).repeat(2, axis=1)
    return spread


def _first_heading(told: Vector, way: Vector) -> float:
    """That turns the way onto the positions with least squares, all weighted alike."""
    p, x = told - told.mean(axis=0), way - way.mean(axis=0)
    return float(np.arctan2((perpendicular(x) * p).sum(), (x * p).sum()))


def _aligned(told: Vector, way: Vector, lower: Matrix, heading: float) -> tuple[float, Vector, Matrix]:
    """Heading, whitened residual (2m,) and an orthonormal base (2m, 3) of what t and psi do there, at the minimum: by
    Gauss-Newton in psi, with t eliminated.
    """
    ones = np.tile(np.eye(2), (len(told), 1))
    centre = way.mean(axis=0)
    for _ in range(20):
        turned = (way - centre) @ rotations(np.array(heading)).T
        columns = np.column_stack([ones, perpendicular(turned).ravel(), (told - turned).ravel()])
        white = solve_triangular(lower, columns, lower=True)
        base, factor = np.linalg.qr(white[:, :3])
        step = float(np.linalg.solve(factor, base.T @ white[:, 3])[2])
        heading += step
        if abs(step) < ALIGNED:
            break
    return heading, white[:, 3] - base @ (base.T @ white[:, 3]), base
