"""What the page has not been told yet: the newest of everything, in memory that does not grow while nobody takes it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from dsg_ros.interface import Estimate, Path, RunResult, VoxelUpdate
from dsg_ros.view.update import Health, Sample, Update

_MERGED_AT = 64
"""Voxel updates are put together when so many wait: what waits is no larger than the map."""
_MOST_SAMPLES = 512
"""Of more keyframes every second one is left out of the curves."""
_LOSSES = "learning.loss_"


class Pending:
    """Filled by any thread in no time, emptied by the one that has it sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._restarted = False
        self._forget()

    def _forget(self) -> None:
        self._estimate: Estimate | None = None
        self._path: Path | None = None
        self._voxels: list[VoxelUpdate] = []
        self._whole = False
        self._samples: list[Sample] = []
        self._health: Health | None = None

    def take(self, estimate: Estimate) -> None:
        """Note what an estimate brought."""
        with self._lock:
            self._estimate = estimate
            if estimate.path is not None:
                self._path = estimate.path
            if estimate.voxels is not None:
                self._voxels.append(estimate.voxels)
                if len(self._voxels) > _MERGED_AT:
                    self._voxels = [merged(self._voxels)]
            if estimate.keyframe and estimate.known:
                losses = {k.removeprefix(_LOSSES): v for k, v in estimate.metrics.items() if k.startswith(_LOSSES)}
                told = Sample(estimate.stamp, estimate.pose, estimate.odometry, estimate.parameters, losses)
                self._samples.append(told)
                if len(self._samples) > _MOST_SAMPLES:
                    del self._samples[-2::-2]

    def tell(self, health: Health) -> None:
        """Note how the inputs are kept up with."""
        with self._lock:
            self._health = health

    def finish(self, result: RunResult) -> None:
        """Note the map as it is after the final refinement."""
        with self._lock:
            self._path, self._voxels, self._whole = result.path, [result.voxels], True

    def clear(self) -> None:
        """The map was forgotten, and what waits of it with it."""
        with self._lock:
            self._forget()
            self._restarted = True

    def drain(self) -> Update | None:
        """What came since the last call; None if nothing did."""
        with self._lock:
            estimate, health = self._estimate, self._health
            if estimate is None and health is None and self._path is None and not self._restarted:
                return None
            update = Update(
                restarted=self._restarted,
                pose=estimate.pose if estimate is not None and estimate.known else None,
                path=self._path,
                voxels=merged(self._voxels) if self._voxels else None,
                whole=self._whole,
                samples=tuple(self._samples),
                health=health,
                counts=dict(estimate.counts) if estimate is not None else None,
                localisation=estimate.localisation if estimate is not None else "",
            )
            self._restarted = False
            self._forget()
            return update


def merged(updates: Sequence[VoxelUpdate]) -> VoxelUpdate:
    """One update that does what ``updates`` (at least one) do one after another; each applies its removals first."""
    if len(updates) == 1:
        return updates[0]
    # Entries of id and row, -1 for a removal; the last entry of an id is what counts.
    rows = np.split(np.arange(sum(len(u.ids) for u in updates)), np.cumsum([len(u.ids) for u in updates[:-1]]))
    row = np.concatenate([np.r_[np.full(len(u.removed), -1), r] for u, r in zip(updates, rows, strict=True)])
    ids = np.concatenate([np.r_[u.removed, u.ids] for u in updates])
    newest, place = np.unique(ids[::-1], return_index=True)
    row = row[::-1][place]
    kept = row[row >= 0]

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(u, name) for u in updates])[kept]

    return VoxelUpdate(
        size=updates[-1].size,
        ids=column("ids"),
        means=column("means"),
        normals=column("normals"),
        counts=column("counts"),
        deviations=column("deviations"),
        last_seen=column("last_seen"),
        removed=newest[row < 0],
    )
