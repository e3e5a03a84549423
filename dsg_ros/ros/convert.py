"""Between ROS messages and arrays: free functions, no state."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseWithCovariance, PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import LaserScan, NavSatFix, NavSatStatus, PointCloud2, PointField
from std_msgs.msg import Header

from dsg_ros import poses
from dsg_ros.io import laserscan, pointcloud
from dsg_ros.io.point_times import SensorTimes
from dsg_ros.io.records import FixRecord, MalformedMessage, PointSet, ScanRecord

_SECOND = 1_000_000_000

CLOUD_DTYPE = np.dtype([(name, "<f4") for name in ("x", "y", "z", "normal_x", "normal_y", "normal_z", "intensity")])
"""Points of ~/voxel_cloud; intensity is the number of points merged in the voxel."""


def nanoseconds(stamp: Time) -> int:
    """``stamp`` in nanoseconds since the clock's zero."""
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def time(stamp: int) -> Time:
    """Message of ``stamp`` [ns]; held at the ends of what its 32 bits of seconds can say."""
    seconds, rest = divmod(stamp, _SECOND)
    return Time(sec=min(max(seconds, -(2**31)), 2**31 - 1), nanosec=rest)


def header(stamp: int, frame: str) -> Header:
    """Header with ``stamp`` [ns]."""
    return Header(stamp=time(stamp), frame_id=frame)


def odometry_pose(message: Odometry) -> list[float]:
    """Pose of the base in the odometry frame, ``[x y z qx qy qz qw]``, unchecked."""
    return _pose(message.pose.pose.position, message.pose.pose.orientation)


def pose_values(message: Pose) -> list[float]:
    """``[x y z qx qy qz qw]``, unchecked."""
    return _pose(message.position, message.orientation)


def transform_pose(message: TransformStamped) -> NDArray[np.float64]:
    """``parent_from_child`` (7,)."""
    return np.array(_pose(message.transform.translation, message.transform.rotation))


def _pose(position: Any, orientation: Any) -> list[float]:
    q = orientation
    return [position.x, position.y, position.z, q.x, q.y, q.z, q.w]


def pose(values: NDArray[np.float64]) -> Pose:
    """Message of a pose (7,)."""
    message = Pose()
    position, orientation = message.position, message.orientation
    position.x, position.y, position.z, *rest = map(float, values)
    orientation.x, orientation.y, orientation.z, orientation.w = rest
    return message


def transform(parent: str, child: str, stamp: int, values: NDArray[np.float64]) -> TransformStamped:
    """``values`` (7,) is ``parent_from_child``."""
    message = TransformStamped(header=header(stamp, parent), child_frame_id=child)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z, *rest = map(float, values)
    rotation.x, rotation.y, rotation.z, rotation.w = rest
    return message


