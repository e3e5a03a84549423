"""Loop closure on drives round a simulated block and along a corridor that looks the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import scan
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.loop_candidates import Ways, within_drift
from dsg_ros.mapping.loop_closure import LoopCloser
from dsg_ros.mapping.path_kernel import path_lengths, within

Array = NDArray[np.float64]
Keyframes = tuple[Array, list[Array], Array]  # true poses, clouds, metres driven


def keyframes_along(walls: Array, truth: Array, mapper: LocalMapper, reach: float) -> Keyframes:
    clouds = [
        scan.thin(worlds.scan(walls, pose, reach=reach, noise=0.01, seed=seed), 0.05, mapper.capacity)
        for seed, pose in enumerate(truth)
    ]
    steps = np.linalg.norm(worlds.increments(truth)[:, :3], axis=1)
    return truth, clouds, np.concatenate([[0.0], np.cumsum(steps)])


@pytest.fixture(scope="module")
def lap(mapper: LocalMapper) -> Keyframes:
    """A lap and a quarter round the block."""
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.25), step=0.25, turn=0.25)
    return keyframes_along(worlds.block(), truth, mapper, reach=12.0)


def bent(truth: Array, angle: float) -> Array:
    """``truth`` with the heading wrong by ``angle`` from the far corner of the block on."""
    far = int(np.argmin(np.linalg.norm(truth[:, :2] - worlds.BLOCK_ROUTE[2], axis=1)))
    steps = worlds.increments(truth)
    steps[far] = poses.compose(steps[far], poses.from_planar(0.0, 0.0, angle))
    return worlds.chained(truth[0], steps)


def sweep(
    closer: LoopCloser, chain: Array, clouds: list[Array], travel: Array, torn: NDArray[np.bool_] | None = None
) -> list[list[Closure]]:
    """What every fifth keyframe finds, while the map stays as it is."""
    found: list[list[Closure]] = []
    loops: list[tuple[int, int]] = []
    for newest in range(5, len(chain), 5):
        some = slice(newest + 1)
        closures = closer.search(chain[some], clouds[some], travel[some], loops, None if torn is None else torn[some])
        loops += [(closure.older, closure.newer) for closure in closures]
        found.append(closures)
    return found


def assert_true(closures: list[Closure], truth: Array, least: float = 100.0) -> None:
    for closure in closures:
        right = poses.between(truth[closure.older], truth[closure.newer])
        xi = poses.log(poses.between(right, closure.relative))
        assert np.linalg.norm(xi[:3]) < 0.05
        assert np.linalg.norm(xi[3:]) < 0.02
        np.testing.assert_allclose(closure.information, closure.information.T)
        assert np.linalg.eigvalsh(closure.information).min() > -1e-6
        observed = closure.information[np.ix_([0, 1, 5], [0, 1, 5])]
        assert np.linalg.eigvalsh(observed).min() > least


def test_a_small_drift_is_closed_at_once(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    closures = [closure for found in sweep(closer, bent(truth, 0.02), clouds, travel) for closure in found]
    assert len(closures) >= 3
    assert_true(closures, truth)
    for closure in closures:
        assert travel[closure.newer] - travel[closure.older] > settings.loops.least_travel
        assert 0.1 < closure.jump <= settings.loops.trusted_jump
    assert closer.counts["loops_considered"] >= len(closures)
    assert closer.counts["loops_waiting"] == 0


def test_a_big_jump_waits_for_agreement(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    chain = bent(truth, 0.08)
    newest = next(n for n in range(100, len(chain), 5) if _verified(closer, chain, clouds, travel, n))
    assert closer.counts["loops_waiting"] == 1  # true as it is, the first one is not believed alone
    answers = []
    for later in range(newest + 1, len(chain)):
        answers = closer.search(chain[: later + 1], clouds[: later + 1], travel[: later + 1], [])
        if answers:
            break
    assert len(answers) >= settings.loops.agreement_count
    assert_true(answers, truth, least=10.0)  # the chain is bent, and so are the places: half of the points fit
    ends = [travel[closure.newer] for closure in answers]
    assert max(ends) - min(ends) >= settings.loops.agreement_travel
    assert min(closure.jump for closure in answers) > settings.loops.trusted_jump
    assert min(closure.newer for closure in answers) == newest  # those that waited come along
    assert closer.counts["loops_waiting"] <= 1


def littered(clouds: list[Array], share: float) -> list[Array]:
    """``clouds`` with a ``share`` of their points anywhere within reach, another place in each."""
    rng = np.random.default_rng(0)
    out = []
    for cloud in clouds:
        points, false = cloud.copy(), rng.random(len(cloud)) < share
        angle, distance = rng.uniform(-np.pi, np.pi, false.sum()), rng.uniform(0.3, 8.0, false.sum())
        points[false, :2] = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
        out.append(points)
    return out


def test_beams_at_random_keep_no_loop_open(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    found = sweep(closer, bent(truth, 0.02), littered(clouds, 0.2), travel)
    closures = [closure for each in found for closure in each]
    assert len(closures) >= 3
    assert_true(closures, truth)


def test_weak_closures_wait_for_more_of_them(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    # So well matches nothing in these clouds: what is found is weak.
    closer = LoopCloser(config.replace(settings, {"loops.least_inliers": 1.0}).loops, mapper)
    found = [closures for closures in sweep(closer, bent(truth, 0.02), littered(clouds, 0.1), travel) if closures]
    assert found
    assert len(found[0]) >= settings.loops.weak_agreement_count
    ends = [travel[closure.newer] for closure in found[0]]
    assert max(ends) - min(ends) >= settings.loops.weak_agreement_travel
    for closures in found:
        assert all(closure.weak for closure in closures)
        assert_true(closures, truth)


def _verified(closer: LoopCloser, chain: Array, clouds: list[Array], travel: Array, newest: int) -> bool:
    """Whether the search at ``newest`` found something, which is then waiting."""
    assert closer.search(chain[: newest + 1], clouds[: newest + 1], travel[: newest + 1], []) == []
    return closer.counts["loops_waiting"] > 0


@pytest.mark.parametrize(("walls", "angle"), [("cluttered_block", 0.8), ("block", 1.0)])
def test_beyond_what_drift_is_searched_for_places_are_found_by_their_looks(
    walls: str, angle: float, mapper: LocalMapper, settings: config.Slam
) -> None:
    """Seven to twelve metres off; and where the block looks nearly the same from the other side, nothing false."""
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.5), step=0.25, turn=0.25)
    truth, clouds, travel = keyframes_along(getattr(worlds, walls)(), truth, mapper, reach=12.0)
    chain = bent(truth, angle)
    # It can have drifted by a fifth of the way: that is more than is searched.
    some = config.replace(settings, {"loops.most_drift": 1.0, "loops.drift_rate": 0.2})
    closer = LoopCloser(some.loops, mapper)
    closures = [closure for found in sweep(closer, chain, clouds, travel) for closure in found]
    far = [closure for closure in closures if closure.jump > 1.0]
    assert_true(far, truth)
    assert closer.counts["loops_considered_by_looks"] > 10
    if walls == "cluttered_block":
        assert len(far) >= settings.loops.weak_agreement_count
        assert all(closure.weak for closure in far)
        assert min(closure.jump for closure in far) > 5.0
    closer = LoopCloser(config.replace(some, {"loops.by_looks": False}).loops, mapper)
    found = [closure for each in sweep(closer, chain, clouds, travel) for closure in each]
    assert all(closure.jump < 1.0 for closure in found)
    assert closer.counts["loops_considered_by_looks"] == 0


def test_looks_and_what_waits_are_kept(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    some = config.replace(settings, {"loops.most_drift": 1.0, "loops.drift_rate": 0.2}).loops
    one, chain, half = LoopCloser(some, mapper), bent(truth, 0.8), 5 * (len(truth) // 10)
    sweep(one, chain[:half], clouds[:half], travel[:half])
    other = LoopCloser(some, mapper)
    other.restore(one.state())
    for newest in range(half, len(chain), 5):
        drive = chain[: newest + 1], clouds[: newest + 1], travel[: newest + 1]
        found, again = (closer.search(*drive, []) for closer in (one, other))
        assert [(c.older, c.newer) for c in found] == [(c.older, c.newer) for c in again]
    assert one.counts == other.counts
    assert one.counts["loops_considered_by_looks"] > 0


def test_what_waits_too_long_is_forgotten(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    chain = bent(truth, 0.08)
    newest = next(n for n in range(100, len(chain), 5) if _verified(closer, chain, clouds, travel, n))
    stretched = travel + np.where(np.arange(len(travel)) > newest, settings.loops.patience, 0.0)
    for later in range(newest + 1, newest + 6):
        found = closer.search(chain[: later + 1], clouds[: later + 1], stretched[: later + 1], [])
        assert newest not in [closure.newer for closure in found]


def test_an_ambiguous_corridor_is_refused(mapper: LocalMapper, settings: config.Slam) -> None:
    """The same pillars every 1.2 m: which of them it is cannot be told, whatever the score."""
    # The map goes on where the second pass ends: beyond its edge there is nothing that a false place could fit.
    there, again = (worlds.drive([(-6, 0), (end, 0)], step=0.25) for end in (12, 6))
    truth = np.concatenate([there, again])
    truth, clouds, _ = keyframes_along(worlds.pillared_corridor(1.2), truth, mapper, reach=8.0)
    # The second pass comes 20 m later, half a metre off.
    travel = np.concatenate([0.25 * np.arange(len(there)), 38 + 0.25 * np.arange(len(again))])
    chain = truth.copy()
    chain[len(there) :, 0] += 0.5
    closer = LoopCloser(settings.loops, mapper)
    closures = [closure for found in sweep(closer, chain, clouds, travel) for closure in found]
    assert closures == []
    assert closer.counts["loops_refused_ambiguous"] >= 3


def test_another_place_is_refused(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    """Keyframes of another world, told to lie where the first ones do."""
    truth, clouds, travel = lap
    half = len(truth) // 2
    _, elsewhere, _ = keyframes_along(worlds.room(), poses.from_planar(*np.zeros((2, half)), np.arange(half) * 0.2),
                                      mapper, reach=12.0)  # fmt: skip
    chain = np.concatenate([truth[:half], truth[:half]])
    closer = LoopCloser(settings.loops, mapper)
    found = sweep(closer, chain, clouds[:half] + elsewhere, np.concatenate([travel[:half], 30 + travel[:half]]))
    assert [closure for closures in found for closure in closures if closure.newer >= half + 12] == []
    assert closer.counts["loops_refused_score"] + closer.counts["loops_refused_overlap"] > 3


def test_nothing_is_tried_before_there_is_a_loop(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    half = int(np.searchsorted(travel, 20.0))
    assert not any(sweep(closer, truth[:half], clouds[:half], travel[:half]))
    assert closer.counts["loops_considered"] == 0


def test_a_map_that_is_torn_is_mended(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    """Odometry that turned by 20 degrees too much at once: more than the way since is taken to have done."""
    truth, clouds, travel = lap
    chain, torn = bent(truth, 0.35), np.zeros(len(truth), np.bool_)
    torn[
        1 + int(np.argmax(np.abs(poses.log(poses.between(worlds.increments(truth), worlds.increments(chain)))[:, 5])))
    ] = True
    unaware, aware = (sweep(LoopCloser(settings.loops, mapper), chain, clouds, travel, t) for t in (None, torn))
    assert not any(unaware)
    found = [closure for closures in aware for closure in closures]
    assert len(found) >= settings.loops.agreement_count
    assert_true(found, truth, least=10.0)


def test_a_closure_leads_around_a_tear() -> None:
    travel, torn = np.arange(0.0, 50.0, 0.5), np.zeros(100, np.bool_)
    torn[60] = True
    ways = Ways.over(travel, [], torn)
    np.testing.assert_array_equal(ways.torn, np.arange(100) < 60)
    np.testing.assert_allclose(ways.distance, travel[-1] - travel, atol=1e-6)
    around = Ways.over(travel, [(40, 80)], torn)
    assert not around.torn.any()


def test_keyframes_without_points_close_nothing(lap: Keyframes, mapper: LocalMapper, settings: config.Slam) -> None:
    truth, clouds, travel = lap
    closer = LoopCloser(settings.loops, mapper)
    empty = [cloud[:0] for cloud in clouds]
    assert closer.search(truth, empty, travel, []) == []
    assert closer.counts["loops_considered"] > 0


def test_closures_shorten_the_way_back() -> None:
    travel = np.arange(0.0, 50.0, 0.5)
    alone = Ways.over(travel, []).distance
    np.testing.assert_allclose(alone, travel[-1] - travel)
    linked = Ways.over(travel, [(0, len(travel) - 1)]).distance
    assert linked[0] < 0.1
    assert linked[10] == pytest.approx(5.0 + linked[0])
    assert np.all(linked <= alone + 1e-12)


@given(
    st.lists(st.floats(0.001, 2.0), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
)
def test_paths_are_the_shortest(steps: list[float], pairs: list[tuple[int, int]]) -> None:
    """Against Floyd and Warshall's triple loop."""
    count = len(steps) + 1
    ends = [(a, b) for a, b in pairs if a < b < count]
    expected = np.where(np.eye(count, dtype=bool), 0.0, np.inf)
    for a, b, length in [(i, i + 1, step) for i, step in enumerate(steps)] + [(a, b, 0.05) for a, b in ends]:
        expected[a, b] = expected[b, a] = min(length, expected[a, b])
    for middle in range(count):
        expected = np.minimum(expected, expected[:, middle, None] + expected[None, middle])
    loops = np.array(ends, np.int64).reshape(-1, 2)
    np.testing.assert_allclose(path_lengths(np.array(steps), loops, 0.05), expected[-1], rtol=1e-12)
    travel = np.concatenate([[7.0], 7.0 + np.cumsum(steps)])
    for most in (0.0, 0.5, 3.0, 1e3):
        near = within(travel, loops, 0.05, most)
        sure = np.abs(expected[-1] - most) > 1e-9
        np.testing.assert_array_equal(near[sure], (expected[-1] <= most)[sure])


