from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.carmen import parse_stamp
from dsg_ros.io.logs import open_log
from dsg_ros.io.records import OdometryRecord, ScanRecord


def _pairs(path: Path) -> list[tuple[OdometryRecord, ScanRecord]]:
    records = list(open_log(path))
    pairs = list(zip(records[::2], records[1::2], strict=True))
    assert all(isinstance(o, OdometryRecord) and isinstance(s, ScanRecord) for o, s in pairs)
    return pairs


def test_scans_keep_file_order_and_their_own_stamp(carmen):
    pairs = _pairs(carmen)
    assert [scan.stamp for _, scan in pairs] == [100_000001000, 100_500000000, 100_250000000, 101_000000000]
    assert all(odometry.stamp == scan.stamp for odometry, scan in pairs)
    assert len(open_log(carmen)) == 4


def test_odometry_is_the_robot_pose_of_the_line(carmen):
    odometry, _ = _pairs(carmen)[2]
    np.testing.assert_allclose(odometry.pose, poses.from_planar(1.0, 0.0, 0.2), atol=1e-12)
    assert (odometry.frame, odometry.child_frame) == ("odom", "base_link")


def test_no_return_becomes_infinity_and_the_parameter_gives_the_mounting(carmen):
    _, scan = _pairs(carmen)[0]
    assert np.isposinf(scan.ranges[1])
    assert np.isfinite(np.delete(scan.ranges, 1)).all()
    np.testing.assert_allclose(scan.base_from_sensor, poses.from_planar(0.15, 0.0, 0.0))


@pytest.mark.parametrize(
    ("beams", "step", "last"), [(180, 1.0, 89.0), (181, 1.0, 90.0), (360, 0.5, 89.5), (361, 0.5, 90.0)]
)
def test_beam_angles_of_a_half_circle(tmp_path, lines, beams, step, last):
    path = tmp_path / "a.log"
    path.write_text(lines[0]("5.0", beams=beams) + "\n")
    _, scan = _pairs(path)[0]
    assert math.degrees(scan.angle_min) == pytest.approx(-90.0)
    assert math.degrees(scan.angle_increment) == pytest.approx(step)
    assert math.degrees(scan.angle_min + (beams - 1) * scan.angle_increment) == pytest.approx(last)


def test_robotlaser_says_its_own_geometry_and_where_the_laser_stands(tmp_path, lines):
    yaw = 2.0
    robot = (1.0, 2.0, yaw)
    laser = (1.0 + 0.22 * math.cos(yaw), 2.0 + 0.22 * math.sin(yaw), yaw + 0.1)
    path = tmp_path / "a.log"
    path.write_text(lines[1]("7.25", robot, laser) + "\n")
    odometry, scan = _pairs(path)[0]
    np.testing.assert_allclose(scan.base_from_sensor, poses.from_planar(0.22, 0.0, 0.1), atol=2e-6)
    np.testing.assert_allclose(odometry.pose, poses.from_planar(*robot), atol=1e-6)
    np.testing.assert_allclose(odometry.twist, [0.4, 0, 0, 0, 0, -0.1])
    assert (scan.angle_min, scan.angle_increment, scan.range_max) == (-1.570796, 0.017453, 50.0)
    assert np.isposinf(scan.ranges[-1])
    assert scan.stamp == 7_250000000


def test_mounting_is_steady_under_rounding_but_a_moved_laser_is_counted(tmp_path, lines):
    laser = [(0.22, 0, 0), (0.220001, 0, 0), (0.3, 0, 0)]
    path = tmp_path / "a.log"
    path.write_text("".join(lines[1](f"{i}.0", (0, 0, 0), pose) + "\n" for i, pose in enumerate(laser, 1)))
    log = open_log(path)
    scans = [record for record in log if isinstance(record, ScanRecord)]
    assert [scan.base_from_sensor[0] for scan in scans] == [0.22, 0.22, 0.3]
    assert log.counts["extrinsic_changes"] == 1


