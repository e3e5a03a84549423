"""Map folders: what is written is read back; anything wrong with them is refused with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.interface import GridUpdate, Parameter, SavedMap, VoxelMap
from dsg_ros.io import checked, map_folder
from dsg_ros.io.map_folder import FORMAT_VERSION, MANIFEST, check_map_folder, describe, read_map, write_map


def made(keyframes: int = 4, seed: int = 0) -> SavedMap:
    """A map of made-up numbers."""
    rng = np.random.default_rng(seed)
    clouds = tuple(rng.normal(size=(n, 3)).astype(np.float32) for n in rng.integers(0, 9, keyframes))
    trajectory = poses.exp(rng.normal(size=(keyframes, 6)))
    links = np.arange(1, keyframes)
    rows = {
        "PosePrior": {"pose": np.zeros(1, np.int64), "mean": trajectory[:1]},
        "Registration": {
            "first": links - 1, "second": links, "sqrt_info": rng.normal(size=(len(links), 6, 6)),
            "kernel": np.zeros(len(links), np.int32),
        },
        "Loop": {"first": np.zeros(0, np.int64), "second": np.zeros(0, np.int64), "measured": np.zeros((0, 7))},
    }  # fmt: skip
    return SavedMap(
        planar=True,
        stamps=10**18 + rng.integers(0, 10**9, keyframes),  # those of some logs run backwards
        poses=trajectory,
        odometry=poses.exp(rng.normal(size=(keyframes, 6))),
        travel=np.arange(float(keyframes)),
        clouds=clouds,
        loops=np.array([[0, keyframes - 1]], np.int32),
        rows=rows,
        voxels=VoxelMap(
            0.3, np.arange(5), rng.normal(size=(5, 3)).astype(np.float32), np.zeros((5, 3), np.float32),
            np.arange(5, dtype=np.int32), np.full(5, 0.01, np.float32), np.arange(5), np.zeros(0, np.int64),
            np.arange(5) - 3, rng.uniform(size=(5, 6)).astype(np.float32),
        ),
        grid=GridUpdate(7, 0.05, np.array([[0, 0], [-1, 2]]), rng.integers(-1, 2, (2, 8, 8)).astype(np.int8), True),
        parameters=(
            Parameter("odometry.scale", 1.02, 0.003, "m/m", "learned"), Parameter("x", 0.0, 0.1, "", "frozen", "why"),
        ),
        learned=("odometry.scale", "odometry.turn_per_metre"),
        information=np.diag([3.0, 4.0]),
        configuration={"keyframes.distance": 0.25, "learning.enabled": True, "input.on_clock_jump": "reset"},
        source="a.clf",
    )  # fmt: skip


def assert_same(found: Any, wanted: Any) -> None:
    """Equal in every field, types of arrays included."""
    if dataclasses.is_dataclass(wanted):
        for field in dataclasses.fields(wanted):
            if field.name != "version":  # of a grid: versions count within one run
                assert_same(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_same(found[name], wanted[name])
    elif isinstance(wanted, tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found == wanted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_map(tmp_path / "map", made())
    return tmp_path / "map"


@pytest.mark.parametrize("keyframes", [1, 2, 4])
def test_what_is_written_is_read_back(tmp_path: Path, keyframes: int) -> None:
    write_map(tmp_path / "map", made(keyframes))
    assert_same(read_map(tmp_path / "map"), made(keyframes))


def test_the_manifest_tells_what_is_there(folder: Path) -> None:
    manifest = describe(folder)
    assert manifest["counts"]["keyframes"] == 4
    assert manifest["counts"]["rows"] == {"PosePrior": 1, "Registration": 3, "Loop": 0, "loops": 1}
    assert manifest["frames"]["map"] == "map"
    for entry in manifest["files"].values():
        data = (folder / entry["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert {p.name for p in folder.iterdir()} == {MANIFEST, *(e["name"] for e in manifest["files"].values())}


def test_a_newer_map_takes_the_place_of_the_older_one(folder: Path) -> None:
    write_map(folder, made(3, seed=1))
    assert_same(read_map(folder), made(3, seed=1))
    assert len(list(folder.iterdir())) == 1 + len(map_folder.SCHEMA) + 2  # nothing of the older one is left


@pytest.mark.parametrize("whole", range(7))
def test_a_save_that_is_cut_off_leaves_the_older_map(folder: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    """The disk is full after ``whole`` of seven files; the last is the manifest."""
    writes, replace = 0, os.replace

    def full(source: str, target: str) -> None:
        nonlocal writes
        writes += 1
        if writes > whole:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(checked.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_map(folder, made(3, seed=1))
    monkeypatch.undo()
    assert_same(read_map(folder), made())
    write_map(folder, made(3, seed=1))
    assert_same(read_map(folder), made(3, seed=1))


def part(folder: Path, name: str) -> Path:
    return folder / describe(folder)["files"][name]["name"]


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest changed by somebody who knows how its digest is made."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest["digest"] = checked.digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["keyframes", "voxels", "grid", "theta", "graph", "learned"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    path = part(folder, name)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"{name}-.* bytes instead of \d+: cut short.*save the map again"):
        read_map(folder)


@pytest.mark.parametrize("name", ["keyframes", "voxels", "grid", "theta", "graph", "learned"])
def test_a_file_with_one_changed_bit_is_refused(folder: Path, name: str) -> None:
    path = part(folder, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}-.* was changed after it was written \(checksum\)"):
        read_map(folder)


@pytest.mark.parametrize("name", ["keyframes", "learned"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    part(folder, name).unlink()
    with pytest.raises(UserError, match=rf"{name}-.* is missing"):
        read_map(folder)


def test_another_version_is_refused_with_what_to_do(folder: Path) -> None:
    rewritten(folder, lambda m: m.update(format_version=99, program_version="7.0"))
    ours = rf"format version 99 \(dsg_ros 7.0\) and this program reads version {FORMAT_VERSION}; make the"
    with pytest.raises(UserError, match=ours):
        read_map(folder)


def test_a_manifest_cut_short_edited_or_foreign_is_refused(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[:100])
    with pytest.raises(UserError, match="is cut short or no JSON"):
        read_map(folder)
    (folder / MANIFEST).write_text(text.replace('"planar": true', '"planar": false'))
    with pytest.raises(UserError, match="was changed after it was written;"):
        read_map(folder)
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(UserError, match="not the manifest of a map"):
        read_map(folder)


def test_no_map_at_all_is_said_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_map(tmp_path / "absent")
    write_map(tmp_path / "run" / "map", made())
    with pytest.raises(UserError, match=r"no map: manifest.json is missing; did you mean its folder map"):
        read_map(tmp_path / "run")


def test_a_name_that_leads_out_of_the_folder_is_refused(folder: Path) -> None:
    rewritten(folder, lambda m: m["files"]["keyframes"].update(name="../keyframes.npz"))
    with pytest.raises(UserError, match="is no name of a map's file"):
        read_map(folder)
    rewritten(folder, lambda m: m["files"].pop("keyframes"))
    with pytest.raises(UserError, match="names other files"):
        read_map(folder)


WRONG: list[tuple[str, Callable[[SavedMap], dict[str, Any]], str]] = [
    ("NaN", lambda m: {"poses": np.where(np.arange(7) == 1, np.nan, m.poses)}, "keyframes, poses: .* not finite"),
    ("inf", lambda m: {"information": np.full((2, 2), np.inf)}, "theta, information: numbers that are not finite"),
    ("quaternion", lambda m: {"poses": m.poses * 2.0}, "quaternions that are not of unit length"),
    ("shape", lambda m: {"odometry": m.odometry[:, :6]}, r"keyframes, odometry: float64 of shape \(4, 6\)"),
    ("type", lambda m: {"poses": m.poses.astype(np.float32)}, "keyframes, poses: float32 of shape"),
    ("count", lambda m: {"travel": m.travel[:-1]}, r"keyframes, travel: float64 of shape \(3,\)"),
    ("loop", lambda m: {"loops": np.array([[0, 4]], np.int32)}, "loops.ends: keyframes that are not there"),
    ("row", lambda m: {"rows": {"Loop": {"first": np.array([-1])}}}, "Loop.first: keyframes that are not there"),
    ("rows", lambda m: {"rows": {"Loop": {"first": np.array([1]), "weight": np.ones(2)}}}, r"Loop.weight: .* \(2,\)"),
    ("text", lambda m: {"rows": {"Loop": {"first": np.array(["a"])}}}, "no type of numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_numbers_that_make_no_map_are_refused(
    tmp_path: Path, change: Callable[[SavedMap], dict[str, Any]], message: str
) -> None:
    """Whole files with right checksums, made by a program that is wrong."""
    saved = made()
    write_map(tmp_path / "map", dataclasses.replace(saved, **change(saved)))
    with pytest.raises(UserError, match=message):
        read_map(tmp_path / "map")


def test_objects_are_not_unpickled(folder: Path) -> None:
    import io

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "exploded",))

    out = io.BytesIO()
    np.savez(out, information=np.array([Bomb()], object))
    data = out.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"theta-{digest[:16]}.npz").write_bytes(data)
    entry = {"name": f"theta-{digest[:16]}.npz", "bytes": len(data), "sha256": digest}
    rewritten(folder, lambda m: m["files"].update(theta=entry))
    with pytest.raises(UserError, match="theta holds no arrays"):
        read_map(folder)
    assert not (folder / "exploded").exists()


def test_folders_with_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"files that are not a map's \(letter.txt\)"):
        write_map(tmp_path, made())
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(UserError, match="is a file; name a folder"):
        check_map_folder(tmp_path / "letter.txt")


def test_folders_that_cannot_be_made_are_refused_before_there_is_a_map(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"maps cannot be made: .*letter.txt is a file"):
        check_map_folder(tmp_path / "letter.txt" / "maps")
    with pytest.raises(UserError, match=r"link is a symbolic link that leads nowhere; name a folder"):
        check_map_folder(tmp_path / "link")
    with pytest.raises(UserError, match=r"maps cannot be made: .*link is a symbolic link that leads nowhere"):
        check_map_folder(tmp_path / "link" / "maps")
    check_map_folder(tmp_path / "new" / "maps")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["letter.txt", "link"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file"):
        write_map(tmp_path / "file" / "map", made())
