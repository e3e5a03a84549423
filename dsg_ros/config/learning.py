"""What of theta is learned, from what, and what is believed of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from dsg_ros.config.setting import Range


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
        Doc(
            "What calibrated odometry is held to: scans, poses or positions from elsewhere (topic reference, "
            "run --teach), or both"
        ),
    ] = "scans"
    reference_translation: Annotated[
        float, Doc("Deviation of such a pose's position where it tells none itself"), Range(1e-4, 10.0, "m")
    ] = 0.02
    reference_rotation: Annotated[float, Doc("And of its orientation"), Range(1e-4, 1.0, "rad")] = 0.01
    reference_position: Annotated[
        float, Doc("Deviation of a position alone (NavSatFix) where it tells none itself"), Range(1e-3, 100.0, "m")
    ] = 2.0
    position_memory: Annotated[
        float, Doc("How long a receiver's errors last: as large ones as it tells, besides white ones; 0: white alone"),
        Range(0.0, 3600.0, "s"),
    ] = 60.0  # fmt: skip
    leg_length: Annotated[
        float, Doc("Positions alone are scored along ways of this length, or less where they are good"),
        Range(2.0, 2000.0, "m"),
    ] = 100.0  # fmt: skip
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
    significance: Annotated[
        float,
        Doc("It is frozen within this many sigmas of its start, half of it once it was learned"),
        Range(0.0, 10.0),
    ] = 2.0
    poisoned: Annotated[
        float, Doc("A block is forgotten if it makes the next less likely by a factor exp(this)"), Range(0.1, 1000.0)
    ] = 2.0
    kept_blocks: Annotated[int, Doc("Newest blocks that are linearised again when theta moves"), Range(1, 1000)] = 40
    change_blocks: Annotated[int, Doc("Newest blocks that may tell of a change of the robot"), Range(2, 100)] = 6
    change_probability: Annotated[
        float, Doc("Chance that they look as if it had changed, though it has not"), Range(0.0, 0.1)
    ] = 5e-5
    change_least: Annotated[float, Doc("Smallest change, in deviations of the prior"), Range(0.0, 10.0)] = 0.5
