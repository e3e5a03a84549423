"""``~/theta``: every parameter with its value, standard deviation, unit and status, as the newest scan left them."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode

from dsg_ros.interface import Estimate, Parameter
from dsg_ros.ros import convert
from dsg_ros.ros.output import Output, World


class ThetaOutput(Output):
    """At ``map_rate`` whether anything changed or not, so that silence means trouble; latched.

    One status a parameter, an empty list when the map was reset.  A parameter that is frozen or unobservable is no
    fault: the level is OK always.
    """

    topic, message = "~/theta", DiagnosticArray

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._name = node.get_fully_qualified_name()
        self._newest: tuple[int, tuple[Parameter, ...]] | None = None

    def take(self, estimate: Estimate) -> None:
        self._newest = estimate.stamp, estimate.parameters

    def publish(self) -> None:
        newest = self._newest
        if newest is None:
            return
        stamp, parameters = newest
        array = DiagnosticArray(header=convert.header(stamp, ""))
        array.status = [_status(self._name, parameter) for parameter in parameters]
        self._publisher.publish(array)

    def clear(self) -> None:
        self._newest = self._world.now(), ()


def _status(node: str, parameter: Parameter) -> DiagnosticStatus:
    said = f"{parameter.status}: {parameter.reason}" if parameter.reason else parameter.status
    values = {
        "value": repr(parameter.value),
        "sigma": repr(parameter.sigma),
        "unit": parameter.unit,
        "status": parameter.status,
        "reason": parameter.reason,
    }
    status = DiagnosticStatus(level=DiagnosticStatus.OK, name=parameter.name, hardware_id=node, message=said)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status
