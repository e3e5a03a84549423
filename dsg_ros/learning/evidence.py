"""What a drive says of theta: the held-out cost of its blocks with derivatives, summed, at any theta that is asked for.

Nothing else has to leave the machine that holds the drive: a few numbers a question, however long the drive is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.programs import kept
from dsg_ros.core.theta import Theta, names, to_float64
from dsg_ros.interface import Parameter
from dsg_ros.learning import parameters, scoring
from dsg_ros.learning.block import Block, Link, make_block, pairs_of
from dsg_ros.learning.programs import score_at

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CHUNK = 16
"""Blocks evaluated by one call of a compiled program, which has a fixed shape."""


class Question(NamedTuple):
    """A theta: ``deviation`` (K,) of the learned numbers from the start, ``noise`` (6,) log sigmas of the odometry.

    ``about`` the calibration: the held-out cost of `dsg_ros.learning.losses`; about the noise: the likelihood of
    `dsg_ros.learning.noise`.
    """

    deviation: Vector
    noise: Vector
    about: Literal["calibration", "noise"] = "calibration"


@dataclass(frozen=True)
class Evidence:
    """Sums over ``blocks`` blocks at one theta.

    ``cost`` with its ``gradient`` (K,) and ``information`` (K, K); ``scatter`` (K, K) sums the outer products of the
    blocks' gradients.  ``directions`` counts the observed directions that were scored.
    """

    cost: float
    gradient: Vector
    information: Matrix
    scatter: Matrix
    directions: float
    blocks: int

    @property
    def loss(self) -> float:
        """Mean normalised innovation squared, robust: about 1 where the model of motion and noise is right."""
        return 2 * self.cost / max(self.directions, 1.0)


def total(parts: Sequence[Evidence]) -> Evidence:
    """The sum of at least one, added up in the order given."""
    fields = ("cost", "gradient", "information", "scatter", "directions", "blocks")
    return Evidence(*(sum((getattr(part, name) for part in parts[1:]), getattr(parts[0], name)) for name in fields))


class DriveEvidence:
    """The blocks of one drive, made once of its ``links``; blocks whose cost is not finite at the start are left out.

    ``parameters_given`` are where theta starts.  ``refused`` counts links that are not finite, and the blocks left out.
    """

    def __init__(self, links: Sequence[Link], settings: config.Slam, parameters_given: Sequence[Parameter]) -> None:
        self._settings = settings
        chosen = parameters.chosen(settings.learning.parameters)
        self._names = names(chosen)
        self._start = to_float64(parameters.starting_theta(parameters_given))
        blocks, moves, self.refused = _blocks(links, settings)
        self._blocks, self._moves = blocks, np.array(moves, bool)
        self._asked: tuple[Question, tuple[Vector, ...]] | None = None
        if blocks:
            start = Question(np.zeros(len(self._names)), np.asarray(self._start.odometry_noise))
            fine = np.isfinite(self._evaluated(start)[0])
            self.refused += int((~fine).sum())
            self._blocks = [block for block, good in zip(blocks, fine, strict=True) if good]
            self._moves, self._asked = self._moves[fine], None

    def __len__(self) -> int:
        """Blocks."""
        return len(self._blocks)

    def at(self, question: Question, first: int, last: int) -> Evidence:
        """Evidence of the blocks ``first`` to ``last`` (not included)."""
        if self._asked is None or not _same(self._asked[0], question):
            self._asked = question, self._evaluated(question)
        rows = [row[first:last] for row in self._asked[1]]
        cost, gradient = rows[:2]
        directions = sum(float(block.directions.sum()) for block in self._blocks[first:last])
        scatter = gradient.T @ gradient
        information = rows[2].sum(axis=0) if question.about == "calibration" else scatter
        return Evidence(float(cost.sum()), gradient.sum(axis=0), information, scatter, directions, last - first)

    def _evaluated(self, question: Question) -> tuple[Vector, ...]:
        """Cost (n,), gradient (n, K) and Gauss-Newton Hessian (n, K, K) of every block."""
        start = self._start.replace(odometry_noise=np.asarray(question.noise, float))
        count = len(self._blocks)
        padded = [*self._blocks, *self._blocks[-1:] * (-count % CHUNK)]
        chunks = [_stacked(padded[i : i + CHUNK]) for i in range(0, len(padded), CHUNK)]
        width = self._settings.learning.robust_width

        def evaluated(chunk: Block) -> tuple[Array, ...]:
            if question.about == "noise":
                loss = self._settings.learning.noise_loss
                return _likelihoods(chunk, start, question.deviation, width=width, names=self._names, loss=loss)
            loss_of = self._settings.learning.loss
            return _scores(chunk, start, question.deviation, width=width, names=self._names, loss=loss_of)

        found = [jax.device_get(evaluated(chunk)) for chunk in chunks]
        rows = tuple(np.concatenate([np.asarray(part[i]) for part in found])[:count] for i in range(len(found[0])))
        if question.about == "noise":
            # A block in which nothing moves says nothing of how noise grows.
            return tuple(np.where(self._moves.reshape(-1, *[1] * (row.ndim - 1)), row, 0.0) for row in rows)
        return rows


def _blocks(links: Sequence[Link], settings: config.Slam) -> tuple[list[Block], list[bool], int]:
    """Whole blocks of the links, whether anything moves in each, and the number of links that are not finite: a block
    begins anew behind one.
    """
    size = settings.learning.every_keyframes
    pairs = pairs_of(size)
    blocks, moves, refused = [], [], 0
    run: list[Link] = []
    for link in links:
        if not link.valid:
            refused += 1
            run = []
            continue
        run.append(link)
        if len(run) == size:
            blocks.append(make_block(run, pairs, settings.odometry))
            moves.append(any(told.moves for told in run))
            run = []
    return blocks, moves, refused


def _stacked(blocks: Iterable[Block]) -> Block:
    stacked: Block = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    return stacked


def _same(one: Question, other: Question) -> bool:
    return one.about == other.about and all(
        np.array_equal(a, b) for a, b in ((one.deviation, other.deviation), (one.noise, other.noise))
    )


@kept()
def _scores(
    chunk: Block,
    start: Theta,
    deviation: Float[Array | Vector, " K"],
    *,
    width: float,
    names: tuple[str, ...],
    loss: scoring.Loss,
) -> tuple[Float[Array, " n"], Float[Array, "n K"], Float[Array, "n K K"]]:
    def one(block: Block) -> tuple[Array, Array, Array]:
        found = score_at(block, start, deviation, width=width, names=names, loss=loss)
        return found.cost, found.gradient, found.hessian

    # Not vmap: with batches, XLA's calls to LAPACK wait for threads of the pool that they run on, for ever where there
    # are two (jaxlib 0.10.2).
    result: tuple[Array, Array, Array] = jax.lax.map(one, chunk)
    return result


@kept()
def _likelihoods(
    chunk: Block,
    start: Theta,
    deviation: Float[Array | Vector, " K"],
    *,
    width: float,
    names: tuple[str, ...],
    loss: scoring.NoiseLoss,
) -> tuple[Float[Array, " n"], Float[Array, "n 6"]]:
    theta = parameters.moved(start, deviation, names)

    def one(block: Block) -> tuple[Array, Array]:
        def likelihood(logs: Array) -> Array:
            return scoring.LIKELIHOODS[loss](block, theta.replace(odometry_noise=logs), width)

        found: tuple[Array, Array] = jax.value_and_grad(likelihood)(theta.odometry_noise)
        return found

    result: tuple[Array, Array] = jax.lax.map(one, chunk)
    return result
