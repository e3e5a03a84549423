"""rosbag2 out, without ROS: complete or absent, in the types and hashes of ROS 2 Jazzy."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dsg_ros.errors import UserError
from dsg_ros.io import pointcloud
from dsg_ros.io.records import CloudRecord, FixRecord, OdometryRecord, ScanRecord

Storage = Literal["mcap", "sqlite3"]

_FLOAT32 = 7  # of sensor_msgs/PointField
_METADATA_VERSION: Literal[9] = 9  # what Jazzy writes; Kilted and Lyrical read it too
_FOREVER = QosTime(9223372036, 854775807)  # what rosbag2 records for an unlimited duration


def offered_qos(depth: int = 10, latched: bool = False) -> list[Qos]:
    """A reliable publisher's profile, transient local if ``latched``, as rosbag2 records it."""
    return [
        Qos(
            QosHistory.KEEP_LAST,
            depth,
            QosReliability.RELIABLE,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            _FOREVER,
            _FOREVER,
            QosLiveliness.AUTOMATIC,
            _FOREVER,
            avoid_ros_namespace_conventions=False,
        )
    ]


class BagWriter:
    """A context manager that leaves ``path`` as a whole bag, or not at all where the block raises (Ctrl-C too).

    It is written into a folder beside ``path`` and renamed at the end.  Bag times are made strictly increasing, so
    that messages are played in the order they were written whatever their stamps.  ``counts`` are messages by topic.
    `UserError` where ``path`` exists.
    """

    def __init__(self, path: Path, storage: Storage = "mcap", source: str = "") -> None:
        if path.exists():
            raise UserError(f"{path} exists already; name another place or remove it first")
        self.path = path
        self.typestore: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self.counts: Counter[str] = Counter()
        self.first = self.last = 0
        self._storage = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._source = source
        self._connections: dict[str, Connection] = {}
        self._folder = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> BagWriter:
        # The files inside carry the bag's name, so the bag is built under its final name one level down.
        building = self._folder / self.path.name
        try:
            self._folder.mkdir(parents=True)
            self._writer = Writer(building, version=_METADATA_VERSION, storage_plugin=self._storage)
            self._writer.set_custom_data("source", self._source)
            self._writer.open()
        except OSError as error:
            self._remove()
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        except BaseException:  # Ctrl-C comes at any time
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None:
                if self.path.exists():
                    raise UserError(f"{self.path} has come to exist meanwhile; nothing was written")
                self._writer.path.rename(self.path)
            elif isinstance(error, OSError):
                raise UserError(f"{self.path}: nothing was written: {error.strerror or error}") from error
        finally:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_topic(self, topic: str, msgtype: str, qos: list[Qos]) -> None:
        """Announce ``topic``; its type must be known to ``typestore``."""
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=self.typestore, offered_qos_profiles=qos
        )

    def write(self, topic: str, stamp: int, data: bytes | memoryview) -> None:
        """Add a CDR-encoded message at bag time ``stamp`` [ns], or just after the message before."""
        self.last = max(stamp, self.last + 1) if self.counts else stamp
        self.first = self.first if self.counts else stamp
        self._writer.write(self._connections[topic], self.last, data)
        self.counts[topic] += 1

    @property
    def duration(self) -> float:
        """Seconds from the first to the last message."""
        return (self.last - self.first) / 1e9