def test_after_a_long_way_places_further_along_are_tried_too(mapper: LocalMapper, settings: config.Slam) -> None:
    """Out and back along a corridor, with an estimate that is 12 m short in the end."""
    out = np.arange(0.0, 250.0, 0.25)
    there = np.concatenate([out, out[::-1]])
    truth = poses.from_planar(there, 0.0, 0.0)
    drifted = truth.copy()
    drifted[len(out) :, 0] += np.linspace(0.0, 12.0, len(out))
    travel = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(there)))])
    every, reach = settings.loops.every_keyframes, settings.loops.reference_keyframes
    tried: set[int] = set()
    for newest in range(len(there) - 10 * every, len(there) - 4 * every, every):
        ways = Ways.over(travel[: newest + 1], [])
        candidates = within_drift(drifted[: newest + 1], ways, settings.loops)
        assert len(candidates) <= settings.loops.most_candidates + 1
        nearest, _, drift, turn, far = candidates[0]
        assert not far
        assert turn == settings.loops.most_turn
        assert abs(drifted[nearest, 0] - drifted[newest, 0]) < 0.2
        assert drift > 12.0
        tried |= {older for older, *_ in candidates if abs(there[older] - there[newest]) < 0.25 * reach}
    assert tried, "the place where the robot is was never tried"
