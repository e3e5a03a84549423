"""Every setting of the system, with its default, unit, range and meaning: the only place where a default value stands.

The command line (tyro), the ROS parameters with their descriptors, and config/hero.yaml all derive from these
dataclasses. A ROS parameter's name is the dotted path of the field: ``keyframes.distance``, ``qos.odom.depth``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Doc


@dataclass(frozen=True)
class Range:
    """Closed interval of a numeric setting, with its unit."""

    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True)
class Input:
    """Which measurements are believed."""

    min_range: Annotated[float, Doc("Closer returns are dropped"), Range(0.0, 10.0, "m")] = 0.15
    max_range: Annotated[float, Doc("Farther returns are dropped (no-return codes too)"), Range(1.0, 300.0, "m")] = 30.0
    max_points: Annotated[int, Doc("Points of a scan kept after averaging in cells"), Range(32, 8192)] = 256
    cell: Annotated[float, Doc("Points of a scan are averaged in cells of this edge"), Range(0.0, 2.0, "m")] = 0.05
    queue: Annotated[int, Doc("Scans that may wait for their odometry; the oldest is dropped"), Range(1, 10000)] = 50
    odometry_timeout: Annotated[
        float, Doc("Odometry this much older than a scan counts as silent"), Range(0.05, 60.0, "s")
    ] = 1.0
    odometry_margin: Annotated[
        float,
        Doc("Scans wait for odometry so far beyond them: late stamps, and a time offset learned without bias (0.2)"),
        Range(0.0, 1.0, "s"),
    ] = 0.0
    clock_jump: Annotated[
        float, Doc("Odometry stamps running back by more are a clock jump"), Range(0.1, 3600.0, "s")
    ] = 2.0
    on_clock_jump: Annotated[
        Literal["reset", "continue"], Doc("After a clock jump back: start a new map, or keep mapping")
    ] = "reset"


@dataclass(frozen=True)
class Keyframes:
    """When a scan becomes a variable of the graph."""

    distance: Annotated[float, Doc("Travel since the last keyframe"), Range(0.01, 10.0, "m")] = 0.25
    angle: Annotated[float, Doc("Turn since the last keyframe"), Range(0.01, 3.2, "rad")] = 0.25


@dataclass(frozen=True)
class Odometry:
    """Standard deviation of an odometry increment: a floor plus what distance and turn add; the start of what is
    learned.
    """

    sigma_translation: Annotated[float, Doc("Floor of the translation"), Range(1e-5, 1.0, "m")] = 0.01
    translation_per_metre: Annotated[float, Doc("Translation, per metre driven"), Range(0.0, 1.0, "m/m")] = 0.03
    translation_per_radian: Annotated[float, Doc("Translation, per radian turned"), Range(0.0, 1.0, "m/rad")] = 0.01
    sigma_rotation: Annotated[float, Doc("Floor of the rotation"), Range(1e-5, 1.0, "rad")] = 0.0052
    rotation_per_metre: Annotated[float, Doc("Rotation, per metre driven"), Range(0.0, 1.0, "rad/m")] = 0.02
    rotation_per_radian: Annotated[float, Doc("Rotation, per radian turned"), Range(0.0, 1.0, "rad/rad")] = 0.05
    robust_scale: Annotated[
        float, Doc("Cauchy kernel of increments in doubt, in sigmas: they slip, and come late"), Range(0.1, 1000.0)
    ] = 3.0


@dataclass(frozen=True)
class Registration:
    """Scan to local voxel map."""

    max_points: Annotated[
        int, Doc("Of a scan's points, those that are matched; a keyframe's map has all of input.max_points"),
        Range(32, 8192),
    ] = 8192  # fmt: skip
    window: Annotated[int, Doc("Keyframes in the local map"), Range(2, 200)] = 30
    coarse_voxel: Annotated[float, Doc("Voxel edge of the first stage"), Range(0.05, 10.0, "m")] = 0.3
    fine_voxel: Annotated[float, Doc("Voxel edge of the second stage"), Range(0.02, 5.0, "m")] = 0.1
    flatness: Annotated[
        float, Doc("A voxel is a surface if its smallest variance is below this share of the next"), Range(0.0, 1.0)
    ] = 0.15
    noise: Annotated[float, Doc("Range noise and model error of a point"), Range(0.001, 1.0, "m")] = 0.02
    inlier_distance: Annotated[float, Doc("A point nearer to its surface is an inlier"), Range(0.01, 2.0, "m")] = 0.08
    discount: Annotated[float, Doc("Share of the registration's information that is believed"), Range(0.001, 1.0)] = 0.5
    floor_translation: Annotated[float, Doc("Least sigma of a registration's translation"), Range(0.0, 1.0, "m")] = (
        0.004
    )
    floor_rotation: Annotated[float, Doc("Least sigma of a registration's rotation"), Range(0.0, 0.2, "rad")] = 0.0014
    trusted_inliers: Annotated[
        float, Doc("A smaller inlier share makes the sigmas of a match grow, by its fourth power"), Range(0.01, 1.0)
    ] = 0.9
    least_points: Annotated[int, Doc("Scans with fewer points follow odometry alone"), Range(3, 1000)] = 20
    restart_below: Annotated[float, Doc("Inlier share below which other starts are tried"), Range(0.0, 1.0)] = 0.6
    restart_beyond: Annotated[
        float, Doc("Other starts are tried for a match so far from odometry, in its sigmas"), Range(1.0, 1000.0)
    ] = 10.0
    restart_gain: Annotated[float, Doc("Inlier share another start must add"), Range(0.0, 1.0)] = 0.06
    restart_leap: Annotated[
        float, Doc("Inlier share that another start of fewer inliers must add"), Range(0.0, 1.0)
    ] = 0.2
    restart_least: Annotated[float, Doc("Inlier share from which that is enough"), Range(0.0, 1.0)] = 0.75
    restart_prior: Annotated[
        float, Doc("Share of the odometry's information kept for other starts"), Range(0.0, 1.0)
    ] = 0.01
    restart_angle: Annotated[float, Doc("Other starts turn up to this far"), Range(0.0, 3.2, "rad")] = 0.53
    restart_step: Annotated[float, Doc("Step between other starts"), Range(0.01, 1.0, "rad")] = 0.105


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


@dataclass(frozen=True)
class Learning:
    """The outer update of theta."""

    enabled: Annotated[bool, Doc("Learn while mapping; off keeps the parameters as loaded")] = True
    start: Annotated[str, Doc("A learned.yaml to start from; empty: a robot of which nothing is known")] = ""
    every_keyframes: Annotated[int, Doc("One outer update per this many keyframes"), Range(2, 1000)] = 10
    parameters: Annotated[str, Doc("What is learned: numbers of the odometry calibration, separated by commas")] = (
        "odometry.scale, odometry.rotation_gain, odometry.turn_per_metre, odometry.lever.x, odometry.lever.y, "
        "odometry.time_offset"
    )
    noise: Annotated[bool, Doc("Learn the odometry's noise in heading too, from told values that are far off")] = True
    noise_of_translation: Annotated[bool, Doc("With it, that in translation")] = False
    loss: Annotated[
        Literal["held_out", "joint"],
        Doc("How blocks are scored: by predicting the scans, or with calibration and poses solved together"),
    ] = "held_out"
    noise_loss: Annotated[
        Literal["predictive", "laplace"], Doc("Likelihood that noise is learned from: of predictions, or of all rows")
    ] = "predictive"
    teacher: Annotated[
        Literal["scans", "reference", "both"],
        Doc("What calibrated odometry is held to: scans, poses from elsewhere (topic reference, run --teach), or both"),
    ] = "scans"
    reference_translation: Annotated[
        float, Doc("Deviation of such a pose's position where it tells none itself"), Range(1e-4, 10.0, "m")
    ] = 0.02
    reference_rotation: Annotated[float, Doc("And of its orientation"), Range(1e-4, 1.0, "rad")] = 0.01
    reference_gap: Annotated[
        float, Doc("Poses farther apart are not interpolated between"), Range(0.01, 10.0, "s")
    ] = 0.5  # fmt: skip
    reference_patience: Annotated[
        float, Doc("A keyframe waits so long for poses that come late"), Range(0.0, 600.0, "s")
    ] = 5.0  # fmt: skip
    robust_width: Annotated[
        float, Doc("Cauchy kernel of held-out innovations, in sigmas a direction"), Range(0.1, 100.0)
    ] = 3.0
    observable: Annotated[
        float, Doc("A parameter is used once its sigma is below this share of the prior's"), Range(0.001, 1.0)
    ] = 0.2
    unobservable: Annotated[float, Doc("It is given up again above this share"), Range(0.001, 1.0)] = 0.3
    significance: Annotated[float, Doc("It stays where it started within this many sigmas"), Range(0.0, 10.0)] = 2.0
    poisoned: Annotated[
        float, Doc("A block is forgotten if it makes the next less likely by a factor exp(this)"), Range(0.1, 1000.0)
    ] = 2.0
    kept_blocks: Annotated[int, Doc("Newest blocks that are linearised again when theta moves"), Range(1, 1000)] = 40
    change_blocks: Annotated[int, Doc("Newest blocks that may tell of a change of the robot"), Range(2, 100)] = 6
    change_probability: Annotated[
        float, Doc("Chance that they look as if it had changed, though it has not"), Range(0.0, 0.1)
    ] = 5e-5
    change_least: Annotated[float, Doc("Smallest change, in deviations of the prior"), Range(0.0, 10.0)] = 0.5


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
    least_inliers: Annotated[float, Doc("Inlier share of the best place, at least"), Range(0.0, 1.0)] = 0.7
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


@dataclass(frozen=True)
class Slam:
    """The pipeline: everything that does not need ROS."""

    input: Input = Input()
    odometry: Odometry = Odometry()
    keyframes: Keyframes = Keyframes()
    registration: Registration = Registration()
    loops: LoopClosure = LoopClosure()
    voxels: Voxels = Voxels()
    window: Window = Window()
    refinement: Refinement = Refinement()
    learning: Learning = Learning()
    relocalisation: Relocalisation = Relocalisation()
    grid: Grid = Grid()


@dataclass(frozen=True)
class Qos:
    """Quality of service of one subscription."""

    reliability: Annotated[Literal["best_effort", "reliable"], Doc("best_effort hears every publisher")] = "best_effort"
    depth: Annotated[int, Doc("Messages kept in the middleware's queue"), Range(1, 10000)] = 20


@dataclass(frozen=True)
class InputQos:
    """Quality of service by topic."""

    odom: Qos = Qos(depth=200)
    points: Qos = Qos()
    scan: Qos = Qos()


@dataclass(frozen=True)
class Node(Slam):
    """The ROS node: the pipeline's settings and those of its surroundings."""

    map_frame: Annotated[str, Doc("Frame of the map")] = "map"
    odom_frame: Annotated[str, Doc("Frame of the odometry; empty: as the messages say")] = ""
    base_frame: Annotated[str, Doc("Frame of the robot's base; empty: the odometry's child_frame_id")] = ""
    tf_rate: Annotated[float, Doc("Broadcasts of map->odom a second"), Range(1.0, 200.0, "Hz")] = 50.0
    transform_tolerance: Annotated[float, Doc("How far map->odom is dated ahead"), Range(0.0, 5.0, "s")] = 0.1
    publish_odom_tf: Annotated[bool, Doc("Also broadcast odom->base, for bags without that transform")] = False
    publish_extrinsic_tf: Annotated[
        bool, Doc("Also broadcast base->SENSOR_learned, where the sensor sits by what was learned")
    ] = False
    map_rate: Annotated[float, Doc("Publications of path and voxels a second, at most"), Range(0.1, 50.0, "Hz")] = 2.0
    grid_rate: Annotated[
        float,
        Doc("Publications of the occupancy grid a second, at most (nor more than map_rate)"),
        Range(0.05, 10.0, "Hz"),
    ] = 1.0
    chunk: Annotated[float, Doc("Voxels are sent in markers of this edge"), Range(0.5, 1000.0, "m")] = 8.0
    voxel_colour: Annotated[
        Literal["points", "height", "age", "deviation"],
        Doc("What colours of ~/voxels tell: how many points, height, when last seen, how well known"),
    ] = "points"
    sensors: Annotated[
        Literal["auto", "scan", "points"],
        Doc("Topics to map with; auto listens to both, expects scan and compiles again if points come first"),
    ] = "auto"
    reference_message: Annotated[
        Literal["pose", "odometry"],
        Doc("Type of the topic reference: PoseWithCovarianceStamped or Odometry; heard where learning.teacher says so"),
    ] = "pose"
    identity_extrinsic: Annotated[
        bool, Doc("Take base and sensor as one frame where TF has no transform between them")
    ] = False
    autostart: Annotated[bool, Doc("Configure and activate without a lifecycle manager")] = True
    output_folder: Annotated[str, Doc("Where ~/save writes; empty: saving is refused with that reason")] = ""
    map_folder: Annotated[
        str,
        Doc("Folder of the map: ~/save and checkpoints write it, localisation, ~/load and resume read it; empty: none"),
    ] = ""
    checkpoint_period: Annotated[
        float, Doc("The state is kept in map_folder, where that is set, this often; 0: never"), Range(0.0, 3600.0, "s")
    ] = 30.0
    resume: Annotated[
        bool, Doc("Go on from the checkpoint in map_folder, if there is one, instead of making a new map")
    ] = False
    localisation: Annotated[bool, Doc("Localise in the map of map_folder instead of making one")] = False
    view: Annotated[Literal["none", "web"], Doc("web: map, trajectories and curves live in a browser")] = "none"
    view_host: Annotated[str, Doc("Address the web view listens on; the default cannot be reached from elsewhere")] = (
        "127.0.0.1"
    )
    view_port: Annotated[int, Doc("Port of the web view; 0: one that is free"), Range(0, 65535)] = 8080
    queue: Annotated[int, Doc("Scans waiting for the pipeline; the oldest is dropped beyond"), Range(1, 10000)] = 100
    qos: InputQos = InputQos()


