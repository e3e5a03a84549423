from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dsg_ros import poses
from dsg_ros.config import Input
from dsg_ros.errors import UserError
from dsg_ros.io.bagwriter import BagWriter, RunWriter, offered_qos
from dsg_ros.io.logs import contents, frames, open_log
from dsg_ros.io.rawbag import RawBag
from dsg_ros.io.records import CloudRecord, OdometryRecord, ScanRecord, Topics
from dsg_ros.log_settings import settings_for

SECOND = 1_000_000_000
MOUNT = poses.from_planar(0.2, -0.1, 0.3)


def odometry(index: int) -> OdometryRecord:
    stamp = 100 * SECOND + index * SECOND // 10
    covariance = np.diag(np.arange(1.0, 7.0))
    return OdometryRecord(stamp, poses.from_planar(0.1 * index, 0.0, 0.01 * index), covariance=covariance)


def scan(index: int, beams: int = 40) -> ScanRecord:
    ranges = np.linspace(1.0, 4.0, beams, dtype=np.float32) + np.float32(0.01 * index)
    return ScanRecord(odometry(index).stamp, ranges, -1.0, 0.05, 0.1, 20.0, 0.0, base_from_sensor=MOUNT)


def write_run(path: Path, storage: str = "mcap", scans: int = 30) -> Path:
    with BagWriter(path, storage) as bag:
        writer = RunWriter(bag)
        for index in range(scans):
            writer.odometry(odometry(index))
            writer.scan(scan(index), "base_link")
    return path


def file_of(bag: Path) -> Path:
    (file,) = [file for file in bag.iterdir() if file.suffix in (".mcap", ".db3")]
    return file


@pytest.fixture(params=["mcap", "sqlite3"])
def storage(request) -> str:
    return request.param


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_run_comes_back_as_it_was_written(tmp_path, storage, whole_folder):
    bag = write_run(tmp_path / "run", storage)
    log = open_log(bag if whole_folder else file_of(bag))
    records = list(log)
    assert len(log) == 30
    assert [type(record) for record in records] == [OdometryRecord, ScanRecord] * 30
    for index, (a, b) in enumerate(zip(records[::2], records[1::2], strict=True)):
        np.testing.assert_array_equal(a.pose, odometry(index).pose)
        np.testing.assert_array_equal(a.covariance, odometry(index).covariance)
        np.testing.assert_array_equal(b.ranges, scan(index).ranges)
        np.testing.assert_allclose(b.base_from_sensor, MOUNT, atol=1e-15)
        assert (a.stamp, a.frame, a.child_frame, b.stamp, b.frame) == (b.stamp, "odom", "base_link", a.stamp, "laser")
    assert log.counts == {}


def test_metadata_tells_everything_that_ros2_bag_info_shows(tmp_path, storage):
    import yaml

    bag = write_run(tmp_path / "run", storage)
    info = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["storage_identifier"] == storage
    assert info["relative_file_paths"] == [file_of(bag).name]
    assert info["message_count"] == 91
    assert info["starting_time"]["nanoseconds_since_epoch"] == 100 * SECOND
    assert isinstance(info["custom_data"], dict)
    topics = {each["topic_metadata"]["name"]: each for each in info["topics_with_message_count"]}
    assert {name: each["message_count"] for name, each in topics.items()} == {
        "/odom": 30,
        "/scan": 30,
        "/tf": 30,
        "/tf_static": 1,
    }
    for name, each in topics.items():
        meta = each["topic_metadata"]
        assert meta["serialization_format"] == "cdr"
        assert meta["type_description_hash"].startswith("RIHS01_")
        (qos,) = meta["offered_qos_profiles"]
        assert qos["reliability"] == "reliable"
        assert qos["durability"] == ("transient_local" if name == "/tf_static" else "volatile")
    # The hash that real tf2 listeners of Jazzy announce.
    expected = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
    assert topics["/tf"]["topic_metadata"]["type_description_hash"] == expected


def test_bag_time_increases_although_stamps_run_back(tmp_path, storage):
    stamps = [5 * SECOND, 4 * SECOND, 4 * SECOND, 6 * SECOND]
    with BagWriter(tmp_path / "run", storage) as bag:
        writer = RunWriter(bag)
        for stamp in stamps:
            writer.odometry(OdometryRecord(stamp, poses.IDENTITY))
    with RawBag(tmp_path / "run") as bag:
        read = [
            (time, bag.deserialize(data, topic.msgtype))
            for topic, time, data in bag.messages(bag.find("nav_msgs/msg/Odometry"))
        ]
        times = [time for _, time, _ in bag.messages()]
    assert [message.header.stamp.sec * SECOND for _, message in read] == stamps
    assert len(set(times)) == len(times) == 8
    assert times == sorted(times)


