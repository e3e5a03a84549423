"""A map in a folder: a manifest, and the files it names by their content; what is damaged or foreign is refused whole.

``manifest.json`` holds the format's version, where the map comes from, how much of everything there is, and the size
and SHA-256 of each file; its ``digest`` is the SHA-256 of itself.  The arrays lie in NumPy's npz format, without
pickled objects.  A file's name carries its digest, so a newer map is written beside the older one and takes its place
with one rename, that of the manifest: at any moment, a power cut included, the folder holds one whole map.
"""

from __future__ import annotations

import datetime
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dsg_ros
from dsg_ros.errors import UserError
from dsg_ros.interface import GridUpdate, SavedMap, VoxelMap
from dsg_ros.io import checked
from dsg_ros.io.atomic import check_destination
from dsg_ros.io.learned import read_learned, write_learned

FORMAT = "dsg_ros map"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"
IN_RUN = "map"
"""The folder of the map, in that of the run which made it."""
CHECKPOINT = "checkpoint"
"""Folder in it that is `dsg_ros.io.checkpoint`'s."""

Arrays = dict[str, NDArray[Any]]

SCHEMA: Mapping[str, Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
    "keyframes": {
        "stamps": ("int64", ("keyframes",)),
        "poses": ("float64", ("keyframes", 7)),
        "odometry": ("float64", ("keyframes", 7)),
        "travel": ("float64", ("keyframes",)),
        "point_counts": ("int64", ("keyframes",)),
        "points": ("float32", ("points", 3)),
    },
    "voxels": {
        "size": ("float64", ()),
        "ids": ("int64", ("voxels",)),
        "means": ("float32", ("voxels", 3)),
        "normals": ("float32", ("voxels", 3)),
        "counts": ("int32", ("voxels",)),
        "deviations": ("float32", ("voxels",)),
        "last_seen": ("int64", ("voxels",)),
        "first_seen": ("int64", ("voxels",)),
        "covariances": ("float32", ("voxels", 6)),
    },
    "grid": {
        "resolution": ("float64", ()),
        "tiles": ("int64", ("tiles", 2)),
        "cells": ("int8", ("tiles", "tile", "tile")),
    },
    "theta": {"information": ("float64", ("learned", "learned"))},
}
"""Arrays by file, with their types and shapes; words are numbers of the manifest's ``counts``."""

_KEYS = ("pose", "previous", "current", "first", "second")
"""Fields of factors that are numbers of keyframes."""

_OURS = re.compile(r"(keyframes|voxels|grid|theta|graph|learned)-[0-9a-f]{16}\.(npz|yaml)|\.(manifest|part)-[^/]*")
_ENDING = {"learned": "yaml"}
_AGAIN = "save the map again, or take another one"


def write_map(folder: Path, saved: SavedMap, map_frame: str = "map") -> None:
    """Make ``folder`` hold ``saved``, in place of an older map; `UserError` where that cannot be done.

    A folder with other files in it is left alone.  The older map is there until the new one is complete.
    """
    check_map_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            name: checked.put(folder, name, data, _ENDING.get(name, "npz"))
            for name, data in _contents(folder, saved).items()
        }
        manifest = _manifest(saved, map_frame) | {"files": files}
        checked.write_manifest(folder / MANIFEST, manifest)
        kept = {entry["name"] for entry in files.values()} | {MANIFEST}
        for path in folder.iterdir():
            if path.name not in kept and _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the map cannot be written: {error.strerror or error}") from error


def check_map_folder(folder: Path) -> None:
    """`UserError` unless a map can be written to ``folder``: absent, empty, or holding nothing but a map; and unless a
    file can be made where it is or is to be.
    """
    check_destination(folder)
    strange = (
        [p.name for p in folder.iterdir() if p.name not in (MANIFEST, CHECKPOINT) and not _OURS.fullmatch(p.name)]
        if folder.exists()
        else []
    )
    if strange:
        raise UserError(
            f"{folder} holds files that are not a map's ({', '.join(sorted(strange)[:3])}); name another folder"
        )


