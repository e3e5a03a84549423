"""A leg so far: links, and what was told along them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.native import plain, se3
from dsg_ros.learning.block import Link, link_columns, links_of_columns
from dsg_ros.learning.leg import Fix
from dsg_ros.state import State, nested, part

Vector = NDArray[np.float64]


@dataclass
class GrowingLeg:
    """Where raw odometry leads, how far it is out of its heading, and where there was a fix, each in link ``told``.

    All positions of a leg have one ``origin`` (`ReferencePosition`).
    """

    links: list[Link] = field(default_factory=list)
    told: list[tuple[int, Fix]] = field(default_factory=list)
    end: Vector = field(default_factory=poses.IDENTITY.copy)
    way: float = 0.0
    turned: float = 0.0
    places: list[Vector] = field(default_factory=list)
    origin: tuple[float, ...] = ()

    def add(self, link: Link, fixes: list[Fix], unsure: float) -> None:
        """A link, along which there were ``fixes``, and in which odometry turns by ``unsure`` [rad] more or less."""
        number = len(self.links)
        self.links.append(link)
        for fix in fixes:
            self.told.append((number, fix))
            self.places.append(se3.compose(self.end, se3.exp(plain(fix.part)))[:2])
        self.end = se3.compose(self.end, plain(link.measured))
        self.way += float(np.linalg.norm(link.measured[:3]))
        self.turned += unsure**2

    def bend(self) -> float:
        """Deviation [rad] to which the fixes tell the turn from one half to the other: that of the second difference of
        beginning, middle and end.
        """
        variance = float(np.mean([np.trace(fix.covariance) for _, fix in self.told])) / 2
        places = np.stack(self.places)
        length = float(np.linalg.norm(places.max(axis=0) - places.min(axis=0)))
        return math.sqrt(6.0 * variance) / max(0.5 * length, 1e-9)

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        found: State = {
            "number": np.array([number for number, _ in self.told], np.int64),
            "places": np.array(self.places), "end": np.array(self.end), "origin": np.array(self.origin),
            "sums": np.array([self.way, self.turned]),
        }  # fmt: skip
        for name in Fix._fields:
            found[f"fix.{name}"] = np.array([getattr(fix, name) for _, fix in self.told])
        return found | nested(links=link_columns(self.links))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> GrowingLeg:
        """Of a state; KeyError for what is none."""
        columns = {name: state[f"fix.{name}"] for name in Fix._fields}
        columns |= {name: columns[name].tolist() for name in ("seconds", "time")}
        fixes = [Fix._make(each) for each in zip(*columns.values(), strict=True)]
        told = list(zip(state["number"].tolist(), fixes, strict=True))
        way, turned = state["sums"].tolist()
        origin = tuple(state["origin"].tolist())
        links = links_of_columns(part(state, "links"))
        return cls(links, told, plain(state["end"]), way, turned, list(state["places"]), origin)