def test_other_records_are_counted_and_bad_lines_named(tmp_path, lines, caplog):
    good = lines[0]("5.0")
    bad = [
        "FLASER 180 1.0 2.0",
        good.replace("2.00", "two", 1),
        good.replace(" 5.0 nohost", " five nohost"),
        "GIBBERISH 1 2 3",
        good.replace("FLASER 180", "FLASER 179"),
        "\x00\xff\x01",
    ]
    other = ["ODOM 0 0 0 0 0 0 5.0 nohost 0", "RLASER 1 2.0 0 0 0 0 0 0 5.0 nohost 0", "", "   "]
    path = tmp_path / "a.clf"
    path.write_bytes("\n".join([good, *bad, *other, good]).encode("latin-1"))
    log = open_log(path)
    with caplog.at_level(logging.WARNING):
        scans = [record for record in log if isinstance(record, ScanRecord)]
    assert len(scans) == 2
    assert log.counts == {"ignored_odom": 1, "ignored_rlaser": 1, "malformed_lines": len(bad)}
    assert [f"{path}:{number}:" in caplog.text for number in (2, 3, 4, 5, 6, 7)] == [True] * 5 + [False]
    list(log)
    assert log.counts["malformed_lines"] == len(bad), "counts are those of one pass"


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, lzma.compress])
def test_compressed_logs_read_the_same(tmp_path, carmen, pack):
    packed = tmp_path / "misleading.txt"
    packed.write_bytes(pack(carmen.read_bytes()))
    for (a, b), (c, d) in zip(_pairs(carmen), _pairs(packed), strict=True):
        np.testing.assert_array_equal(a.pose, c.pose)
        np.testing.assert_array_equal(b.ranges, d.ranges)


def test_zip_with_one_file_and_with_several(tmp_path, carmen):
    packed = tmp_path / "log.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(carmen, "log.clf")
        archive.writestr("__MACOSX/._log.clf", b"fork")
    assert len(_pairs(packed)) == 4
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("second.clf", b"x")
    with pytest.raises(UserError, match="one file, found 2"):
        open_log(packed)


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, lzma.compress])
def test_truncated_compression_is_refused(tmp_path, carmen, pack):
    packed = tmp_path / "cut.clf"
    packed.write_bytes(pack(carmen.read_bytes())[:-20])
    with pytest.raises(UserError, match="damaged or cut short"):
        open_log(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a log this program knows"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "not a log this program knows"),
        (b"hello\nworld\n", "accepted is a CARMEN log"),
        (b"ODOM 0 0 0 0 0 0 1.0 nohost 0\n", "no FLASER or ROBOTLASER1 line"),
    ],
)
def test_foreign_files_are_refused_with_what_was_found(tmp_path, content, message):
    path = tmp_path / "file.clf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_log(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.clf: there is no such file"):
        open_log(tmp_path / "nowhere.clf")


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        (b"976052857.337530", 976052857_337530000),
        (b"3", 3_000000000),
        (b"0.1234567891", 123456789),
        (b"1.", 1_000000000),
    ],
)
def test_stamps_are_exact(text, stamp):
    assert parse_stamp(text) == stamp


@pytest.mark.parametrize("text", [b"nan", b"-1.0", b"1e9", b"", b"1.x"])
def test_what_is_no_stamp_is_refused(text):
    with pytest.raises(ValueError, match="not a number of seconds"):
        parse_stamp(text)


@pytest.mark.parametrize(
    ("name", "scans", "first", "mount"),
    [
        ("intel", 13631, 976052857_337530000, 0.0),
        ("aces", 7374, 70_289900000, 0.0),
        ("mit-csail", 1988, 1134864629_895182000, 0.0),
        ("fr-clinic_robotlaser", 6917, 1232658478_161285000, 0.22),
    ],
)
def test_recorded_logs(recordings, name, scans, first, mount):
    log = open_log(recordings / "relations_benchmark" / f"{name}.clf.bz2")
    read = [record for record in log if isinstance(record, ScanRecord)]
    assert len(read) == len(log) == scans
    assert read[0].stamp == first
    assert {tuple(scan.base_from_sensor[:3]) for scan in read} == {(mount, 0.0, 0.0)}
    assert "malformed_lines" not in log.counts
