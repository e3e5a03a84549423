"""The pipeline on clouds: a lap of the simulated building, over ramps, with the settings of config/lidar3d.yaml."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import clouds
import numpy as np
import pytest
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.commands.run import Options, main
from dsg_ros.commands.simulate import Options as Simulated
from dsg_ros.commands.simulate import main as simulate
from dsg_ros.interface import Frame, SavedMap
from dsg_ros.io.map_folder import read_map, write_map
from dsg_ros.io.trajectories import read_tum
from dsg_ros.localisation import Localisation
from dsg_ros.mapping.correlative import flattened
from dsg_ros.mapping.relocalisation import Relocaliser, Verdict
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]
Drive = tuple[list[Frame], Array]


@dataclass
class Mapped:
    """A pipeline after a drive, how far it was from the truth anywhere [m], and where closures were made."""

    slam: Slam
    off: float
    in_estimate: int
    in_catch_up: int


@pytest.fixture(scope="module")
def lap() -> Drive:
    """A lap of 110 m and some metres more."""
    return clouds.drive(125.0)


def mapped(drive: Drive, settings: config.Slam = clouds.SETTINGS) -> Mapped:
    slam, loops = Slam(settings), [0, 0]
    slam.warm_up(planar=False)
    for frame in drive[0]:
        for part, work in enumerate((lambda frame=frame: slam.estimate(frame), slam.catch_up)):
            before = slam._counts()["loops"]
            work()
            loops[part] += slam._counts()["loops"] - before
    result = slam.finish()
    away = result.trajectory[:, :3] - poses.between(drive[1][0], drive[1])[:, :3]
    return Mapped(slam, float(np.linalg.norm(away, axis=1).max()), *loops)


@pytest.fixture(scope="module")
def made(lap: Drive) -> Mapped:
    return mapped(lap)


@pytest.fixture(scope="module")
def saved(made: Mapped, tmp_path_factory: pytest.TempPathFactory) -> SavedMap:
    folder = tmp_path_factory.mktemp("clouds") / "map"
    write_map(folder, made.slam.saved_map("simulated"))
    return read_map(folder)


def test_a_lap_is_closed_on_clouds_after_the_estimate_is_told(lap: Drive, made: Mapped) -> None:
    assert made.in_catch_up >= 2
    assert made.in_estimate == 0
    assert made.off < 0.2
    raw = np.array([frame.odometry.at(frame.stamp) for frame in lap[0]])
    assert np.linalg.norm(raw[:, :3] - poses.between(lap[1][0], lap[1])[:, :3], axis=1).max() > 50 * made.off
    counts = made.slam._counts()
    assert counts["sensor_upside_down"] == counts["sensor_backwards"] == counts["sensor_tilted"] == 0


def test_a_robot_is_found_and_followed_in_a_map_of_clouds(made: Mapped, lap: Drive, saved: SavedMap) -> None:
    """Other sweeps than those of the map, in the hall, without a first guess."""
    frames, truth = clouds.drive(115.0, lidar__columns=280)
    inside = Localisation(clouds.SETTINGS, saved)
    inside.warm_up(planar=False)
    estimates = [inside.estimate(frame) for frame in frames[210:250]]
    states = [estimate.localisation for estimate in estimates]
    found = states.index("localised")
    assert found < 20
    assert set(states[found:]) == {"localised"}
    there = poses.between(lap[1][0], truth[210:250])
    off = [np.linalg.norm(e.pose[:3] - t[:3]) for e, t in zip(estimates[found:], there[found:], strict=True)]
    assert max(off) < 0.25


def part_of(saved: SavedMap, kept: np.ndarray) -> Localisation:
    """In some keyframes of a map."""
    columns = {name: getattr(saved, name)[kept] for name in ("stamps", "poses", "odometry", "travel")}
    return Localisation(clouds.SETTINGS, replace(saved, **columns, clouds=tuple(saved.clouds[i] for i in kept)))


def test_how_much_of_a_cloud_fits_is_held_to_what_the_map_s_own_have(saved: SavedMap) -> None:
    """And its walls to the map's: 2 m beside its place the floor still fits."""
    whole = part_of(saved, np.arange(len(saved.stamps)))
    finder = Relocaliser(clouds.SETTINGS.relocalisation, whole.mapper, whole.reference)
    beside = poses.from_planar(0.0, 2.0, 0.0)
    for number in range(3, len(saved.stamps), 9):
        pose, cloud = saved.poses[number], saved.clouds[number].astype(float)
        flat = flattened(cloud, planar=False)
        assert 0.3 < whole.reference.typical(pose) < 0.95
        assert whole.reference.walls(flat, pose) > 0.98 > 0.9 > whole.reference.walls(flat, poses.compose(pose, beside))
        found = finder.search(cloud)
        assert found.verdict in (Verdict.ACCEPTED, Verdict.AMBIGUOUS)
        assert found.verdict is Verdict.AMBIGUOUS or np.linalg.norm(found.match.pose[:3] - pose[:3]) < 0.05
    nobody = part_of(saved, np.array([5]))
    assert nobody.reference.typical(saved.poses[5]) == 1.0  # nothing to compare to


