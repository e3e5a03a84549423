"""Bags as logs: odometry, scans and clouds of a ROS 1 bag or a rosbag2, with the sensors' extrinsics from its
transforms.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.base_name import base_among
from dsg_ros.errors import UserError
from dsg_ros.io import pointcloud
from dsg_ros.io.point_times import PointTimes
from dsg_ros.io.rawbag import RawBag, Topic
from dsg_ros.io.records import CloudRecord, Contents, MalformedMessage, OdometryRecord, Record, ScanRecord, Topics

_log = logging.getLogger(__name__)

ODOMETRY = "nav_msgs/msg/Odometry"
SCAN = "sensor_msgs/msg/LaserScan"
CLOUD = "sensor_msgs/msg/PointCloud2"
_TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_TF_PROBED = 500  # /tf messages looked through for a sensor's mounting that /tf_static does not tell
_NAMED = 5


class BagLog:
    """Odometry, scans and clouds in order of bag time, each with its header's stamp.

    Scans and clouds carry base_from_sensor as /tf_static tells it (failing that, the first messages on /tf), where
    "base" is the odometry's child frame, or without odometry as `Topics` says; None where no chain of transforms joins
    the two, or nothing is called a base.
    Raises `UserError` where a named topic, or any scan, is missing, listing the topics there are.
    """

    paired = False

    def __init__(self, path: Path, topics: Topics, point_time_unit: str = "auto") -> None:
        self._path, self._point_time_unit = path, point_time_unit
        self._counts: Counter[str] = Counter()
        with RawBag(path) as bag:
            self.tells_odometry = _tells_odometry(bag, topics)
            self.odometry = choose_topic(bag, ODOMETRY, topics.odom, "odometry") if self.tells_odometry else None
            self.sensors = _sensors(bag, topics)
            self._mounts = Mounts(bag)
            self._base = topics.base_frame if self.odometry is None else _first_base(bag, self.odometry)

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def __len__(self) -> int:
        return sum(topic.count for topic in self.sensors)

    def __iter__(self) -> Iterator[Record]:
        self._counts.clear()
        times = PointTimes(self._point_time_unit)
        base = self._base
        with RawBag(self._path) as bag:
            topics = self.sensors if self.odometry is None else [self.odometry, *self.sensors]
            for topic, time, data in bag.messages(topics):
                try:
                    message = bag.deserialize(data, topic.msgtype)
                    record: Record
                    if topic == self.odometry:
                        record = odometry = _odometry(message, topic.name)
                        base = self._frame_change(base, odometry.child_frame, topic.name)
                    else:
                        record = self._sensor(message, topic, base, times)
                except (ValueError, AttributeError) as error:
                    self._refuse(topic, time, error)
                    continue
                yield record
            self._counts.update(bag.counts)

    def _sensor(self, message: Any, topic: Topic, base: str, times: PointTimes) -> Record:
        stamp, frame = header_stamp(message.header), str(message.header.frame_id)
        if not base and self.odometry is None:
            base = self._mounts.base_above(frame)
        mount = self._mounts.base_from(base, frame) if base else None
        if topic.msgtype == CLOUD:
            cloud = pointcloud.decode(message, stamp, times.of(topic.name, frame, stamp))
            return CloudRecord(stamp, cloud.points, cloud.times, frame, mount, topic.name, cloud.dropped)
        return ScanRecord(
            stamp,
            np.asarray(message.ranges, np.float32),
            float(message.angle_min),
            float(message.angle_increment),
            float(message.range_min),
            float(message.range_max),
            float(message.time_increment),
            frame,
            mount,
            topic.name,
        )

    def _frame_change(self, before: str, now: str, topic: str) -> str:
        if before and now != before:
            self._counts["frame_changes"] += 1
            if self._counts["frame_changes"] == 1:
                _log.warning("%s: %s: child_frame_id changed from %r to %r", self._path, topic, before, now)
        return now

    def _refuse(self, topic: Topic, time: int, error: Exception) -> None:
        cause = "malformed_messages" if isinstance(error, MalformedMessage) else "undecodable_messages"
        self._counts[cause] += 1
        if self._counts[cause] <= _NAMED:
            _log.warning("%s: %s at bag time %.6f: skipped: %s", self._path, topic.name, time / 1e9, error)


class Mounts:
    """Where sensors stand on the robot, from the bag's transforms."""

    def __init__(self, bag: RawBag) -> None:
        self._path = bag.path
        self._parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
        self._known: dict[tuple[str, str], NDArray[np.float64] | None] = {}
        topics = [topic for msgtype in _TRANSFORMS for topic in bag.find(msgtype)]
        fixed = [topic for topic in topics if topic.name.endswith("tf_static")]
        self._read(bag, fixed)
        self._read(bag, [topic for topic in topics if topic not in fixed], _TF_PROBED)

    def base_from(self, base: str, sensor: str) -> NDArray[np.float64] | None:
        """Pose (7,) of the sensor's frame in the base frame; None, said once, where no transforms join them."""
        key = (_plain(base), _plain(sensor))
        if key not in self._known:
            self._known[key] = self._joined(*key)
            if self._known[key] is None:
                _log.warning(
                    "%s: no transform from %r to %r in the bag: the sensor is taken to stand at the base",
                    self._path,
                    *key,
                )
        return self._known[key]

    def base_above(self, sensor: str) -> str:
        """The frame above the sensor's that is called a base; empty where none is."""
        return base_among(list(self._ancestors(_plain(sensor))))

    def _joined(self, base: str, sensor: str) -> NDArray[np.float64] | None:
        up_base, up_sensor = self._ancestors(base), self._ancestors(sensor)
        common = next((frame for frame in up_sensor if frame in up_base), None)
        return None if common is None else poses.between(up_base[common], up_sensor[common])

    def _ancestors(self, frame: str) -> dict[str, NDArray[np.float64]]:
        """Pose of ``frame`` in itself and in each frame above it, nearest first."""
        found = {frame: poses.IDENTITY.copy()}
        pose = poses.IDENTITY.copy()
        while frame in self._parents and self._parents[frame][0] not in found:
            frame, step = self._parents[frame]
            pose = poses.compose(step, pose)
            found[frame] = pose
        return found

    def _read(self, bag: RawBag, topics: list[Topic], most: int | None = None) -> None:
        if not topics:
            return
        for seen, (topic, _, data) in enumerate(bag.messages(topics)):
            if most is not None and seen >= most:
                return
            try:
                transforms = bag.deserialize(data, topic.msgtype).transforms
            except ValueError as error:
                _log.warning("%s: %s: %s", self._path, topic.name, error)
                continue
            for each in transforms:
                t, q = each.transform.translation, each.transform.rotation
                pose = np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w], float)
                norm = np.linalg.norm(pose[3:])
                if np.isfinite(pose).all() and norm > 1e-6:
                    pose[3:] /= norm
                    # The first word counts: /tf_static is read first.
                    self._parents.setdefault(_plain(each.child_frame_id), (_plain(each.header.frame_id), pose))


