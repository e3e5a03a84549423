"""Colours of voxels, and when the scale of them changes."""

from __future__ import annotations

import numpy as np
import pytest
from fake_pipeline import voxels

from dsg_ros.interface import VoxelUpdate
from dsg_ros.voxel_colours import COLOURINGS, Scale, colours
from dsg_ros.voxel_store import VoxelStore

MEANS = np.array([[0, 0, 0.0], [5, 5, 1.0], [9, 9, 2.0]], np.float32)
COUNTS = np.array([1, 20, 400], np.int32)
SEEN = np.array([0, 60, 120]) * 1_000_000_000
KNOWN = np.array([0.001, 0.01, 0.1], np.float32)
SCALE = Scale(0.0, 2.0, 0, 120.0)


def of(colouring: str, rows: slice = slice(None)) -> np.ndarray:
    return colours(colouring, SCALE, MEANS[rows], COUNTS[rows], SEEN[rows], KNOWN[rows])


@pytest.mark.parametrize("colouring", COLOURINGS)
def test_each_shows_one_thing(colouring: str) -> None:
    found = of(colouring)
    assert (found.shape, found.dtype) == ((3, 4), np.float32)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[:, 3] == 1).all()
    assert len(np.unique(found, axis=0)) == 3
    assert of(colouring, slice(0)).shape == (0, 4)


def test_height_age_and_deviation_share_a_ramp() -> None:
    ends = [of(colouring)[[0, 2]] for colouring in ("height", "age", "deviation")]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)
    np.testing.assert_allclose(ends[0], ends[2], atol=1e-6)


def test_a_scale_holds_all_and_seldom_changes() -> None:
    scales = {Scale.of((-0.3, 0.1 * k), (1000, 1000 + k * 1_000_000_000)) for k in range(1, 1000)}
    assert len(scales) < 40
    for scale in scales:
        assert scale.low <= -0.3
        assert scale.since == 1000
    assert Scale.of((-0.3, 99.9), (0, 0)).high >= 99.9


def test_a_few_stray_voxels_do_not_take_the_colours_of_all_others() -> None:
    heights = np.linspace(0.0, 2.0, 1000, dtype=np.float32)
    heights[[10, 500]] = 40.0, -40.0
    means = np.stack([np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32), heights], axis=1)
    store = VoxelStore(8.0)
    store.update(voxels(means))
    assert (store.scale.low, store.scale.high) == (0.0, 2.0)


def test_the_store_tells_the_scale_of_what_it_holds() -> None:
    store = VoxelStore(8.0)
    assert store.scale == Scale()
    change = voxels(MEANS)
    store.update(VoxelUpdate(0.5, change.ids, MEANS, change.normals, COUNTS, KNOWN, SEEN, change.removed))
    assert store.scale == Scale.of((0.0, 2.0), (0, int(SEEN[-1])))
    (content, *_rest) = store.take_changes()
    np.testing.assert_array_equal(content.last_seen, SEEN[: len(content.last_seen)])
    np.testing.assert_array_equal(
        content.colours("deviation", store.scale), of("deviation", slice(0, len(content.means)))
    )
    store.clear()
    assert store.scale == Scale()
