"""Registration of a scan to a local voxel map: point to distribution, Gauss-Newton, coarse to fine, odometry a prior.

One compiled kernel of fixed shape.  The prediction (calibrated odometry) enters as a Gaussian prior on the pose; its
information and that of the scan are kept apart in the answer, so that a factor can be made of the scan's alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from dsg_ros.core import geometry
from dsg_ros.mapping.voxel_map import PROBES, VoxelTable, hash_of, neighbour_offsets, pack

PLANAR_AXES = (0, 1, 5)
"""The tangent directions a planar scan observes: x, y, yaw."""


class Stage(NamedTuple):
    """One resolution: ``kernel`` [m] of the Geman-McClure weight, ``spread`` added to a point's sigma (in sigmas).

    ``iterations`` bounds the Gauss-Newton steps; they end when none of a step's numbers [m, rad] exceeds ``tolerance``.
    """

    kernel: float
    spread: float
    iterations: int
    tolerance: float


COARSE = Stage(kernel=0.3, spread=2.0, iterations=6, tolerance=2e-3)
FINE = Stage(kernel=0.1, spread=0.0, iterations=15, tolerance=1e-4)

Carry = tuple[Float[Array, " 7"], Float[Array, ""], Int[Array, ""]]
"""Of the Gauss-Newton loop: pose, largest number of the last step [m, rad], steps taken."""


class Match(NamedTuple):
    """``pose`` (7,) base in map; ``information`` (6, 6) of the scan alone at ``pose`` (right perturbation).

    ``inliers`` is the share of points closer than the inlier distance to their voxel's surface, ``error`` [m] their
    mean metric distance.
    """

    pose: Float[Array, " 7"]
    information: Float[Array, "6 6"]
    inliers: Float[Array, ""]
    error: Float[Array, ""]


def _lookup(table: VoxelTable, points: Float[Array, "n 3"], planar: bool) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """Row (n,) of the voxel whose own mean is nearest to each point, among its cell's neighbours; whether there is."""
    cells: Any = jnp.floor(points / table.size).astype(jnp.int64)  # packing serves NumPy and JAX arrays alike
    if planar:
        cells = cells.at[:, 2].set(0)
    keys = pack(cells)[:, None] + neighbour_offsets(planar)
    slots = table.slot_keys.shape[0]
    start = hash_of(keys) & (slots - 1)
    row = jnp.full(keys.shape, -1, jnp.int32)
    for probe in range(PROBES):
        slot = (start + probe) & (slots - 1)
        row = jnp.where(table.slot_keys[slot] == keys, table.slot_rows[slot], row)
    distance = jnp.sum((points[:, None, :] - table.anchors[row]) ** 2, axis=-1)
    distance = jnp.where(row >= 0, distance, jnp.inf)
    best = jnp.argmin(distance, axis=1)[:, None]
    return jnp.take_along_axis(row, best, axis=1)[:, 0], jnp.isfinite(jnp.take_along_axis(distance, best, axis=1)[:, 0])


def _normal_equations(
    table: VoxelTable,
    points: Float[Array, "n 3"],
    mask: Bool[Array, " n"],
    pose: Float[Array, " 7"],
    kernel: float,
    spread: float,
    planar: bool,
) -> tuple[Float[Array, "6 6"], Float[Array, " 6"], Float[Array, " n"]]:
    """Gauss-Newton information and gradient of the robust cost at ``pose``, and each point's metric error [m].

    The error is infinite for padding and for points with no voxel near.
    """
    rotation, translation = geometry.rotation_matrix(pose), pose[:3]
    world = points @ rotation.T + translation
    row, found = _lookup(table, world, planar)
    mean, whitening, projector = table.shape_at(row)
    difference = world - mean
    error = jnp.linalg.norm(jnp.einsum("nij,nj->ni", projector, difference) + 1e-12, axis=-1)
    # Geman-McClure on the metric error (Zhang, "Parameter estimation techniques", 1997, table 1).
    weight = jnp.where(mask & found, (kernel**2 / (kernel**2 + error**2)) ** 2, 0.0)
    whitening = whitening / jnp.sqrt(1.0 + spread**2)
    residual = jnp.einsum("nij,nj->ni", whitening, difference)
    left = jnp.einsum("nij,jk->nik", whitening, rotation)
    # d(R p) under a right rotation: -R [p]x, and u^T [p]x = (u x p)^T, hence each row u gives (p x u)^T.
    right = jnp.cross(points[:, None, :], left)
    jacobian = jnp.concatenate([left, right], axis=-1)
    weighted = jacobian * weight[:, None, None]
    information = jnp.einsum("nri,nrj->ij", weighted, jacobian)
    gradient = jnp.einsum("nri,nr->i", weighted, residual)
    return information, gradient, jnp.where(mask & found, error, jnp.inf)


