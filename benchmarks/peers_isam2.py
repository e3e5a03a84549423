"""GTSAM's incremental side: iSAM2, one pose at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import peers_gtsam as peers
from benchmarks.graphs import Arrival
from dsg_ros.io.posegraph import Floats


@dataclass(frozen=True)
class Variant:
    """Parameters of iSAM2: ``skip`` updates from one relinearisation to the next; None is the library's default, 10."""

    name: str
    skip: int | None


VARIANTS = (Variant("defaults", None), Variant("relinearizeSkip=1", 1))


class ISam2:
    """A `benchmarks.incremental.Smoother`; making GTSAM's objects from arrays is not timed."""

    def __init__(self, planar: bool, variant: Variant) -> None:
        self._lib = peers.gtsam()
        self._planar = planar
        parameters = self._lib.ISAM2Params()
        if variant.skip is not None:
            parameters.relinearizeSkip = variant.skip
        self._isam = self._lib.ISAM2(parameters)

    def prepare(self, arrival: Arrival, initial: Floats) -> tuple[int, Any, Any]:
        """Factors and values of a new pose."""
        factors, values = self._lib.NonlinearFactorGraph(), self._lib.Values()
        values.insert(arrival.pose, peers.to_pose(self._planar, initial))
        if arrival.pose == 0:
            factors.add(peers.prior(self._planar, initial))
        for factor in peers.to_factors(self._planar, arrival.edges):
            factors.add(factor)
        return arrival.pose, factors, values

    def update(self, prepared: tuple[int, Any, Any]) -> Any:
        """One update, and the estimate of the newest pose alone."""
        pose, factors, values = prepared
        self._isam.update(factors, values)
        return self._isam.calculateEstimatePose2(pose) if self._planar else self._isam.calculateEstimatePose3(pose)

    def newest(self, answer: Any) -> Floats:
        """What `update` returned, as a pose (7,)."""
        return peers.from_pose(self._planar, answer)

    def poses(self) -> Floats:
        """The estimates (P, 7) of all poses."""
        return peers.from_values(self._planar, self._isam.calculateEstimate())
