"""The ROS 2 simulator.  All arguments go to rclpy, for example

    python -m dsg_ros simulator --ros-args -p world:=building -p drive.laps:=2.0

In the world building a robot with a 3D lidar drives in real time: odom, points, reference (the exact pose), /tf and
/tf_static out.  In the world tutorial, the default, the tutorial is learned for rviz.
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run until a signal or the end of the drive; the exit code."""
    from dsg_ros.ros.simulator import main as run

    return run(arguments)
