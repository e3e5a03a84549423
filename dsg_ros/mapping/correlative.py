"""Correlative search for the pose of one set of points in another's map, exact inside its bounds.

Branch and bound over (angle, x, y) with max-pooled occupancy grids (Olson, "Real-time correlative scan matching", 2009;
Hess et al., "Real-time loop closure in 2D lidar SLAM", 2016).  The tree is walked level by level, so that a whole level
is scored in few calls of one compiled kernel of fixed shape; what cannot reach the wanted score is cut.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from numpy.typing import NDArray

LEVELS = 5
GRID = 768
POINTS = 256
ANGLES = 64
CHUNK = 1024
MOST_NODES = 65536
"""Of a level; where wide bounds leave more, the most promising are followed and the search is no longer exact."""

_log = logging.getLogger(__name__)

Placed = tuple[UInt8[Array, "l g g"], Int[Array, "a p 2"], Bool[Array, " p"]]
"""On the device: the pyramid, the points' cells by angle, and which points are real."""


@dataclass(frozen=True)
class Candidate:
    """A pose found: offset ``x``, ``y`` [m] and ``yaw`` [rad] on top of the first guess, and its score in [0, 1].

    ``runner_up``: the best score anywhere else (farther than the exclusion radius or angle), 0 if none reached the
    bound.
    """

    x: float
    y: float
    yaw: float
    score: float
    runner_up: float


@partial(jax.jit, static_argnames=("resolution",))
def pyramid(
    points: Float[Array, "m 2"], mask: Bool[Array, " m"], centre: Float[Array, " 2"], *, resolution: float
) -> UInt8[Array, "l g g"]:
    """Smeared occupancy of ``points`` around ``centre``, and its running maxima over 2^l x 2^l cells."""
    cells = jnp.floor((points - centre) / resolution).astype(jnp.int32) + GRID // 2
    inside = mask & jnp.all((cells > 0) & (cells < GRID - 1), axis=1)
    cells = jnp.where(inside[:, None], cells, 0)
    grid = jnp.zeros((GRID, GRID), jnp.uint8)
    reach = jnp.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], jnp.int32)
    value = jnp.where(jnp.all(reach == 0, axis=1), 255, 140).astype(jnp.uint8)
    spread = cells[:, None, :] + jnp.where(inside[:, None, None], reach, 0)
    values = jnp.where(inside[:, None], value, 0).astype(jnp.uint8)
    grid = grid.at[spread[..., 0].ravel(), spread[..., 1].ravel()].max(values.ravel())
    levels = [grid]
    for level in range(LEVELS - 1):
        step = 1 << level
        last = levels[-1]
        padded = jnp.pad(last, ((0, step), (0, step)))
        across = jnp.maximum(padded[:-step, :-step], padded[step:, :-step])
        along = jnp.maximum(padded[:-step, step:], padded[step:, step:])
        levels.append(jnp.maximum(across, along))
    return jnp.stack(levels)


@jax.jit
def score_nodes(
    grids: UInt8[Array, "l g g"],
    cells: Int[Array, "a p 2"],
    mask: Bool[Array, " p"],
    level: Int[Array, ""],
    nodes: Int[Array, "c 3"],
) -> Float[Array, " c"]:
    """Upper bound of the score of each node (angle, x, y) at ``level``: the mean over the points of the pooled grid."""
    at = cells[nodes[:, 0]] + nodes[:, None, 1:]
    inside = jnp.all((at >= 0) & (at < GRID), axis=-1) & mask
    at = jnp.where(inside[..., None], at, 0)
    hits = jnp.where(inside, grids[level, at[..., 0], at[..., 1]], 0)
    return jnp.sum(hits.astype(jnp.int32), axis=1) / (255.0 * jnp.maximum(jnp.sum(mask), 1))