def test_an_existing_bag_is_never_touched(tmp_path):
    bag = write_run(tmp_path / "run")
    before = file_of(bag).read_bytes()
    with pytest.raises(UserError, match="exists already"):
        BagWriter(bag)
    assert file_of(bag).read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_bag_leaves_nothing(tmp_path, storage, error):
    def interrupted() -> None:
        with BagWriter(tmp_path / "run", storage) as bag:
            RunWriter(bag).odometry(odometry(0))
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.9, 0.6])
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_truncated_bag_is_read_as_far_as_it_goes(tmp_path, storage, share, as_folder, caplog):
    bag = write_run(tmp_path / "run", storage, scans=300)
    file = file_of(bag)
    with file.open("r+b") as handle:
        handle.truncate(int(file.stat().st_size * share))
    with caplog.at_level(logging.WARNING):
        log = open_log(bag if as_folder else file)
        read = [record for record in log if isinstance(record, ScanRecord)]
    assert 100 < len(read) < 300
    np.testing.assert_array_equal(read[100].ranges, scan(100).ranges)
    np.testing.assert_allclose(read[0].base_from_sensor, MOUNT, atol=1e-15)
    assert log.counts.get("bag_cut_short", 0) + log.counts.get("messages_unreadable", 0) > 0
    assert str(tmp_path) in caplog.text
    assert "messages" in caplog.text


def test_damaged_metadata_does_not_cost_the_messages(tmp_path, storage):
    bag = write_run(tmp_path / "run", storage)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  version: [")
    log = open_log(bag)
    assert sum(isinstance(record, ScanRecord) for record in log) == len(log) == 30


def test_contradictory_scans_are_skipped_and_told(tmp_path, caplog):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        for index, increment in enumerate([0.05, 0.0, math.nan, 0.05]):
            writer.odometry(odometry(index))
            record = scan(index)
            writer.scan(ScanRecord(record.stamp, record.ranges, -1.0, increment, 0.1, 20.0), "base_link")
    source = frames(open_log(tmp_path / "run"), Input())
    with caplog.at_level(logging.WARNING):
        assert len(list(source)) == 2
    assert source.counts["malformed_messages"] == 2
    assert "/scan at 100.100000: skipped: angle_increment is 0 with 40 ranges" in caplog.text


def test_a_truncated_ros1_bag_is_read_as_far_as_it_goes(recordings, tmp_path, caplog):
    whole = (recordings / "bags" / "SIMULATED_fuse_turtlebot3.bag").read_bytes()
    path = tmp_path / "cut.bag"
    path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        log = open_log(path)
        scans = [record for record in log if isinstance(record, ScanRecord)]
    assert 100 < len(scans) == len(log) < 457
    assert log.counts["bag_cut_short"] == 1
    assert "messages can be read" in caplog.text


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("x.bag", b"#ROSBAG V2.0\n", "no message can be read"),
        ("x.mcap", b"\x89MCAP0\r\n", "no message can be read"),
        ("x.db3", b"SQLite format 3\x00", "no message can be read"),
        ("x.bag", b"\x89MCAP0\r\n", "holds a mcap bag; rename it to end in .mcap"),
        ("x.mcap", b"PNG", "not a log this program knows"),
    ],
)
def test_foreign_bags_are_refused(tmp_path, name, head, message):
    path = tmp_path / name
    path.write_bytes(head + bytes(200))
    with pytest.raises(UserError, match=message):
        open_log(path)


def test_folders_that_are_no_bags_are_refused(tmp_path):
    with pytest.raises(UserError, match="no rosbag2"):
        open_log(tmp_path)
    bag = write_run(tmp_path / "run")
    (bag / "metadata.yaml").unlink()
    with pytest.raises(UserError, match=r"metadata.yaml is missing; name the file itself instead: .*run.mcap"):
        open_log(bag)
    assert len(open_log(file_of(bag))) == 30


