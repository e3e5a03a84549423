"""The graph: loop closures, voxels, the window's solve, and the refinement at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from dsg_ros.config.setting import Range


@dataclass(frozen=True)
class LoopClosure:
    """Where to look for places seen before, and what to believe."""

    every_keyframes: Annotated[int, Doc("A search per this many keyframes"), Range(1, 1000)] = 5
    least_travel: Annotated[
        float, Doc("Metres driven before a place counts as seen before"), Range(0.0, 1000.0, "m")
    ] = 8.0
    drift_start: Annotated[float, Doc("Drift allowed for right after a closure"), Range(0.0, 10.0, "m")] = 0.4
    drift_rate: Annotated[
        float, Doc("Drift allowed for, per metre along the shortest path of the graph"), Range(0.0, 1.0, "m/m")
    ] = 0.03
    most_drift: Annotated[float, Doc("Drift allowed for, at most"), Range(0.5, 30.0, "m")] = 16.0
    most_turn: Annotated[float, Doc("Heading searched, at most"), Range(0.01, 0.54, "rad")] = 0.5
    most_candidates: Annotated[
        int, Doc("Places tried a search; after a long way one further along beside them"), Range(1, 20)
    ] = 2
    by_looks: Annotated[bool, Doc("Beyond most_drift, look for places that look alike")] = True
    most_unlike: Annotated[
        float, Doc("Distance of what two places look like, 0 to 1, up to which they are compared"), Range(0.0, 1.0)
    ] = 0.6
    looks_inliers: Annotated[float, Doc("As least_inliers, of places that look alike"), Range(0.0, 1.0)] = 0.75
    reference_keyframes: Annotated[int, Doc("Keyframes on either side that make the place"), Range(1, 100)] = 20
    query_keyframes: Annotated[int, Doc("Newest keyframes that are matched together"), Range(1, 100)] = 12
    support_cell: Annotated[
        float,
        Doc("Of these, points count that another keyframe has company for in a cell of this edge"),
        Range(0.01, 5.0, "m"),
    ] = 0.3
    query_cell: Annotated[float, Doc("Their points are averaged in cells of this edge"), Range(0.01, 2.0, "m")] = 0.15
    search_beyond: Annotated[float, Doc("Drift above which the correlative search is used"), Range(0.0, 10.0, "m")] = (
        0.6
    )
    search_resolution: Annotated[float, Doc("Cell of the correlative search"), Range(0.02, 1.0, "m")] = 0.1
    search_angle: Annotated[float, Doc("Angle step of the correlative search"), Range(0.002, 0.2, "rad")] = 0.0175
    least_score: Annotated[float, Doc("Score of the correlative search, at least"), Range(0.0, 1.0)] = 0.55
    most_rival: Annotated[
        float, Doc("Score of the second best place, as a share of the best, at most"), Range(0.0, 1.0)
    ] = 0.9
    least_inliers: Annotated[float, Doc("Inlier share of the final match, at least"), Range(0.0, 1.0)] = 0.62
    weak_score: Annotated[float, Doc("As least_score, of matches that are weak"), Range(0.0, 1.0)] = 0.4
    weak_rival: Annotated[float, Doc("As most_rival, of matches that are weak"), Range(0.0, 1.0)] = 0.75
    weak_inliers: Annotated[float, Doc("As least_inliers, of matches that are weak"), Range(0.0, 1.0)] = 0.28
    weak_agreement_count: Annotated[int, Doc("Weak closures that must agree"), Range(1, 100)] = 4
    weak_agreement_travel: Annotated[float, Doc("Travel over which they must agree"), Range(0.0, 100.0, "m")] = 5.0
    floor_translation: Annotated[float, Doc("Least sigma of a closure's translation"), Range(0.0, 1.0, "m")] = 0.01
    floor_rotation: Annotated[float, Doc("Least sigma of a closure's rotation"), Range(0.0, 0.2, "rad")] = 0.0026
    robust_scale: Annotated[float, Doc("Cauchy kernel of closures, in sigmas"), Range(0.1, 100.0)] = 3.0
    withdraw_beyond: Annotated[
        float, Doc("A closure that the graph as a whole denies by more is withdrawn, in sigmas"), Range(1.0, 1e6)
    ] = 9.0
    trusted_jump: Annotated[float, Doc("Corrections up to this are believed at once"), Range(0.0, 30.0, "m")] = 0.6
    agreement_count: Annotated[int, Doc("Closures that must agree on a larger one"), Range(1, 20)] = 3
    agreement_distance: Annotated[float, Doc("How close they must agree"), Range(0.01, 5.0, "m")] = 0.25
    agreement_angle: Annotated[float, Doc("How close they must agree in heading"), Range(0.001, 1.0, "rad")] = 0.044
    agreement_travel: Annotated[float, Doc("Travel over which they must agree"), Range(0.0, 100.0, "m")] = 1.5
    patience: Annotated[float, Doc("Travel for which a closure waits for others"), Range(0.0, 1000.0, "m")] = 15.0
    solve_after: Annotated[int, Doc("Closures that call for a global solve"), Range(1, 1000)] = 15
    solve_beyond: Annotated[float, Doc("Correction that calls for a global solve at once"), Range(0.0, 10.0, "m")] = (
        0.15
    )


@dataclass(frozen=True)
class Voxels:
    """The voxels of the world, of edge registration.coarse_voxel: variables of the graph, and what is shown."""

    least_points: Annotated[int, Doc("Points of a keyframe that make an observation"), Range(1, 100)] = 2
    least_count: Annotated[int, Doc("Points that a voxel needs to be shown"), Range(1, 1000)] = 4
    flatness: Annotated[float, Doc("As registration.flatness, for observations"), Range(0.0, 1.0)] = 0.15
    noise: Annotated[float, Doc("Range noise and model error of a point"), Range(0.001, 1.0, "m")] = 0.03
    robust_scale: Annotated[float, Doc("Cauchy kernel of observations, in sigmas"), Range(0.1, 100.0)] = 2.0
    roughness: Annotated[float, Doc("How far a surface's voxel departs from a plane"), Range(0.0, 1.0, "m")] = 0.015
    discount: Annotated[float, Doc("Share of an observation's information that is believed"), Range(0.001, 1.0)] = 0.5
    most: Annotated[
        int, Doc("Voxels of the map, at most: of more, those seen longest ago are forgotten"), Range(10_000, 10**8)
    ] = 1_000_000


@dataclass(frozen=True)
class Retirement:
    """Voxels that later keyframes look straight through are retired."""

    enabled: Annotated[bool, Doc("Retire voxels that keyframes look through")] = True
    once: Annotated[int, Doc("Keyframes that must look through a voxel until it is retired"), Range(1, 1000)] = 4
    again: Annotated[
        int, Doc("Keyframes more for each one that has a return in the voxel, the first too"), Range(1, 1000)
    ] = 2
    most: Annotated[int, Doc("Keyframes at most, however often the voxel was seen"), Range(1, 1000)] = 12
    centre: Annotated[
        float, Doc("A beam looks through where it passes the mean within so many edges"), Range(0.01, 0.5)
    ] = 0.2
    margin: Annotated[float, Doc("Edges beyond the mean to which it must go on"), Range(0.0, 100.0)] = 1.5
    clear: Annotated[
        float,
        Doc("Edges from the mean within which no other beam of the keyframe may end before that"),
        Range(0.0, 100.0),
    ] = 0.75
    across: Annotated[
        float, Doc("Sine of the angle at which it must meet the voxel's surface, if it is one"), Range(0.0, 1.0)
    ] = 0.5
    way: Annotated[
        float, Doc("Along the graph to the last keyframe that saw the voxel, at most"), Range(0.0, 1e6, "m")
    ] = 15.0


@dataclass(frozen=True)
class Window:
    """The inner solve at every keyframe: newest poses and the voxels they saw, together."""

    enabled: Annotated[bool, Doc("Solve the window at every keyframe")] = True
    keyframes: Annotated[int, Doc("Poses in the window"), Range(2, 32)] = 10
    voxels: Annotated[int, Doc("Voxels in the window, at most"), Range(64, 4096)] = 192
    observations: Annotated[int, Doc("Observations in the window, at most"), Range(64, 16384)] = 512
    voxel_share: Annotated[
        float, Doc("Share of a scan's information that its voxel observations get"), Range(0.01, 0.99)
    ] = 0.2
    iterations: Annotated[int, Doc("Levenberg-Marquardt steps, at most"), Range(1, 100)] = 2


@dataclass(frozen=True)
class Refinement:
    """The last passes of a run: keyframes and the map together, then every scan against the keyframes around."""

    enabled: Annotated[bool, Doc("Keep the scans for it (about 2 kB each) and run it at the end")] = True
    most_points: Annotated[
        int,
        Doc("Points of scans that are kept for it, 12 bytes each, at most: of more, the oldest scans are forgotten"),
        Range(10_000, 10**10),
    ] = 20_000_000
    voxel_share: Annotated[
        float,
        Doc(
            "Share of a scan's information that its voxel observations get where all keyframes and voxels are solved"
            " for together; 0 leaves that out"
        ),
        Range(0.0, 0.99),
    ] = 0.1
    sweeps: Annotated[int, Doc("Passes over the keyframes; 0 leaves them where the graph has them"), Range(0, 20)] = 2
    keyframes: Annotated[int, Doc("Keyframes on either side that a scan is matched to"), Range(1, 100)] = 10
    radius: Annotated[float, Doc("How far those of other visits may be"), Range(0.0, 50.0, "m")] = 3.0
    visits: Annotated[int, Doc("Keyframes of other visits, at most"), Range(0, 200)] = 30
    sigma_translation: Annotated[float, Doc("How loosely a scan is held to its first pose"), Range(0.001, 1.0, "m")] = (
        0.05
    )
    sigma_rotation: Annotated[float, Doc("How loosely it is held in heading"), Range(0.001, 1.0, "rad")] = 0.02
    least_points: Annotated[int, Doc("Scans with fewer points are left"), Range(3, 1000)] = 20
    least_inliers: Annotated[float, Doc("Matches with a smaller inlier share are left"), Range(0.0, 1.0)] = 0.6