def search(
    grids: UInt8[Array, "l g g"],
    centre: NDArray[np.float64],
    points: NDArray[np.float64],
    *,
    pivot: NDArray[np.float64],
    resolution: float,
    radius: float,
    angle: float,
    angle_step: float,
    least_score: float,
    rival_share: float,
    exclusion: tuple[float, float] = (0.8, 0.15),
) -> Candidate | None:
    """The best placement of ``points`` (n, 2), already at their first guess in the map, or None if all score too low.

    It lies within ``radius`` [m] and ``angle`` [rad]; ``pivot`` (2,) is the point about which the angle turns.
    ``grids`` is the `pyramid` around ``centre`` (2,).  Every placement scoring at least ``rival_share`` of the best is
    found too, so ``runner_up`` is exact above that.
    """
    if len(points) > POINTS:
        points = points[np.linspace(0, len(points) - 1, POINTS).astype(int)]
    half = min(int(np.ceil(angle / angle_step)), (ANGLES - 1) // 2)
    angles = np.arange(-half, half + 1) * angle_step
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    dx, dy = (points - pivot).T
    turned = np.stack([cos * dx - sin * dy, sin * dx + cos * dy], axis=-1) + pivot - centre
    cells = np.zeros((ANGLES, POINTS, 2), np.int32)
    cells[: len(angles), : len(points)] = np.floor(turned / resolution).astype(np.int32) + GRID // 2
    mask = np.arange(POINTS) < len(points)
    device = (grids, jax.device_put(cells), jax.device_put(mask))

    reach = int(np.ceil(radius / resolution))
    stride = 1 << (LEVELS - 1)
    axis = np.arange(-reach, reach + 1, stride)
    nodes = np.stack(np.meshgrid(np.arange(len(angles)), axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    bound = rival_share * least_score
    scores = _score(device, LEVELS - 1, nodes)
    bound = max(bound, rival_share * _descend(device, nodes[int(np.argmax(scores))], reach))
    for level in range(LEVELS - 2, -1, -1):
        keep = scores >= bound
        nodes, scores = nodes[keep], scores[keep]
        if not len(nodes):
            return None
        if len(nodes) > MOST_NODES // 4:
            _log.info("correlative search: %d nodes to follow, only the best %d are", len(nodes), MOST_NODES // 4)
            nodes = nodes[np.argsort(-scores, kind="stable")[: MOST_NODES // 4]]
        nodes = _children(nodes, 1 << level, reach)
        scores = _score(device, level, nodes)
    best = int(np.argmax(scores))
    if scores[best] < least_score:
        return None
    away = np.hypot(*(nodes[:, 1:] - nodes[best, 1:]).T) * resolution > exclusion[0]
    away |= np.abs(angles[nodes[:, 0]] - angles[nodes[best, 0]]) > exclusion[1]
    runner_up = float(scores[away].max()) if away.any() else 0.0
    x, y = nodes[best, 1:] * resolution
    return Candidate(float(x), float(y), float(angles[nodes[best, 0]]), float(scores[best]), runner_up)


def _children(nodes: NDArray[np.int64], step: int, reach: int) -> NDArray[np.int64]:
    """The four quarters of each node, ``step`` cells wide, that begin inside the bounds: whole tiles may stand out."""
    offsets = np.array([(0, 0, 0), (0, step, 0), (0, 0, step), (0, step, step)])
    children = (nodes[:, None, :] + offsets).reshape(-1, 3)
    return children[np.all(children[:, 1:] <= reach, axis=1)]


def _descend(device: Placed, node: NDArray[np.int64], reach: int) -> float:
    """The score of the leaf reached greedily from ``node``: a bound to prune with from the start."""
    nodes, score = node[None], 0.0
    for level in range(LEVELS - 2, -1, -1):
        nodes = _children(nodes, 1 << level, reach)
        scores = _score(device, level, nodes)
        best = int(np.argmax(scores))
        nodes, score = nodes[best : best + 1], float(scores[best])
    return score


def _score(device: Placed, level: int, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores (n,) of ``nodes`` (n, 3) at ``level``, a chunk of fixed shape at a time."""
    chunks = -(-len(nodes) // CHUNK)
    padded = np.zeros((chunks * CHUNK, 3), np.int32)
    padded[: len(nodes)] = nodes
    answers = [score_nodes(*device, np.int32(level), chunk) for chunk in padded.reshape(chunks, CHUNK, 3)]
    return np.concatenate([np.asarray(a) for a in answers])[: len(nodes)]
