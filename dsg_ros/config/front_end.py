"""From messages to keyframes: which measurements are believed, how scans are matched, when one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from dsg_ros.config.setting import Range


@dataclass(frozen=True)
class Input:
    """Which measurements are believed."""

    min_range: Annotated[float, Doc("Closer returns are dropped"), Range(0.0, 10.0, "m")] = 0.15
    max_range: Annotated[float, Doc("Farther returns are dropped (no-return codes too)"), Range(1.0, 300.0, "m")] = 30.0
    max_points: Annotated[int, Doc("Points of a scan kept after averaging in cells"), Range(32, 8192)] = 256
    cell: Annotated[float, Doc("Points of a scan are averaged in cells of this edge"), Range(0.0, 2.0, "m")] = 0.05
    point_time_unit: Annotated[
        Literal["auto", "s", "ms", "us", "ns", "none"],
        Doc("Unit of the times of a cloud's points; auto: as sweeps are long; none: times are not used"),
    ] = "auto"
    odometry: Annotated[
        Literal["measured", "none"],
        Doc("none: the robot tells no odometry, how it moves is seen by its scans alone; nothing is learned of it"),
    ] = "measured"
    queue: Annotated[int, Doc("Scans that may wait for their odometry; the oldest is dropped"), Range(1, 10000)] = 50
    odometry_timeout: Annotated[
        float, Doc("Odometry this much older than a scan counts as silent"), Range(0.05, 60.0, "s")
    ] = 1.0
    odometry_margin: Annotated[
        float,
        Doc("Scans wait for odometry so far beyond them: late stamps, and a time offset learned without bias (0.2)"),
        Range(0.0, 1.0, "s"),
    ] = 0.0
    odometry_silence: Annotated[
        float,
        Doc(
            "Scans come for so long without one message of the odometry: they are mapped alone until it comes; 0: never"
        ),
        Range(0.0, 60.0, "s"),
    ] = 3.0
    clock_jump: Annotated[
        float,
        Doc("Odometry stamps running back by more are a clock jump; one so far ahead waits for the next to agree"),
        Range(0.1, 3600.0, "s"),
    ] = 2.0
    on_clock_jump: Annotated[
        Literal["reset", "continue", "stop"],
        Doc("After a clock jump back the node begins a new map, maps on, or takes no scans until ~/resume or ~/reset"),
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
    acceleration: Annotated[
        float, Doc("Of a robot without odometry, standard deviation: it goes on as it did"), Range(0.01, 100.0, "m/s^2")
    ] = 1.0
    angular_acceleration: Annotated[float, Doc("Likewise, of its turning"), Range(0.01, 100.0, "rad/s^2")] = 3.0
    robust_scale: Annotated[
        float, Doc("Cauchy kernel of increments in doubt, in sigmas: they slip, and come late"), Range(0.1, 1000.0)
    ] = 3.0

    @property
    def translation(self) -> tuple[float, float, float]:
        """Of the translation: floor [m], per metre, per radian; as `dsg_ros.core.factors.odometry.noise` takes it."""
        return self.sigma_translation, self.translation_per_metre, self.translation_per_radian

    @property
    def rotation(self) -> tuple[float, float, float]:
        """Of the rotation: floor [rad], per radian, per metre."""
        return self.sigma_rotation, self.rotation_per_radian, self.rotation_per_metre


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
    inlier_distance: Annotated[
        float, Doc("A point nearer to its surface is an inlier; of noisy ranges, one within 2.5 deviations"),
        Range(0.01, 2.0, "m"),
    ] = 0.08  # fmt: skip
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
    restart_agreed: Annotated[float, Doc("As restart_below, where every start leads to one match"), Range(0.0, 1.0)] = (
        0.5
    )
    restart_prior: Annotated[
        float, Doc("Share of the odometry's information kept for other starts"), Range(0.0, 1.0)
    ] = 0.01
    restart_angle: Annotated[float, Doc("Other starts turn up to this far"), Range(0.0, 3.2, "rad")] = 0.53
    restart_step: Annotated[float, Doc("Step between other starts"), Range(0.01, 1.0, "rad")] = 0.105