def read_map(folder: Path) -> SavedMap:
    """The map in ``folder``, every part of it checked; `UserError` with the reason and what to do otherwise."""
    manifest = _read_manifest(folder)
    files = {name: _content(folder, entry) for name, entry in manifest["files"].items()}
    counts = manifest["counts"]
    arrays = {name: _arrays(folder, name, files[name]) for name in (*SCHEMA, "graph")}
    for name, schema in SCHEMA.items():
        _check(folder, name, arrays[name], schema, counts)
    rows = _rows(folder, arrays["graph"], counts)
    keyframes, voxels, grid = arrays["keyframes"], arrays["voxels"], arrays["grid"]
    for name in ("poses", "odometry"):
        if len(keyframes[name]) and not np.allclose(np.linalg.norm(keyframes[name][:, 3:], axis=1), 1.0, atol=1e-3):
            raise _damaged(folder, f"{name} of keyframes hold quaternions that are not of unit length")
    if (keyframes["point_counts"] < 0).any() or keyframes["point_counts"].sum() != len(keyframes["points"]):
        raise _damaged(folder, "the keyframes' scans do not add up to the points there are")
    borders = np.cumsum(keyframes["point_counts"])[:-1]
    return SavedMap(
        planar=manifest["planar"],
        stamps=keyframes["stamps"],
        poses=keyframes["poses"],
        odometry=keyframes["odometry"],
        travel=keyframes["travel"],
        clouds=tuple(np.split(keyframes["points"], borders)) if len(keyframes["stamps"]) else (),
        loops=rows.pop("loops")["ends"],
        rows=rows,
        voxels=VoxelMap(
            float(voxels["size"]), voxels["ids"], voxels["means"], voxels["normals"], voxels["counts"],
            voxels["deviations"], voxels["last_seen"], np.zeros(0, np.int64),
            voxels["first_seen"], voxels["covariances"],
        ),
        grid=GridUpdate(1, float(grid["resolution"]), grid["tiles"], grid["cells"], whole=True),
        parameters=read_learned(folder / manifest["files"]["learned"]["name"]).parameters,
        learned=tuple(manifest["learned"]),
        information=arrays["theta"]["information"],
        configuration=manifest["configuration"],
        source=manifest["source"],
    )  # fmt: skip


def map_of(out: Path) -> Path:
    """The folder of the map that a run left in ``out``; ``out`` itself where that is one."""
    return out if (out / MANIFEST).exists() else out / IN_RUN


def describe(folder: Path) -> dict[str, Any]:
    """The manifest of the map in ``folder``, checked for itself but without looking into the other files."""
    return _read_manifest(folder)


def _contents(folder: Path, saved: SavedMap) -> dict[str, bytes]:
    points = np.concatenate(saved.clouds) if saved.clouds else np.zeros((0, 3), np.float32)
    counts = np.array([len(cloud) for cloud in saved.clouds], np.int64)
    v, grid = saved.voxels, saved.grid
    graph = {f"{kind}.{field}": array for kind, fields in saved.rows.items() for field, array in fields.items()}
    arrays: dict[str, Arrays] = {
        "keyframes": {
            "stamps": saved.stamps, "poses": saved.poses, "odometry": saved.odometry, "travel": saved.travel,
            "point_counts": counts, "points": points,
        },
        "voxels": {
            "size": np.full((), v.size, np.float64), "ids": v.ids, "means": v.means, "normals": v.normals,
            "counts": v.counts, "deviations": v.deviations, "last_seen": v.last_seen,
            "first_seen": v.first_seen, "covariances": v.covariances,
        },
        "grid": {"resolution": np.full((), grid.resolution), "tiles": grid.tiles, "cells": grid.cells},
        "theta": {"information": saved.information},
        "graph": {**graph, "loops.ends": saved.loops},
    }  # fmt: skip
    found = {name: _npz(each) for name, each in arrays.items()}
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as stage:
        path = Path(stage) / "learned.yaml"
        write_learned(path, saved.parameters, {"log": saved.source})
        found["learned"] = path.read_bytes()
    return found


