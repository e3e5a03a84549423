"""Finding scans in finished maps of simulated places: exhaustive, sure, and silent where a place has a double."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Hint
from dsg_ros.mapping import relocalisation_kernel as kernel
from dsg_ros.mapping import scan
from dsg_ros.mapping.correlative import flattened
from dsg_ros.mapping.correlative_kernel import LEVELS, MARGIN
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.reference import TILE, Reference
from dsg_ros.mapping.relocalisation import Found, Relocaliser, Verdict

Array = NDArray[np.float64]


def seen(walls: Array, pose: Array, seed: int = 0) -> Array:
    """A scan as the pipeline thins it."""
    return scan.thin(worlds.scan(walls, pose, reach=12.0, noise=0.01, seed=seed), 0.05, 256)


def reference_of(walls: Array, truth: Array, mapper: LocalMapper, settings: config.Relocalisation) -> Reference:
    clouds = [seen(walls, pose, seed) for seed, pose in enumerate(truth)]
    return Reference(settings, mapper, truth, clouds, reach=20.0)


@pytest.fixture(scope="module")
def lap() -> Array:
    """Keyframes of a lap round the block."""
    return worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1), step=0.25, turn=0.25)


@pytest.fixture(scope="module")
def block(lap: Array, mapper: LocalMapper, settings: config.Slam) -> Reference:
    return reference_of(worlds.block(), lap, mapper, settings.relocalisation)


@pytest.fixture(scope="module")
def finder(block: Reference, mapper: LocalMapper, settings: config.Slam) -> Relocaliser:
    return Relocaliser(settings.relocalisation, mapper, block)


def test_branch_and_bound_finds_what_trying_everything_finds() -> None:
    """The best of each bin, for grids of noise, in which bounds are of little help."""
    rng = np.random.default_rng(3)
    finest = np.where(rng.random((56, 48)) < 0.05, 255, 0).astype(np.uint8)
    finest[:MARGIN] = finest[:, :MARGIN] = 0
    grids = np.zeros((LEVELS, *finest.shape), np.uint8)
    for level in range(LEVELS):
        for dx in range(1 << level):
            for dy in range(1 << level):
                part = finest[dx:, dy:]
                grids[level, : part.shape[0], : part.shape[1]] = np.maximum(
                    grids[level, : part.shape[0], : part.shape[1]], part
                )
    cells = rng.integers(-6, 7, (11, 9, 2)).astype(np.int32)
    tiles = np.array([[0, 0], [TILE, 0], [TILE, TILE]])
    least, share = 0.3, 0.7
    nodes, scores = kernel.search(grids, cells, tiles, least, share)
    wanted: dict[tuple[int, int, int], float] = {}
    for angle in range(len(cells)):
        for x0, y0 in tiles.tolist():
            for x in range(x0, x0 + TILE):
                for y in range(y0, y0 + TILE):
                    at = cells[angle] + [x, y]
                    inside = ((at >= 0) & (at < finest.shape)).all(axis=1)
                    score = finest[tuple(at[inside].T)].sum() / (255.0 * len(at))
                    place = angle // kernel.BIN_ANGLES, x >> kernel.BIN_LEVEL, y >> kernel.BIN_LEVEL
                    wanted[place] = max(wanted.get(place, 0.0), score)
    bound = share * max(least, *wanted.values())
    wanted = {place: score for place, score in wanted.items() if score >= bound}
    places = [tuple(row) for row in (nodes >> [3, kernel.BIN_LEVEL, kernel.BIN_LEVEL]).tolist()]
    assert dict(zip(places, scores.tolist(), strict=True)) == pytest.approx(wanted)
    assert len(wanted) > 3


def test_every_place_of_the_map_is_found_from_any_heading(mapper: LocalMapper, settings: config.Slam) -> None:
    """Scans from half a metre beside the path, turned, in a room without symmetry: most are believed, all are right."""
    walls = worlds.polygon((0, 0), (9, 0), (9, 4), (5, 4), (5, 7), (2, 7), (2, 5), (0, 5))
    path = worlds.drive([(1.5, 1.5), (7.5, 2), (3.5, 2.5), (3.5, 6), (3.5, 3), (1, 3)], step=0.25, turn=0.25)
    finder = Relocaliser(settings.relocalisation, mapper, reference_of(walls, path, mapper, settings.relocalisation))
    rng = np.random.default_rng(0)
    verdicts = []
    for trial in range(25):
        offset = poses.from_planar(*rng.uniform(-0.5, 0.5, 2), rng.uniform(-np.pi, np.pi))
        truth = poses.compose(path[rng.integers(len(path))], offset)
        found = finder.search(seen(walls, truth, 1000 + trial))
        verdicts.append(found.verdict)
        if found.verdict is Verdict.ACCEPTED:
            assert_at(found, truth)
    # What sees two corners of a wall alone fits elsewhere too.
    assert verdicts.count(Verdict.ACCEPTED) >= 15
    assert verdicts.count(Verdict.ACCEPTED) + verdicts.count(Verdict.AMBIGUOUS) == len(verdicts)


def assert_at(found: Found, truth: Array) -> None:
    assert found.match is not None
    apart = poses.log(poses.between(truth, found.match.pose))
    assert np.linalg.norm(apart[:3]) < 0.1
    assert np.linalg.norm(apart[3:]) < 0.02


def test_a_place_with_a_double_is_ambiguous_until_more_is_seen(mapper: LocalMapper, settings: config.Slam) -> None:
    """Two rooms alike, one with a cupboard in its other half: what the first half shows could be either's."""
    door = np.array([[[0, 0.6], [0, 3]], [[0, -3], [0, -0.6]]], float)
    shell = np.vstack([worlds.box(0, 0, 16, 6), door.reshape(-1, 4)])
    walls = np.vstack(
        [
            shell,
            worlds.box(-7.6, 1.5, 0.6, 1.2),
            worlds.box(0.4, 1.5, 0.6, 1.2),
            worlds.box(-1.0, -2.4, 1.4, 1.0),
            worlds.box(-1.8, 2.5, 1.5, 0.5),
        ]
    )
    track = np.concatenate(
        [worlds.drive([(x - 1.5, 0.0), (x + 1.5, 0.0), (x - 1.5, 0.0)], step=0.25, turn=0.25) for x in (-4.0, 4.0)]
    )
    reference = reference_of(walls, track, mapper, settings.relocalisation)
    finder = Relocaliser(settings.relocalisation, mapper, reference)
    west = poses.from_planar(-4.0, 0.0, np.pi)  # away from the cupboard
    first = seen(walls, west, 1)
    doubtful = finder.search(first)
    assert doubtful.verdict is Verdict.AMBIGUOUS
    assert doubtful.rival > 0.8
    east = poses.from_planar(-4.0, 0.0, 0.0)
    both = np.concatenate([poses.transform(poses.between(east, west), first), seen(walls, east, 2)])
    found = finder.search(scan.thin(both, 0.15, 256))
    assert found.verdict is Verdict.ACCEPTED
    assert_at(found, east)


