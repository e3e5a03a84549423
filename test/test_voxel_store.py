"""The voxel store against a plain dictionary, over random histories."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsg_ros.interface import VoxelUpdate
from dsg_ros.voxel_store import VoxelStore

EDGE = 2.0


def update(changed: dict[int, tuple[float, float, float]], removed: list[int]) -> VoxelUpdate:
    n = len(changed)
    means = np.array(list(changed.values()), np.float32).reshape(n, 3)
    flat, zeros = np.zeros((n, 3), np.float32), np.zeros(n, np.int64)
    ids = np.array(list(changed), np.int64)
    counts, known = (ids + 1).astype(np.int32), np.full(n, 0.01, np.float32)
    return VoxelUpdate(0.5, ids, means, flat, counts, known, zeros, np.array(removed, np.int64))


coordinates = st.tuples(*[st.sampled_from([-3.5, -0.5, 0.5, 2.5, 9.0])] * 3)
steps = st.lists(
    st.tuples(st.dictionaries(st.integers(0, 12), coordinates, max_size=6), st.lists(st.integers(0, 12), max_size=4)),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_listener_that_applies_the_changes_sees_the_map(history, looks):
    store, truth, seen = VoxelStore(EDGE), {}, {}
    for (changed, removed), look in zip(history, looks, strict=False):
        for identity in removed:
            truth.pop(identity, None)
        truth |= changed
        store.update(update(changed, removed))
        if look:
            follow(store, seen)
    follow(store, seen)
    drawn = sorted(tuple(p) for points in seen.values() for p in points.tolist())
    assert drawn == sorted(truth.values())
    means, _, counts = store.all()
    assert sorted(map(tuple, means.tolist())) == drawn
    assert sorted(counts.tolist()) == sorted(i + 1 for i in truth)
    for points in seen.values():
        assert len(np.unique(np.floor(points / EDGE), axis=0)) == 1
    assert store.take_changes() == []
    store.touch()
    again: dict[int, np.ndarray] = {}
    follow(store, again)
    assert {k: v.tolist() for k, v in again.items()} == {k: v.tolist() for k, v in seen.items()}
    store.clear()
    follow(store, seen)
    assert not seen
    assert len(store) == 0


def follow(store: VoxelStore, seen: dict[int, np.ndarray]) -> None:
    for chunk in store.take_changes():
        if len(chunk.means):
            seen[chunk.id] = chunk.means
        else:
            seen.pop(chunk.id, None)


def test_only_changed_chunks_are_reported():
    store = VoxelStore(EDGE)
    store.update(update({1: (0.5, 0.5, 0.5), 2: (9.0, 0.5, 0.5)}, []))
    first = {c.id for c in store.take_changes()}
    store.update(update({2: (9.1, 0.5, 0.5)}, []))
    assert len(first) == 2
    assert len(store.take_changes()) == 1


def test_rows_are_used_again():
    store = VoxelStore(EDGE)
    for i in range(0, 20_000, 100):
        fresh = dict.fromkeys(range(i, i + 100), (0.5, 0.5, 0.5))
        store.update(update(fresh, list(range(i - 100, i))))
    assert len(store) == 100
    assert len(store._means) <= 1024


def test_what_is_not_taken_waits_and_comes_in_its_turn():
    store = VoxelStore(EDGE)
    for i, x in enumerate((0.5, 4.5, 8.5, 12.5)):
        store.update(update({10 * i + k: (x, 0.5, 0.5) for k in range(3)}, []))
    assert [c.means[0, 0] for c in store.take_changes(4)] == [0.5, 4.5]  # the second one was begun
    store.update(update({0: (0.6, 0.5, 0.5), 30: (12.6, 0.5, 0.5)}, []))
    assert store.take_changes(0) == []
    assert store.take_changes(-5) == []
    assert [len(store.take_changes(1)) for _ in range(4)] == [1, 1, 1, 0]
    store.update(update({0: (0.7, 0.5, 0.5)}, []))
    assert [c.means[0, 0].round(1) for c in store.take_changes()] == [np.float32(0.7)]
