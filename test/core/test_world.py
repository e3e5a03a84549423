"""The world model against a naive dictionary of rows, and the faults that caches bring."""

import numpy as np
import pytest
from factor_rows import random_pose
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dsg_ros import poses
from dsg_ros.core.factors import FACTOR_TYPES, OdomSE3, PosePrior, Registration, VoxelPrior, VoxelSensorObs
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.world import Capacity, WorldModel

KEYS = {Registration: ("first", "second"), VoxelSensorObs: ("pose", "voxel"), VoxelPrior: ("voxel",)}
choices = st.integers(0, 10**6)


class WorldMachine(RuleBasedStateMachine):
    """Random additions, removals and changes; ``rows`` maps an id to (type, keys, weight)."""

    def __init__(self):
        super().__init__()
        self.world, self.rows, self.dead = WorldModel(), {}, []
        self.poses, self.voxels = [], []

    @rule(x=st.floats(-9, 9))
    def add_pose(self, x):
        pose = poses.from_planar(x, 0.0, x)
        assert self.world.add_pose(pose) == len(self.poses)
        self.poses.append(pose)

    @rule(x=st.floats(-9, 9))
    def add_voxel(self, x):
        assert self.world.add_voxel([x, 1, 2]) == len(self.voxels)
        self.voxels.append([x, 1, 2])

    def draw_keys(self, cls, a, b):
        pools = {"voxel": len(self.voxels)}
        return tuple(n % pools.get(name, len(self.poses)) for name, n in zip(KEYS[cls], (a, b), strict=False))

    @precondition(lambda self: self.poses and self.voxels)
    @rule(cls=st.sampled_from(list(KEYS)), a=choices, b=choices, count=st.integers(1, 20), weight=st.floats(0.1, 9))
    def add_rows(self, cls, a, b, count, weight):
        keys = [self.draw_keys(cls, a + i, b + 2 * i) for i in range(count)]
        columns = dict(zip(KEYS[cls], np.array(keys).T, strict=True))
        for row, chosen in zip(self.world.add_rows(cls, **columns, weight=np.full(count, weight)), keys, strict=True):
            assert int(row) not in self.rows
            assert int(row) not in self.dead
            self.rows[int(row)] = (cls, chosen, weight)

    @precondition(lambda self: self.rows)
    @rule(n=choices, count=st.integers(1, 15))
    def remove(self, n, count):
        chosen = [sorted(self.rows)[(n + 7 * i) % len(self.rows)] for i in range(min(count, len(self.rows)))]
        chosen = list(dict.fromkeys(chosen))
        self.world.remove(chosen)
        for row in chosen:
            del self.rows[row]
        self.dead += chosen

    @precondition(lambda self: self.rows)
    @rule(n=choices, a=choices, b=choices, weight=st.floats(0.1, 9))
    def rewire(self, n, a, b, weight):
        row = sorted(self.rows)[n % len(self.rows)]
        cls = self.rows[row][0]
        keys = self.draw_keys(cls, a, b)
        self.world.set_rows(row, **dict(zip(KEYS[cls], keys, strict=True)), weight=weight)
        self.rows[row] = (cls, keys, weight)

    @precondition(lambda self: self.dead)
    @rule(n=choices)
    def dead_ids_stay_dead(self, n):
        with pytest.raises(KeyError):
            self.world.remove(self.dead[n % len(self.dead)])

    @precondition(lambda self: self.poses)
    @rule(n=choices, x=st.floats(-9, 9))
    def move(self, n, x):
        self.poses[n % len(self.poses)] = poses.from_planar(x, 1.0, 0.0)
        self.world.set_poses(n % len(self.poses), self.poses[n % len(self.poses)])

    def expected(self, inside, held=()):
        return sorted(
            (cls.__name__, keys, weight)
            for cls, keys, weight in self.rows.values()
            if all(inside(n, k) for n, k in zip(KEYS[cls], keys, strict=True))
            and any((n, k) not in held for n, k in zip(KEYS[cls], keys, strict=True))
        )

    def found(self, problem):
        out = []
        for stack in problem.factors:
            for i in np.flatnonzero(stack.weight):
                names = KEYS[type(stack)]
                table = [problem.voxel_keys if n == "voxel" else problem.pose_keys for n in names]
                keys = tuple(int(t[getattr(stack, n)[i]]) for n, t in zip(names, table, strict=True))
                out.append((type(stack).__name__, keys, float(stack.weight[i])))
        return sorted(out)

    @invariant()
    def whole_snapshot_is_the_model(self):
        problem = self.world.snapshot()
        assert self.found(problem) == self.expected(lambda *_: True)
        np.testing.assert_allclose(problem.state.poses[: len(self.poses)], np.reshape(self.poses, (-1, 7)))
        touched = {
            k for cls, keys, _ in self.rows.values() for n, k in zip(KEYS[cls], keys, strict=True) if n != "voxel"
        }
        assert set(np.flatnonzero(problem.free_poses.any(axis=1)).tolist()) == touched

    @invariant()
    def part_snapshot_is_the_model_restricted(self):
        free = set(range(0, len(self.poses), 2))
        held = {k for k in range(1, len(self.poses), 2) if k % 3 == 0}
        voxels = set(range(0, len(self.voxels), 2))
        problem = self.world.snapshot(sorted(free), sorted(voxels), fixed=sorted(held))
        held_names = {(n, k) for k in held for n in ("first", "second", "pose")}
        wanted = self.expected(lambda n, k: k in (voxels if n == "voxel" else free | held), held_names)
        assert self.found(problem) == wanted
        assert not set(problem.pose_keys[problem.free_poses.all(axis=1)].tolist()) & held


WorldMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestWorld = WorldMachine.TestCase


def solved(world):
    solution = solve(world.snapshot(), to_float64(Theta.neutral()), LevenbergMarquardt(SparseCholesky()))
    return np.asarray(solution.state.poses)


def test_a_changed_measurement_and_a_rewired_row_are_seen():
    world = WorldModel()
    for _ in range(3):
        world.add_pose(poses.IDENTITY)
    world.add(PosePrior, pose=0, sqrt_info=10 * np.eye(6))
    row = world.add(Registration, first=0, second=1, measured=poses.from_planar(1.0, 0.0, 0.0))
    np.testing.assert_allclose(solved(world)[1, 0], 1.0, atol=1e-9)
    world.set_rows(row, measured=poses.from_planar(2.0, 0.0, 0.0))
    np.testing.assert_allclose(solved(world)[1, 0], 2.0, atol=1e-9)
    world.set_rows(row, second=2)
    np.testing.assert_allclose(solved(world)[:3, 0], [0.0, 0.0, 2.0], atol=1e-9)


def test_refusals_say_what_is_wrong():
    world = WorldModel()
    world.add_pose(random_pose(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="seven finite numbers"):
        world.add_pose([0, 0, np.nan, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="norm 1"):
        world.add_pose([0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(KeyError, match="no pose has the key 5"):
        world.add(Registration, first=0, second=5)
    with pytest.raises(ValueError, match="which second"):
        world.add(Registration, first=0)
    with pytest.raises(ValueError, match=r"Registration\.measured: shape"):
        world.add(Registration, first=0, second=0, measured=np.zeros(6))
    with pytest.raises(ValueError, match="not finite"):
        world.add(PosePrior, pose=0, mean=np.full(7, np.nan))
    with pytest.raises(ValueError, match="no field 'means'"):
        world.add(PosePrior, pose=0, means=np.zeros(7))
    row = world.add(PosePrior, pose=0)
    with pytest.raises(KeyError, match="twice"):
        world.remove([row, row])
    with pytest.raises(ValueError, match="1 PosePrior rows do not fit into a capacity of 0"):
        world.snapshot(capacity=Capacity(2))


def test_every_type_has_a_table():
    world = WorldModel()
    assert [world.count(cls) for cls in FACTOR_TYPES] == [0] * len(FACTOR_TYPES)


def test_rows_with_fewer_keys_than_others_are_refused_whole():
    world = WorldModel()
    for _ in range(3):
        world.add_pose(poses.IDENTITY)
    with pytest.raises(ValueError, match=r"OdomSE3\.current: 2 keys for 3 rows"):
        world.add_rows(OdomSE3, previous=[0, 1, 2], current=[1, 2])
    assert world.count(OdomSE3) == 0
    world.add_rows(OdomSE3, previous=[0, 1], current=2)  # one key for all
    assert world.rows(OdomSE3)[1]["current"].tolist() == [2, 2]


def test_a_world_is_restored_and_its_state_stays_as_it_was_told() -> None:
    """Rows removed, their slots used again, a graph that goes on: none of it is seen in the state."""
    world = WorldModel()
    world.add_poses(np.repeat(poses.IDENTITY[None], 4, axis=0))
    rows = [world.add(Registration, first=k, second=k + 1, measured=poses.from_planar(k, 0, 0)) for k in range(3)]
    world.remove(rows[1:2])
    state = world.state()
    kept = {name: array.copy() for name, array in state.items()}
    again = WorldModel()
    again.restore(kept)
    for each in (world, again):
        new = each.add(Registration, first=0, second=3, measured=poses.from_planar(9, 0, 0))  # in the free slot
        each.set_rows(rows[:1], weight=0.5)
        each.set_poses([2], poses.from_planar(5, 0, 0)[None])
        assert new not in rows
        with pytest.raises(KeyError, match="removed already"):
            each.set_rows(rows[1:2], weight=1.0)
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name], err_msg=name)
    for name, array in world.state().items():
        np.testing.assert_array_equal(array, again.state()[name], err_msg=name)
    assert again.count(Registration) == 3
    with pytest.raises(KeyError, match="no pose has the key"):
        WorldModel().restore(kept | {"pose": kept["pose"][:2]})
    with pytest.raises(ValueError, match="is kept"):
        WorldModel().restore(kept | {"pose": kept["pose"].astype(np.float32)})