def test_a_corridor_is_not_believed(mapper: LocalMapper, settings: config.Slam) -> None:
    walls = worlds.corridor()
    truth = worlds.drive([(-10, 0), (10, 0)], step=0.25)
    finder = Relocaliser(settings.relocalisation, mapper, reference_of(walls, truth, mapper, settings.relocalisation))
    assert finder.search(seen(walls, truth[40])).verdict in (Verdict.AMBIGUOUS, Verdict.LOOSE)


def test_a_direction_that_stays_open_is_loose(mapper: LocalMapper, settings: config.Slam) -> None:
    """A corridor, and a search so narrow that there is no other place."""
    walls = worlds.corridor()
    truth = worlds.drive([(-10, 0), (10, 0)], step=0.25)
    finder = Relocaliser(settings.relocalisation, mapper, reference_of(walls, truth, mapper, settings.relocalisation))
    points = seen(walls, truth[40])
    near = points[np.abs(points[:, 0]) < 3.0]  # without the far end, where beams are few
    assert finder.search(near, Hint(truth[40], 0.1, 0.1)).verdict is Verdict.LOOSE


def test_scans_of_another_place_are_refused(finder: Relocaliser) -> None:
    for number, x in enumerate((-2.0, 0.0, 2.0)):
        found = finder.search(seen(worlds.room(), poses.from_planar(x, 0.0, 0.7 * number), number))
        assert found.verdict in (Verdict.SCORE, Verdict.OVERLAP, Verdict.AMBIGUOUS)


def test_too_few_points_are_not_searched_for(finder: Relocaliser, lap: Array, settings: config.Slam) -> None:
    few = seen(worlds.block(), lap[0])[: settings.relocalisation.least_points - 1]
    assert finder.search(few).verdict is Verdict.SCORE
    assert finder.search(few[:0]).verdict is Verdict.SCORE


