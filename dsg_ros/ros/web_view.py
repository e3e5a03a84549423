"""What the web view shows of the node's figures."""

from __future__ import annotations

from dsg_ros.ros.status import Figures
from dsg_ros.view.update import Health


def health(figures: Figures, before: Figures | None, since: float, period: float) -> Health:
    """Rates and drops, from ``figures`` and those ``period`` seconds ``before``; ``since`` [s] they are counted."""
    scans, odometry = figures["scans"], figures["odometry"]
    then = before["scans"] if before else scans
    rates = {
        "scans in": (scans["received"] - then["received"]) / period,
        "scans mapped": (scans["processed"] - then["processed"]) / period,
        "map->odom": figures["map_to_odom"]["rate_hz"],
    }
    dropped = {
        **scans["dropped"],
        "scans_lost": scans["lost"],
        **odometry["refused"],
        "odometry_lost": odometry["lost"],
    }
    return Health(since, {name: max(rate, 0.0) for name, rate in rates.items()}, dropped)
