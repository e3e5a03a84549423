"""The whole pipeline on a simulated drive round a block, with odometry that is wrong in a steady way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.core.factors import VoxelSensorObs, odometry
from dsg_ros.effect import Effect
from dsg_ros.grid_store import GridStore
from dsg_ros.interface import Estimate, Frame, OccupancyGrid, Path, RunResult, VoxelUpdate
from dsg_ros.mapping.tracking import Tracked
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]
LAPS = 1.25


@dataclass(frozen=True)
class Drive:
    """A drive as recorded: poses (n, 7) seen from the first one, odometry (n, 7), and one frame a pose."""

    truth: Array
    odometry: Array
    frames: list[Frame]


@dataclass(frozen=True)
class Run:
    """All that a run gave."""

    estimates: list[Estimate]
    before: RunResult
    snapshot: tuple[Path, VoxelUpdate]
    told: OccupancyGrid
    effect: Effect
    result: RunResult
    compilations: int


@pytest.fixture(scope="module")
def drive() -> Drive:
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, LAPS))
    odometry = worlds.biased(truth, scale=1.03, turn_per_metre=0.02)
    frames = list(worlds.frames(worlds.block(), truth, odometry))
    return Drive(poses.between(truth[0], truth), odometry, frames)


@pytest.fixture(scope="module")
def run(drive: Drive) -> Run:
    # What other tests have compiled would hide what this run has to.
    jax.clear_caches()
    odometry._mapped.clear()  # where the map of this theta is at hand, nothing is asked of JAX until theta is another
    slam = Slam(eager())
    slam.warm_up(planar=True)
    with CompileCounter() as running:
        estimates, told = [], GridStore()
        for frame in drive.frames:
            estimates.append(slam.process(frame))
            if estimates[-1].keyframe:
                told.update(slam.grid_changes(told.version))
        before, snapshot, effect = slam.result(), slam.snapshot_map(), slam.what_if("scale", "1 %")
        result = slam.finish()
    return Run(estimates, before, snapshot, told.grid, effect, result, running.count)


def eager() -> config.Slam:
    """Settings under which a few closures are enough for a global solve, however little they move."""
    settings = config.Slam()
    return replace(settings, loops=replace(settings.loops, solve_after=3))


def still() -> config.Slam:
    """Settings under which the odometry is taken as it comes."""
    settings = config.Slam()
    return replace(settings, learning=replace(settings.learning, enabled=False))


def errors(found: Array, truth: Array) -> Array:
    """Distances (n,) in metres; both start at the identity."""
    return np.linalg.norm(found[:, :3] - truth[:, :3], axis=1)


def test_the_trajectory_is_right_where_odometry_is_metres_off(drive: Drive, run: Run) -> None:
    assert errors(drive.odometry, drive.truth).max() > 3.0
    assert run.result.counts["loops"] >= 1
    assert run.result.counts["voxels_merged"] >= 1
    assert errors(run.result.trajectory, drive.truth).mean() < 0.05
    assert errors(run.result.trajectory, drive.truth).max() < 0.15
    turned = poses.yaw(poses.between(drive.truth, run.result.trajectory))
    assert np.abs(turned).max() < 0.02


def test_the_live_pose_never_strays(drive: Drive, run: Run) -> None:
    live = np.array([estimate.pose for estimate in run.estimates])
    assert errors(live, drive.truth).max() < 0.5
    np.testing.assert_array_equal(run.result.live, live)


@pytest.mark.parametrize("count", ["loops_considered", "loops", "graph_solves"])
def test_an_estimate_waits_for_nothing_that_is_for_the_map(run: Run, count: str) -> None:
    told = np.array([estimate.counts[count] for estimate in run.estimates])
    keyframe = np.array([estimate.keyframe for estimate in run.estimates])
    done = np.diff(told) > 0
    assert done.any()
    assert keyframe[:-1][done].all()  # by the estimate before
    assert not keyframe[1:][done].all()


def test_a_tear_is_kept_until_a_keyframe_has_it(drive: Drive) -> None:
    slam, again = Slam(still()), Slam(still())
    for frame in drive.frames[:40]:
        slam.process(frame)
    slam._map.tracker.torn = True
    slam.optimize()
    again.restore(slam.state())
    before, seen = len(again._map.keyframes), []
    again._map.retirement.look = lambda *args: (seen.append(args[4]), np.zeros(0, np.int64))[1]  # type: ignore[method-assign]
    track = again._map.tracker.track

    def slips(*args: Any, **named: Any) -> Tracked:
        tracked = track(*args, **named)
        again._map.tracker.torn |= len(again._map.keyframes) == before
        return tracked

    assert again._map.tracker.torn
    again._map.tracker.track = slips  # type: ignore[method-assign]
    for frame in drive.frames[40:60]:
        again.process(frame)
    torn = again._map.keyframes.torn.values
    np.testing.assert_array_equal(np.flatnonzero(torn), [before])
    assert len(seen) == len(torn) - before
    for near, newest in zip(seen, range(before, len(torn)), strict=True):
        np.testing.assert_array_equal(near[: newest + 1], np.arange(newest + 1) >= before)


def test_a_job_that_fails_is_not_done_again(drive: Drive) -> None:
    slam, calls = Slam(still()), []

    def fails() -> None:
        calls.append(1)
        raise ValueError("for a test")

    slam.process(drive.frames[0])
    slam._left = [fails, lambda: calls.append(2)]
    with pytest.raises(ValueError, match="for a test"):
        slam.catch_up()
    slam.catch_up()
    assert calls == [1]


def test_what_is_left_is_done_before_anything_else(drive: Drive) -> None:
    slam = Slam(still())
    for frame in drive.frames[:30]:
        slam.estimate(frame)
    done = Slam(still())
    for frame in drive.frames[:30]:
        done.process(frame)
    np.testing.assert_array_equal(slam.result().trajectory, done.result().trajectory)


def test_a_map_that_nobody_watches_is_the_same(drive: Drive) -> None:
    watched, alone = Slam(still()), Slam(still(), shown=False)
    for frame in drive.frames[:30]:
        told, untold = watched.process(frame), alone.process(frame)
        assert (told.path is not None) is (told.voxels is not None) is told.keyframe
        assert untold.path is None
        assert untold.voxels is None
        np.testing.assert_array_equal(untold.pose, told.pose)
    found, same = watched.result(), alone.result()
    np.testing.assert_array_equal(same.voxels.means, found.voxels.means)
    np.testing.assert_array_equal(same.path.poses, found.path.poses)


def test_nothing_compiles_after_warm_up(run: Run) -> None:
    with CompileCounter() as counter:  # which does count
        jax.jit(lambda x: 3 * x + 1)(np.arange(5)).block_until_ready()
    assert counter.count > 0
    assert run.compilations == 0
    assert run.estimates[-1].metrics["compilations_after_warm_up"] == 0.0


def test_a_what_if_is_answered_on_the_way_and_changes_nothing(run: Run) -> None:
    effect, scale = run.effect, next(p for p in run.before.parameters if p.name == "odometry.scale")
    assert (effect.name, effect.value, effect.sigma, effect.status) == (
        scale.name, pytest.approx(scale.value), scale.sigma, scale.status,
    )  # fmt: skip
    assert len(effect.moved) == len(run.before.path.stamps)
    assert effect.last[0] > 0.0
    assert effect.disagreement < 0.05
    np.testing.assert_array_equal(run.snapshot[0].poses, run.before.path.poses)


def test_one_pose_per_scan_in_order(drive: Drive, run: Run) -> None:
    count = len(drive.frames)
    for result in (run.before, run.result):
        np.testing.assert_array_equal(result.stamps, [frame.stamp for frame in drive.frames])
        for trajectory in (result.trajectory, result.causal, result.live, result.odometry):
            assert trajectory.shape == (count, 7)
            np.testing.assert_allclose(np.linalg.norm(trajectory[:, 3:], axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(run.result.odometry, drive.odometry, atol=1e-12)
    assert [estimate.stamp for estimate in run.estimates] == [frame.stamp for frame in drive.frames]
    assert run.result.counts["scans"] == count


def test_results_agree_with_each_other(run: Run) -> None:
    path, voxels = run.snapshot
    np.testing.assert_array_equal(run.before.path.poses, path.poses)
    np.testing.assert_array_equal(run.before.voxels.ids, voxels.ids)
    np.testing.assert_array_equal(run.before.trajectory, run.before.causal)
    keyframes = [estimate for estimate in run.estimates if estimate.keyframe]
    np.testing.assert_array_equal(path.stamps, [estimate.stamp for estimate in keyframes])
    assert len(path.stamps) == run.result.counts["keyframes"] == len(run.result.path.stamps)
    assert len(run.result.path.loops) == run.result.counts["loops"]
    # A keyframe's own scan lies on the path.
    on_path = np.isin(run.result.stamps, path.stamps)
    np.testing.assert_allclose(run.result.causal[on_path], run.result.path.poses, atol=1e-9)
    # The final refinement moves scans between keyframes by little, and keyframes not at all.
    assert errors(run.result.trajectory, run.result.causal).max() < 0.1
    np.testing.assert_allclose(run.result.trajectory[on_path], run.result.path.poses, atol=1e-9)


def test_bytes_are_told_by_part(drive: Drive) -> None:
    slam = Slam(still())
    estimates = [slam.process(frame) for frame in drive.frames[:150]]
    told = estimates[-1].metrics
    keyframes, scans, world = slam._map.keyframes, slam._map.scans, slam._map.back_end.world
    assert told["memory_bytes.keyframes"] == sum(c.nbytes for c in keyframes.clouds) + len(keyframes) * (8 + 56 + 8 + 1)
    assert told["memory_bytes.scans"] > sum(cloud.nbytes for cloud in scans.clouds[:-10]) > 0
    _, rows = world.rows(VoxelSensorObs)
    of_rows, of_voxels = sum(column.nbytes for column in rows.values()), world.voxels.nbytes
    assert of_rows + of_voxels < told["memory_bytes.sightings"] < 1.3 * (of_rows + of_voxels)
    assert told["memory_bytes.graph"] > world.poses.nbytes
    parts = {name for name in told if name.startswith("memory_bytes.")}
    halfway = [each.metrics for each in estimates[:75] if each.keyframe][-1]
    assert all(0 < halfway[name] < told[name] for name in parts - {"memory_bytes.voxels"})
    assert 0 < halfway["memory_bytes.voxels"] <= told["memory_bytes.voxels"]  # mostly a hash table that doubles


def test_loops_link_visits_of_one_place(drive: Drive, run: Run) -> None:
    number = {frame.stamp: index for index, frame in enumerate(drive.frames)}
    at = np.array([number[stamp] for stamp in run.result.path.stamps])
    for older, newer in run.result.path.loops:
        assert older < newer
        assert np.linalg.norm(drive.truth[at[older], :2] - drive.truth[at[newer], :2]) < 3.0


def test_voxels_lie_on_the_walls(drive: Drive, run: Run) -> None:
    voxels = run.result.voxels
    assert len(np.unique(voxels.ids)) == len(voxels.ids) > 200
    assert voxels.counts.min() >= config.Slam().voxels.least_count
    start = poses.from_planar(*worlds.BLOCK_ROUTE[0], 0.0)
    x, y, z = poses.transform(start, voxels.means.astype(float)).T
    outer = np.minimum(np.abs(np.abs(x) - 8), np.abs(np.abs(y) - 6))
    inner = np.minimum(np.abs(np.abs(x) - 5.5), np.abs(np.abs(y) - 3.5))
    near = np.minimum(outer, inner) < 0.1
    assert near.mean() > 0.7  # the others are on the furniture
    np.testing.assert_allclose(z, 0.0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(voxels.normals, axis=1).round(6) % 1.0, 0.0, atol=1e-5)


def values(grid: OccupancyGrid, points: Array) -> NDArray[np.int8]:
    """What the grid says at points (n, .) in map."""
    columns, rows = np.floor((points[:, :2] - grid.origin) / grid.resolution).astype(int).T
    return grid.cells[rows, columns]


def test_a_kept_map_tells_how_thin_walls_are_and_when_they_were_seen(run: Run) -> None:
    voxels, stamps = run.result.voxels, run.result.path.stamps
    assert np.isin(voxels.first_seen, stamps).all()
    assert (voxels.first_seen <= voxels.last_seen).all()
    assert (voxels.first_seen < voxels.last_seen).any()
    matrices = voxels.covariances[:, [0, 1, 1, 3]].reshape(-1, 2, 2).astype(float)
    thin, wide = np.sqrt(np.maximum(np.linalg.eigvalsh(matrices), 0.0)).T
    walls = np.linalg.norm(voxels.normals, axis=1) > 0.5
    assert np.median(thin[walls]) < 0.03
    assert np.median(wide[walls]) > 2 * np.median(thin[walls])


def test_the_grid_is_free_where_the_robot_drove_and_occupied_at_the_walls(drive: Drive, run: Run) -> None:
    grid = run.result.grid
    assert grid is not None
    assert np.all(values(grid, run.result.trajectory) == 0)
    rows, columns = np.nonzero(grid.cells == 100)
    x, y = (np.stack([columns, rows]) + 0.5) * grid.resolution + np.array(grid.origin)[:, None]
    start = poses.from_planar(*worlds.BLOCK_ROUTE[0], 0.0)
    x, y, _ = poses.transform(start, np.column_stack([x, y, np.zeros(len(x))])).T
    outer = np.minimum(np.abs(np.abs(x) - 8), np.abs(np.abs(y) - 6))
    inner = np.minimum(np.abs(np.abs(x) - 5.5), np.abs(np.abs(y) - 3.5))
    assert (np.minimum(outer, inner) < 0.1).mean() > 0.7  # the others are the furniture
    assert grid.cells.size > len(rows) > 28 / grid.resolution


def test_the_grid_told_on_the_way_is_that_of_the_result(run: Run) -> None:
    """Up to what keyframes may move without being drawn again, and what the final solve moved."""
    grid, told = run.result.grid, run.told
    assert grid is not None
    rows, columns = np.nonzero(grid.cells == 0)
    centres = (np.column_stack([columns, rows]) + 0.5) * grid.resolution + grid.origin
    assert (values(told, centres) == 0).mean() > 0.95


def test_updates_add_up_to_the_whole_map(run: Run) -> None:
    """A listener that keeps the newest of each id has the map."""
    held: dict[int, tuple[Array, int]] = {}
    for estimate in run.estimates:
        if estimate.voxels is None:
            assert not estimate.keyframe
            continue
        for voxel, mean, count in zip(estimate.voxels.ids, estimate.voxels.means, estimate.voxels.counts, strict=True):
            held[int(voxel)] = mean, int(count)
        for voxel in estimate.voxels.removed:
            held.pop(int(voxel))
    _, whole = run.snapshot
    assert sorted(held) == whole.ids.tolist()
    assert [held[voxel][1] for voxel in whole.ids.tolist()] == whole.counts.tolist()
    stale = np.linalg.norm(np.array([held[voxel][0] for voxel in whole.ids.tolist()]) - whole.means, axis=1)
    assert np.median(stale) < 1e-6
    assert stale.max() < 0.1


def test_covariances_are_valid_and_grow_until_a_loop_closes(run: Run) -> None:
    for estimate in run.estimates:
        np.testing.assert_allclose(estimate.covariance, estimate.covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(estimate.covariance).min() > -1e-12
    open_ = [estimate.covariance for estimate in run.estimates if estimate.counts["graph_solves"] == 0]
    assert len(open_) > 200
    # Rotation adds up along the chain; translation may shrink on the way back, for its lever does.
    headings = np.array([covariance[5, 5] for covariance in open_])
    assert np.diff(headings).min() > -1e-15
    assert headings[-1] > 5 * headings[5]
    planar = np.ix_([0, 1, 5], [0, 1, 5])
    volumes = np.array([np.linalg.slogdet(covariance[planar])[1] for covariance in open_])
    assert np.diff(volumes).min() > -1e-6
    # A closure takes back what had added up.
    assert run.estimates[-1].counts["graph_solves"] > 0
    assert run.estimates[-1].covariance[5, 5] < 0.8 * headings[-1]


def test_the_truth_lies_within_the_covariance(drive: Drive, run: Run) -> None:
    within = []
    for estimate, truth in zip(run.estimates, drive.truth, strict=True):
        error = poses.log(poses.between(estimate.pose, truth))[[0, 1, 5]]
        covariance = estimate.covariance[np.ix_([0, 1, 5], [0, 1, 5])]
        within.append(error @ np.linalg.solve(covariance, error) < 16.3)  # chi-square of 3, 0.1 %
    assert np.mean(within) > 0.9


def test_map_from_odom_takes_odometry_to_the_pose(run: Run) -> None:
    for estimate in run.estimates[::50]:
        np.testing.assert_allclose(poses.compose(estimate.map_from_odom, estimate.odometry), estimate.pose, atol=1e-9)


def test_a_second_run_gives_the_same(drive: Drive, run: Run) -> None:
    slam = Slam(eager())
    again = [slam.process(frame).pose for frame in drive.frames[:100]]
    np.testing.assert_array_equal(again, [estimate.pose for estimate in run.estimates[:100]])


def emptied(frames: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        yield replace(frame, points=frame.points[:0])


def test_empty_scans_follow_odometry(drive: Drive) -> None:
    slam = Slam(still())
    for frame in drive.frames[:20]:
        slam.process(frame)
    first = last = slam.process(drive.frames[20])
    for frame in emptied(drive.frames[21:60]):
        estimate = slam.process(frame)
        if not estimate.keyframe:  # at a keyframe the window is solved, which may correct its pose
            step = poses.between(last.odometry, estimate.odometry)
            np.testing.assert_allclose(poses.between(last.pose, estimate.pose), step, atol=1e-6)
        last = estimate
    told = poses.between(first.odometry, last.odometry)
    assert np.linalg.norm(poses.between(first.pose, last.pose)[:3] - told[:3]) < 0.05
    assert last.counts["scans_on_odometry_alone"] == 39
    assert last.counts["keyframes"] > 10  # they are part of the graph all the same
    assert len(slam.finish().trajectory) == 60


def test_a_run_may_begin_with_empty_scans(drive: Drive) -> None:
    slam = Slam(still())
    for frame in emptied(drive.frames[:10]):
        estimate = slam.process(frame)
    np.testing.assert_allclose(estimate.pose, drive.odometry[9], atol=1e-6)
    for frame in drive.frames[10:40]:
        estimate = slam.process(frame)
    assert estimate.counts["scans"] == 40
    result = slam.finish()
    assert np.all(np.isfinite(result.trajectory))
    # Since the tenth scan, the map decides.
    since = poses.between(drive.truth[15], drive.truth[39])
    moved = poses.between(result.trajectory[15], result.trajectory[39])
    assert np.linalg.norm(moved[:3] - since[:3]) < 0.05


def test_scans_of_the_other_kind_are_counted_and_follow_odometry(drive: Drive) -> None:
    slam = Slam(still())
    for frame in drive.frames[:20]:
        last = slam.process(frame)
    stranger = slam.process(replace(drive.frames[20], planar=False))
    assert stranger.counts["scans_of_other_kind"] == 1
    step = poses.between(drive.odometry[19], drive.odometry[20])
    np.testing.assert_allclose(poses.between(last.pose, stranger.pose), step, atol=1e-6)
    assert slam.process(drive.frames[21]).counts["scans_of_other_kind"] == 1
    assert len(slam.result().trajectory) == 22


def test_a_scan_alone_is_a_run(drive: Drive) -> None:
    slam = Slam(config.Slam())
    estimate = slam.process(drive.frames[0])
    assert estimate.keyframe
    np.testing.assert_allclose(estimate.pose, poses.IDENTITY, atol=1e-9)
    result = slam.finish()
    np.testing.assert_allclose(result.trajectory, poses.IDENTITY[None], atol=1e-9)


@pytest.mark.parametrize("warmed", [True, False])
def test_no_scan_at_all_gives_an_empty_result(warmed: bool) -> None:
    slam = Slam(config.Slam())
    if warmed:
        slam.warm_up(planar=True)
    for result in (slam.result(), slam.finish()):
        assert result.trajectory.shape == result.causal.shape == result.live.shape == (0, 7)
        assert result.path.poses.shape == (0, 7)
        assert result.path.loops.shape == (0, 2)
        assert len(result.voxels.ids) == len(result.stamps) == 0
        assert result.counts["scans"] == 0
    path, voxels = slam.snapshot_map()
    assert len(path.stamps) == len(voxels.ids) == 0


def test_the_refinement_may_be_left_out(drive: Drive) -> None:
    settings = still()
    slam = Slam(replace(settings, refinement=replace(settings.refinement, enabled=False)))
    for frame in drive.frames[:30]:
        slam.process(frame)
    result = slam.finish()
    np.testing.assert_array_equal(result.trajectory, result.causal)


def test_what_the_first_keyframe_saw_is_as_sharp_as_what_others_saw(drive: Drive) -> None:
    slam = Slam(still())
    for frame in drive.frames[:30]:
        slam.process(frame)
    _, rows = slam._map.back_end.world.rows(VoxelSensorObs)
    sharpest = [np.linalg.norm(rows["sqrt_info"][rows["pose"] == key], axis=(1, 2)).max() for key in (0, 1)]
    assert sharpest[0] > 0.5 * sharpest[1]  # it had no map to match with, which leaves it in no doubt


def test_updates_keep_a_listener_up_to_date_between_global_solves(drive: Drive) -> None:
    slam = Slam(still())
    held: dict[int, Array] = {}
    for frame in drive.frames[:80]:
        voxels = slam.process(frame).voxels
        if voxels is not None:
            held |= dict(zip(voxels.ids.tolist(), voxels.means, strict=True))
    _, whole = slam.snapshot_map()
    stale = np.linalg.norm(np.array([held[voxel] for voxel in whole.ids.tolist()]) - whole.means, axis=1)
    assert stale.max() < 0.01
