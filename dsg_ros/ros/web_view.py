"""The web view of a node: started where it is asked for, and what it shows of the node's figures."""

from __future__ import annotations

from dsg_ros import config as cfg
from dsg_ros.ros.status import Figures
from dsg_ros.throttle import Say
from dsg_ros.view.update import Health
from dsg_ros.view.web import NoView, WebView


def started(config: cfg.Node, say: Say) -> WebView | NoView:
    """The view that is asked for; `UserError` where that is not possible."""
    if config.view == "none":
        return NoView()
    view = WebView(config.view_host, config.view_port, say, config.chunk)
    view.start()
    return view


def health(figures: Figures, before: Figures | None, since: float, period: float) -> Health:
    """Rates and drops, from ``figures`` and those ``period`` seconds ``before``; ``since`` [s] they are counted."""
    scans, odometry = figures["scans"], figures["odometry"]
    then = before["scans"] if before else scans
    rates = {
        "scans in": (scans["received"] - then["received"]) / period,
        "scans mapped": (scans["processed"] - then["processed"]) / period,
        f"map->{'odom' if odometry['used'] else 'base'}": figures["map_to_odom"]["rate_hz"],
    }
    dropped = {
        **scans["dropped"],
        "scans_lost": scans["lost"],
        **odometry["refused"],
    }
    if odometry["used"]:
        dropped["odometry_lost"] = odometry["lost"]
    return Health(since, {name: max(rate, 0.0) for name, rate in rates.items()}, dropped)
