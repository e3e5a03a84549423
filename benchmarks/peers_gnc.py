"""GTSAM's robust side: GncLMOptimizer, in a process of its own, since nothing else stops it once it has begun.

``python -m benchmarks.peers_gnc GRAPH PROBABILITY`` prints the verdict as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks import corruption, graphs
from benchmarks import peers_gtsam as peers
from benchmarks.corruption import Corrupted, Mask, Verdict
from benchmarks.measuring import stopwatch
from benchmarks.peers_gtsam import Batch, Method
from dsg_ros.io.posegraph import Floats, PoseGraph

PROBABILITIES = (0.99, 0.9999)
"""An edge that is right has a cost below GTSAM's threshold with this probability: its default, and one that loses few
true loops of a graph with thousands.
"""
PATIENCE = 600.0
"""It is given up after this time [s]."""


def optimum(graph: PoseGraph) -> tuple[Floats, float]:
    """The optimum (P, 7) of a graph by GTSAM's batch methods, and its cost."""
    peer = Batch(graph)
    methods = [Method("GN", True, "COLAMD"), Method("LM", True, "COLAMD")]
    best = min(peers.reaching(peer.attempts(methods)).values(), key=lambda answer: answer.cost)
    poses = peer.poses(best)
    return poses, graphs.cost(graph, poses)


def solve(corrupted: Corrupted, probability: float) -> tuple[Floats, Mask, float]:
    """Poses (P, 7), kept edges (E,) and seconds of truncated least squares, GTSAM's default loss."""
    lib = peers.gtsam()
    peer = Batch(corrupted.graph)
    parameters = lib.GncLMParams(lib.LevenbergMarquardtParams())
    edges = len(corrupted.false)
    # The prior that holds the first pose stands behind the edges.
    parameters.setKnownInliers([*np.flatnonzero(corrupted.trusted).tolist(), edges])

    def optimise() -> tuple[Any, Any]:
        optimiser = lib.GncLMOptimizer(peer.factors, peer.values, parameters)
        optimiser.setInlierCostThresholdsAtProbability(probability)
        return optimiser.optimize(), optimiser

    seconds, (values, optimiser) = stopwatch(optimise)
    kept = np.asarray(optimiser.getWeights())[:edges] > 0.5
    return peers.from_values(corrupted.graph.planar, values), kept, seconds


def measure(name: str, probability: float) -> dict[str, Any]:
    """The verdict on a graph by name, as a dictionary; empty where it was given up."""
    command = [sys.executable, "-m", "benchmarks.peers_gnc", name, str(probability)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(name: str, probability: float) -> Verdict:
    """Corrupt a graph by name (the first of the seeds), and judge GTSAM's answer."""
    graph = graphs.load(name)
    poses, _ = optimum(graph)
    corrupted = corruption.corrupt(graph, poses)
    found, kept, seconds = solve(corrupted, probability)
    return corruption.judge(graph, corrupted, found, kept, poses, seconds)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(main(sys.argv[1], float(sys.argv[2])))))