@dataclass(frozen=True)
class SimulatedDrive:
    """How the simulated robot drives along the way of its world."""

    metres: Annotated[
        float, Doc("Length of the drive; 0: a lap and a quarter, of the corridor all 60 m"), Range(0.0, 100_000.0, "m")
    ] = 0.0
    speed: Annotated[float, Doc("Speed"), Range(0.05, 5.0, "m/s")] = 1.2
    turn_rate: Annotated[float, Doc("It slows down before arcs, to turn no faster"), Range(0.05, 10.0, "rad/s")] = 1.2


@dataclass(frozen=True)
class SimulatedLidar:
    """Its 3D lidar: a head of beams above each other that turns once a sweep."""

    rate: Annotated[float, Doc("Sweeps a second"), Range(1.0, 50.0, "Hz")] = 10.0
    beams: Annotated[int, Doc("Beams above each other"), Range(1, 128)] = 16
    columns: Annotated[int, Doc("Directions around in which they are fired"), Range(36, 4096)] = 1875
    lowest: Annotated[float, Doc("Elevation of the lowest beam"), Range(-1.5, 1.5, "rad")] = -0.2618
    highest: Annotated[float, Doc("Elevation of the highest beam"), Range(-1.5, 1.5, "rad")] = 0.2618
    max_range: Annotated[float, Doc("Farther surfaces give no return"), Range(1.0, 300.0, "m")] = 100.0
    noise: Annotated[float, Doc("Standard deviation of a range"), Range(0.0, 1.0, "m")] = 0.01


