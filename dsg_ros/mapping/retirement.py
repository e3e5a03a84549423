"""Voxels that later keyframes look straight through are retired: who walked by, what was moved, a door that was shut.

Each voxel has a credit: how many keyframes must look through it until it is gone.  A keyframe with a return in it adds
to that, one that looks through takes one off, and it is bounded, so that what stood there for long goes as fast as what
did not.  These are the clamped log-odds of OctoMap (Hornung et al., "OctoMap: an efficient probabilistic 3D mapping
framework based on octrees", 2013) in steps of a miss: a return counts two, as there.

What counts as looking through is narrower than there.  Cells here are larger, and a wall that is lost is worse than a
person that stays; that visibility alone takes walls away, where beams graze them and where poses are a little off, is
why removert puts points back (Kim and Kim, "Remove, then revert: static point cloud map construction using
multiresolution range images", 2020).  So

- a beam must pass near the voxel's mean, where what was seen of it is, and end well beyond it;
- it must cross a surface there, not run along it: a scanner beside a wall has beams within all of the wall's voxels;
- no beam of the same keyframe that passes a little farther from the mean may end before that: what half hides a voxel
  is no view through it, and where a pose is off by as much, the edge of a wall is hit by one of them;
- the keyframe must lie near, along the graph, the one that saw the voxel last: where the map has drifted, a robot
  that comes back sees through walls that stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.mapping import retirement_kernel as kernel
from dsg_ros.mapping.association import Statistics, WorldVoxels
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State

Keys = NDArray[np.int64]
NOTHING = np.zeros(0, np.int64)


class Retirement:
    """Which of ``voxels`` are to be retired: ``credit`` (v,) is how many keyframes must look through each till then."""

    def __init__(self, settings: config.Retirement, voxels: WorldVoxels) -> None:
        self._settings, self._voxels = settings, voxels
        self.credit = Rows(dtype=np.int32)
        self._marks = Rows(dtype=np.int32)
        # Out of credit, and seen by a keyframe of the window.
        self._waiting = NOTHING

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of the voxels."""
        return self.credit.nbytes + self._marks.nbytes

    def look(
        self,
        cloud: NDArray[np.float64],
        sensor: NDArray[np.float64],
        means: NDArray[np.float64],
        trajectory: NDArray[np.float64],
        near: NDArray[np.bool_],
        window: int,
    ) -> Keys:
        """Take credit for what the newest keyframe looks through; voxels (m,) to be retired, none that a keyframe from
        ``window`` on has seen.

        ``cloud`` (n, 3) are its returns and ``sensor`` (3,) is where its beams begin, both in its base frame;
        ``means`` (v, 3) the voxels' positions and ``trajectory`` (k, 7) the keyframes, in map.  ``near`` (k,) are
        keyframes that have not drifted against the newest one.
        """
        s, v = self._settings, self._voxels
        self._grow()
        pose = plain(trajectory[-1])
        ends, eye = poses.transform(pose, cloud), poses.transform(pose, sensor[None])[0]
        hit, through = kernel.look(
            plain(ends), plain(eye), len(trajectory), v.cells.slots,
            (means, v.normal.values, v.anchor.values), plain(trajectory), near, self._marks.values,
            (v.size, v.planar), (s.centre * v.size, s.across, s.margin * v.size, s.clear * v.size),
        )  # fmt: skip
        credit = self.credit.values
        credit[hit] = np.maximum(credit[hit], np.minimum(credit[hit] + s.again, s.most))
        credit[through] = np.maximum(credit[through] - 1, 0)
        due = np.union1d(self._waiting, through)
        due = due[(credit[due] == 0) & (v.counts.values[due] > 0)]
        # As with eviction: a window that was solved and waits to be adopted has none but voxels that are there.
        early = v.anchor.values[due] >= window
        self._waiting = due[early]
        return due[~early]

    def follow(self, known: Statistics) -> None:
        """After voxels were merged and split: one that took others' sightings has the best credit of them all.

        Credit is kept when the map moves: what was looked through was near the keyframe that looked, and both have
        moved together.  The best of several, because a wall that lay twice was looked through where it was wrong.
        """
        self._grow()
        before = self.credit.values.copy()
        np.maximum.at(self.credit.values, known.passed[:, 1], before[known.passed[:, 0]])

    def _grow(self) -> None:
        known = len(self.credit)
        for rows in (self.credit, self._marks):
            rows.extend(len(self._voxels) - known)
        self.credit.values[known:] = self._settings.once

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        self._grow()  # while nothing is retired nobody looks
        return {"credit": self.credit.values.copy(), "waiting": self._waiting.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, once the voxels have theirs."""
        self.credit.load(state["credit"])
        self._marks.load(np.zeros(len(self.credit), np.int32))
        self._waiting = np.array(state["waiting"], np.int64)
        outside = (self._waiting < 0) | (self._waiting >= len(self.credit))
        if len(self.credit) != len(self._voxels) or outside.any():
            raise ValueError("credit of other voxels than there are")
