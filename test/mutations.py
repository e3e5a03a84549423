"""Messages as nobody should send them: whole ones with any values, and bytes that may be no message at all."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from diagnostic_msgs.msg import KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message
from sensor_msgs.msg import LaserScan, NavSatFix, PointCloud2, PointField
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.io.records import FixRecord
from dsg_ros.ros import convert

SECOND = 1_000_000_000
KINDS = {
    "odom": Odometry, "scan": LaserScan, "points": PointCloud2, "tf": TFMessage,
    "initialpose": PoseWithCovarianceStamped, "reference": PoseWithCovarianceStamped, "what_if": KeyValue,
    "fix": NavSatFix,
}  # fmt: skip
BASE, LASER = "base_link", "laser"


def good(topic: str, stamp: int) -> Any:
    """A message that makes sense, at ``stamp`` [ns]."""
    if topic == "odom":
        return convert.odometry("odom", BASE, stamp, poses.from_planar(1.0, 2.0, 0.3))
    if topic == "scan":
        ranges = array.array("f", [2.0] * 30)
        return LaserScan(
            header=convert.header(stamp, LASER), angle_increment=0.1, range_min=0.1, range_max=50.0, ranges=ranges
        )
    if topic == "points":
        points, times = np.ones((30, 3), np.float32), np.linspace(0.0, 0.09, 30, dtype=np.float32)
        return convert.point_cloud(LASER, stamp, points, times)
    if topic == "tf":
        return TFMessage(transforms=[convert.transform(BASE, LASER, stamp, poses.from_planar(0.1, 0.0, 0.0))])
    if topic in ("initialpose", "reference"):
        return convert.pose_with_covariance("map", stamp, poses.from_planar(1.0, 2.0, 0.3), np.eye(6))
    if topic == "fix":
        return convert.fix(FixRecord(stamp, np.array([48.0, 11.0, 500.0]), np.ones(3), poses.IDENTITY, LASER))
    return KeyValue(key="scale", value="0.1")


def mutated(topic: str, number: int) -> bytes:
    """CDR of a good message, damaged: the same ``number``, the same damage.  Never empty: Fast DDS takes an empty
    sample for none, and a reliable writer that sends one is not heard again, by nobody.
    """
    rng = np.random.default_rng([number, *topic.encode()])
    data = bytearray(serialize_message(good(topic, 1000 * SECOND + number * SECOND // 50)))
    for _ in range(rng.integers(1, 4)):
        kind, place = rng.integers(6), int(rng.integers(4 if rng.random() < 0.9 else 0, max(5, len(data))))
        if kind == 0:  # a bit
            data[min(place, len(data) - 1)] ^= 1 << int(rng.integers(8))
        elif kind == 1:  # a word of extremes: lengths, and numbers of all kinds
            word = EXTREMES[rng.integers(len(EXTREMES))]
            place -= place % len(word)
            data[place : place + len(word)] = word
        elif kind == 2:  # cut off
            del data[max(1, place) :]
        elif kind == 3:  # noise
            data[place : place + 8] = rng.bytes(8)
        elif kind == 4:  # a piece twice, or left out
            piece = data[place : place + int(rng.integers(1, 64))]
            data[place:place] = piece if rng.random() < 0.5 else b""
        else:
            del data[place : place + int(rng.integers(1, 16))]
    return bytes(data) or b"\0"


EXTREMES = [
    *(int(n).to_bytes(4, "little") for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24)),
    *(np.float32(x).tobytes() for x in (np.nan, np.inf, -np.inf, 3e38, 1e-45)),
    *(np.float64(x).tobytes() for x in (np.nan, np.inf, -np.inf, 1.7e308, 5e-324, -1e16)),
    b"\xff\xfe\xfd\x80",
]

_text = st.one_of(st.sampled_from(["", BASE, LASER, "odom", "map", "/", "//laser"]), st.text(max_size=20))
_long = st.sampled_from(["x" * 10_000, "\n" * 300])
_double = st.one_of(st.floats(-100, 100), st.floats())
_single = st.one_of(st.floats(0, 60, width=32), st.floats(width=32))
_stamps = st.one_of(st.integers(999, 1003), st.integers(-(2**31), 2**31 - 1))


@st.composite
def _header(draw: st.DrawFn, message: Any) -> None:
    message.header.stamp.sec, message.header.stamp.nanosec = draw(_stamps), draw(st.integers(0, 2**32 - 1))
    message.header.frame_id = draw(st.one_of(_text, _text, _text, _long))


def _fill(draw: st.DrawFn, message: Any, fields: str, values: st.SearchStrategy[float]) -> None:
    for field in fields.split():
        setattr(message, field, draw(values))


def _pose(draw: st.DrawFn, pose: Any) -> None:
    _fill(draw, pose.position, "x y z", _double)
    _fill(draw, pose.orientation, "x y z w", _double)


@st.composite
def whole(draw: st.DrawFn, topic: str) -> Any:
    """A message that the middleware would deliver, with any values in its fields."""
    message = good(topic, 1000 * SECOND)
    if topic == "what_if":
        return KeyValue(key=draw(_text), value=draw(st.one_of(_text, _long)))
    if topic == "tf":
        for transform in (message.transforms * 2)[: draw(st.integers(0, 2))]:
            draw(_header(transform))
            transform.child_frame_id = draw(_text)
            _fill(draw, transform.transform.translation, "x y z", _double)
            _fill(draw, transform.transform.rotation, "x y z w", _double)
        return message
    draw(_header(message))
    if topic in ("odom", "initialpose", "reference"):
        _pose(draw, message.pose.pose)
        message.pose.covariance = np.array(draw(st.lists(_double, min_size=36, max_size=36)))
        if topic == "odom":
            message.child_frame_id = draw(_text)
    elif topic == "fix":
        _fill(draw, message, "latitude longitude altitude", _double)
        message.status.status, message.position_covariance_type = draw(st.integers(-1, 2)), draw(st.integers(0, 3))
        message.position_covariance = np.array(draw(st.lists(_double, min_size=9, max_size=9)))
    elif topic == "scan":
        fields = "angle_min angle_increment range_min range_max time_increment scan_time"
        _fill(draw, message, fields, _single)
        message.ranges = array.array("f", draw(st.lists(_single, max_size=40)))
    else:
        _cloud(draw, message)
    return message


def _cloud(draw: st.DrawFn, message: PointCloud2) -> None:
    size = st.one_of(st.integers(0, 40), st.sampled_from([0, 2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
    for field in ("height", "width", "point_step", "row_step"):
        if draw(st.booleans()):
            setattr(message, field, draw(size))
    names = st.sampled_from(["x", "y", "z", "t", "time", "timestamp", "intensity", ""])
    places = st.builds(
        PointField, name=names, offset=size, datatype=st.integers(0, 255), count=st.integers(0, 2**32 - 1)
    )
    if draw(st.booleans()):
        message.fields = [*message.fields, *draw(st.lists(places, max_size=3))]
    message.is_bigendian, message.is_dense = draw(st.booleans()), draw(st.booleans())
    edits = draw(st.lists(st.tuples(st.integers(0, len(message.data) - 1), st.integers(0, 255)), max_size=40))
    for place, value in edits:
        message.data[place] = value
    if draw(st.integers(0, 9)) == 0:
        message.data = message.data[: draw(st.one_of(st.just(0), st.integers(0, len(message.data))))]
