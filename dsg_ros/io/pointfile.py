"""The map as a PLY file (binary little-endian): one vertex a voxel, with its normal and how many points it merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros.errors import UserError
from dsg_ros.interface import VoxelUpdate
from dsg_ros.io.atomic import write_bytes

_VERTEX = np.dtype([(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [("count", "<i4")])
_KINDS = {"f": "float", "i": "int"}
_PROPERTIES = [f"property {_KINDS[_VERTEX[name].kind]} {name}" for name in _VERTEX.names or ()]


@dataclass(frozen=True)
class PointFile:
    """What a PLY of this program holds: ``means`` (n, 3) [m] in map, ``normals`` (n, 3), ``counts`` (n,), voxel edge
    [m].
    """

    means: NDArray[np.float32]
    normals: NDArray[np.float32]
    counts: NDArray[np.int32]
    size: float


def write_ply(path: Path, voxels: VoxelUpdate) -> None:
    """Write the voxels, whole or not at all; `UserError` where the place is not writable."""
    table = np.empty(len(voxels.means), _VERTEX)
    for column, (position, normal) in enumerate((("x", "nx"), ("y", "ny"), ("z", "nz"))):
        table[position] = voxels.means[:, column]
        table[normal] = voxels.normals[:, column]
    table["count"] = voxels.counts
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment voxel_size {voxels.size:.9g}",
        f"element vertex {len(table)}",
        *_PROPERTIES,
        "end_header",
    ]
    write_bytes(path, "\n".join(header).encode() + b"\n" + table.tobytes())


def read_ply(path: Path) -> PointFile:
    """Read what `write_ply` wrote; `UserError` where it is another PLY or cut short."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").split("\n")
    if not mark or lines[0] != "ply" or [line for line in lines if line.startswith("property")] != _PROPERTIES:
        raise UserError(f"{path}: not a map of this program (expected a PLY with x y z nx ny nz count)")
    words = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in lines if " " in line}
    try:
        count, size = int(words["element vertex"]), float(words["comment voxel_size"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: the PLY header lacks the number of vertices or the voxel size") from error
    if len(body) != count * _VERTEX.itemsize:
        raise UserError(f"{path}: {len(body)} bytes of vertices instead of {count * _VERTEX.itemsize}: cut short?")
    table = np.frombuffer(body, _VERTEX)
    means = np.stack([table[name] for name in "xyz"], axis=1).astype(np.float32)
    normals = np.stack([table[name] for name in ("nx", "ny", "nz")], axis=1).astype(np.float32)
    return PointFile(means, normals, table["count"].astype(np.int32), size)
