"""Compile every kernel for the shapes the configuration fixes, before data is accepted, by running each once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.interface import Frame, Hint, OdometryTrack
from dsg_ros.mapping import correlative, scan
from dsg_ros.mapping.association import Observations, WorldVoxels
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.distributions import distributions
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.localiser import Localiser
from dsg_ros.mapping.loop_candidates import BRIDGE
from dsg_ros.mapping.occupancy import OccupancyMapper
from dsg_ros.mapping.path_kernel import path_lengths, within
from dsg_ros.mapping.range_noise import RangeNoise
from dsg_ros.mapping.retirement import Retirement


def compile_window(settings: config.Slam, axes: tuple[int, ...], theta: Theta) -> BackEnd:
    """Run the window's solver once, on a short made-up run; returns the back end of that."""
    back_end = BackEnd(settings, axes=axes)
    step, information = poses.from_planar(0.3, 0.0, 0.0), np.eye(6) * 1e4
    corners = np.array([[2.0, 2.0, 0.0], [2.0, -2.0, 0.0], [4.0, 1.0, 0.0]])
    pose, numbers = poses.IDENTITY, np.arange(len(corners))
    for key in range(settings.window.keyframes + 1):
        back_end.add_keyframe(pose)
        if key:
            back_end.add_link(key, step, 0.1, step, information)
        seen = poses.transform(poses.inverse(pose), corners)
        root = np.broadcast_to(np.diag([50.0, 3.0, 3.0]), (len(corners), 3, 3)).copy()  # surfaces, to be solved for
        new = np.full(len(corners), key == 0)
        back_end.sightings.add(key, Observations(numbers, seen, root, np.ones(len(corners), np.int64), new, corners))
        pose = poses.compose(pose, step)
    back_end.loops.add([Closure(0, key, poses.between(back_end.pose(0), back_end.pose(-1)), information, 0.0)])
    back_end.start_window(theta)
    back_end.settle_window()
    return back_end


def compile_graph(back_end: BackEnd, theta: Theta) -> Problem:
    """Run the graph's solvers once, on what `compile_window` has made up; returns the graph of that."""
    back_end.solve_graph(theta)
    back_end.solve_jointly(theta)
    return back_end.problem()


def compile_mapping(settings: config.Slam, mapper: LocalMapper) -> None:
    """Run registration, its restarts, association and retirement once, on a made-up room."""
    room = _room()
    local_map = mapper.build(poses.IDENTITY[None], [room])
    start, prior = poses.IDENTITY[None], np.eye(6)
    _compile_poses(start[0])
    track = OdometryTrack(np.array([0, 10**8]), np.stack([start[0], start[0]]))
    scan.deskew(Frame(0, room.astype(np.float32), track, times=np.zeros(len(room), np.float32)))
    RangeNoise().hear(room)
    points = scan.thin(room, settings.input.cell, settings.input.max_points)
    scan.spread(room, settings.input.cell, len(room) // 2)
    match = mapper.register(local_map, points, start, start[0], prior)
    own, information, _, _ = mapper.opinion(match, start[0], prior)
    mapper.registration_information(information, match.inliers)
    mapper.weighed(own, information, 0.5, start[0], np.eye(6))
    mapper.register(local_map, points, mapper.fan(start[0]), start[0], prior)
    voxels = WorldVoxels(settings.voxels, size=settings.registration.coarse_voxel, planar=mapper.planar)
    retirement = Retirement(settings.retirement, voxels)
    seen = voxels.observe(0, 0, start[0], points, local_map.coarse, np.zeros(3))
    voxels.forget(retirement.look(points, start[0, :3], seen.means, start, np.ones(1, np.bool_), 0))
    distributions([room], start, voxels.size, planar=mapper.planar)
    path_lengths(np.ones(2), np.zeros((1, 2), np.int64), BRIDGE)
    within(np.ones(3), np.zeros((1, 2), np.int64), BRIDGE, 1.0)


def compile_search(settings: config.Slam, *, planar: bool) -> None:
    """Run the correlative search of loop closure once, in a made-up room."""
    points = scan.thin(_room(), settings.input.cell, settings.input.max_points)
    correlative.flattened(points, planar=planar)
    grids = correlative.pyramid(points[:, :2], np.zeros(2), 10.0, resolution=settings.loops.search_resolution)
    correlative.search(
        grids, points[:, :2], pivot=np.zeros(2), radius=1.0, angle=0.1, angle_step=settings.loops.search_angle,
        least_score=0.5, rival_share=0.9,
    )  # fmt: skip


def compile_localiser(trial: Localiser, cloud: NDArray[np.float64], here: NDArray[np.float64]) -> None:
    """Have ``trial`` look for a robot and follow it; ``cloud`` (n, 3) is what a keyframe at ``here`` (7,) has seen."""
    misfit, further = cloud * [-1.0, 0.4, 1.0], poses.from_planar(1.0, 0.0, 0.0)
    hint = Hint(here, 1.0, 0.5)
    RangeNoise().hear(cloud)
    trial.hint(hint)
    trial.track(misfit, here, 0)
    trial.track(misfit, poses.compose(here, further), 1)  # two scans are searched for together
    trial.hint(hint)
    for stamp, seen in enumerate((cloud, cloud, misfit), 2):  # found, followed, matched from other starts
        trial.track(seen, here, stamp)


def compile_grid(settings: config.Grid, *, planar: bool) -> None:
    """Draw a made-up room, move it, and have it told."""
    grid = OccupancyMapper(settings, planar=planar)
    grid.add(_room(), poses.IDENTITY)
    for x in (0.0, 1.0):
        grid.follow(poses.from_planar(x, 0.0, 0.0)[None])
    grid.changes()


def _compile_poses(pose: NDArray[np.float64]) -> None:
    """What the pipeline calls by itself of the pose algebra."""
    pose = plain(pose)
    se3.exp(se3.log(se3.between(pose, se3.compose(pose, pose))))


def _room() -> NDArray[np.float64]:
    """Points (n, 3) on the walls of a room of 6 by 4 m, at the height of the sensor."""
    x, y = np.arange(-3.0, 3.0, 0.04), np.arange(-2.0, 2.0, 0.04)
    walls = [np.stack([x, np.full_like(x, side)], axis=1) for side in (-2.0, 2.0)]
    walls += [np.stack([np.full_like(y, side), y], axis=1) for side in (-3.0, 3.0)]
    flat = np.concatenate(walls)
    return np.column_stack([flat, np.zeros(len(flat))])
