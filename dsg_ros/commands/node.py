"""The ROS 2 node.  All arguments go to rclpy, for example

    python -m dsg_ros node --ros-args --params-file config/hero.yaml -p use_sim_time:=true -r scan:=front/scan

Topics: odom, scan, points in; ~/path, ~/voxels, ~/voxel_cloud, ~/pose, /tf, /diagnostics out.  Services: ~/save,
~/reset.
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run until a signal; the exit code."""
    from dsg_ros.ros.main import main as run

    return run(arguments)
