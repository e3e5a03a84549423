"""The simulated robot: its world, its drive, its sensors and how they err."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from dsg_ros.config.setting import Range


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
class SimulatedReceiver:
    """Its satellite receiver, whose errors are white: a real one's last for minutes."""

    rate: Annotated[float, Doc("Fixes a second (topic fix); 0: it has none"), Range(0.0, 100.0, "Hz")] = 0.0
    deviation: Annotated[
        float, Doc("Standard deviation of a fix east and north, twice that in height"), Range(1e-4, 100.0, "m")
    ] = 0.02


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
    receiver: SimulatedReceiver = SimulatedReceiver()


@dataclass(frozen=True)
class SimulatorNode(Simulation):
    """hero_simulator in any world but the tutorial, which has parameters of its own."""

    listeners: Annotated[
        int, Doc("It sets off when so many listen to odometry and laser; 0: at once"), Range(0, 100)
    ] = 1