@dataclass(frozen=True)
class SimulatedScanner:
    """Its planar scanner: one beam on a mirror that turns once a scan."""

    rate: Annotated[float, Doc("Scans a second"), Range(1.0, 50.0, "Hz")] = 10.0
    beams: Annotated[int, Doc("Ranges of a scan"), Range(36, 4096)] = 360
    field_of_view: Annotated[
        float, Doc("Angle from the first beam to the last, straight on in the middle"), Range(0.5, 2 * math.pi, "rad")
    ] = 2 * math.pi
    max_range: Annotated[float, Doc("Farther surfaces give no return"), Range(1.0, 100.0, "m")] = 20.0
    noise: Annotated[float, Doc("Standard deviation of a range"), Range(0.0, 1.0, "m")] = 0.01


@dataclass(frozen=True)
class SimulatedMounting:
    """Where the sensor really sits, seen from where its transform says that it does."""

    x: Annotated[float, Doc("Sensor farther ahead than told"), Range(-1.0, 1.0, "m")] = 0.0
    y: Annotated[float, Doc("Sensor farther left than told"), Range(-1.0, 1.0, "m")] = 0.0
    yaw: Annotated[float, Doc("Sensor turned left against what is told"), Range(-math.pi, math.pi, "rad")] = 0.0


