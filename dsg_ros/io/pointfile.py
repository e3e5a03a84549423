"""The map as a PLY file (binary little-endian): one vertex a voxel, with its normal and how many points it merged, when
it was seen the first and the last time [s], and the covariance [m^2] of the points in its cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.errors import UserError
from dsg_ros.interface import VoxelMap
from dsg_ros.io.atomic import write_bytes

_PLACE, _NORMAL, _STAMPS = ("x", "y", "z"), ("nx", "ny", "nz"), ("first_seen", "last_seen")
_COVARIANCE = ("cov_xx", "cov_xy", "cov_xz", "cov_yy", "cov_yz", "cov_zz")
_VERTEX = np.dtype(
    [(name, "<f4") for name in (*_PLACE, *_NORMAL)]
    + [("count", "<i4")]
    + [(name, "<f8") for name in _STAMPS]
    + [(name, "<f4") for name in _COVARIANCE]
)
_KINDS = {"<f4": "float", "<i4": "int", "<f8": "double"}
_PROPERTIES = [f"property {_KINDS[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]


@dataclass(frozen=True)
class PointFile:
    """What a PLY of this program holds: ``means`` (n, 3) [m] in map, ``normals`` (n, 3), ``counts`` (n,), voxel edge
    [m]; ``stamps`` (n, 2) [s] of the first and the last time seen, ``covariances`` (n, 6) [m^2] as in `VoxelMap`.
    """

    means: NDArray[np.float32]
    normals: NDArray[np.float32]
    counts: NDArray[np.int32]
    size: float
    stamps: NDArray[np.float64]
    covariances: NDArray[np.float32]


def write_ply(path: Path, voxels: VoxelMap) -> None:
    """Write the voxels, whole or not at all; `UserError` where the place is not writable."""
    table = np.empty(len(voxels.means), _VERTEX)
    stamps = np.stack([voxels.first_seen, voxels.last_seen], axis=1) * 1e-9
    columns = ((_PLACE, voxels.means), (_NORMAL, voxels.normals), (_STAMPS, stamps), (_COVARIANCE, voxels.covariances))
    for names, values in columns:
        for column, name in enumerate(names):
            table[name] = values[:, column]
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
        raise UserError(f"{path}: not a map of this program (expected a PLY with {' '.join(_VERTEX.names or ())})")
    words = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in lines if " " in line}
    try:
        count, size = int(words["element vertex"]), float(words["comment voxel_size"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: the PLY header lacks the number of vertices or the voxel size") from error
    if len(body) != count * _VERTEX.itemsize:
        raise UserError(f"{path}: {len(body)} bytes of vertices instead of {count * _VERTEX.itemsize}: cut short?")
    table = np.frombuffer(body, _VERTEX)

    def columns(names: tuple[str, ...]) -> NDArray[Any]:
        return np.stack([table[name] for name in names], axis=1)

    counts = table["count"].astype(np.int32)
    return PointFile(columns(_PLACE), columns(_NORMAL), counts, size, columns(_STAMPS), columns(_COVARIANCE))