def test_missing_topics_are_refused_with_those_there_are(tmp_path, recordings):
    bag = write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"no topic /front .*; the bag has .*/scan \(sensor_msgs/msg/LaserScan, 30\)"):
        open_log(bag, Topics(scan="/front"))
    with pytest.raises(UserError, match=r"no topic /scan with messages of type nav_msgs/msg/Odometry"):
        open_log(bag, Topics(odom="/scan"))
    with pytest.raises(UserError, match=r"no scans .*and no points .*/imu/data"):
        open_log(recordings / "bags" / "robot_localization_test1.bag")


def test_a_bag_without_odometry_is_mapped_by_its_scans(tmp_path, caplog):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        for index in range(5):
            writer.scan(scan(index), "laser")
    path = tmp_path / "run"
    log = open_log(path)
    assert not log.tells_odometry
    with pytest.raises(UserError, match=r"run: it has no odometry; --set input.odometry=none maps by the scans alone"):
        frames(log, Input())
    settings = settings_for(path, Topics())
    assert settings.input.odometry == "none"
    assert "has no odometry" in caplog.text
    stream = frames(log, settings.input)
    found = list(stream)
    assert [frame.stamp for frame in found] == [scan(index).stamp for index in range(5)]
    for frame in found:
        np.testing.assert_array_equal(frame.odometry.poses, poses.IDENTITY[None])
        np.testing.assert_array_equal(frame.base_from_sensor, poses.IDENTITY)
    assert stream.counts.get("scans_without_extrinsic", 0) == 0


@pytest.mark.parametrize(
    ("top", "named", "expected"),
    [
        ("base_link", "", MOUNT),
        ("robot1/base_footprint", "", MOUNT),
        ("cart", "", poses.IDENTITY),
        ("cart", "cart", MOUNT),
    ],
)
def test_without_odometry_the_sensor_sits_where_the_transforms_say(tmp_path, top, named, expected):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        writer.transform(100 * SECOND, poses.IDENTITY, "world", top, static=True)
        writer.scan(scan(0), top)  # and that it is mounted on it
    (frame,) = frames(open_log(tmp_path / "run", Topics(base_frame=named)), Input(odometry="none"))
    np.testing.assert_allclose(frame.base_from_sensor, expected, atol=1e-12)


def test_odometry_that_is_not_wanted_is_not_taken(tmp_path):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        for index in range(30):
            writer.scan(scan(index), "base_link")
            writer.odometry(odometry(index))
    assert settings_for(tmp_path / "run", Topics()).input.odometry == "measured"
    stream = frames(open_log(tmp_path / "run"), Input(odometry="none"))
    for frame in stream:
        np.testing.assert_array_equal(frame.odometry.poses, poses.IDENTITY[None])
        np.testing.assert_allclose(frame.base_from_sensor, MOUNT, atol=1e-12)  # before the first odometry, too
    assert stream.counts["frames"] == 30
    assert stream.counts.get("odometry_received", 0) == 0


@pytest.mark.parametrize(
    ("topics", "scans", "clouds"),
    [
        (Topics(), 5, 5),
        (Topics(one_kind=True), 5, 0),
        (Topics(scan="scan"), 5, 0),
        (Topics(points="/points"), 0, 5),
        (Topics(points="/points", one_kind=True), 0, 5),
    ],
)
def test_clouds_and_scans_are_read_by_choice(tmp_path, topics, scans, clouds):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        bag.add_topic("/points", "sensor_msgs/msg/PointCloud2", offered_qos())
        for index in range(6):
            writer.odometry(odometry(index))
            if index < 5:
                writer.scan(scan(index), "base_link")
                bag.write("/points", odometry(index).stamp, _cloud(bag, odometry(index).stamp, broken=False))
        bag.write("/points", odometry(6).stamp, _cloud(bag, odometry(6).stamp, broken=True))
    log = open_log(tmp_path / "run", topics)
    assert contents(tmp_path / "run", topics).clouds is (scans == 0)
    records = list(log)
    assert sum(isinstance(record, ScanRecord) for record in records) == scans
    read = [record for record in records if isinstance(record, CloudRecord)]
    assert len(read) == clouds
    assert log.counts.get("malformed_messages", 0) == (1 if clouds else 0)
    for cloud in read:
        np.testing.assert_array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
        np.testing.assert_allclose(cloud.times, [0.0, 0.05])
        assert cloud.dropped == {"not_finite": 1}
    assert sum(1 for _ in frames(log, Input())) == scans + clouds


