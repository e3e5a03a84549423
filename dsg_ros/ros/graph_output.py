"""``~/graph``: what the map rests on, as markers: loop closures, how sure the pose is, what was learned."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Quaternion, Vector3
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dsg_ros import poses
from dsg_ros.interface import Estimate, Parameter, Path
from dsg_ros.ros import convert
from dsg_ros.ros.output import Output, World

SIGMAS = 3.0
"""Of the ellipsoid that is drawn of the position."""
_LOOP, _SURE, _TEXT = (0.09, 0.63, 0.36, 0.9), (0.8, 0.2, 0.8, 0.35), (0.9, 0.9, 0.9, 1.0)
_WIDTH, _LETTER, _ABOVE, _THINNEST = 0.03, 0.25, 1.5, 0.02  # m


class GraphOutput(Output):
    """Markers in the namespaces loops (lines between the keyframes of a closure), position (an ellipsoid of `SIGMAS`
    standard deviations around the newest position) and theta (text above it), at ``map_rate`` while scans come.

    Each message has all of them: the topic is latched, and a late listener gets the last one alone.
    """

    topic, message = "~/graph", MarkerArray

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._newest: Estimate | None = None
        self._sent: Estimate | None = None
        self._path: Path | None = None
        self._cleared = False

    def take(self, estimate: Estimate) -> None:
        if estimate.path is not None:
            self._path = estimate.path
        self._newest = estimate

    def publish(self) -> None:
        if self._cleared:
            self._cleared = False
            self._publisher.publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))
        newest, path = self._newest, self._path
        if newest is None or newest is self._sent:
            return
        markers = [] if path is None else [self._loops(newest, path)]
        if newest.known:
            markers += [self._ellipsoid(newest), self._text(newest)]
        self._publisher.publish(MarkerArray(markers=markers))
        self._sent = newest

    def again(self) -> None:
        self._sent = None

    def clear(self) -> None:
        self._newest, self._path, self._cleared = None, None, True

    def _marker(self, estimate: Estimate, namespace: str, kind: int, colour: tuple[float, ...]) -> Marker:
        marker = Marker(header=convert.header(estimate.stamp, self._world.frame), ns=namespace, type=kind)
        marker.color = ColorRGBA(**dict(zip("rgba", colour, strict=True)))
        marker.pose.orientation.w = 1.0
        return marker

    def _loops(self, estimate: Estimate, path: Path) -> Marker:
        marker = self._marker(estimate, "loops", Marker.LINE_LIST, _LOOP)
        marker.points = [_point(end) for end in path.poses[path.loops.ravel()]]
        marker.scale = Vector3(x=_WIDTH)
        marker.action = Marker.ADD if marker.points else Marker.DELETE
        return marker

    def _ellipsoid(self, estimate: Estimate) -> Marker:
        marker = self._marker(estimate, "position", Marker.SPHERE, _SURE)
        lengths, quaternion = ellipsoid(estimate.pose, estimate.covariance)
        marker.pose.position = _point(estimate.pose)
        marker.pose.orientation = Quaternion(**dict(zip("xyzw", quaternion.tolist(), strict=True)))
        marker.scale = Vector3(**dict(zip("xyz", np.maximum(2 * SIGMAS * lengths, _THINNEST).tolist(), strict=True)))
        return marker

    def _text(self, estimate: Estimate) -> Marker:
        marker = self._marker(estimate, "theta", Marker.TEXT_VIEW_FACING, _TEXT)
        marker.pose.position = _point(estimate.pose)
        marker.pose.position.z += _ABOVE
        marker.scale = Vector3(z=_LETTER)
        marker.text = "\n".join(map(told, estimate.parameters))
        marker.action = Marker.ADD if marker.text else Marker.DELETE
        return marker


def ellipsoid(
    pose: NDArray[np.float64], covariance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One standard deviation (3,) [m] along three axes of a position, and the quaternion (4,) [x y z w] that turns x, y
    and z there; ``covariance`` (6, 6) is that of ``pose`` (7,) in its own tangent.
    """
    values, vectors = np.linalg.eigh(covariance[:3, :3])
    vectors[:, 0] *= np.sign(np.linalg.det(vectors))
    return np.sqrt(np.maximum(values, 0.0)), poses.multiply(pose[3:], poses.quaternion(vectors))


def told(parameter: Parameter) -> str:
    """A parameter in one line."""
    unit = "" if parameter.unit == "ratio" else f" {parameter.unit}"
    if parameter.status == "learned":
        return f"{parameter.name} {parameter.value:.4g} +- {parameter.sigma:.2g}{unit}"
    return f"{parameter.name} {parameter.value:.4g}{unit} ({parameter.status})"


def _point(pose: NDArray[np.float64]) -> Point:
    return Point(**dict(zip("xyz", pose[:3].tolist(), strict=True)))
