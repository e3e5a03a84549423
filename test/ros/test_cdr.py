"""Hand-made CDR is what rclpy would have sent: as long, and read as the same message (padding bytes may differ)."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid, Path
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from dsg_ros.grid_store import Rectangle
from dsg_ros.interface import OccupancyGrid as Grid
from dsg_ros.ros import cdr, convert

FRAMES = ["map", "m", "", "robot_1/map", "exactly8", "seven77"]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_path(frame, count):
    rng = np.random.default_rng(count)
    stamps, poses = rng.integers(0, 2**60, count), rng.normal(size=(count, 7))
    expected = Path(header=Header(stamp=Time(sec=3, nanosec=7), frame_id=frame))
    for stamp, pose in zip(stamps.tolist(), poses, strict=True):
        expected.poses.append(PoseStamped(header=convert.header(stamp, frame), pose=convert.pose(pose)))
    made = cdr.path(3_000_000_007, frame, stamps, poses)
    assert len(made) == len(serialize_message(expected))
    assert deserialize_message(made, Path) == expected


@pytest.mark.parametrize("frame", FRAMES)
def test_markers(frame):
    rng = np.random.default_rng(0)
    cubes = [
        cdr.Cubes(i, rng.normal(size=(n, 3)), rng.uniform(size=(n, 4)).astype(np.float32))
        for i, n in enumerate((3, 0, 1))
    ]
    expected = MarkerArray()
    for item in cubes:
        marker = Marker(ns="voxels", id=item.id, type=Marker.CUBE_LIST)
        marker.header = Header(stamp=Time(sec=1, nanosec=2), frame_id=frame)
        marker.action = Marker.ADD if len(item.centres) else Marker.DELETE
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = 0.3
        marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in item.centres.tolist()]
        marker.colors = [ColorRGBA(r=r, g=g, b=b, a=a) for r, g, b, a in item.colours.tolist()]
        expected.markers.append(marker)
    made = cdr.cube_lists(1_000_000_002, frame, "voxels", 0.3, cubes)
    assert len(made) == len(serialize_message(expected))
    read = deserialize_message(made, MarkerArray)
    for mine, theirs in zip(read.markers, expected.markers, strict=True):
        assert mine == theirs


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 5)])
def test_occupancy_grid(frame, shape):
    cells = np.random.default_rng(2).choice(np.array([-1, 0, 100], np.int8), shape)
    expected = OccupancyGrid(header=Header(stamp=Time(sec=4, nanosec=1), frame_id=frame))
    expected.info.map_load_time = Time(sec=3, nanosec=7)
    expected.info.resolution = float(np.float32(0.05))
    expected.info.height, expected.info.width = shape
    expected.info.origin.position.x, expected.info.origin.position.y = -100 * 0.05, 7 * 0.05
    expected.info.origin.orientation.w = 1.0
    expected.data = cells.ravel().tolist()
    made = cdr.occupancy_grid(4_000_000_001, frame, 3_000_000_007, Grid(cells, (-100, 7), 0.05))
    assert len(made) == len(serialize_message(expected))
    assert deserialize_message(made, OccupancyGrid) == expected


@pytest.mark.parametrize("frame", FRAMES)
def test_occupancy_grid_update(frame):
    cells = np.arange(30, dtype=np.int8).reshape(5, 6)
    expected = OccupancyGridUpdate(
        header=Header(stamp=Time(sec=4, nanosec=1), frame_id=frame), x=2, y=1, width=3, height=2
    )
    expected.data = cells[1:3, 2:5].ravel().tolist()
    made = cdr.occupancy_grid_update(4_000_000_001, frame, Grid(cells, (0, 0), 0.05), Rectangle(2, 1, 3, 2))
    assert len(made) == len(serialize_message(expected))
    assert deserialize_message(made, OccupancyGridUpdate) == expected
