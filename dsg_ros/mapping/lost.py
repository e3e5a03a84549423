"""A robot that does not know where in its map it is: whether it is one, and what is done until it knows again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.mapping.growing_map import GrowingMap
from dsg_ros.mapping.resumption import Resumed, Resumption
from dsg_ros.state import State, packed, unpacked

FALSE_ALARMS = 2
"""So many taken back, and scans that change are no sign of having been carried off any more."""

_log = logging.getLogger(__name__)


class Lost:
    """``search`` is what looks for the robot in the map, None while it is known where it is; ``counts`` tells of it."""

    def __init__(self, settings: config.Relocalisation) -> None:
        self._settings = settings
        self.search: Resumption | None = None
        self.counts = {
            "scans_not_resumed": 0, "resumed": 0, "carried_off": 0, "carried_off_taken_back": 0, "lost_from_sight": 0,
        }  # fmt: skip

    def resume(self, grown: GrowingMap) -> None:
        """Time has passed, and the odometry may have begun anew: the map grows again once the robot is found in it."""
        if self.search is None:
            self.search = grown.resumption()

    def lose_sight(self, grown: GrowingMap, stamp: int, seconds: float) -> None:
        """For so many ``seconds`` nothing told how the robot moved: it is looked for in the map, with the scans to
        come.
        """
        _log.warning(
            "at %.3f s: nothing has told for %.1f s how the robot moves, neither scans nor odometry: it is looked for, "
            "and until it is found the map does not grow", stamp * 1e-9, seconds,
        )  # fmt: skip
        self.counts["scans_not_resumed"] += grown.without_waiting()
        self.counts["lost_from_sight"] += 1
        self.search = grown.resumption()

    def look(
        self,
        grown: GrowingMap,
        points: NDArray[np.float64],
        odometry: NDArray[np.float64],
        inliers: float,
        stamp: int,
        *,
        alone: bool,
    ) -> bool:
        """Whether a scan of ``points`` (n, 3), of which a share of ``inliers`` fits the map, says that the robot was
        carried off: then it is looked for in the map, with the scans to come.

        A sensor that sits otherwise than told makes scans that change with every turn: nothing is made of those.
        ``alone``, without odometry, a robot that was carried off is as one that moved on too fast for its scans: where
        they break off nothing ties the map to what comes, and looking for the robot is right for both.
        """
        minded = self._settings.carried and not grown.mounting.wrong
        if not minded or self.counts["carried_off_taken_back"] >= FALSE_ALARMS:
            return False
        if not grown.carried.look(points, odometry, inliers):
            return False
        waiting = grown.without_waiting()
        _log.warning(
            "at %.3f s: the robot was carried off, %d scans ago: scans see another place than those before, and %s; it "
            "is looked for, and until it is found the map does not grow", stamp * 1e-9, waiting + 1,
            "no odometry tells how it got there" if alone else "the odometry tells of no way there",
        )  # fmt: skip
        self.counts["scans_not_resumed"] += waiting
        self.counts["carried_off"] += 1
        self.search = grown.resumption(carried=True)
        return True

    def find(
        self, grown: GrowingMap, cloud: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int, *, alone: bool
    ) -> Resumed | None:
        """Where a scan of ``cloud`` (n, 3) finds the robot; the search is over then, and also where the odometry is to
        be followed from where the tracker is now.
        """
        search = self.search
        assert search is not None, "it is looked for"
        found = search.find(cloud, odometry, stamp, alone=alone)
        if found is None and not search.followed:
            self.counts["scans_not_resumed"] += 1
            return None
        self.search = None
        self.counts["resumed"] += 1
        if found is not None:
            grown.tracker.place(found.pose, odometry, stamp)
            _log.info("the robot is found again %s; mapping goes on", found.how)
        elif search.carried:
            last = search.last
            grown.tracker.place(last.pose, last.odometry, last.stamp)
            self._take_back(stamp)
        else:
            _log.info("the robot is found again by its odometry, which went on; mapping goes on")
        return found

    def _take_back(self, stamp: int) -> None:
        self.counts["carried_off_taken_back"] += 1
        _log.warning(
            "at %.3f s: the robot was not carried off: it is where its odometry leads; do the times of the points or "
            "where the sensor sits (TF) change what scans see while the robot turns?%s", stamp * 1e-9,
            "" if self.counts["carried_off_taken_back"] < FALSE_ALARMS else
            " From now on, scans that change are not taken for a robot carried off",
        )  # fmt: skip

    def state(self, grown: GrowingMap) -> State:
        """As `dsg_ros.state` says.  Scans that wait to hear whether the robot was carried off are not kept: it is
        looked for as if it was.
        """
        counts = self.counts | {"scans_not_resumed": self.counts["scans_not_resumed"] + grown.waiting}
        carried = bool(self.search.carried if self.search else grown.carried.suspected)
        return {"lost": packed({"counts": counts, "searched": carried or self.search is not None, "carried": carried})}

    def restore(self, state: Mapping[str, Any], grown: GrowingMap) -> None:
        """Take a state over, once ``grown`` has its own."""
        facts = unpacked(state["lost"])
        self.counts = facts["counts"]
        self.search = grown.resumption(facts["carried"]) if facts["searched"] else None