class RunWriter:
    """Writes a run's records as the topics a robot has: /odom, /scan or (with ``clouds``) /points, /tf (odom to base)
    and /tf_static (base to sensor); with ``reference`` also /reference, the exact pose, with ``fixes`` /fix.
    """

    def __init__(self, bag: BagWriter, *, clouds: bool = False, reference: bool = False, fixes: bool = False) -> None:
        self._bag = bag
        self._types: dict[str, Any] = bag.typestore.types
        self._mounts: dict[str, NDArray[np.float64]] = {}
        bag.add_topic("/odom", "nav_msgs/msg/Odometry", offered_qos())
        if clouds:
            bag.add_topic("/points", "sensor_msgs/msg/PointCloud2", offered_qos())
        else:
            bag.add_topic("/scan", "sensor_msgs/msg/LaserScan", offered_qos())
        if reference:
            bag.add_topic("/reference", "geometry_msgs/msg/PoseWithCovarianceStamped", offered_qos())
        if fixes:
            bag.add_topic("/fix", "sensor_msgs/msg/NavSatFix", offered_qos())
        bag.add_topic("/tf", "tf2_msgs/msg/TFMessage", offered_qos(depth=100))
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", offered_qos(depth=1, latched=True))

    def odometry(self, record: OdometryRecord, came: int | None = None) -> None:
        """Write the pose as /odom and as /tf; covariances that the log does not tell stay zero, which means unknown.

        Bag time is here and below when it ``came`` [ns], failing that its stamp.
        """
        self.transform(record.stamp, record.pose, record.frame, record.child_frame, static=False, came=came)
        linear, angular = (np.zeros(3), np.zeros(3)) if record.twist is None else np.split(record.twist, 2)
        covariance = np.zeros(36) if record.covariance is None else record.covariance.reshape(36)
        pose = self._pose(record.pose)
        twist = self._make("geometry_msgs/msg/Twist", linear=self._vector(linear), angular=self._vector(angular))
        message = self._make(
            "nav_msgs/msg/Odometry",
            header=self._header(record.stamp, record.frame),
            child_frame_id=record.child_frame,
            pose=self._make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=covariance),
            twist=self._make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
        self._write("/odom", record.stamp, message, came)

    def scan(self, record: ScanRecord, base_frame: str, came: int | None = None) -> None:
        """Write the scan and, where it is new, the sensor's place on the robot."""
        self._mounted(record.base_from_sensor, record, base_frame)
        message = self._make(
            "sensor_msgs/msg/LaserScan",
            header=self._header(record.stamp, record.frame),
            angle_min=record.angle_min,
            angle_max=record.angle_min + record.angle_increment * (len(record.ranges) - 1),
            angle_increment=record.angle_increment,
            time_increment=record.time_increment,
            scan_time=0.0,
            range_min=record.range_min,
            range_max=record.range_max,
            ranges=record.ranges,
            intensities=np.empty(0, np.float32),
        )
        self._write("/scan", record.stamp, message, came)

    def cloud(self, record: CloudRecord, base_frame: str, came: int | None = None) -> None:
        """Write the cloud as `scan` does a scan."""
        self._mounted(record.base_from_sensor, record, base_frame)
        data = pointcloud.rows(record.points, record.times)
        message = self._make(
            "sensor_msgs/msg/PointCloud2",
            header=self._header(record.stamp, record.frame),
            height=1,
            width=len(data),
            fields=[
                self._make("sensor_msgs/msg/PointField", name=name, offset=4 * i, datatype=_FLOAT32, count=1)
                for i, name in enumerate(data.dtype.names or ())
            ],
            is_bigendian=False,
            point_step=data.itemsize,
            row_step=data.nbytes,
            data=data.view(np.uint8),
            is_dense=True,
        )
        self._write("/points", record.stamp, message, came)

    def reference(self, stamp: int, pose: NDArray[np.float64], frame: str, came: int | None = None) -> None:
        """Write the exact pose (7,) of the base in ``frame`` on /reference."""
        exact = self._make("geometry_msgs/msg/PoseWithCovariance", pose=self._pose(pose), covariance=np.zeros(36))
        message = self._make(
            "geometry_msgs/msg/PoseWithCovarianceStamped", header=self._header(stamp, frame), pose=exact
        )
        self._write("/reference", stamp, message, came)

    def fix(self, record: FixRecord, base_frame: str, came: int | None = None) -> None:
        """Write the fix as /fix, and where its antenna is."""
        self._mounted(record.base_from_antenna, record, base_frame)
        latitude, longitude, altitude = record.geodetic.tolist()
        message = self._make(
            "sensor_msgs/msg/NavSatFix",
            header=self._header(record.stamp, record.frame),
            status=self._make("sensor_msgs/msg/NavSatStatus", status=0, service=1),
            latitude=latitude,
            longitude=longitude,
            altitude=altitude,
            position_covariance=np.diag(record.deviations**2).ravel(),
            position_covariance_type=2,
        )
        self._write("/fix", record.stamp, message, came)

    def transform(
        self,
        stamp: int,
        pose: NDArray[np.float64],
        frame: str,
        child_frame: str,
        static: bool,
        came: int | None = None,
    ) -> None:
        """Write the pose (7,) of ``child_frame`` in ``frame`` on /tf_static or /tf."""
        self._write("/tf_static" if static else "/tf", stamp, self._transforms(stamp, frame, {child_frame: pose}), came)

    def _transforms(self, stamp: int, frame: str, poses: Mapping[str, NDArray[np.float64]]) -> Any:
        stamped = [
            self._make(
                "geometry_msgs/msg/TransformStamped",
                header=self._header(stamp, frame),
                child_frame_id=child,
                transform=self._make(
                    "geometry_msgs/msg/Transform",
                    translation=self._vector(pose[:3]),
                    rotation=self._rotation(pose[3:]),
                ),
            )
            for child, pose in poses.items()
        ]
        return self._make("tf2_msgs/msg/TFMessage", transforms=stamped)

    def _mounted(
        self, mount: NDArray[np.float64] | None, record: ScanRecord | CloudRecord | FixRecord, base_frame: str
    ) -> None:
        """Tell the sensor's place on the robot where it is new or has changed, and the others' with it: who comes late
        is told the last message alone.
        """
        if mount is not None and not np.array_equal(mount, self._mounts.get(record.frame, ())):
            self._mounts[record.frame] = mount
            self._write("/tf_static", record.stamp, self._transforms(record.stamp, base_frame, self._mounts))

    def _write(self, topic: str, stamp: int, message: Any, came: int | None = None) -> None:
        self._bag.write(
            topic, stamp if came is None else came, self._bag.typestore.serialize_cdr(message, message.__msgtype__)
        )

    def _make(self, msgtype: str, **fields: Any) -> Any:
        return self._types[msgtype](**fields)

    def _header(self, stamp: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(stamp, 1_000_000_000)
        time = self._make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def _pose(self, values: NDArray[np.float64]) -> Any:
        return self._make(
            "geometry_msgs/msg/Pose",
            position=self._make("geometry_msgs/msg/Point", **_xyz(values[:3])),
            orientation=self._rotation(values[3:]),
        )

    def _vector(self, values: Any) -> Any:
        return self._make("geometry_msgs/msg/Vector3", **_xyz(values))

    def _rotation(self, quaternion: Any) -> Any:
        return self._make("geometry_msgs/msg/Quaternion", **_xyz(quaternion[:3]), w=float(quaternion[3]))


def _xyz(values: Any) -> dict[str, float]:
    x, y, z = values
    return {"x": float(x), "y": float(y), "z": float(z)}