def _cloud(bag: BagWriter, stamp: int, broken: bool) -> memoryview:
    types = bag.typestore.types
    dtype = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("t", "<u4")])
    table = np.array([(1, 2, 3, 0), (math.nan, 0, 0, 1), (4, 5, 6, 50_000_000)], dtype)
    fields = [
        types["sensor_msgs/msg/PointField"](name=name, offset=4 * i, datatype=6 if name == "t" else 7, count=1)
        for i, name in enumerate("xyzt")
    ]
    seconds, nanoseconds = divmod(stamp, SECOND)
    time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    message = types["sensor_msgs/msg/PointCloud2"](
        header=types["std_msgs/msg/Header"](stamp=time, frame_id="lidar"),
        height=1,
        width=3,
        fields=fields[1:] if broken else fields,
        is_bigendian=False,
        point_step=16,
        row_step=48,
        data=np.frombuffer(table.tobytes(), np.uint8),
        is_dense=True,
    )
    return bag.typestore.serialize_cdr(message, message.__msgtype__)


def test_the_mounting_follows_chains_of_transforms_through_a_common_frame(tmp_path):
    """base_link <- base_footprint -> mast -> laser: the sensor is not below the odometry's child frame."""
    footprint, mast, laser = (poses.exp(np.full(6, value)) for value in (0.1, 0.2, 0.3))
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        for parent, child, pose in (
            ("base_footprint", "base_link", footprint),
            ("base_footprint", "mast", mast),
            ("mast", "laser", laser),
        ):
            writer.transform(100 * SECOND, pose, parent, child, static=True)
        writer.odometry(odometry(0))
        writer.scan(ScanRecord(odometry(0).stamp, np.ones(3, np.float32), 0.0, 0.1, 0.0, 9.0), "base_link")
    (read,) = [record for record in open_log(tmp_path / "run") if isinstance(record, ScanRecord)]
    expected = poses.compose(poses.inverse(footprint), poses.compose(mast, laser))
    np.testing.assert_allclose(read.base_from_sensor, expected, atol=1e-12)


def test_a_mounting_the_bag_does_not_tell_is_said_and_counted(recordings, caplog):
    log = open_log(recordings / "bags" / "SIMULATED_fuse_turtlebot3.bag")
    source = frames(log, Input())
    with caplog.at_level(logging.WARNING):
        read = list(source)
    assert len(read) == len(log) == 457
    assert "no transform from 'base_footprint' to 'base_scan'" in caplog.text
    assert source.counts["scans_without_extrinsic"] == 457
    assert source.progress == 1.0
    assert all(len(frame.odometry.stamps) >= 1 for frame in read)


def test_frame_changes_are_counted(tmp_path):
    with BagWriter(tmp_path / "run") as bag:
        writer = RunWriter(bag)
        for index, child in enumerate(["base_link", "base_link", "imu_link"]):
            record = odometry(index)
            writer.odometry(OdometryRecord(record.stamp, record.pose, "odom", child))
            writer.scan(scan(index), "base_link")
    log = open_log(tmp_path / "run")
    list(log)
    assert log.counts["frame_changes"] == 1


def write_ros1(path: Path, topics: list[tuple[str, str, str]]) -> Path:
    """A ROS 1 bag of std_msgs/Int32-like messages: ``(topic, type, definition)``, one message each with value 7."""
    with Ros1Writer(path) as writer:
        for index, (topic, msgtype, definition) in enumerate(topics):
            store = get_typestore(Stores.ROS1_NOETIC)
            if msgtype not in store.fielddefs:
                store.register(get_types_from_msg(definition, msgtype))
            connection = writer.add_connection(topic, msgtype, typestore=store, latching=int(topic == "/latched"))
            data = store.serialize_ros1(store.types[msgtype](7), msgtype)
            writer.write(connection, (index + 1) * SECOND, data)
    return path


def test_types_of_a_bag_s_own_are_decoded_by_its_definitions(tmp_path):
    path = write_ros1(tmp_path / "a.bag", [("/own", "my_robot_msgs/msg/Bumper", "int32 force\n")])
    with RawBag(path) as bag:
        (topic,) = bag.topics
        ((_, time, data),) = bag.messages()
        assert bag.deserialize(data, topic.msgtype).force == 7
        assert time == SECOND
        with pytest.raises(ValueError, match="cannot be decoded"):
            bag.deserialize(b"\x01", topic.msgtype)
