"""A map made by the pipeline, kept in a folder, and the robot found and followed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, OdometryTrack, SavedMap
from dsg_ros.io.map_folder import read_map, write_map
from dsg_ros.localisation import Localisation, from_folder
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]

WALLS = worlds.polygon((0, 0), (9, 0), (9, 4), (5, 4), (5, 7), (2, 7), (2, 5), (0, 5))
"""A room without symmetry."""

ROUTE = ((1.5, 1.5), (7.5, 2.0), (3.5, 2.5), (3.5, 6.0), (3.5, 3.0), (1.0, 3.0), (1.5, 1.5))


@pytest.fixture(scope="module")
def made() -> tuple[Slam, Array]:
    """A run that made a map, and where it began."""
    truth = worlds.drive(ROUTE)
    slam = Slam(config.Slam())
    for frame in worlds.frames(WALLS, truth, worlds.biased(truth, scale=1.03, turn_per_metre=0.02)):
        slam.process(frame)
    slam.finish()
    return slam, truth[0]


@pytest.fixture(scope="module")
def saved(made: tuple[Slam, Array], tmp_path_factory: pytest.TempPathFactory) -> SavedMap:
    folder = tmp_path_factory.mktemp("made") / "map"
    write_map(folder, made[0].saved_map("simulated"))
    return read_map(folder)


@pytest.fixture
def inside(saved: SavedMap) -> Localisation:
    localisation = Localisation(config.Slam(), saved)
    localisation.warm_up(planar=True)
    return localisation


def in_map(made: tuple[Slam, Array], truth: Array) -> Array:
    """Where ``truth`` (n, 7) lies in the map, which begins at the run's first pose."""
    return poses.between(made[1], truth)


def errors(estimates: Sequence[Estimate], truth: Array) -> Array:
    """Metres (n,), NaN where the robot was not localised."""
    distance = np.linalg.norm([e.pose[:3] - t[:3] for e, t in zip(estimates, truth, strict=True)], axis=1)
    return np.where([e.localisation == "localised" for e in estimates], distance, np.nan)


def drive(start: tuple[float, float], *more: tuple[float, float]) -> Array:
    return worlds.drive([start, *more])


def frames(truth: Array, first: int = 0) -> list[Frame]:
    """Scans with odometry that errs as that of the map's run; numbers from ``first`` make stamps and noise."""
    track = worlds.biased(truth, scale=1.03, turn_per_metre=0.02)
    found = []
    for number, (pose, wheels) in enumerate(zip(truth, track, strict=True), first):
        stamp = number * worlds.SECOND // 10
        points = worlds.scan(WALLS, pose, noise=0.01, seed=5000 + number).astype(np.float32)
        found.append(Frame(stamp, points, OdometryTrack(np.array([stamp]), wheels[None]), planar=True))
    return found


def test_the_map_holds_what_the_run_had(made: tuple[Slam, Array], saved: SavedMap) -> None:
    result = made[0].result()
    np.testing.assert_array_equal(saved.poses, result.path.poses)
    np.testing.assert_array_equal(saved.stamps, result.path.stamps)
    np.testing.assert_array_equal(saved.voxels.means, result.voxels.means)
    assert len(saved.clouds) == len(saved.stamps) > 50
    assert {kind: len(fields["weight"]) for kind, fields in saved.rows.items()} == {
        "PosePrior": 1, "OdomSE3": len(saved.stamps) - 1, "Registration": len(saved.stamps) - 1,
        "Loop": result.counts["loops"],
    }  # fmt: skip
    assert {"measured", "sqrt_info", "kernel", "kernel_width"} <= saved.rows["Loop"].keys()
    assert {p.name for p in saved.parameters} >= set(saved.learned)
    assert np.linalg.eigvalsh(saved.information).min() > 0
    assert saved.configuration["keyframes.distance"] == 0.25
    assert saved.planar
    assert result.grid is not None
    assert set(np.unique(saved.grid.cells)) == {-1, 0, 100}