@dataclass(frozen=True)
class SimulatedWheels:
    """Its wheel odometry, and how that errs: what is told over what is true, the inverse of what is learned."""

    rate: Annotated[float, Doc("Messages a second"), Range(1.0, 1000.0, "Hz")] = 50.0
    scale: Annotated[float, Doc("Metres told for each metre driven"), Range(0.5, 2.0)] = 1.03
    rotation_gain: Annotated[float, Doc("Radians told for each radian turned"), Range(0.5, 2.0)] = 1.02
    turn_per_metre: Annotated[float, Doc("Turn told for each metre driven"), Range(-0.5, 0.5, "rad/m")] = 0.005
    bias_forward: Annotated[float, Doc("Way told for each second, standing too"), Range(-0.1, 0.1, "m/s")] = 0.0
    bias_turn: Annotated[float, Doc("Turn told for each second, standing too"), Range(-0.1, 0.1, "rad/s")] = 0.0
    scale_jump: Annotated[
        float, Doc("By this share the scale is larger in the second half of the drive: a tyre was changed"),
        Range(-0.5, 0.5),
    ] = 0.0  # fmt: skip
    time_offset: Annotated[float, Doc("Stamps are later than what they tell of"), Range(-1.0, 1.0, "s")] = 0.0
    noise_translation: Annotated[
        float, Doc("Random walk of the translation, ahead and sideways, after a metre"), Range(0.0, 1.0, "m/sqrt(m)")
    ] = 0.01
    noise_translation_turning: Annotated[
        float, Doc("As noise_translation, after a radian of turning"), Range(0.0, 1.0, "m/sqrt(rad)")
    ] = 0.0
    noise_rotation: Annotated[
        float, Doc("Random walk of the heading, after a metre"), Range(0.0, 1.0, "rad/sqrt(m)")
    ] = 0.005
    noise_rotation_turning: Annotated[
        float, Doc("As noise_rotation, after a radian of turning"), Range(0.0, 1.0, "rad/sqrt(rad)")
    ] = 0.0
    jitter_translation: Annotated[
        float, Doc("Noise of each position told, which does not add up"), Range(0.0, 1.0, "m")
    ] = 0.0
    jitter_rotation: Annotated[float, Doc("Noise of each heading told, likewise"), Range(0.0, 1.0, "rad")] = 0.0
    slips_per_metre: Annotated[float, Doc("How often the wheels slip"), Range(0.0, 10.0, "1/m")] = 0.0
    slip_translation: Annotated[float, Doc("Standard deviation of a slip, ahead"), Range(0.0, 2.0, "m")] = 0.1
    slip_rotation: Annotated[float, Doc("Standard deviation of a slip in heading"), Range(0.0, 1.0, "rad")] = 0.05


