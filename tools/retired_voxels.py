"""What a run retires, held against all of its keyframes where they lie in the end; and a picture of it.

    python tools/retired_voxels.py LOG PICTURE.png [--limit N] [--set NAME=VALUE ...]

Near each retired voxel (its last keyframe carries it along) keyframes are counted that have a return within 0.4 edges
of its mean, and those that have none but look through: a beam passes within 0.2 edges and ends an edge beyond.  What
most have a return at is a wall; it is lost if no voxel is left within 0.8 edges.  The same count over the voxels that
are left tells what should have been retired.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numba
import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.io.ahead import reading
from dsg_ros.io.records import Topics
from dsg_ros.log_settings import settings_for
from dsg_ros.mapping.retirement import Retirement
from dsg_ros.pipeline import Slam

mpl.use("Agg")
from matplotlib import pyplot as plt  # after its back end is chosen

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
TOO_OFTEN = 8
"""Keyframes that look through a voxel after the last one with a return there: it should be gone."""


class Recorder:
    """Takes the place of a map's `Retirement.look`, and remembers what that tells."""

    def __init__(self, retirement: Retirement) -> None:
        self._look, self._voxels = retirement.look, retirement._voxels
        self.anchor: list[int] = []
        self.relative: list[Array] = []

    def __call__(
        self, cloud: Array, sensor: Array, means: Array, trajectory: Array, *further: Any
    ) -> NDArray[np.int64]:
        gone = self._look(cloud, sensor, means, trajectory, *further)
        for voxel in gone.tolist():
            anchor = int(self._voxels.anchor.values[voxel])
            self.anchor.append(anchor)
            self.relative.append(poses.transform(poses.inverse(trajectory[anchor]), means[voxel : voxel + 1])[0])
        return gone

    def at(self, trajectory: Array) -> Array:
        """Where they are (n, 3) when the keyframes are at ``trajectory`` (k, 7)."""
        found = [poses.transform(trajectory[a], r[None])[0] for a, r in zip(self.anchor, self.relative, strict=True)]
        return np.array(found).reshape(-1, 3)


@numba.njit(cache=False)
def _seen(places: Array, ends: Array, offsets: Numbers, eyes: Array, size: float) -> tuple[Flags, Flags]:
    """By place (n, k): which keyframes have a return there, and which look through."""
    hit = np.zeros((len(places), len(eyes)), np.bool_)
    through = np.zeros_like(hit)
    reach = np.zeros(len(eyes))
    for k in range(len(eyes)):
        for i in range(offsets[k], offsets[k + 1]):
            reach[k] = max(reach[k], np.sqrt(((ends[i] - eyes[k]) ** 2).sum()) + size)
    for v in range(len(places)):
        for k in range(len(eyes)):
            way = places[v] - eyes[k]
            square = (way * way).sum()
            if square > reach[k] ** 2:
                continue
            for i in range(offsets[k], offsets[k + 1]):
                beam = ends[i] - eyes[k]
                apart, length = beam - way, np.sqrt((beam * beam).sum())
                if (apart * apart).sum() < (0.4 * size) ** 2:
                    hit[v, k] = True
                    break
                along = (way * beam).sum() / max(length, 1e-9)
                if along > 0 and square - along * along < (0.2 * size) ** 2 and length > along + size:
                    through[v, k] = True
    return hit, through & ~hit


def main(log: Path, picture: Path, limit: int, assignments: list[str]) -> None:
    """Map ``log`` and tell of what was retired."""
    topics = Topics("", "", "")
    settings = settings_for(log, topics, assignments=assignments)
    slam, sensors = Slam(settings), []
    recorder: Recorder | None = None
    with reading(log, topics, settings.input) as stream:
        for frame in islice(stream, limit or None):
            if recorder is None:
                slam.warm_up(frame.planar)
                recorder = Recorder(slam._map.retirement)
                slam._map.retirement.look = recorder  # type: ignore[method-assign,assignment]
            if slam.process(frame).keyframe:
                sensors.append(frame.base_from_sensor[:3])
    assert recorder is not None, "a log with scans"
    result, clouds = slam.finish(), slam._map.keyframes.clouds
    trajectory, size = result.path.poses, result.voxels.size
    ends = np.concatenate([poses.transform(pose, cloud) for pose, cloud in zip(trajectory, clouds, strict=True)])
    eyes = np.array([poses.transform(pose, at[None])[0] for pose, at in zip(trajectory, sensors, strict=True)])
    offsets = np.concatenate([[0], np.cumsum([len(cloud) for cloud in clouds])])
    places, left = recorder.at(trajectory), result.voxels.means.astype(float)
    hit, through = _seen(places, ends, offsets, eyes, size)
    share = hit.sum(axis=1) / np.maximum(hit.sum(axis=1) + through.sum(axis=1), 1)
    nearest = np.array([np.linalg.norm(left - place, axis=1).min() for place in places])
    print(f"{len(places)} retired, {len(left)} shown in the end, {len(clouds)} keyframes")
    print(f"a return there in under 0.3 of the keyframes that tell: {(share < 0.3).sum()}")
    wall = share > 0.5
    print(f"in over 0.5: {wall.sum()}; of these no voxel is left: {(wall & (nearest > 0.8 * size)).sum()}")
    for place in places[wall & (nearest > 0.8 * size)]:
        print(f"lost at {place.round(2)}")
    hit, through = _seen(left, ends, offsets, eyes, size)
    last = np.where(hit.any(axis=1), len(clouds) - 1 - hit[:, ::-1].argmax(axis=1), -1)
    later = np.arange(len(clouds)) > last[:, None]
    print(
        f"left, and looked through since by {TOO_OFTEN} or more: {((through & later).sum(axis=1) >= TOO_OFTEN).sum()}"
    )
    _, axes = plt.subplots(figsize=(14, 14))
    axes.scatter(*left[:, :2].T, s=2, color="0.4")
    axes.plot(*trajectory[:, :2].T, lw=0.3, color="green")
    axes.scatter(*places[:, :2].T, c=share, cmap="coolwarm", vmin=0.0, vmax=1.0, s=25, edgecolors="k", linewidths=0.4)
    axes.set_aspect("equal")
    axes.set_title(f"{log.name}: retired; red: a return there in most keyframes")
    plt.savefig(picture, dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    main(given.log, given.picture, given.limit, given.set)