def test_the_robot_is_found_anywhere_and_followed(
    made: tuple[Slam, Array], saved: SavedMap, inside: Localisation
) -> None:
    """From the middle of the map, the other way round; what is told before it is found is marked as not known."""
    truth = drive((3.0, 5.5), (3.2, 2.5), (7.0, 1.5), (7.0, 3.0), (2.0, 1.0))
    with CompileCounter() as compilations:
        estimates = [inside.estimate(frame) for frame in frames(truth)]
    off = errors(estimates, in_map(made, truth))
    known = np.isfinite(off)
    assert known[-1]
    first = int(np.argmax(known))
    assert first < 30
    assert known[first:].all()
    assert {e.localisation for e in estimates[:first]} <= {"localising"}
    assert all(e.known == k for e, k in zip(estimates, known, strict=True))
    assert np.nanmax(off) < 0.1
    turned = poses.yaw(poses.between(in_map(made, truth)[known], np.array([e.pose for e in estimates])[known]))
    assert np.abs(turned).max() < 0.02
    assert compilations.count == 0
    assert estimates[-1].metrics["compilations_after_warm_up"] == 0
    counts = estimates[-1].counts
    assert counts["scans_localised"] + counts["scans_not_localised"] == counts["scans"] == len(truth)
    assert (counts["relocalised"], counts["lost"]) == (1, 0)
    # The map is shown once, and is as it was.
    assert [e.voxels is not None for e in estimates] == [True] + [False] * (len(estimates) - 1)
    assert inside.saved_map() is saved
    result = inside.finish()
    assert len(result.stamps) == counts["scans_localised"] == len(result.trajectory)
    np.testing.assert_array_equal(result.trajectory, np.array([e.pose for e in estimates])[known])
    assert len(result.path.stamps) == len(saved.stamps)
    assert result.grid is not None


def test_the_truth_lies_within_the_covariance(made: tuple[Slam, Array], inside: Localisation) -> None:
    truth = drive((3.0, 5.5), (3.2, 2.5), (7.0, 1.5))
    within = []
    for frame, pose in zip(frames(truth), in_map(made, truth), strict=True):
        estimate = inside.estimate(frame)
        np.testing.assert_allclose(estimate.covariance, estimate.covariance.T, atol=1e-15)
        assert np.linalg.eigvalsh(estimate.covariance).min() > 0
        if estimate.known:
            error = poses.log(poses.between(estimate.pose, pose))[[0, 1, 5]]
            # The map's own error, a centimetre, is none of the robot's.
            covariance = estimate.covariance[np.ix_([0, 1, 5], [0, 1, 5])] + np.diag([1e-4, 1e-4, 1e-5])
            within.append(error @ np.linalg.solve(covariance, error) < 16.3)
    assert np.mean(within) > 0.9


def test_a_kidnapped_robot_is_lost_and_found_again(made: tuple[Slam, Array], inside: Localisation) -> None:
    before, after = drive((1.5, 1.5), (5.0, 2.0)), drive((3.0, 6.3), (3.0, 3.0), (7.0, 2.0))
    for frame in frames(before):
        last = inside.estimate(frame)
    assert last.localisation == "localised"
    # Carried off: the odometry does not notice.
    joined = frames(np.concatenate([before, after]))[len(before) :]
    carried = worlds.biased(np.concatenate([before, poses.compose(before[-1], poses.between(after[0], after))]))
    estimates = []
    for number, frame in enumerate(joined):
        track = OdometryTrack(np.array([frame.stamp]), carried[len(before) + number][None])
        estimates.append(inside.estimate(replace(frame, odometry=track)))
    states = [e.localisation for e in estimates]
    lost = states.index("lost")
    assert lost <= 2 * config.Slam().relocalisation.lost_scans
    found = states.index("localised", lost)
    assert set(states[found:]) == {"localised"}
    assert np.nanmax(errors(estimates, in_map(made, after))[found:]) < 0.1
    assert (estimates[-1].counts["lost"], estimates[-1].counts["relocalised"]) == (1, 2)


def test_blind_scans_are_bridged_by_odometry(made: tuple[Slam, Array], inside: Localisation) -> None:
    """A glass wall, a hand on the sensor: that is no reason to be lost."""
    truth = drive((3.0, 6.3), (3.2, 2.5), (7.0, 1.5))
    estimates = []
    for number, frame in enumerate(frames(truth)):
        blind = 40 <= number < 60
        estimates.append(inside.estimate(replace(frame, points=frame.points[:0]) if blind else frame))
    assert estimates[39].localisation == "localised"
    off = errors(estimates[40:], in_map(made, truth)[40:])
    assert np.isfinite(off).all()
    assert off[19] < 0.2
    assert off[25:].max() < 0.1
    assert estimates[-1].counts["scans_on_odometry_alone"] == 20
    assert estimates[-1].counts["lost"] == 0