@dataclass(frozen=True)
class Simulation:
    """A robot with a laser in a world that does not exist: that of `simulate` and of hero_simulator."""

    world: Annotated[
        Literal["building", "office", "corridor"],
        Doc("A building with ramps; a flat office, driven through in a figure of eight; a corridor without features"),
    ] = "building"
    seed: Annotated[int, Doc("Furniture and noise are drawn with it"), Range(0, 2**31 - 1)] = 0
    sensor: Annotated[
        Literal["auto", "lidar", "scanner"],
        Doc("What the robot maps with; auto: the 3D lidar in the building, the planar scanner elsewhere"),
    ] = "auto"
    drive: SimulatedDrive = SimulatedDrive()
    lidar: SimulatedLidar = SimulatedLidar()
    scanner: SimulatedScanner = SimulatedScanner()
    mounting: SimulatedMounting = SimulatedMounting()
    wheels: SimulatedWheels = SimulatedWheels()


@dataclass(frozen=True)
class SimulatorNode(Simulation):
    """hero_simulator in any world but the tutorial, which has parameters of its own."""

    listeners: Annotated[
        int, Doc("It sets off when so many listen to odometry and laser; 0: at once"), Range(0, 100)
    ] = 1


class ConfigError(ValueError):
    """A setting has an unknown name, a wrong type or a value out of range; the message says which and what is
    allowed.
    """