def _minimise(
    table: VoxelTable,
    *,
    points: Float[Array, "n 3"],
    mask: Bool[Array, " n"],
    start: Float[Array, " 7"],
    prediction: Float[Array, " 7"],
    prior: Float[Array, "6 6"],
    stage: Stage,
    axes: tuple[int, ...],
    planar: bool,
) -> Float[Array, " 7"]:
    """Gauss-Newton from ``start``; only the tangent directions ``axes`` move."""
    index = jnp.asarray(axes)
    block = jnp.ix_(index, index)

    def step(carry: Carry) -> Carry:
        pose, _, count = carry
        information, gradient, _ = _normal_equations(table, points, mask, pose, stage.kernel, stage.spread, planar)
        innovation = geometry.log(geometry.between(prediction, pose))
        lhs = (information + prior)[block]
        rhs = (gradient + prior @ innovation)[index]
        delta = jnp.zeros(6).at[index].set(-jnp.linalg.solve(lhs, rhs))
        return geometry.compose(pose, geometry.exp(delta)), jnp.max(jnp.abs(delta)), count + 1

    def going(carry: Carry) -> Bool[Array, ""]:
        return (carry[1] > stage.tolerance) & (carry[2] < stage.iterations)

    return jax.lax.while_loop(going, step, (start, jnp.asarray(jnp.inf), jnp.asarray(0)))[0]


@partial(jax.jit, static_argnames=("axes", "planar", "inlier_distance"))
def register(
    coarse: VoxelTable,
    fine: VoxelTable,
    points: Float[Array, "n 3"],
    mask: Bool[Array, " n"],
    starts: Float[Array, "s 7"],
    prediction: Float[Array, " 7"],
    prior: Float[Array, "6 6"],
    *,
    axes: tuple[int, ...],
    planar: bool,
    inlier_distance: float,
) -> Match:
    """Match ``points`` (padded, ``mask`` true where real) from every pose of ``starts``; the best by inliers is given.

    ``prediction`` and ``prior`` are the odometry's pose and its information.  Points are in the base frame, poses are
    of the base in map; only the tangent directions ``axes`` move; ``inlier_distance`` in metres.
    """
    minimise = partial(
        _minimise, points=points, mask=mask, prediction=prediction, prior=prior, axes=axes, planar=planar
    )
    if starts.shape[0] == 1:
        pose = minimise(coarse, start=starts[0], stage=COARSE)
    else:
        # All starts go through the coarse stage; the one with most points near the map goes on.
        found = jax.vmap(lambda start: minimise(coarse, start=start, stage=COARSE))(starts)
        errors = jax.vmap(lambda at: _normal_equations(coarse, points, mask, at, COARSE.kernel, 0.0, planar)[2])(found)
        pose = found[jnp.argmax(jnp.sum(errors < inlier_distance, axis=1))]
    pose = minimise(fine, start=pose, stage=FINE)
    information, _, error = _normal_equations(fine, points, mask, pose, FINE.kernel, FINE.spread, planar)
    close = error < inlier_distance
    share = jnp.sum(close) / jnp.maximum(jnp.sum(mask), 1)
    mean_error = jnp.sum(jnp.where(close, error, 0.0)) / jnp.maximum(jnp.sum(close), 1)
    return Match(pose, information, share, mean_error)


def observed_axes(planar: bool) -> tuple[int, ...]:
    """Tangent directions that registration may move."""
    return PLANAR_AXES if planar else tuple(range(6))


def scan_only(
    information: NDArray[np.float64],
    prediction_error: NDArray[np.float64],
    prior: NDArray[np.float64],
    axes: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take the prior out of a match: tangent (6,) from the MAP pose to the scan's own optimum, and information (6, 6).

    With ``e`` (6,), ``prediction_error``, the tangent from prediction to MAP and ``d`` that from MAP to the scan's own
    optimum, the gradient of the sum vanishes at the MAP: ``H d = prior e``, for ``H`` the scan's ``information`` and
    ``prior`` (6, 6).  Directions in which the scan knows less than the prior does are left to odometry: their
    information is dropped and the mean is not moved along them.
    """
    index = np.array(axes)
    block = np.ix_(index, index)
    scale = np.sqrt(np.diag(prior[block]))
    h = information[block] / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(h)
    keep = values > 1.0
    basis = vectors[:, keep]
    e = (prior @ prediction_error)[index] / scale
    shift = np.zeros(6)
    shift[index] = (basis @ ((basis.T @ e) / values[keep])) / scale
    kept = np.zeros((6, 6))
    kept[block] = (basis * values[keep]) @ basis.T * np.outer(scale, scale)
    return shift, kept
