"""Theta: everything learnable, one pytree of float64 leaves, unconstrained, zero where nothing was learned.

To add a parameter: a field here, its `Spec` in SPECS, and its use in one factor.

The shared odometry calibration maps a measured body increment, as a tangent ``m = (mx, my, mz, wx, wy, wz)`` over a
duration ``dt``, to the true one (``true = parameter x measured``)::

    m           = measured + time_offset rate
    translation = (1 + scale) (mx, my, mz) + (0, lateral_slip mx, 0)
    rotation    = (1 + rotation_gain) (wx, wy, wz) + (0, 0, turn_per_metre mx)
    increment   = (R^T (translation + rotation x lever), R^T rotation) + bias dt,   R = exp(lever_rotation)

``lever`` and ``lever_rotation`` are the pose of the base in the frame whose motion the odometry tells: conjugating the
increment by it is that, exactly.  The base is where the sensor says it is, so a sensor mounted at ``D X`` on the robot
instead of the ``X`` that was told shows as this pose, D.  ``rate`` (6,) is what the measured increment gains a second
when both its ends are taken later; ``time_offset`` [s] how much later odometry is stamped than what it describes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dsg_ros.core.methods import host_method

Scope = Literal["factor", "shared", "noise"]


@dataclass(frozen=True)
class Spec:
    """One number of a leaf: its ``name`` and ``unit`` in the world, its prior deviation, how far it may go, who uses
    it.

    The leaf stores the deviation from ``neutral``; with ``logarithmic`` the logarithm of the ratio to it.
    ``prior_sigma`` and ``bound`` (|leaf| <= bound) are in the leaf's own scale.
    """

    name: str
    unit: str
    prior_sigma: float
    bound: float
    scope: Scope
    neutral: float = 0.0
    logarithmic: bool = False

    def physical(self, leaf: float) -> float:
        """The number to tell the world."""
        return self.neutral * math.exp(leaf) if self.logarithmic else self.neutral + leaf

    def leaf(self, physical: float) -> float:
        """The number to store; inverse of `physical`.  ValueError when a logarithm is not defined."""
        if not self.logarithmic:
            return physical - self.neutral
        if not physical > 0:
            raise ValueError(f"{self.name}: {physical!r} must be positive")
        return math.log(physical / self.neutral)


class Theta(eqx.Module):
    """Learnable parameters.  ``odom`` (n, 6) and ``obs`` (m, 3) are single factors' measurements: see OdomSE3,
    VoxelPointObs.
    """

    odom: Float[Array, "n 6"]
    obs: Float[Array, "m 3"]
    scale: Float[Array, ""]
    rotation_gain: Float[Array, ""]
    turn_per_metre: Float[Array, ""]
    lateral_slip: Float[Array, ""]
    lever: Float[Array, " 3"]
    lever_rotation: Float[Array, " 3"]
    time_offset: Float[Array, ""]
    bias: Float[Array, " 6"]
    extrinsic: Float[Array, " 6"]
    odometry_noise: Float[Array, " 6"]
    registration_noise: Float[Array, ""]
    loop_noise: Float[Array, ""]
    voxel_noise: Float[Array, ""]

    @staticmethod
    def neutral(odom: int = 0, obs: int = 0) -> Theta:
        """Nothing learned: zeros, with room for ``odom`` and ``obs`` single measurements."""
        zeros: dict[str, Any] = {name: np.zeros(len(specs) if len(specs) > 1 else ()) for name, specs in SPECS.items()}
        return Theta(**(zeros | {"odom": np.zeros((odom, 6)), "obs": np.zeros((obs, 3))}))

    @host_method
    def replace(self, **leaves: Any) -> Theta:
        """A copy with leaves replaced; ValueError where a shape changes (except for ``odom`` and ``obs``)."""
        for name, value in leaves.items():
            old = getattr(self, name, None)
            if old is None or (name not in PER_FACTOR and np.shape(value) != np.shape(old)):
                raise ValueError(f"theta has no leaf {name!r} of shape {np.shape(value)}")
        kept = (leaves.get(f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        changed: Theta = jax.tree.unflatten(jax.tree.structure(self), kept)  # a tenth of dataclasses.replace
        return changed


PER_FACTOR = ("odom", "obs")
"""Leaves with one row a factor; all others are shared."""


def _vector(prefix: str, parts: str, unit: str, prior: float, bound: float, scope: Scope) -> tuple[Spec, ...]:
    return tuple(Spec(f"{prefix}.{part}", unit, prior, bound, scope) for part in parts.split())


def _sigma(name: str) -> Spec:
    return Spec(f"noise.{name}", "ratio", 1.0, 6.0, "noise", neutral=1.0, logarithmic=True)


SPECS: dict[str, tuple[Spec, ...]] = {
    "odom": _vector("odom", "x y z", "m", 0.1, 10.0, "factor") + _vector("odom", "rx ry rz", "rad", 0.1, 3.0, "factor"),
    "obs": _vector("obs", "x y z", "m", 0.3, 1e4, "factor"),
    "scale": (Spec("odometry.scale", "ratio", 0.05, 0.5, "shared", neutral=1.0),),
    "rotation_gain": (Spec("odometry.rotation_gain", "ratio", 0.05, 0.5, "shared", neutral=1.0),),
    "turn_per_metre": (Spec("odometry.turn_per_metre", "rad/m", 0.05, 0.5, "shared"),),
    "lateral_slip": (Spec("odometry.lateral_slip", "ratio", 0.05, 0.5, "shared"),),
    "lever": _vector("odometry.lever", "x y z", "m", 0.1, 2.0, "shared"),
    "lever_rotation": _vector("odometry.lever", "rx ry rz", "rad", 0.05, 1.0, "shared"),
    "time_offset": (Spec("odometry.time_offset", "s", 0.05, 0.5, "shared"),),
    "bias": _vector("odometry.bias", "x y z", "m/s", 0.01, 0.5, "shared")
    + _vector("odometry.bias", "rx ry rz", "rad/s", 0.01, 0.5, "shared"),
    "extrinsic": _vector("extrinsic", "x y z", "m", 0.1, 2.0, "shared")
    + _vector("extrinsic", "rx ry rz", "rad", 0.05, 1.0, "shared"),
    "odometry_noise": tuple(
        _sigma(f"odometry.{part}")
        for part in (
            "translation", "translation_per_metre", "translation_per_radian",
            "rotation", "rotation_per_radian", "rotation_per_metre",
        )
    ),
    "registration_noise": (_sigma("registration"),),
    "loop_noise": (_sigma("loop"),),
    "voxel_noise": (_sigma("voxel"),),
}  # fmt: skip
"""Every number of every leaf, by leaf; for ``odom`` and ``obs`` of one row."""

Mask = Theta
"""A Theta of boolean NumPy arrays, shaped like the leaves: which numbers are learned."""


def mask(theta: Theta, *chosen: str) -> Mask:
    """Select leaves (``lever``) or single shared numbers (``odometry.lever.x``); ValueError for any other name."""
    selected: dict[str, Any] = {name: np.zeros(np.shape(getattr(theta, name)), bool) for name in SPECS}
    for wanted in chosen:
        if wanted in selected:
            selected[wanted] = np.ones_like(selected[wanted])
            continue
        hits = [(leaf, i) for leaf, specs in SPECS.items() for i, s in enumerate(specs) if s.name == wanted]
        if len(hits) != 1 or hits[0][0] in PER_FACTOR:
            raise ValueError(f"theta has no parameter {wanted!r}; leaves are {', '.join(SPECS)}")
        leaf, position = hits[0]
        selected[leaf].reshape(-1)[position] = True
    return Theta(**selected)


def _indices(chosen: Mask) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(np.asarray(getattr(chosen, name))) for name in SPECS}


def flatten(theta: Theta, chosen: Mask) -> Float[Array, " K"]:
    """The chosen numbers as one vector, in the order of `names`."""
    return jnp.concatenate([jnp.ravel(getattr(theta, name))[index] for name, index in _indices(chosen).items()])


def unflatten(vector: Float[Array, " K"], theta: Theta, chosen: Mask) -> Theta:
    """``theta`` with the chosen numbers replaced; the inverse of `flatten`."""
    leaves, start = {}, 0
    for name, index in _indices(chosen).items():
        leaf = getattr(theta, name)
        if len(index):
            part = vector[start : start + len(index)]
            leaf = jnp.ravel(leaf).at[index].set(part).reshape(np.shape(leaf))
        leaves[name], start = leaf, start + len(index)
    return Theta(**leaves)


def directions(theta: Theta, chosen: Mask) -> Theta:
    """Unit directions of the chosen numbers: a Theta whose leaves have a leading axis K."""
    index = _indices(chosen)
    count, start = sum(map(len, index.values())), 0
    leaves: dict[str, Any] = {}
    for name, positions in index.items():
        leaf = np.zeros((count, np.size(getattr(theta, name))))
        leaf[start + np.arange(len(positions)), positions] = 1.0
        leaves[name], start = leaf.reshape(count, *np.shape(getattr(theta, name))), start + len(positions)
    return Theta(**leaves)


def specs(chosen: Mask) -> tuple[Spec, ...]:
    """The `Spec` of each chosen number, in the order of `flatten`; rows of ``odom`` and ``obs`` get their number in the
    name.
    """
    out: list[Spec] = []
    for name, index in _indices(chosen).items():
        width = len(SPECS[name])
        for position in index:
            spec = SPECS[name][position % width]
            numbered = f"{spec.name}[{position // width}]"
            out.append(dataclasses.replace(spec, name=numbered) if name in PER_FACTOR else spec)
    return tuple(out)


def names(chosen: Mask) -> tuple[str, ...]:
    """Names of the chosen numbers, in the order of `flatten`."""
    return tuple(spec.name for spec in specs(chosen))


def within_bounds(theta: Theta) -> Bool[Array, ""]:
    """Whether every number is finite and inside its bound."""
    checks = [
        jnp.all(jnp.abs(jnp.reshape(getattr(theta, name), (-1, len(specs)))) <= jnp.array([s.bound for s in specs]))
        for name, specs in SPECS.items()
    ]
    return jnp.all(jnp.array(checks))


def to_float64(theta: Theta) -> Theta:
    """The same with every leaf a float64 JAX array (NumPy or float32 leaves would compile programs of their own)."""
    moved: Theta = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), theta))
    return moved