def test_a_stuck_beam_is_told_and_left_out(made: tuple[Slam, Array], inside: Localisation) -> None:
    truth = worlds.drive(ROUTE)
    stuck = np.array([[0.4, 0.1, 0.0]], np.float32)
    estimates = [inside.estimate(replace(f, points=np.vstack([f.points[1:], stuck]))) for f in frames(truth)]
    assert estimates[-1].counts["beams_stuck"] == 1
    assert np.nanmax(errors(estimates, in_map(made, truth))) < 0.1
    assert estimates[-1].metrics["inliers"] > 0.95


def test_a_hint_is_followed_where_it_fits_and_dropped_where_not(made: tuple[Slam, Array], inside: Localisation) -> None:
    truth = drive((3.0, 6.3), (3.2, 2.5), (7.0, 1.5), (2.0, 1.0))
    there = in_map(made, truth)
    inside.hint(poses.compose(there[0], poses.from_planar(0.3, -0.2, 0.2)), 1.0, 0.5)
    first = inside.estimate(frames(truth)[0])
    assert first.localisation == "localised"
    assert errors([first], there[:1])[0] < 0.1
    inside.hint(poses.compose(there[0], poses.from_planar(0.0, 0.0, np.pi)), 0.5, 0.3)
    estimates = [inside.estimate(frame) for frame in frames(truth)[1:]]
    assert estimates[0].localisation == "localising"
    assert estimates[-1].localisation == "localised"
    assert errors(estimates, there[1:])[-1] < 0.1
    assert (estimates[-1].counts["hints"], estimates[-1].counts["hints_refused"]) == (2, 1)


def test_a_robot_somewhere_else_is_never_localised(inside: Localisation) -> None:
    truth = worlds.drive([(-3.0, -2.0), (3.0, -2.0), (3.0, 0.5), (-2.0, 2.0)])
    for frame in worlds.frames(worlds.room(), truth, truth):
        estimate = inside.estimate(frame)
        assert estimate.localisation == "localising"
    result = inside.finish()
    assert len(result.trajectory) == len(result.stamps) == 0
    assert estimate.counts["scans_not_localised"] == len(truth)
    assert estimate.counts["searches_score"] + estimate.counts["searches_overlap"] > 5


def test_standing_still_one_search_is_enough(inside: Localisation) -> None:
    """Elsewhere, so that none succeeds: there is another only after a while."""
    pose = poses.from_planar(-2.0, 0.0, 0.0)
    for frame in worlds.frames(worlds.room(), np.repeat(pose[None], 120, axis=0), np.repeat(pose[None], 120, axis=0)):
        counts = inside.estimate(frame).counts
    searches = sum(n for name, n in counts.items() if name.startswith("searches_"))
    assert searches == 1 + int(11.9 / config.Slam().relocalisation.retry)


def test_scans_of_the_other_kind_are_counted(inside: Localisation) -> None:
    frame = replace(frames(drive((3.0, 6.3), (3.2, 2.5)))[0], planar=False)
    estimate = inside.estimate(frame)
    assert estimate.localisation == "localising"
    assert estimate.counts["scans_of_other_kind"] == 1


def test_the_grid_comes_once(inside: Localisation, saved: SavedMap) -> None:
    whole = inside.grid_changes(0)
    assert whole.whole
    assert len(whole.tiles) == len(saved.grid.tiles) > 0
    nothing = inside.grid_changes(whole.version)
    assert not nothing.whole
    assert len(nothing.tiles) == 0


def test_a_map_without_keyframes_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "map", Slam(config.Slam()).saved_map())
    with pytest.raises(UserError, match="no keyframe"):
        from_folder(replace(config.Node(), map_folder=str(tmp_path / "map")))


