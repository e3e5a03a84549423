"""What a map is for: the occupancy grid, and finding the robot in it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from dsg_ros.config.setting import Range


@dataclass(frozen=True)
class Grid:
    """The occupancy grid for navigation, made of the keyframes' scans."""

    enabled: Annotated[bool, Doc("Keep what it is made of (20 bytes a direction and keyframe, at most)")] = True
    resolution: Annotated[float, Doc("Edge of a cell"), Range(0.02, 1.0, "m")] = 0.05
    max_range: Annotated[float, Doc("Rays count up to here"), Range(1.0, 60.0, "m")] = 30.0
    directions: Annotated[
        int, Doc("Rays of a keyframe, at most: the nearest return in each direction"), Range(36, 3600)
    ] = 720
    height_low: Annotated[
        float, Doc("Lowest return of a point cloud that is an obstacle, above the base"), Range(-10.0, 10.0, "m")
    ] = 0.1
    height_high: Annotated[float, Doc("Highest one"), Range(-10.0, 100.0, "m")] = 1.5
    occupied: Annotated[
        float, Doc("A cell is occupied if this share of the keyframes that saw it had a return in it"), Range(0.01, 1.0)
    ] = 0.25
    least_seen: Annotated[int, Doc("Keyframes that must have seen a cell for it to be known"), Range(1, 100)] = 1
    moved: Annotated[
        float, Doc("A keyframe that the graph moved by more is drawn again where it is now"), Range(0.0, 1.0, "m")
    ] = 0.05
    turned: Annotated[float, Doc("As moved, for its heading"), Range(0.0, 0.5, "rad")] = 0.01
    most_cells: Annotated[
        int, Doc("Cells of the rectangle around it, at most; keyframes that reach beyond are left out"),
        Range(1_000_000, 1_000_000_000),
    ] = 100_000_000  # fmt: skip


@dataclass(frozen=True)
class Relocalisation:
    """Finding the robot in a finished map, and noticing that it is lost."""

    reach: Annotated[float, Doc("How far from the mapped path the robot may be"), Range(0.1, 30.0, "m")] = 3.0
    resolution: Annotated[float, Doc("Cell of the search"), Range(0.02, 1.0, "m")] = 0.1
    angle_step: Annotated[float, Doc("Angle step of the search"), Range(0.002, 0.2, "rad")] = 0.0175
    least_score: Annotated[float, Doc("Score of the search, at least"), Range(0.1, 1.0)] = 0.6
    rival_share: Annotated[
        float, Doc("Places with this share of the best score are looked at closely"), Range(0.1, 1.0)
    ] = 0.85
    most_places: Annotated[int, Doc("Places looked at closely, at most; with more it is ambiguous"), Range(2, 200)] = 24
    least_points: Annotated[int, Doc("Points of a scan that are worth a search"), Range(3, 1000)] = 40
    least_inliers: Annotated[
        float, Doc("Inlier share of a planar scan at the best place, at least"), Range(0.0, 1.0)
    ] = 0.7
    least_typical: Annotated[
        float, Doc("That of a cloud, at least, as a share of what the map's own clouds around have"), Range(0.0, 1.0)
    ] = 0.93
    least_walls: Annotated[
        float, Doc("Share of a cloud's walls, seen from above, that are walls of the map too, at least"),
        Range(0.0, 1.0),
    ] = 0.93  # fmt: skip
    most_rival: Annotated[
        float, Doc("Inlier share of the second best place, as a share of the best, at most"), Range(0.0, 1.0)
    ] = 0.8
    most_sigma: Annotated[
        float, Doc("Deviation that the scan leaves to the position, at most"), Range(0.001, 1.0, "m")
    ] = 0.05
    keyframes: Annotated[
        int,
        Doc("Newest scans, a keyframe's travel apart, that are matched together while it is ambiguous"),
        Range(1, 100),
    ] = 20
    retry: Annotated[float, Doc("A robot that stands still is searched for this often"), Range(0.1, 600.0, "s")] = 5.0
    local_keyframes: Annotated[int, Doc("Stored keyframes in the local map"), Range(2, 200)] = 60
    lost_below: Annotated[float, Doc("Inlier share below which a scan does not fit"), Range(0.0, 1.0)] = 0.4
    lost_scans: Annotated[int, Doc("Scans in a row that do not fit until the robot is lost"), Range(1, 1000)] = 10
    carried: Annotated[
        bool,
        Doc("While mapping: look for a robot that was carried off; off maps on, as for lifts to floors without a map"),
    ] = True
