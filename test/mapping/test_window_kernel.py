"""Which voxels a window takes: the compiled choice against the same in NumPy's terms."""

import numpy as np
import pytest

from dsg_ros.mapping.window_kernel import choose


def reference(keys, first_seen, oldest, most, most_seen):
    voxels, counts = np.unique(keys[:, 1], return_counts=True)
    held = first_seen[voxels] < oldest
    useful = held | (counts > 1)
    voxels, counts, held = voxels[useful], counts[useful], held[useful]
    order = np.argsort(-counts, kind="stable")
    order = np.sort(order[np.cumsum(counts[order]) <= most_seen][:most])
    sightings = np.flatnonzero(np.isin(keys[:, 1], voxels[order]))
    places = np.searchsorted(voxels[order], keys[sightings, 1])
    return voxels[order], ~held[order], sightings, np.stack([keys[sightings, 0] - oldest, places], axis=1)


@pytest.mark.parametrize(("most", "most_seen"), [(192, 512), (20, 512), (192, 60), (1, 1), (7, 20)])
def test_it_is_that_of_numpy(most, most_seen):
    rng = np.random.default_rng(most + most_seen)
    for _ in range(30):
        oldest, voxels = int(rng.integers(100)), int(rng.integers(2, 80))
        first_seen = np.sort(rng.integers(max(0, oldest - 8), oldest + 10, voxels)).astype(np.int32)
        seen = [np.flatnonzero(rng.random(voxels) < rng.random()) for _ in range(10)]
        keys = np.concatenate([np.stack([np.full(len(v), oldest + i), v], axis=1) for i, v in enumerate(seen)])
        found = choose(keys, first_seen, oldest, most, most_seen)
        for ours, theirs in zip(found, reference(keys, first_seen, oldest, most, most_seen), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_nothing_is_seen():
    found = choose(np.zeros((0, 2), np.int64), np.zeros(0, np.int32), 3, 192, 512)
    assert [len(each) for each in found] == [0, 0, 0, 0]
