"""Large messages straight to CDR, the middleware's wire format, without one Python object a pose or cube.

A nav_msgs/Path of 4000 poses takes rclpy 60 ms to build and convert, with the interpreter's lock held; here it is a
NumPy record array.  Layout: little-endian XCDR1, each primitive aligned to its own size, counted from after the four
bytes of encapsulation (OMG DDS-XTypes 1.3, 7.4.1).  A test has rclpy read the result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.grid_store import Rectangle
from dsg_ros.interface import OccupancyGrid

_SECOND = 1_000_000_000
_CUBE_LIST, _ADD, _DELETE = 6, 0, 2


class Writer:
    """Appends primitives with CDR's alignment."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def align(self, size: int) -> None:
        self._bytes += bytes(-len(self._bytes) % size)

    def pack(self, kind: str, *values: float) -> None:
        """Values of one `struct` format character."""
        self.align(struct.calcsize(f"<{kind}"))
        self._bytes += struct.pack(f"<{len(values)}{kind}", *values)

    def string(self, text: str) -> None:
        encoded = text.encode() + b"\0"
        self.pack("I", len(encoded))
        self._bytes += encoded

    def header(self, stamp: int, frame: str) -> None:
        self.pack("i", stamp // _SECOND)
        self.pack("I", stamp % _SECOND)
        self.string(frame)

    def sequence(self, items: NDArray[np.generic]) -> None:
        """Count and items (n, ...): rows of one primitive type, such as points (n, 3) float64."""
        self.pack("I", len(items))
        if items.size:
            self.align(items.dtype.itemsize)
            self._bytes += items.tobytes()

    @property
    def position(self) -> int:
        return len(self._bytes)

    def raw(self, data: bytes) -> None:
        self._bytes += data

    def message(self) -> bytes:
        return b"\x00\x01\x00\x00" + bytes(self._bytes)


def path(stamp: int, frame: str, stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> bytes:
    """nav_msgs/Path: ``stamps`` (k,) ns, ``poses`` (k, 7) in ``frame``."""
    out = Writer()
    out.header(stamp, frame)
    out.pack("I", len(stamps))
    # Doubles end each element, so all but the first begin at a multiple of eight.
    first = min(1, len(stamps))
    out.raw(_stamped_poses(out.position % 8, frame, stamps[:first], poses[:first]))
    out.raw(_stamped_poses(0, frame, stamps[first:], poses[first:]))
    return out.message()


def _stamped_poses(start: int, frame: str, stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> bytes:
    text = frame.encode() + b"\0"
    padding = -(start + 12 + len(text)) % 8
    row = np.dtype(
        [
            ("sec", "<i4"),
            ("nanosec", "<u4"),
            ("length", "<u4"),
            ("frame", f"S{len(text)}"),
            ("padding", f"S{padding}" if padding else "V0"),
            ("pose", "<f8", (7,)),
        ]
    )
    rows = np.zeros(len(stamps), row)
    rows["sec"], rows["nanosec"] = np.divmod(stamps, _SECOND)
    rows["length"], rows["frame"], rows["pose"] = len(text), text, poses
    return rows.tobytes()


def occupancy_grid(stamp: int, frame: str, loaded: int, grid: OccupancyGrid) -> bytes:
    """nav_msgs/OccupancyGrid of ``grid``, which its source had at ``loaded`` [ns]."""
    height, width = grid.cells.shape
    out = Writer()
    out.header(stamp, frame)
    out.pack("i", loaded // _SECOND)
    out.pack("I", loaded % _SECOND)
    out.pack("f", grid.resolution)
    out.pack("I", width, height)
    out.pack("d", *grid.origin, 0, 0, 0, 0, 1)
    out.sequence(grid.cells.reshape(-1))
    return out.message()


def occupancy_grid_update(stamp: int, frame: str, grid: OccupancyGrid, part: Rectangle) -> bytes:
    """map_msgs/OccupancyGridUpdate: what is in ``part`` of ``grid``."""
    out = Writer()
    out.header(stamp, frame)
    out.pack("i", part.x, part.y)
    out.pack("I", part.width, part.height)
    out.sequence(grid.cells[part.y : part.y + part.height, part.x : part.x + part.width].reshape(-1))
    return out.message()


@dataclass(frozen=True)
class Cubes:
    """One marker of ~/voxels: ``centres`` (n, 3) and ``colours`` (n, 4) rgba in 0..1; none of them deletes the
    marker.
    """

    id: int
    centres: NDArray[np.float64]
    colours: NDArray[np.float32]


def cube_lists(stamp: int, frame: str, namespace: str, edge: float, markers: Iterable[Cubes]) -> bytes:
    """visualization_msgs/MarkerArray of CUBE_LIST markers with cubes of ``edge`` [m]."""
    markers = list(markers)
    out = Writer()
    out.pack("I", len(markers))
    for marker in markers:
        out.align(4)
        out.header(stamp, frame)
        out.string(namespace)
        out.pack("i", marker.id, _CUBE_LIST, _ADD if len(marker.centres) else _DELETE)
        out.pack("d", 0, 0, 0, 0, 0, 0, 1)  # pose
        out.pack("d", edge, edge, edge)  # scale
        out.pack("f", 1, 1, 1, 1)  # colour
        out.pack("i", 0)  # lifetime: for ever
        out.pack("I", 0)
        out.pack("B", 0)  # frame_locked
        out.sequence(np.asarray(marker.centres, "<f8"))
        out.sequence(np.asarray(marker.colours, "<f4"))
        out.string("")  # texture_resource
        out.header(0, "")  # texture
        out.string("")  # its format
        out.pack("I", 0)  # its data
        out.pack("I", 0)  # uv_coordinates
        out.string("")  # text
        out.string("")  # mesh_resource
        out.string("")  # mesh_file.filename
        out.pack("I", 0)  # mesh_file.data
        out.pack("B", 0)  # mesh_use_embedded_materials
    return out.message()