def _manifest(saved: SavedMap, map_frame: str) -> dict[str, Any]:
    rows = {kind: len(next(iter(fields.values()))) for kind, fields in saved.rows.items()}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "program_version": dsg_ros.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": saved.source,
        "frames": {"map": map_frame, "poses": "base in map", "points": "base of their keyframe", "units": "m, rad, ns"},
        "planar": saved.planar,
        "learned": list(saved.learned),
        "counts": {
            "keyframes": len(saved.stamps),
            "points": sum(map(len, saved.clouds)),
            "voxels": len(saved.voxels.ids),
            "tiles": len(saved.grid.tiles),
            "tile": saved.grid.cells.shape[-1],
            "learned": len(saved.learned),
            "rows": rows | {"loops": len(saved.loops)},
        },
        "configuration": dict(saved.configuration),
    }


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One npz file; the same arrays always give the same bytes, which `np.savez` does not promise."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in sorted(arrays.items()):
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getvalue())
    return out.getvalue()


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder}: the map is refused: {why}; {_AGAIN}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; a run leaves its map in OUT/map")
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        hint = f"; did you mean its folder {IN_RUN}?" if (folder / IN_RUN / MANIFEST).exists() else ""
        raise UserError(f"{folder}: no map: {MANIFEST} is missing{hint}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST} is cut short or no JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of a map of dsg_ros")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        made = manifest.get("program_version", "unknown")
        raise UserError(
            f"{folder}: the map has format version {version!r} (dsg_ros {made}) and this program reads version "
            f"{FORMAT_VERSION}; make the map again with this program, or use that one"
        )
    if manifest.get("digest") != checked.digest(manifest):
        raise _damaged(folder, f"{MANIFEST} was changed after it was written")
    if manifest["files"].keys() != {*SCHEMA, "graph", "learned"}:
        raise _damaged(folder, f"{MANIFEST} names other files than a map has")
    return manifest


def _content(folder: Path, entry: Mapping[str, Any]) -> bytes:
    name = str(entry["name"])
    if not _OURS.fullmatch(name):
        raise _damaged(folder, f"{name!r} is no name of a map's file")
    return checked.content(folder, entry, partial(_damaged, folder))


def _arrays(folder: Path, name: str, data: bytes) -> Arrays:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise _damaged(folder, f"{name} holds no arrays ({error})") from error


def _check(
    folder: Path,
    name: str,
    arrays: Arrays,
    schema: Mapping[str, tuple[str, tuple[str | int, ...]]],
    counts: Mapping[str, Any],
) -> None:
    if arrays.keys() != schema.keys():
        raise _damaged(folder, f"{name} holds {', '.join(sorted(arrays))} instead of {', '.join(sorted(schema))}")
    for field, (kind, words) in schema.items():
        shape = tuple(counts[word] if isinstance(word, str) else word for word in words)
        _check_array(folder, f"{name}, {field}", arrays[field], kind, shape)


def _check_array(folder: Path, what: str, array: NDArray[Any], kind: str, shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(kind) or array.shape != shape:
        wanted = f"{kind} of shape {shape}"
        raise _damaged(folder, f"{what}: {array.dtype} of shape {array.shape} instead of {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _damaged(folder, f"{what}: numbers that are not finite")


def _rows(folder: Path, graph: Arrays, counts: Mapping[str, Any]) -> dict[str, Arrays]:
    """The graph's rows by type; every type has as many as the manifest says, between keyframes that are there."""
    rows: dict[str, Arrays] = {}
    for name, array in _sorted(graph):
        kind, _, field = name.partition(".")
        _check_array(
            folder, f"graph, {name}", array, str(array.dtype), (counts["rows"].get(kind, -1), *array.shape[1:])
        )
        if array.dtype.kind not in "fiub":
            raise _damaged(folder, f"graph, {name}: {array.dtype} is no type of numbers")
        named = field in _KEYS or kind == "loops"
        if named and array.size and not 0 <= array.min() <= array.max() < counts["keyframes"]:
            raise _damaged(folder, f"graph, {name}: keyframes that are not there")
        rows.setdefault(kind, {})[field] = array
    if rows.keys() != counts["rows"].keys() or rows.get("loops", {}).keys() != {"ends"}:
        raise _damaged(folder, "graph: other rows than the manifest says")
    _check_array(folder, "graph, loops", rows["loops"]["ends"], "int32", (counts["rows"]["loops"], 2))
    return rows


def _sorted(arrays: Arrays) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from sorted(arrays.items())
