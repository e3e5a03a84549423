"""A pose graph some of whose loop closures may be false: which ones are, and the optimum of the others."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.commands._solve_graph import Optimised, outcome, snapshot_of, solve_graph, tiny, world_of
from dsg_ros.commands._spanning_tree import spanning_tree
from dsg_ros.core.factors import Kernel, Registration
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.graduated import PROBABILITY, solve_graduated, width
from dsg_ros.core.theta import Theta
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_checks import components

Mask = NDArray[np.bool_]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """How many edges were ``doubtful``, which edges (E,) are ``rejected``, and the keys they join, as ``pairs``; none
    unless the doubtful ones could be ``judged``.
    """

    doubtful: int
    rejected: Mask
    pairs: list[list[int]]
    judged: bool = True


def solve_robustly(
    graph: PoseGraph, trusted: Mask | None = None, probability: float = PROBABILITY
) -> tuple[Optimised, Judged]:
    """The optimum of a graph without the edges that are found to be false; its cost is without them too.

    ``trusted`` (E,) says which edges are right whatever they cost: those between consecutive vertices, unless told.
    Sightings of landmarks are.  A right one among the others has a squared error below the chi-squared quantile of
    ``probability``.  A graph in which no edge is doubtful is solved as by `solve_graph`, and that is told.  Compiles
    nothing after `warm_up`.  `UserError` where trusted edges do not tell where every pose is.
    """
    began = time.perf_counter()
    trusted = consecutive(graph) if trusted is None else trusted
    if trusted.all():
        log.info("%s: every edge joins consecutive vertices: no loop closure could be false", graph.source)
        return solve_graph(graph), Judged(0, ~trusted, [])
    check(graph, trusted)
    if not graph.known.all():
        graph = graph.with_values(*spanning_tree(without(graph, ~trusted)))
    held = np.isin(np.arange(len(graph.keys)), graph.held)
    judged = np.flatnonzero(~(held[graph.first] & held[graph.second]))
    doubtful = ~trusted & np.isin(np.arange(len(trusted)), judged)
    world = world_of(graph)
    rows, _ = world.rows(Registration)
    widths = width(graph.sqrt_info[doubtful], probability)
    world.set_rows(rows[doubtful], kernel=np.int32(Kernel.GEMAN_MCCLURE), kernel_width=widths)
    with np.errstate(over="ignore", invalid="ignore"):  # as in `solve_graph`
        found = solve_graduated(snapshot_of(world, graph), Theta.neutral())
    rejected = np.zeros(len(trusted), bool)
    rejected[judged[found.rejected.get(Registration, np.zeros(0, np.int64))]] = True
    optimised = outcome(without(graph, rejected), found.solution, time.perf_counter() - began)
    if found.solution.code is Result.SINGULAR:
        result = "edges between consecutive vertices, by which others are judged, do not determine every variable"
        judged_none = Judged(int(doubtful.sum()), np.zeros_like(trusted), [], judged=False)
        return dataclasses.replace(optimised, result=result), judged_none
    pairs = graph.keys[np.stack([graph.first, graph.second], axis=1)[rejected]].tolist()
    return optimised, Judged(int(doubtful.sum()), rejected, pairs)


def consecutive(graph: PoseGraph) -> Mask:
    """(E,) whether an edge joins vertices between whose keys there is no other: odometry, not a loop closure."""
    place = graph.places
    return np.asarray(np.abs(place[graph.first] - place[graph.second]) == 1)


def check(graph: PoseGraph, trusted: Mask) -> None:
    """`UserError` where trusted edges do not tell where every pose is."""
    if len(graph.landmarks.keys):
        return  # what landmarks tie together the solver will see
    part = components(len(graph.keys), graph.first[trusted], graph.second[trusted])
    lost = np.flatnonzero(~np.isin(part, part[graph.held]))
    if len(lost):
        raise UserError(
            f"{graph.source}: no chain of edges between consecutive vertices leads from "
            f"{graph.keys[graph.held[0]]}, which is held, to {graph.keys[lost[0]]}: --robust gnc judges all other "
            "edges by such a chain"
        )


def without(graph: PoseGraph, edges: Mask) -> PoseGraph:
    """The graph without some of its edges (E,)."""
    fields = ("first", "second", "measured", "information", "sqrt_info")
    return dataclasses.replace(graph, **{name: getattr(graph, name)[~edges] for name in fields})


def warm_up() -> None:
    """Compile what `solve_robustly` needs."""
    solve_robustly(
        dataclasses.replace(
            tiny(landmarks=False),
            keys=np.arange(3),
            poses=np.tile(poses.IDENTITY, (3, 1)),
            known=np.ones(3, bool),
            first=np.array([0, 1, 0, 2]),
            second=np.array([1, 2, 2, 0]),
            measured=poses.from_planar([1.0, 1.0, 2.0, 99.0], 0.0, 0.0),
            information=np.zeros((4, 21)),
            sqrt_info=np.tile(np.eye(6), (4, 1, 1)),
        )
    )