def test_a_hint_decides_between_doubles_and_its_bounds_hold(mapper: LocalMapper, settings: config.Slam) -> None:
    """Pillars every 2.4 m: only somebody who knows can tell which."""
    walls, truth = worlds.pillared_corridor(2.4), worlds.drive([(-8, 0), (8, 0)], step=0.25)
    finder = Relocaliser(settings.relocalisation, mapper, reference_of(walls, truth, mapper, settings.relocalisation))
    points = seen(walls, truth[32])
    assert finder.search(points).verdict is Verdict.AMBIGUOUS
    near = poses.compose(truth[32], poses.from_planar(0.4, 0.1, 0.1))
    found = finder.search(points, Hint(near, 0.9, 0.3))
    assert found.verdict is Verdict.ACCEPTED
    assert_at(found, truth[32])
    astray = poses.compose(truth[32], poses.from_planar(1.2, 0.0, 0.0))
    assert finder.search(points, Hint(astray, 0.5, 0.3)).verdict is not Verdict.ACCEPTED


def test_more_places_than_are_looked_at_are_ambiguous(
    block: Reference, lap: Array, mapper: LocalMapper, settings: config.Slam
) -> None:
    everywhere = replace(settings.relocalisation, least_score=0.1, rival_share=0.3, most_places=2)
    assert Relocaliser(everywhere, mapper, block).search(seen(worlds.block(), lap[30])).verdict is Verdict.AMBIGUOUS


def test_regions_hold_every_tile_once_and_what_lies_around(block: Reference, lap: Array, mapper: LocalMapper,
                                                          settings: config.Slam) -> None:  # fmt: skip
    """In small regions, of which none is kept, scans score as in one."""
    whole = block.regions()
    for region in whole:
        assert (region.tiles % TILE == 0).all()
        assert ((region.tiles >= 0) & (region.tiles + TILE <= region.grids.shape[1:])).all()
    corners = np.concatenate([region.corner + region.tiles * settings.relocalisation.resolution for region in whole])
    reach = settings.relocalisation.reach
    for place in lap[::20, :2] + [0.0, reach - 0.2]:
        inside = (corners <= place) & (place < corners + TILE * settings.relocalisation.resolution)
        assert inside.all(axis=1).sum() == 1


def test_a_map_of_many_regions_answers_as_one(
    monkeypatch: pytest.MonkeyPatch, lap: Array, mapper: LocalMapper, settings: config.Slam, finder: Relocaliser
) -> None:
    from dsg_ros.mapping import reference

    points = seen(worlds.block(), lap[30], 77)
    wanted = finder.search(points)
    monkeypatch.setattr(reference, "REGION", 3)
    monkeypatch.setattr(reference, "KEPT_REGIONS", 2)
    parts = reference_of(worlds.block(), lap, mapper, settings.relocalisation)
    assert len(parts.regions()) > 4
    assert len(parts._kept) == 2
    found = Relocaliser(settings.relocalisation, mapper, parts).search(points)
    assert (found.verdict, found.places) == (wanted.verdict, wanted.places)
    np.testing.assert_allclose(found.match.pose, wanted.match.pose, atol=1e-6)  # type: ignore[union-attr]


def test_local_maps_are_of_the_nearest_and_not_of_one_heading(block: Reference, lap: Array) -> None:
    chosen = block.near(lap[30])
    assert 30 in chosen
    assert len(set(chosen.tolist())) == len(chosen)
    left_out = np.setdiff1d(np.arange(len(lap)), chosen)
    distance = np.linalg.norm(lap[:, :2] - lap[30, :2], axis=1)
    assert distance[chosen].max() < distance[left_out].max()


def test_of_a_cloud_only_walls_are_searched() -> None:
    cloud = worlds.room_in_space(count=20000)
    flat = flattened(cloud, planar=False)
    x, y = np.abs(flat.T)
    wall = (np.abs(x - 3.0) < 0.3) | (np.abs(y - 2.5) < 0.3)
    cupboard = (flat[:, 0] > 1.2) & (flat[:, 1] > 1.2)
    assert (wall | cupboard).all()
    assert len(flat) > 0.5 * np.count_nonzero(cloud[:, 2] > 0.3)
    assert len(flattened(cloud[:0], planar=False)) == 0
