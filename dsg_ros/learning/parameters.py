"""Names of theta's numbers at the boundary: what is to be learned, where it starts, and how it is told to the world."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from dsg_ros.core.theta import PER_FACTOR, SPECS, Mask, Spec, Theta, flatten, mask, names, unflatten
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter

LEAVES = ("scale", "rotation_gain", "turn_per_metre", "lateral_slip", "lever", "lever_rotation", "time_offset", "bias")
"""Leaves that the held-out loss of `dsg_ros.learning.losses` depends on, noise apart."""

PLACES = {
    spec.name: (leaf, i) for leaf, specs in SPECS.items() if leaf not in PER_FACTOR for i, spec in enumerate(specs)
}
"""Leaf and position in it of every shared number, by name."""

LEARNABLE = tuple(name for name, (leaf, _) in PLACES.items() if leaf in LEAVES)


def chosen(setting: str) -> Mask:
    """The numbers that the setting learning.parameters names; `UserError` for a name that cannot be learned."""
    wanted = [name.strip() for name in setting.split(",") if name.strip()]
    for name in wanted:
        if name not in LEARNABLE:
            raise UserError(f"learning.parameters: {name!r} cannot be learned; names are {', '.join(LEARNABLE)}")
    return mask(Theta.neutral(), *wanted)


def numbers(theta: Theta, learned: Mask) -> NDArray[np.float64]:
    """`dsg_ros.core.theta.flatten` on the host: JAX would compile a program for each of its steps."""
    return np.concatenate([np.asarray(getattr(theta, name))[getattr(learned, name)] for name in SPECS], axis=None)


def moved(start: Theta, deviation: Float[Array | NDArray[np.float64], " K"], learned: tuple[str, ...]) -> Theta:
    """``start`` with the numbers named in ``learned`` moved by ``deviation`` (K,); to be traced."""
    chosen = mask(start, *learned)
    return unflatten(flatten(start, chosen) + deviation, start, chosen)


def starting_theta(parameters: Sequence[Parameter]) -> Theta:
    """Theta with the values of ``parameters``; `UserError` for an unknown name or a value that is out of bounds."""
    theta = Theta.neutral()
    leaves = {name: np.array(getattr(theta, name)) for name in SPECS}
    for parameter in parameters:
        if parameter.name not in PLACES:
            raise UserError(f"learned parameters: unknown name {parameter.name!r}; names are {', '.join(PLACES)}")
        leaf, position = PLACES[parameter.name]
        leaves[leaf].reshape(-1)[position] = _leaf_value(parameter, SPECS[leaf][position])
    return theta.replace(**leaves)


def _leaf_value(parameter: Parameter, spec: Spec) -> float:
    try:
        value = spec.leaf(parameter.value)
    except ValueError as error:
        raise UserError(f"learned parameters: {error}") from error
    if not math.isfinite(value) or abs(value) > spec.bound:
        low, high = spec.physical(-spec.bound), spec.physical(spec.bound)
        raise UserError(
            f"learned parameters: {spec.name} = {parameter.value!r} {spec.unit} is outside [{low:.4g}, {high:.4g}]"
        )
    return value


def given(parameters: Sequence[Parameter], learned: Mask) -> tuple[Parameter, ...]:
    """Those of ``parameters`` that are not learned: they stay as they were given."""
    fixed = [p for p in parameters if p.name not in names(learned)]
    return tuple(
        Parameter(p.name, p.value, p.sigma, spec_of(p.name).unit, "frozen", "given, not learned") for p in fixed
    )


def spec_of(name: str) -> Spec:
    """The `Spec` of a shared number by its full name."""
    leaf, position = PLACES[name]
    return SPECS[leaf][position]