def choose_topic(bag: RawBag, msgtype: str, name: str, what: str) -> Topic:
    """The topic ``name`` of this type, or the first of it; `UserError`, with what there is, where there is none."""
    found = bag.find(msgtype)
    if name:
        found = [topic for topic in found if _plain(topic.name) == _plain(name)]
    if not found:
        wanted = f"topic {name} with messages of type {msgtype}" if name else f"{what} ({msgtype})"
        raise UserError(f"{bag.path}: no {wanted}; the bag has {_listing(bag)}")
    if len(found) > 1:
        _log.info("%s: %s from %s; also there: %s", bag.path, what, found[0].name, ", ".join(t.name for t in found[1:]))
    return found[0]


def _sensors(bag: RawBag, topics: Topics) -> list[Topic]:
    chosen = []
    if topics.scan:
        chosen.append(choose_topic(bag, SCAN, topics.scan, "scans"))
    if topics.points:
        chosen.append(choose_topic(bag, CLOUD, topics.points, "points"))
    if chosen:
        return chosen
    scans, clouds = bag.find(SCAN), bag.find(CLOUD)
    if not scans and not clouds:
        raise UserError(f"{bag.path}: no scans ({SCAN}) and no points ({CLOUD}); the bag has {_listing(bag)}")
    if scans and clouds and topics.one_kind:
        names = ", ".join(topic.name for topic in clouds)
        _log.info("%s: its scans are taken; also there, to be named as the topic of points: %s", bag.path, names)
        clouds = []
    chosen = [choose_topic(bag, SCAN, "", "scans")] if scans else []
    return chosen + ([choose_topic(bag, CLOUD, "", "points")] if clouds else [])


def contents(path: Path, topics: Topics) -> Contents:
    """Of the bag at ``path``, as a `BagLog` of these topics reads it; what is missing is told by that."""
    with RawBag(path) as bag:
        named = bool(topics.scan or topics.points)
        clouds = not topics.scan if named else bool(bag.find(CLOUD)) and not bag.find(SCAN)
        return Contents(clouds, _tells_odometry(bag, topics))


def base_frame(path: Path, topics: Topics) -> str:
    """Frame of the base of a `BagLog` of these topics, as its odometry first names it; empty where it has none."""
    with RawBag(path) as bag:
        if not _tells_odometry(bag, topics):
            return ""
        return _first_base(bag, choose_topic(bag, ODOMETRY, topics.odom, "odometry"))


def _tells_odometry(bag: RawBag, topics: Topics) -> bool:
    return bool(topics.odom or bag.find(ODOMETRY))


def _listing(bag: RawBag) -> str:
    return ", ".join(f"{topic.name} ({topic.msgtype}, {topic.count})" for topic in bag.topics) or "no topic at all"


def _first_base(bag: RawBag, odometry: Topic) -> str:
    """The child frame of the first message that can be read, as scans may come before it; empty where none can."""
    for topic, _, data in bag.messages([odometry]):
        with contextlib.suppress(ValueError, AttributeError):  # counted where it is read in its turn
            return str(bag.deserialize(data, topic.msgtype).child_frame_id)
    return ""


def _odometry(message: Any, topic: str) -> OdometryRecord:
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    q = orientation
    return OdometryRecord(
        header_stamp(message.header),
        np.array([position.x, position.y, position.z, q.x, q.y, q.z, q.w], float),
        str(message.header.frame_id),
        str(message.child_frame_id),
        np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], float),
        np.asarray(message.pose.covariance, float).reshape(6, 6),
        topic,
    )


def header_stamp(header: Any) -> int:
    """In nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _plain(name: str) -> str:
    """tf and topic names without the leading slash that ROS 1 allowed."""
    return name.lstrip("/")