def test_a_robot_that_waits_to_be_found_is_not_told_to_have_dead_odometry(inside: Localisation) -> None:
    pose = poses.from_planar(3.0, 5.5, 0.0)
    points = np.random.default_rng(0).uniform(-2.0, 2.0, (180, 3)) * [1.0, 1.0, 0.0]  # of another place
    for number in range(60):
        track = OdometryTrack(np.array([number * worlds.SECOND // 10]), pose[None])
        told = inside.estimate(Frame(int(track.stamps[0]), points.astype(np.float32), track, planar=True))
    assert told.localisation != "localised"
    assert told.counts["odometry_stands_still"] == 0


def test_a_robot_without_odometry_is_found_and_followed(made: tuple[Slam, Array], saved: SavedMap) -> None:
    inside = Localisation(config.replace(config.Slam(), {"input.odometry": "none"}), saved)
    inside.warm_up(planar=True)
    truth = drive((3.0, 5.5), (3.2, 2.5), (7.0, 1.5), (7.0, 3.0), (2.0, 1.0))
    with CompileCounter() as compilations:
        estimates = [inside.estimate(frame) for frame in frames(truth)]
    off = errors(estimates, in_map(made, truth))
    first = int(np.argmax(np.isfinite(off)))
    assert np.isfinite(off[first:]).all()
    assert np.nanmax(off) < 0.1
    assert first < 60
    assert compilations.count == 0


@pytest.mark.parametrize("odometry", ["none", "measured"])
def test_a_place_that_was_told_wrong_is_given_up_by_a_robot_that_stands(
    odometry: str, made: tuple[Slam, Array], saved: SavedMap
) -> None:
    """Nothing tells of another place to look from: it is enough to have looked for a while."""
    inside = Localisation(config.replace(config.Slam(), {"input.odometry": odometry}), saved)
    pose = poses.from_planar(3.2, 2.5, -0.1)
    truth = np.tile(pose, (200, 1))
    inside.hint(poses.compose(in_map(made, pose), poses.from_planar(3.5, 0.0, np.pi)), 0.5, 0.3)
    estimates = [inside.estimate(frame) for frame in frames(truth)]
    assert estimates[0].localisation == "localising"
    assert estimates[-1].localisation == "localised"
    assert errors(estimates, in_map(made, truth))[-1] < 0.1
    assert estimates[-1].counts["hints_refused"] == 1


def test_without_odometry_a_robot_that_stops_at_once_is_followed(
    made: tuple[Slam, Array], saved: SavedMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each scan is matched from where the robot was, too: it may have stopped."""
    inside = Localisation(config.replace(config.Slam(), {"input.odometry": "none"}), saved)
    starts: list[int] = []
    register = inside.mapper.register

    def counted(local_map, points, begun, *rest):
        starts.append(len(begun))
        return register(local_map, points, begun, *rest)

    monkeypatch.setattr(inside.mapper, "register", counted)
    for frame in frames(drive((3.2, 4.5), (3.2, 2.5), (3.6, 2.4))):
        estimate = inside.estimate(frame)
    assert estimate.localisation == "localised"
    assert starts[-1] == 3


def test_without_odometry_a_robot_that_was_not_seen_for_a_while_is_looked_for(
    made: tuple[Slam, Array], saved: SavedMap
) -> None:
    """Where it was first, then everywhere."""
    before, elsewhere = drive((3.2, 4.5), (3.2, 2.5)), drive((7.0, 1.5), (6.5, 2.5), (6.0, 1.5))
    for gone, refused in (
        (before[-1:].repeat(30, axis=0), 0),
        (np.vstack([elsewhere, elsewhere[-1:].repeat(60, axis=0)]), 1),
    ):
        inside = Localisation(config.replace(config.Slam(), {"input.odometry": "none"}), saved)
        for frame in frames(before):
            last = inside.estimate(frame)
        assert last.localisation == "localised"
        for frame in frames(before[-1:].repeat(60, axis=0), len(before)):
            hidden = inside.estimate(replace(frame, points=frame.points[:5]))
        assert hidden.localisation == "lost"
        estimates = [inside.estimate(frame) for frame in frames(gone, len(before) + 60)]
        assert estimates[-1].localisation == "localised"
        assert np.nanmax(errors(estimates, in_map(made, gone))) < 0.1
        assert estimates[-1].counts["lost_from_sight"] == 1
        assert estimates[-1].counts["hints_refused"] <= refused
