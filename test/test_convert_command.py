from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dsg_ros import cli
from dsg_ros.config import Input
from dsg_ros.io.logs import frames, open_log
from dsg_ros.io.rawbag import RawBag

SECOND = 1_000_000_000
BEAMS = 60


def write_log(path: Path, scans: int) -> Path:
    """A CARMEN log of a robot that drives straight; every seventh stamp runs back by 30 ms."""
    lines = []
    for index in range(scans):
        stamp = 1000.0 + 0.1 * index - (0.13 if index % 7 == 6 else 0.0)
        ranges = " ".join(f"{2 + 0.01 * ((index + beam) % 50):.2f}" for beam in range(BEAMS))
        pose = f"{0.05 * index:.6f} 0.010000 {0.001 * index:.6f}"
        lines.append(f"FLASER {BEAMS} {ranges} {pose} {pose} {stamp:.6f} nohost {index}\n")
    path.write_text("PARAM robot_frontlaser_offset 0.2 nohost 0\n" + "".join(lines))
    return path


def convert(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_log_and_its_bag_give_the_same_frames(tmp_path, capsys, storage):
    log, bag = write_log(tmp_path / "run.clf", 40), tmp_path / "bags" / "run"
    assert convert(log, bag, "--storage", storage, "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["topics"] == {"/odom": 40, "/scan": 40, "/tf": 40, "/tf_static": 1}
    assert report["messages"] == 121
    assert report["left_out"] == {"ignored_param": 1}
    assert report["duration"] == pytest.approx(3.9, abs=0.2)
    _same_frames(log, bag)


def _same_frames(log: Path, bag: Path) -> int:
    count = 0
    for a, b in zip(frames(open_log(log), Input()), frames(open_log(bag), Input()), strict=True):
        assert (a.stamp, a.planar, a.times) == (b.stamp, b.planar, b.times)
        np.testing.assert_array_equal(a.points, b.points)
        np.testing.assert_array_equal(a.base_from_sensor, b.base_from_sensor)
        np.testing.assert_array_equal(a.odometry.stamps, b.odometry.stamps)
        np.testing.assert_array_equal(a.odometry.poses, b.odometry.poses)
        count += 1
    return count


@pytest.mark.parametrize(("name", "scans"), [("mit-csail", 1988)])
def test_a_recorded_log_and_its_bag_give_the_same_frames(tmp_path, name, scans):
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "relations_benchmark"
    if not folder.is_dir():
        pytest.skip("the recorded logs (../shared/data) are not on this machine")
    log, bag = folder / f"{name}.clf.bz2", tmp_path / name
    assert convert(log, bag) == 0
    assert _same_frames(log, bag) == scans


def test_limit_takes_so_many_scans(tmp_path, capsys):
    log = write_log(tmp_path / "run.clf", 40)
    assert convert(log, tmp_path / "bag", "--limit", 7) == 0
    assert "/scan 7," in capsys.readouterr().out
    assert convert(log, tmp_path / "bag2", "--limit", -1) == 2


def test_an_existing_bag_is_refused(tmp_path, capsys):
    log, bag = write_log(tmp_path / "run.clf", 3), tmp_path / "bag"
    bag.mkdir()
    assert convert(log, bag) == 2
    assert f"{bag} exists already" in capsys.readouterr().err
    assert list(bag.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"#ROSBAG V2.0\n"])
def test_what_cannot_be_read_leaves_no_bag(tmp_path, capsys, content):
    log = tmp_path / "in" / "log.bag"
    log.parent.mkdir()
    if content is not None:
        log.write_bytes(content)
    assert convert(log, tmp_path / "bag") == 2
    assert str(log) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_ctrl_c_leaves_no_half_bag(tmp_path):
    log, out = write_log(tmp_path / "run.clf", 30_000), tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsg_ros", "convert", log, out / "bag"],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while process.poll() is None and not any(out.rglob("*.mcap")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    assert b"Traceback" not in said
    assert list(out.iterdir()) == []


ROS1 = [
    ("/scan_count", "std_msgs/msg/Int32", ""),
    ("/latched", "std_msgs/msg/Int32", ""),
    ("/own", "my_robot_msgs/msg/Bumper", "int32 force\n"),
]


def write_ros1(path: Path) -> Path:
    """A ROS 1 bag with a standard type (once latched), a type of its own and a header; three messages of each."""
    with Ros1Writer(path) as writer:
        store = get_typestore(Stores.ROS1_NOETIC)
        store.register(get_types_from_msg("int32 force\n", "my_robot_msgs/msg/Bumper"))
        for topic, msgtype, _ in ROS1:
            connection = writer.add_connection(topic, msgtype, typestore=store, latching=int(topic == "/latched"))
            for index in range(3):
                message = store.serialize_ros1(store.types[msgtype](index), msgtype)
                writer.write(connection, (index + 1) * SECOND, message)
        connection = writer.add_connection("/point", "geometry_msgs/msg/PointStamped", typestore=store)
        types = store.types
        header = types["std_msgs/msg/Header"](seq=9, stamp=types["builtin_interfaces/msg/Time"](5, 6), frame_id="odom")
        point = types["geometry_msgs/msg/PointStamped"](header, types["geometry_msgs/msg/Point"](1.0, 2.0, 3.0))
        writer.write(connection, 4 * SECOND, store.serialize_ros1(point, point.__msgtype__))
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_topic_of_a_ros1_bag_is_carried_over(tmp_path, capsys, storage):
    log, bag = write_ros1(tmp_path / "old.bag"), tmp_path / "new"
    assert convert(log, bag, "--storage", storage, "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["topics"] == {"/latched": 3, "/own": 3, "/point": 1, "/scan_count": 3}
    assert report["left_out"] == {}
    with RawBag(bag) as read:
        messages = [(topic, read.deserialize(data, topic.msgtype)) for topic, _, data in read.messages()]
        durability = {topic.name: topic.qos[0].durability.name for topic in read.topics}
    assert [message.data for topic, message in messages if topic.name == "/scan_count"] == [0, 1, 2]
    assert [message.force for topic, message in messages if topic.name == "/own"] == [0, 1, 2]
    (point,) = [message for topic, message in messages if topic.name == "/point"]
    assert (point.header.stamp.sec, point.header.stamp.nanosec, point.header.frame_id) == (5, 6, "odom")
    assert (point.point.x, point.point.y, point.point.z) == (1.0, 2.0, 3.0)
    assert durability == {
        "/latched": "TRANSIENT_LOCAL",
        "/own": "VOLATILE",
        "/point": "VOLATILE",
        "/scan_count": "VOLATILE",
    }


def test_unknown_types_are_named_and_counted(tmp_path, capsys, caplog):
    log = write_ros1(tmp_path / "old.bag")
    damaged = log.read_bytes().replace(b"int32 force\n", b"int32 *orce\n")
    assert damaged != log.read_bytes()
    log.write_bytes(damaged)
    assert convert(log, tmp_path / "new", "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["topics"] == {"/latched": 3, "/point": 1, "/scan_count": 3}
    assert report["left_out"]["unknown_type my_robot_msgs/msg/Bumper"] == 3
    assert "/own: the type my_robot_msgs/msg/Bumper is unknown" in caplog.text


def test_a_recorded_ros1_bag_keeps_every_message(tmp_path, capsys):
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "bags"
    if not folder.is_dir():
        pytest.skip("the recorded bags (../shared/data) are not on this machine")
    log = folder / "robot_localization_test1.bag"
    assert convert(log, tmp_path / "new", "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["topics"] == {"/fix": 989, "/husky_velocity_controller/odom": 3952, "/imu/data": 11865}
    with RawBag(log) as old, RawBag(tmp_path / "new") as new:
        for (topic, time_old, data_old), (copy, time_new, data_new) in zip(old.messages(), new.messages(), strict=True):
            assert topic.name == copy.name
            assert time_new >= time_old
            if topic.msgtype == "nav_msgs/msg/Odometry":
                a, b = old.deserialize(data_old, topic.msgtype), new.deserialize(data_new, copy.msgtype)
                assert [
                    getattr(a.pose.pose.position, axis) - getattr(b.pose.pose.position, axis) for axis in "xyz"
                ] == [0, 0, 0]
                assert (a.header.stamp.sec, a.header.stamp.nanosec) == (b.header.stamp.sec, b.header.stamp.nanosec)
                np.testing.assert_array_equal(a.pose.covariance, b.pose.covariance)


def test_the_readers_and_the_synchroniser_import_neither_ros_nor_jax():
    code = (
        "import sys, dsg_ros.synchroniser, dsg_ros.commands.convert, dsg_ros.io.bags, dsg_ros.io.learned, "
        "dsg_ros.io.pointfile, dsg_ros.io.pointcloud, dsg_ros.io.g2o\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib', 'jaxlie', 'rclpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
