"""The ROS 2 node.  All arguments go to rclpy, for example

    python -m dsg_ros node --ros-args --params-file config/hero.yaml -p use_sim_time:=true -r scan:=front/scan

Topics: odom, scan or points, /tf, /tf_static in; /tf, map, ~/pose, ~/path, ~/voxels, ~/theta, /diagnostics, ... out.
Services: ~/save, ~/load, ~/reset, ~/pause, ~/resume, ~/optimize, ~/learning.  README has the whole list.
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run until a signal; the exit code."""
    from dsg_ros.ros.main import main as run

    return run(arguments)
