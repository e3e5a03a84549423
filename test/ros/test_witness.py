"""What the benchmark of rates reads off the wire is what was sent."""

from __future__ import annotations

import numpy as np

from benchmarks.witness import cubes_of
from dsg_ros.ros import cdr


def test_cubes_are_counted_by_marker() -> None:
    sizes = {3: 5, 0: 1, 8: 0, 4: 1000}
    made = [cdr.Cubes(k, np.zeros((n, 3)), np.zeros((n, 4), np.float32)) for k, n in sizes.items()]
    for frame in ("map", "maps", "a_map", "our_map", "a/longer_frame", ""):
        assert cubes_of(cdr.cube_lists(7, frame, "voxels", 0.5, made)) == sizes
