"""``python -m dsg_ros optimize GRAPH --out G``: the optimum of a pose graph file."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc
from tyro.conf import Positional

from dsg_ros.errors import UserError
from dsg_ros.io.atomic import destination
from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_read import read_pose_graph
from dsg_ros.io.posegraph_write import check_destination, write_pose_graph

if TYPE_CHECKING:
    from dsg_ros.commands._solve_graph import Optimised
    from dsg_ros.commands._solve_incremental import Updates
    from dsg_ros.commands._solve_robust import Judged

log = logging.getLogger(__name__)

_LISTED = 5
_NAMED = 20
"""Rejected edges that people are told, at most."""


@dataclass(frozen=True)
class Options:
    """Optimise a pose graph: a g2o or TORO file in the plane or in space, with or without landmarks, also compressed.

    Vertices named in FIX lines are held; without any, the first pose is. A file without VERTEX lines gets its initial
    values along a spanning tree. The solve starts from the graph's chordal relaxation where that costs less than its
    values. Exit code 1: not converged, or a variable is not determined; then nothing is written.
    """

    graph: Positional[Path]
    """The pose graph."""
    out: Annotated[
        Path,
        Doc("The optimised graph: g2o, or TORO if it ends in .toro or .graph; compressed with .gz, .bz2, .xz, .zip"),
    ]
    robust: Annotated[
        Literal["none", "gnc"],
        Doc(
            "gnc: loop closures, edges that do not join consecutive vertices, may be false; those that are, as "
            "graduated non-convexity tells by the others, count for nothing. The file keeps them; --json lists them"
        ),
    ] = "none"
    incremental: Annotated[
        bool,
        Doc("Add pose after pose in the order of their keys, with an estimate after each; then solve for all together"),
    ] = False
    linear: Annotated[
        Literal["cholesky", "pcg"],
        Doc(
            "How the steps are solved: sparse Cholesky on the processor, or preconditioned conjugate gradients on "
            "JAX's default device, a GPU where its wheel is installed; that is compiled for the size of the graph"
        ),
    ] = "cholesky"
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Read, optimise, write; 0, or 1 where there is no optimum to write."""
    began = time.perf_counter()
    destination(options.out)
    if options.linear == "pcg" and (options.incremental or options.robust != "none"):
        raise UserError("--linear pcg solves for all poses at once and trusts all edges: no --incremental, no --robust")
    with _telling(f"reading {options.graph}"):
        graph = read_pose_graph(options.graph)
    check_destination(options.out, graph)
    if options.incremental and len(graph.landmarks.keys):
        raise UserError(f"{graph.source}: --incremental is for poses alone; this graph has landmarks, leave it out")
    _log_graph(graph)
    with _telling("compiling"):
        # JAX is imported here: what is wrong with the file has been told by now.
        from dsg_ros.commands import _solve_incremental as one_by_one
        from dsg_ros.commands import _solve_robust as robust
        from dsg_ros.commands._solve_graph import solve_graph, warm_up
        from dsg_ros.commands._solve_pcg import solve_by_conjugate_gradients
        from dsg_ros.core import native

        if native.cold():
            log.info(native.COMPILING)
        warm_up(landmarks=len(graph.landmarks.keys) > 0)
        if options.incremental:
            one_by_one.warm_up()
        if options.robust == "gnc":
            robust.warm_up()
    updates: Updates | None = None
    judged: Judged | None = None
    with _telling(f"optimising {len(graph.keys)} poses, {graph.factors} factors"):
        if options.robust == "gnc":
            optimised, judged = robust.solve_robustly(graph)
            if options.incremental and optimised.converged:
                found, updates = one_by_one.solve_incrementally(robust.without(graph, judged.rejected))
                optimised = optimised.followed_by(found)
        elif options.incremental:
            optimised, updates = one_by_one.solve_incrementally(graph)
        elif options.linear == "pcg":
            optimised = solve_by_conjugate_gradients(graph)
        else:
            optimised = solve_graph(graph)
    if optimised.converged:
        write_pose_graph(options.out, graph.with_values(optimised.poses, optimised.landmarks))
    else:
        log.error("%s: %s; nothing is written", options.graph, _reason(optimised))
    _tell(options, graph, optimised, updates, judged, time.perf_counter() - began)
    return 0 if optimised.converged else 1


def _log_graph(graph: PoseGraph) -> None:
    marks = graph.landmarks
    kind = "in the plane" if graph.planar else "in space"
    seen = f", {len(marks.keys)} landmarks seen {len(marks.pose)} times" if len(marks.keys) else ""
    log.info("%s: %d poses %s, %d edges%s", graph.source, len(graph.keys), kind, len(graph.first), seen)
    if not len(graph.fixed) + len(marks.fixed):
        log.info("no FIX line: the first pose, vertex %d, is held", graph.keys[graph.held[0]])
    if not graph.known.all():
        log.info("no VERTEX line: initial values along a spanning tree")


def _reason(optimised: Optimised) -> str:
    free = optimised.underconstrained
    more = f" and {len(free) - _LISTED} more" if len(free) > _LISTED else ""
    return optimised.result + (f": {', '.join(free[:_LISTED])}{more} can move freely" if free else "")


def _cost(cost: float) -> str:
    return f"{cost:.6f}" if cost < 1e12 else f"{cost:.6e}"


def _tell(
    options: Options,
    graph: PoseGraph,
    optimised: Optimised,
    updates: Updates | None,
    judged: Judged | None,
    seconds: float,
) -> None:
    """The outcome on stdout: a line for people, and with --json one object as the last line."""
    print(
        f"cost {_cost(optimised.cost)} after {optimised.iterations} iterations, {optimised.seconds:.3f} s "
        f"({seconds:.1f} s with reading, compiling and writing)"
    )
    if updates is not None:
        times = "median {median:.2f} ms, p99 {p99:.2f} ms, longest {max:.2f} ms".format(**updates.milliseconds)
        failed = f"; {updates.not_converged} did not converge" if updates.not_converged else ""
        print(f"updates: {times}{failed}; they came to cost {_cost(updates.cost)}")
    if judged is not None:
        named = ", ".join(f"{first}-{second}" for first, second in judged.pairs[:_NAMED])
        more = f" and {len(judged.pairs) - _NAMED} more" if len(judged.pairs) > _NAMED else ""
        told = f"rejected {len(judged.pairs)} of {judged.doubtful} loop closures{': ' if named else ''}{named}{more}"
        print(told if judged.judged else f"none of {judged.doubtful} loop closures could be judged")
    if options.json:
        found: dict[str, Any] = {
            "poses": len(graph.keys),
            "factors": graph.factors,
            "cost": optimised.cost if math.isfinite(optimised.cost) else None,
            "iterations": optimised.iterations,
            "seconds_solve": optimised.seconds,
            "seconds_total": seconds,
            "converged": optimised.converged,
        }
        if not optimised.converged:
            found |= {"result": optimised.result, "underconstrained": list(optimised.underconstrained)}
        if graph.unknown:
            found["unknown_tags"] = dict(graph.unknown)
        if graph.unended:
            found["last_line_unended"] = True
        if updates is not None:
            found |= {"update_ms": updates.milliseconds, "updates_not_converged": updates.not_converged}
            found |= {"updates_cost": updates.cost if math.isfinite(updates.cost) else None}
        if judged is not None:
            found |= {"doubtful": judged.doubtful, "judged": judged.judged}
            found |= {"rejected": len(judged.pairs), "rejected_edges": judged.pairs}
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """A spinner on stderr while this lasts, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield
