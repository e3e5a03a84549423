"""The ROS 2 simulator.  All arguments go to rclpy, for example

    python -m dsg_ros simulator --ros-args -p world:=building -p drive.metres:=200.0

In the worlds building, office and corridor a robot with a laser drives in real time: odom, points or scan, reference
(the exact pose), /tf and /tf_static out.  In the world tutorial, the default, the tutorial is learned for rviz.
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run until a signal or the end of the drive; the exit code."""
    from dsg_ros.ros.simulator import main as run

    return run(arguments)