def test_a_place_that_is_not_in_the_map_is_not_found_elsewhere(saved: SavedMap) -> None:
    hall, count = part_of(saved, np.flatnonzero(saved.poses[:, 1] < np.median(saved.poses[:, 1]))), 0
    finder = Relocaliser(clouds.SETTINGS.relocalisation, hall.mapper, hall.reference)
    verdicts = set()
    for pose, cloud in zip(saved.poses, saved.clouds, strict=True):
        if np.linalg.norm(hall.reference.trajectory[:, :2] - pose[:2], axis=1).min() > 6.0:
            verdicts.add(finder.search(cloud.astype(float)).verdict)
            count += 1
    assert count > 5
    assert Verdict.ACCEPTED not in verdicts


def test_run_maps_clouds_and_localises_in_them(tmp_path: Path) -> None:
    simulation = config.replace(config.Simulation(), {"drive.metres": 12.0, **clouds.SIMULATED})
    assert simulate(Simulated(tmp_path / "sim", simulation)) == 0
    main(Options(tmp_path / "sim", tmp_path / "first"))
    main(Options(tmp_path / "sim", tmp_path / "second", map=tmp_path / "first" / "map"))
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    stamps, first = read_tum(tmp_path / "first" / "trajectory.tum")
    localised, second = read_tum(tmp_path / "second" / "trajectory.tum")
    assert report["counts"]["scans_localised"] == len(localised) > 0.6 * len(stamps)
    kept = np.isin(stamps, localised)
    assert np.abs(first[kept] - second)[:, :3].max() < 0.1


@pytest.mark.parametrize(
    ("turned", "count", "said"),
    [
        ((np.pi, 0.0, 0.0), "sensor_upside_down", "clouds fit while it turns if they are turned over"),
        ((0.0, 0.0, np.pi), "sensor_backwards", "scans go back where the odometry goes ahead"),
        ((0.35, 0.0, 0.0), "sensor_tilted", "tilted by about"),
        ((0.0, 0.35, 0.0), "sensor_tilted", "tilted by about"),
    ],
    ids=["upside down", "backwards", "rolled", "pitched"],
)
def test_a_lidar_mounted_otherwise_than_told_is_told_once(
    lap: Drive, caplog: pytest.LogCaptureFixture, turned: tuple[float, float, float], count: str, said: str
) -> None:
    """At the latest after two corners of the building, where the odometry is what is known of the way."""
    mount = np.concatenate([np.zeros(3), poses.rotation_exp(np.array(turned))])
    slam = Slam(clouds.SETTINGS)
    slam.warm_up(planar=False)
    said_at: int | None = None
    with caplog.at_level(logging.WARNING, "dsg_ros"):
        for number, frame in enumerate(lap[0][:150]):
            points = poses.transform(mount, frame.points.astype(float)).astype(np.float32)
            counts = slam.process(replace(frame, points=points)).counts
            said_at = number if counts[count] and said_at is None else said_at
            if said_at is not None and number == said_at + 3:
                break
    assert {name: counts[name] for name in counts if name.startswith("sensor_")} == {
        name: int(name == count) for name in ("sensor_upside_down", "sensor_backwards", "sensor_tilted")
    }
    assert sum(said in record.getMessage() for record in caplog.records) == 1


def test_voxels_beyond_the_most_are_evicted_and_the_map_goes_on(lap: Drive, made: Mapped) -> None:
    most = 1000  # fewer than may be set: a lap of a building has no more than two thousand
    settings = replace(clouds.SETTINGS, voxels=replace(clouds.SETTINGS.voxels, most=most))
    few = mapped(lap, settings)
    counts = few.slam._counts()
    assert made.slam._counts()["voxels"] > most
    assert counts["voxels_evicted"] > 0
    assert counts["voxels"] <= most
    shown = few.slam.snapshot_map()[1].ids
    assert 0.5 * counts["voxels"] < len(shown) <= counts["voxels"], "those that few keyframes have seen are not shown"
    assert counts["keyframes"] > 100
    assert few.in_catch_up >= 2
    assert few.off < 0.2
