"""Amounts by which a parameter changes, as people write them: "1 %", "+5 mm", "-0.1 deg/m", "0.01"."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

import numpy as np

from dsg_ros.core.theta import Spec, Theta
from dsg_ros.errors import UserError
from dsg_ros.learning.parameters import PLACES, spec_of

NATURAL = {
    "ratio": "1 %",
    "m": "1 cm",
    "rad": "0.1 deg",
    "s": "10 ms",
    "rad/m": "0.1 deg/m",
    "m/s": "1 mm/s",
    "rad/s": "0.01 deg/s",
}
"""A change that one can imagine, by the unit of the parameter."""

LEAST = 1e-12
"""A smaller change is none: it is lost in rounding."""

_DEGREE = math.pi / 180
_UNITS = {
    "ratio": {},
    "m": {"m": 1.0, "cm": 0.01, "mm": 0.001},
    "rad": {"rad": 1.0, "deg": _DEGREE},
    "s": {"s": 1.0, "ms": 0.001},
    "rad/m": {"rad/m": 1.0, "deg/m": _DEGREE},
    "m/s": {"m/s": 1.0, "cm/s": 0.01, "mm/s": 0.001},
    "rad/s": {"rad/s": 1.0, "deg/s": _DEGREE},
}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def full_name(name: str, names: Collection[str]) -> str:
    """The one of ``names`` that is meant: itself or its end, such as scale; `UserError` if it is none or several."""
    wanted = name.strip()
    hits = [known for known in names if known == wanted or known.endswith(f".{wanted}")]
    if wanted in hits:
        return wanted
    if len(hits) != 1:
        what = f"may be any of {', '.join(hits)}" if hits and wanted else "is not one that moves the map"
        raise UserError(f"parameter {name!r} {what}; there are {', '.join(names)}")
    return hits[0]


def value_of(theta: Theta, name: str) -> float:
    """The shared number with the full ``name``, as told to the world."""
    leaf, position = PLACES[name]
    return spec_of(name).physical(float(np.ravel(getattr(theta, leaf))[position]))


def parse_change(text: str, spec: Spec, value: float) -> float:
    """The change, in the parameter's own unit, that ``text`` asks for at its ``value``.

    A number without a unit is in the parameter's.  A percentage is of the value; of a ratio that is neutral at 0, such
    as the slip, of 1.  `UserError` for what is no change, or leads out of the parameter's bounds.
    """
    units = _UNITS[spec.unit]
    told = f"{spec.name}: change {text!r}"
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] not in ("", "%", *units)):
        raise UserError(
            f"{told}: expected a number and a unit, {', '.join(('%', *units))}, such as {NATURAL[spec.unit]!r}"
        )
    amount = float(found[1])
    if found[2] == "%":
        whole = 1.0 if spec.unit == "ratio" and not spec.neutral else value
        if not whole:
            raise UserError(f"{told}: it is 0 now, and no share of that is a change; say how many {spec.unit}")
        amount *= 0.01 * whole
    else:
        amount *= units.get(found[2], 1.0)
    if abs(amount) < LEAST:
        raise UserError(f"{told}: changes nothing")
    check_bounds(spec, value + amount, told)
    return amount


def check_bounds(spec: Spec, value: float, told: str) -> None:
    """`UserError`, beginning with ``told``, unless the parameter may have this ``value``."""
    low, high = spec.physical(-spec.bound), spec.physical(spec.bound)
    if not low <= value <= high:
        unit = "" if spec.unit == "ratio" else f" {spec.unit}"
        raise UserError(f"{told}: {value:.6g}{unit} is outside [{low:.4g}, {high:.4g}]")


def changed(theta: Theta, name: str, value: float) -> Theta:
    """``theta`` with the shared number of this full ``name`` at ``value``."""
    leaf, position = PLACES[name]
    numbers = np.array(getattr(theta, leaf), float)
    numbers.reshape(-1)[position] = spec_of(name).leaf(value)
    return theta.replace(**{leaf: numbers})