@dataclass(frozen=True)
class Setting:
    """One leaf of a configuration: its dotted ``name``, Python ``type``, default ``value`` and documentation."""

    name: str
    type: Any
    value: Any
    doc: str
    range: Range | None
    choices: tuple[str, ...]


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every leaf of ``config`` (an instance), depth first, in the order of declaration."""
    hints = get_type_hints(type(config), include_extras=True)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{item.name}.")
            continue
        hint = hints[item.name]
        base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        doc = next((e.documentation for e in extras if isinstance(e, Doc)), "")
        limits = next((e for e in extras if isinstance(e, Range)), None)
        choices = get_args(base) if get_origin(base) is Literal else ()
        yield Setting(f"{prefix}{item.name}", str if choices else base, value, doc, limits, choices)


def values(config: Slam) -> dict[str, bool | int | float | str]:
    """The settings of the pipeline, by name."""
    known = {setting.name for setting in settings(Slam())}
    return {setting.name: setting.value for setting in settings(config) if setting.name in known}


def check(setting: Setting, value: Any) -> Any:
    """``value`` converted to the setting's type, or `ConfigError` naming the setting and what it allows."""
    if setting.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not setting.type:
        raise ConfigError(f"{setting.name}: expected {setting.type.__name__}, got {value!r}")
    if setting.choices and value not in setting.choices:
        raise ConfigError(f"{setting.name}: {value!r} is not one of {', '.join(setting.choices)}")
    if setting.type is float and not math.isfinite(value):
        raise ConfigError(f"{setting.name}: {value!r} is not a finite number")
    if setting.range and not setting.range.low <= value <= setting.range.high:
        limits = setting.range
        raise ConfigError(
            f"{setting.name}: {value!r} is outside [{limits.low:g}, {limits.high:g}] {limits.unit}".rstrip()
        )
    return value


def check_all(config: Any) -> None:
    """`ConfigError` on the first setting of ``config`` that has a value it does not allow."""
    for setting in settings(config):
        check(setting, setting.value)


def replace(config: Any, values: dict[str, Any]) -> Any:
    """A copy of ``config`` with dotted names replaced; `ConfigError` on the first unknown name or refused value."""
    known = {s.name: s for s in settings(config)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown parameter {name!r}; close: {_closest(name, known) or 'none'}")
        config = _replace_at(config, name.split("."), check(known[name], value))
    return config


def _replace_at(config: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return dataclasses.replace(config, **{head: _replace_at(getattr(config, head), rest, value) if rest else value})


def _closest(name: str, known: Any) -> str:
    import difflib

    return ", ".join(difflib.get_close_matches(name, list(known), n=3))
