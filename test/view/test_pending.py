"""What waits for the page: nothing that is newest is lost, and it is no larger than the map."""

from __future__ import annotations

import numpy as np
from fake_pipeline import frame
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros.interface import Estimate, Parameter, VoxelUpdate
from dsg_ros.view.pending import Pending, merged
from dsg_ros.view.update import Health
from dsg_ros.voxel_store import VoxelStore

steps = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 9), st.tuples(*[st.integers(-3, 3)] * 3), max_size=5),
        st.sets(st.integers(0, 9), max_size=4),
    ),
    min_size=1,
    max_size=8,
)


def update(changed: dict[int, tuple[float, ...]], removed: set[int]) -> VoxelUpdate:
    n = len(changed)
    ids = np.array(list(changed), np.int64)
    means = np.array(list(changed.values()), np.float32).reshape(n, 3)
    counts, known = (ids + 1).astype(np.int32), 0.1 * ids.astype(np.float32)
    return VoxelUpdate(0.5, ids, means, means, counts, known, ids, np.array(sorted(removed), np.int64))


def estimate(stamp: int, voxels: VoxelUpdate | None = None, **more: object) -> Estimate:
    pose = frame(stamp).odometry.poses[0]
    told = (Parameter("odometry.scale", 1.0, 0.1, "ratio", "learned"),)
    losses = {"learning.loss_before": 2.0, "metres": 3.0}
    return Estimate(stamp, pose, pose, np.eye(6), True, None, voxels, told, losses, {"scans": stamp}, **more)


@given(steps)
def test_merged_updates_do_what_they_do_one_after_another(history):
    one, other = VoxelStore(2.0), VoxelStore(2.0)
    updates = [update(*step) for step in history]
    for each in updates:
        one.update(each)
    other.update(merged(updates))
    for mine, theirs in zip(one.all(), other.all(), strict=True):
        assert sorted(map(str, mine.tolist())) == sorted(map(str, theirs.tolist()))


def test_nothing_waits_at_first_and_after_it_was_taken():
    pending = Pending()
    assert pending.drain() is None
    pending.take(estimate(1))
    assert pending.drain().counts == {"scans": 1}
    assert pending.drain() is None
    pending.tell(Health(1.0, {"scans": 2.0}, {}))
    assert pending.drain().health.rates == {"scans": 2.0}


def test_what_waits_while_nobody_takes_it_is_no_larger_than_the_map():
    pending = Pending()
    for stamp in range(5000):
        pending.take(estimate(stamp, update({stamp % 300: (stamp, 0.0, 0.0)}, set())))
    assert len(pending._voxels) <= 64
    told = pending.drain()
    assert len(told.samples) <= 512
    assert [told.samples[0].stamp, told.samples[-1].stamp] == [0, 4999]
    assert sorted(told.voxels.ids) == list(range(300))
    assert told.voxels.means[:, 0].min() == 4700.0
    assert told.samples[-1].losses == {"before": 2.0}


def test_a_new_map_does_not_begin_with_what_waited_of_the_old_one():
    pending = Pending()
    pending.take(estimate(1, update({1: (0.0, 0.0, 0.0)}, set())))
    pending.clear()
    pending.take(estimate(2, update({2: (0.0, 0.0, 0.0)}, set())))
    told = pending.drain()
    assert told.restarted
    assert told.voxels.ids.tolist() == [2]
    pending.take(estimate(3))
    assert not pending.drain().restarted


def test_a_robot_that_is_not_found_has_no_place_and_no_curves():
    pending = Pending()
    pending.take(estimate(1, localisation="localising"))
    told = pending.drain()
    assert (told.pose, told.samples, told.localisation) == (None, (), "localising")
