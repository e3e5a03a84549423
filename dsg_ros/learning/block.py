"""A block of neighbouring keyframes: odometry to predict from, registrations to be predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core import geometry
from dsg_ros.core.factors import OdomSE3, Registration
from dsg_ros.core.factors.odometry import noise
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

Teacher = Literal["scans", "reference", "both"]
"""Whose opinions of a motion are held out: `dsg_ros.config.Learning`."""

RELATIVE_RANK = 1e-9
"""Eigenvalues of an information below this share of the largest are rounding: the direction is not observed."""


STANDING = 1e-3
"""A measured increment [m, rad] below this is none."""


@dataclass(frozen=True)
class Link:
    """What is known between neighbouring keyframes.

    ``measured`` (7,) raw odometry increment over ``seconds``; ``relative`` (7,) the scan matcher's opinion of the same
    motion, with ``information`` (6, 6) in the tangent of ``relative``; zero in directions it does not observe.
    ``rate`` (6,) is what the tangent of ``measured`` gains a second when odometry is taken later at both ends.
    ``reference`` (7,) is a second opinion, with ``reference_information`` (6, 6): that of poses from elsewhere.
    """

    measured: NDArray[np.float64]
    seconds: float
    relative: NDArray[np.float64]
    information: NDArray[np.float64]
    rate: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))
    reference: NDArray[np.float64] = field(default_factory=poses.IDENTITY.copy)
    reference_information: NDArray[np.float64] = field(default_factory=lambda: np.zeros((6, 6)))

    @property
    def valid(self) -> bool:
        """Whether every number is finite and the quaternions are of unit length."""
        measured, relative = self.measured.tolist(), self.relative.tolist()
        # A quaternion that is not finite has no length within bounds.
        unit = all(abs(sum(q * q for q in pose[3:]) - 1.0) <= 1e-3 for pose in (measured, relative))
        finite = all(map(math.isfinite, (*measured[:3], *relative[:3], self.seconds)))
        arrays = (self.information, self.rate, self.reference, self.reference_information)
        return unit and finite and all(bool(np.isfinite(array).all()) for array in arrays)

    @property
    def moves(self) -> bool:
        """Whether the odometry tells any motion."""
        return bool(np.abs(poses.log(self.measured)).max() > STANDING)


_COLUMNS = tuple(each.name for each in fields(Link))


def link_columns(links: Sequence[Link]) -> dict[str, NDArray[np.float64]]:
    """Links as plain arrays, a column a field, as `dsg_ros.state` wants them."""
    return {name: np.array([getattr(link, name) for link in links]) for name in _COLUMNS}


def links_of_columns(columns: Mapping[str, Any]) -> list[Link]:
    """Inverse of `link_columns`; KeyError or ValueError for what is none."""
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return [Link(measured, float(seconds), *rest) for measured, seconds, *rest in rows]


class Block(eqx.Module):
    """n links among n + 1 keyframes, of fixed shape: a pytree of NumPy arrays.

    ``odometry`` has n rows, ``held_out`` one row per pair of keyframes that is scored; ``directions`` (m,) counts the
    directions each row observes.
    """

    odometry: OdomSE3
    held_out: Registration
    directions: Float[np.ndarray, " m"]

    def problem(self, theta: Theta) -> Problem:
        """The inner problem: odometry alone, the first pose held.  No row of ``held_out`` is in it.

        It starts where odometry calibrated by ``theta`` leads, (n + 1, 7) in the frame of the first: that is its
        minimum but for rounding, and near that of all rows.
        """
        steps = jax.vmap(lambda row: row.increment(jax.lax.stop_gradient(theta)))(self.odometry)
        start = jax.lax.associative_scan(geometry.compose, jnp.concatenate([jnp.asarray(poses.IDENTITY)[None], steps]))
        keys = jnp.arange(len(start), dtype=jnp.int32)
        none = jnp.zeros(1, bool)
        state = State(start, jnp.zeros((1, 3)))
        return Problem(
            state, jnp.repeat(keys[:, None] > 0, 6, axis=1), none, (self.odometry,), keys, -jnp.ones(1, jnp.int32)
        )


def make_block(
    links: Sequence[Link], pairs: NDArray[np.int64], noises: config.Odometry, teacher: Teacher = "scans"
) -> Block:
    """A block of ``links``, scored between the keyframes (first, second) of ``pairs`` (m, 2), counted from the
    block's own first; with both teachers each pair is scored twice.

    A scan is matched to a map of many keyframes, so its error does not add up along the way: the relative pose over
    several links, which is composed from theirs, has the information of its last link.
    """
    measured = np.stack([link.measured for link in links])
    told = [[(link.relative, link.information), (link.reference, link.reference_information)] for link in links]
    opinions = {"scans": (0,), "reference": (1,), "both": (0, 1)}[teacher]
    steps = np.arange(len(links))
    odometry = OdomSE3.stack(
        len(links),
        previous=steps.astype(np.int32),
        current=(steps + 1).astype(np.int32),
        duration=np.array([link.seconds for link in links], np.float64),
        weight=np.ones(len(links)),
        rate=np.stack([link.rate for link in links]),
        **noise(measured, noises.translation, noises.rotation),
    )
    chains = [_chain(np.stack([link[which][0] for link in told])) for which in opinions]
    roots = np.concatenate(
        [np.stack([_square_root(link[which][1]) for link in told])[pairs[:, 1] - 1] for which in opinions]
    )
    scored = np.tile(pairs, (len(opinions), 1)).astype(np.int32)
    held_out = Registration.stack(
        len(scored),
        first=scored[:, 0],
        second=scored[:, 1],
        measured=np.concatenate([poses.between(seen[pairs[:, 0]], seen[pairs[:, 1]]) for seen in chains]),
        sqrt_info=roots,
        weight=np.ones(len(scored)),
    )
    return Block(odometry, held_out, np.count_nonzero(roots.any(axis=2), axis=1).astype(np.float64))


def pairs_of(count: int) -> NDArray[np.int64]:
    """Pairs of keyframes (m, 2) that a block of ``count`` links is scored on: neighbours."""
    return np.stack([np.arange(count), np.arange(1, count + 1)], axis=1)


def _chain(increments: NDArray[np.float64]) -> NDArray[np.float64]:
    out = [poses.IDENTITY]
    for increment in increments:
        out.append(poses.compose(out[-1], increment))
    return np.stack(out)


def _square_root(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """``A`` (6, 6) with ``A^T A = information``; rows of directions that are not observed are exactly zero."""
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    observed = values > RELATIVE_RANK * max(values[-1], 0.0)
    return np.sqrt(np.where(observed, values, 0.0))[:, None] * vectors.T