def fixed_axis_covariance(values: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance (6, 6) of a pose (7,) in its own tangent (right perturbation) as geometry_msgs/PoseWithCovariance
    wants it.

    There, translation and rotation are about the axes of header.frame_id: ``pose * exp(xi)`` moves the position by
    ``R rho`` and turns by ``exp(R phi)`` from the left, to first order, so both 3-blocks are rotated by ``R``.
    """
    rotation = poses.matrix(values)[:3, :3]
    both = np.zeros((6, 6))
    both[:3, :3] = both[3:, 3:] = rotation
    return both @ covariance @ both.T


def checked_pose(message: PoseWithCovariance) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pose (7,), its quaternion normalised, and covariance (6, 6) as messages have it.  `MalformedMessage` for none."""
    values, covariance = np.array(pose_values(message.pose)), np.array(message.covariance).reshape(6, 6)
    if (flaw := poses.flaw(values)) is not None:
        raise MalformedMessage(flaw.text)
    if not np.isfinite(covariance).all():
        raise MalformedMessage("its covariance holds numbers that are not finite")
    values[3:] /= np.linalg.norm(values[3:])
    return values, covariance


def tangent_covariance(values: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The other way round: covariance (6, 6) in the own tangent of a pose (7,), of one as messages have it."""
    turned: NDArray[np.float64] = fixed_axis_covariance(poses.inverse(values), covariance)
    return turned


def pose_with_covariance(
    frame: str, stamp: int, values: NDArray[np.float64], covariance: NDArray[np.float64]
) -> PoseWithCovarianceStamped:
    """Message of a pose (7,) in ``frame`` with the covariance (6, 6) of its own tangent."""
    message = PoseWithCovarianceStamped(header=header(stamp, frame))
    message.pose.pose = pose(values)
    message.pose.covariance = fixed_axis_covariance(values, covariance).ravel()
    return message


def odometry(frame: str, child_frame: str, stamp: int, values: NDArray[np.float64]) -> Odometry:
    """Message of the pose (7,) of ``child_frame`` in ``frame``; twist and covariances are zero, not known."""
    message = Odometry(header=header(stamp, frame), child_frame_id=child_frame)
    message.pose.pose = pose(values)
    return message


def scan_points(message: LaserScan, times: SensorTimes | None = None) -> PointSet:
    """Points in the sensor frame; `MalformedMessage` where the scan makes no sense."""
    ranges = np.asarray(message.ranges)
    return laserscan.decode(
        ranges,
        message.angle_min,
        message.angle_increment,
        message.range_min,
        message.range_max,
        message.time_increment,
        times,
    )


def laser_scan(scan: ScanRecord) -> LaserScan:
    """Message of a planar scan."""
    return LaserScan(
        header=header(scan.stamp, scan.frame),
        angle_min=scan.angle_min,
        angle_max=scan.angle_min + scan.angle_increment * (len(scan.ranges) - 1),
        angle_increment=scan.angle_increment,
        time_increment=scan.time_increment,
        range_min=scan.range_min,
        range_max=scan.range_max,
        ranges=array.array("f", scan.ranges.tobytes()),
    )


def cloud_points(message: PointCloud2, times: SensorTimes | None = None) -> PointSet:
    """Points in the sensor frame; `MalformedMessage` where the fields or sizes do not fit."""
    return pointcloud.decode(message, nanoseconds(message.header.stamp), times)


def voxel_cloud(
    frame: str,
    stamp: int,
    means: NDArray[np.float32],
    normals: NDArray[np.float32],
    counts: NDArray[np.int32],
) -> PointCloud2:
    """Unordered cloud of voxel means (n, 3) with normals (n, 3) and the points merged (n,) as intensity."""
    rows = np.empty(len(means), CLOUD_DTYPE)
    for name, column in zip(CLOUD_DTYPE.names or (), (*means.T, *normals.T, counts), strict=True):
        rows[name] = column
    return _cloud(frame, stamp, rows)


def point_cloud(frame: str, stamp: int, points: NDArray[np.float32], times: NDArray[np.float32] | None) -> PointCloud2:
    """Unordered cloud of points (n, 3) with the ``times`` (n,) [s] after ``stamp`` at which they were measured."""
    return _cloud(frame, stamp, pointcloud.rows(points, times))


def _cloud(frame: str, stamp: int, rows: NDArray[Any]) -> PointCloud2:
    """Of records (n,) whose fields are all float32."""
    message = PointCloud2(header=header(stamp, frame), height=1, width=len(rows))
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(rows.dtype.names or ())
    ]
    message.point_step, message.row_step = rows.itemsize, rows.nbytes
    message.is_dense = True
    # An array.array is taken as it is; bytes would be checked one by one.
    message.data = array.array("B", rows.tobytes())
    return message


def fix(record: FixRecord) -> NavSatFix:
    """NavSatFix of a fix, with what it tells of its deviations."""
    latitude, longitude, altitude = record.geodetic.tolist()
    return NavSatFix(
        header=header(record.stamp, record.frame),
        status=NavSatStatus(status=NavSatStatus.STATUS_FIX, service=NavSatStatus.SERVICE_GPS),
        latitude=latitude,
        longitude=longitude,
        altitude=altitude,
        position_covariance=np.diag(record.deviations**2).ravel(),
        position_covariance_type=NavSatFix.COVARIANCE_TYPE_DIAGONAL_KNOWN,
    )
