"""Motion models: what the parameters make of measured steps, and how far that is from the reference.

A window's motion is the product of its steps' exponentials; seen by a sensor at pose X on the robot it is conjugated,
``X^-1 prod_i Exp(xi_i) X``.  The error against a reference motion Z is ``log(Z^-1 ...)``, a tangent (6,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from dsg_ros.core import geometry
from dsg_ros.core.compilation import quick_compilation
from dsg_ros.core.factors.odometry import calibrated
from dsg_ros.core.programs import kept
from dsg_ros.core.theta import Theta, mask, specs, unflatten
from dsg_ros.learning.calibrators.windows import Windows
from dsg_ros.poses import IDENTITY

Vector = NDArray[np.float64]
Values = Float[Array, " K"]

PLANAR, SPATIAL = (0, 1, 5), (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Quantity:
    """A parameter: its name and unit to the world, and the name it has in learned.yaml.

    ``neutral`` is where it starts, ``sigma`` how far it may be from there before anything is known, and ``bound`` how
    far it may go; these three are None where they depend on the robot's size.
    """

    name: str
    unit: str
    key: str
    neutral: float | None = None
    sigma: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Model:
    """``axes`` are the directions of a tangent that the error has, ``inputs`` how many numbers measure a step.

    ``step(values, inputs, seconds)`` is the tangent (6,) of a step; ``sensor(values)`` (7,) where the reference's frame
    is on the robot, or None where that is part of the step.
    """

    name: str
    quantities: tuple[Quantity, ...]
    axes: tuple[int, ...]
    inputs: int
    step: Callable[[Values, Array, Array], Array]
    sensor: Callable[[Values], Array] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(quantity.name for quantity in self.quantities)


def _linear(name: str, leaves: tuple[str, ...], names: tuple[str, ...], axes: tuple[int, ...]) -> Model:
    """The linear map of `dsg_ros.core.theta` over the numbers ``leaves``, called ``names``."""
    chosen = mask(Theta.neutral(), *leaves)
    found = specs(chosen)
    neutral = np.array([spec.neutral for spec in found])

    def step(values: Values, inputs: Array, seconds: Array) -> Array:
        return calibrated(unflatten(values - neutral, Theta.neutral(), chosen), inputs, seconds)

    quantities = tuple(
        Quantity(short, spec.unit, spec.name, spec.neutral, spec.prior_sigma, spec.bound)
        for short, spec in zip(names, found, strict=True)
    )
    return Model(name, quantities, axes, 6, step)


def _wheels(values: Values, turned: Array, seconds: Array) -> Array:
    """Differential drive: ``turned`` (2,) are the angles of the left and the right wheel [rad]."""
    left, right = 0.5 * values[1] * turned[0], 0.5 * values[2] * turned[1]
    zero = jnp.zeros_like(left)
    return jnp.stack([0.5 * (left + right), zero, zero, zero, zero, (right - left) / values[0]])


def _laser(values: Values) -> Array:
    x, y, yaw = values[3:]
    zero = jnp.zeros_like(x)
    return jnp.stack([x, y, zero, zero, zero, jnp.sin(0.5 * yaw), jnp.cos(0.5 * yaw)])


_PLANE = ("odometry.scale", "odometry.rotation_gain", "odometry.turn_per_metre", "odometry.lever.x", "odometry.lever.y")

LINEAR = _linear("linear", _PLANE, ("scale", "rotation_gain", "turn_per_metre", "lever_x", "lever_y"), PLANAR)


def _in_space(values: Values, inputs: Array, seconds: Array) -> Array:
    """The linear map of `dsg_ros.core.theta` with what a vehicle shows that leaves the plane.

    Only the turn about z has a gain: pitch and roll are mostly wobble, which noise would pull to nothing.  An odometry
    whose sensor is mounted askew moves sideways and up as it drives, and one that bends its map pitches and rolls.
    """
    scale, gain, *per_metre = values[:7]
    turn, pitch, roll, sideways, upwards = per_metre
    forward = inputs[0]
    translation = scale * inputs[:3] + forward * jnp.stack([jnp.zeros_like(forward), sideways, upwards])
    rotation = inputs[3:] * jnp.stack([jnp.ones_like(gain), jnp.ones_like(gain), gain])
    rotation = rotation + forward * jnp.stack([roll, pitch, turn])
    return jnp.concatenate([translation + geometry.cross(rotation, values[7:]), rotation])


def _like(name: str, key: str, unit: str, like: str) -> Quantity:
    """A parameter with the prior and bound of the number ``like`` in `dsg_ros.core.theta`."""
    (spec,) = specs(mask(Theta.neutral(), like))
    return Quantity(name, unit, key, spec.neutral, spec.prior_sigma, spec.bound)


VEHICLE = 0.5
"""Deviation of a lever [m] before anything is known: what drives through space is larger than a robot indoors."""

LINEAR_IN_SPACE = Model(
    "linear_in_space",
    (
        *LINEAR.quantities[:3],
        _like("pitch_per_metre", "odometry.pitch_per_metre", "rad/m", "odometry.turn_per_metre"),
        _like("roll_per_metre", "odometry.roll_per_metre", "rad/m", "odometry.turn_per_metre"),
        _like("lateral_slip", "odometry.lateral_slip", "ratio", "odometry.lateral_slip"),
        _like("vertical_slip", "odometry.vertical_slip", "ratio", "odometry.lateral_slip"),
        *(
            replace(_like(f"lever_{axis}", f"odometry.lever.{axis}", "m", f"odometry.lever.{axis}"), sigma=VEHICLE)
            for axis in "xyz"
        ),
    ),
    SPATIAL,
    6,
    _in_space,
)
DIFF_DRIVE = Model(
    "diff_drive",
    (
        Quantity("axle", "m", "diff_drive.axle"),
        Quantity("left_wheel_diameter", "m", "diff_drive.left_wheel_diameter"),
        Quantity("right_wheel_diameter", "m", "diff_drive.right_wheel_diameter"),
        Quantity("laser_x", "m", "diff_drive.laser_x"),
        Quantity("laser_y", "m", "diff_drive.laser_y"),
        Quantity("laser_yaw", "rad", "diff_drive.laser_yaw"),
    ),
    PLANAR,
    2,
    _wheels,
    _laser,
)
MODELS = {model.name: model for model in (LINEAR, LINEAR_IN_SPACE, DIFF_DRIVE)}


def _error(model: Model, values: Values, inputs: Array, seconds: Array, reference: Array) -> Array:
    steps = geometry.exp(jax.vmap(lambda u, dt: model.step(values, u, dt))(inputs, seconds))
    motion = steps[0]
    if steps.shape[0] > 1:
        motion, _ = jax.lax.scan(lambda so_far, step: (geometry.compose(so_far, step), None), motion, steps[1:])
    if model.sensor is not None:
        pose = model.sensor(values)
        motion = geometry.compose(geometry.between(pose, motion), pose)
    return geometry.log(geometry.between(reference, motion))[np.array(model.axes)]


@kept(quick_compilation)
def _errors(values: Any, inputs: Any, seconds: Any, reference: Any, *, model: str) -> tuple[Array, Array]:
    def one(inputs: Array, seconds: Array, reference: Array) -> tuple[Array, Array]:
        def error(at: Values) -> tuple[Array, Array]:
            found = _error(MODELS[model], at, inputs, seconds, reference)
            return found, found

        jacobian, found = jax.jacfwd(error, has_aux=True)(values)
        return found, jacobian

    return jax.vmap(one)(inputs, seconds, reference)


def errors(model: Model, values: Vector, windows: Windows) -> tuple[Vector, Vector]:
    """Errors (m, d) of the windows in the model's axes, and their Jacobian (m, d, K) in the values (K,)."""
    count, steps = windows.seconds.shape
    rows, columns = _room(count) - count, _room(steps, 4) - steps if steps > 1 else 0
    inputs = np.pad(windows.inputs, ((0, rows), (0, columns), (0, 0)))
    seconds = np.pad(windows.seconds, ((0, rows), (0, columns)))
    reference = np.concatenate([windows.reference, np.tile(IDENTITY, (rows, 1))])
    found, jacobian = _errors(np.asarray(values, float), inputs, seconds, reference, model=model.name)
    return np.asarray(found)[:count], np.asarray(jacobian)[:count]


def _room(count: int, unit: int = 256) -> int:
    """What arrays are padded to, a multiple of the ``unit``: a program is compiled for few shapes."""
    return unit * max(1, -(-count // unit))


def increments(model: Model, values: Vector, inputs: Vector, seconds: Vector) -> Vector:
    """Tangents (n, 6) of the steps ``inputs`` (n, k) under the values."""
    count = len(seconds)
    more = _room(count) - count
    inputs, seconds = np.pad(inputs, ((0, more), (0, 0))), np.pad(seconds, (0, more))
    return np.asarray(_increments(np.asarray(values, float), inputs, seconds, model=model.name))[:count]


@kept(quick_compilation)
def _increments(values: Any, inputs: Any, seconds: Any, *, model: str) -> Array:
    return jax.vmap(lambda u, dt: MODELS[model].step(values, u, dt))(inputs, seconds)
