"""Checkpoints: what is written comes back, whole or not at all, and costs what is new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsg_ros.errors import UserError
from dsg_ros.io import checked
from dsg_ros.io.checkpoint import MANIFEST, CheckpointWriter, discard, has_checkpoint, read_checkpoint
from dsg_ros.io.map_folder import CHECKPOINT
from dsg_ros.state import State

SETTINGS = {"keyframes.distance": 0.25, "learning.noise": True, "input.queue": 50}


def made(keyframes: int, seed: int = 0) -> State:
    """A state in which rows that were there stay as they are, and a few numbers do not."""
    rng = np.random.default_rng(seed)
    clouds = tuple(rng.normal(size=(int(n), 3)) for n in rng.integers(0, 400, keyframes))
    return {
        "clouds": clouds,
        "rays": np.random.default_rng(1).normal(size=(2000, 500)).astype(np.float32)[: 10 * keyframes],
        "covariance": np.full((6, 6), keyframes, np.float64),
        "count": np.array(keyframes),
        "flags": np.arange(keyframes) % 2 == 0,
        "none": np.zeros((0, 7)),
        "no_clouds": (),
    }


def assert_same(a: State, b: State) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name]
        if isinstance(value, tuple):
            assert isinstance(other, tuple)
            assert len(other) == len(value)
            for mine, theirs in zip(value, other, strict=True):
                np.testing.assert_array_equal(mine, theirs)
                assert mine.dtype == theirs.dtype
        else:
            np.testing.assert_array_equal(value, other)
            assert (value.dtype, value.shape) == (other.dtype, other.shape)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CheckpointWriter().write(tmp_path / "map", made(100), SETTINGS, {"keyframes": 100})
    return tmp_path / "map"


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest changed by somebody who knows how its digest is made."""
    path = folder / CHECKPOINT / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["digest"] = checked.digest(manifest)
    path.write_text(json.dumps(manifest))


def test_what_was_written_is_read(folder: Path) -> None:
    state, about = read_checkpoint(folder, SETTINGS)
    assert_same(state, made(100))
    assert about == {"keyframes": 100}
    assert all(array.flags.writeable for array in state.values() if not isinstance(array, tuple))


def test_only_what_is_new_is_written(folder: Path) -> None:
    writer = CheckpointWriter()
    first = writer.write(folder, made(150), SETTINGS, {})
    second = writer.write(folder, made(151), SETTINGS, {})
    assert second.bytes > 3 << 20
    assert second.fresh < second.bytes / 2
    assert first.fresh == first.bytes
    assert_same(read_checkpoint(folder, SETTINGS)[0], made(151))
    names = {path.name for path in (folder / CHECKPOINT).iterdir()}
    manifest = json.loads((folder / CHECKPOINT / MANIFEST).read_text())
    listed = {entry["name"] for array in manifest["arrays"].values() for entry in array["pieces"]}
    assert names == listed | {MANIFEST, manifest["rest"]["name"]}  # nothing of the older ones is left


@pytest.mark.parametrize("whole", range(8))
def test_a_full_disk_leaves_the_older_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    writes, replace = 0, os.replace
    before = sorted(path.name for path in (folder / CHECKPOINT).iterdir())

    def full(source: str, target: str) -> None:
        nonlocal writes
        writes += 1
        if writes > whole:
            raise OSError(28, "No space left on device")
        replace(source, target)

    writer = CheckpointWriter()
    monkeypatch.setattr(checked.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        writer.write(folder, made(160, seed=2), SETTINGS, {})
    monkeypatch.undo()
    assert_same(read_checkpoint(folder, SETTINGS)[0], made(100))
    assert sorted(path.name for path in (folder / CHECKPOINT).iterdir()) == before  # room is given back
    writer.write(folder, made(160, seed=2), SETTINGS, {})
    assert_same(read_checkpoint(folder, SETTINGS)[0], made(160, seed=2))


def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(folder: Path) -> None:
    program = (
        "import sys, itertools; from pathlib import Path; sys.path[:0] = ['test/io']\n"
        "from test_checkpoint import SETTINGS, CheckpointWriter, made\n"
        "writer = CheckpointWriter()\n"
        "for n in itertools.count(): writer.write(Path(sys.argv[1]), made(100 + n % 90), SETTINGS, {'n': n})"
    )
    seen = set()
    for wait in np.random.default_rng(0).uniform(1.5, 3.0, 4):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(wait)
            process.kill()
        state, about = read_checkpoint(folder, SETTINGS)
        if about:
            n = about.get("n", 0)
            seen.add(n)
            assert_same(state, made(100 + n % 90 if "n" in about else 100))
    assert max(seen) > 0


def files(folder: Path) -> list[Path]:
    return sorted((folder / CHECKPOINT).iterdir())


def test_whatever_is_damaged_the_whole_is_refused(folder: Path) -> None:
    assert len(files(folder)) > 5
    for path in files(folder):
        data = path.read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        for other, reason in (
            (data[:-2], "cut short|no JSON|changed"),
            (bytes(changed), "changed|no JSON|is not that of"),
        ):
            path.write_bytes(other)
            with pytest.raises(UserError, match=rf"the checkpoint is refused: .*({reason}).*resume:=false"):
                read_checkpoint(folder, SETTINGS)
        path.unlink()
        with pytest.raises(UserError, match=r"is missing|no checkpoint"):
            read_checkpoint(folder, SETTINGS)
        path.write_bytes(data)
    read_checkpoint(folder, SETTINGS)


def test_another_version_or_other_settings_are_refused(folder: Path) -> None:
    other = {**SETTINGS, "keyframes.distance": 0.5}
    with pytest.raises(UserError, match=r"other settings \(keyframes.distance 0.25 instead of 0.5\)"):
        read_checkpoint(folder, other)
    rewritten(folder, lambda m: m.update(format_version=99))
    with pytest.raises(UserError, match=r"made by dsg_ros .* with format version 99"):
        read_checkpoint(folder, SETTINGS)


def test_a_forged_manifest_reads_no_other_file_and_no_objects(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.ones(3))
    manifest = (folder / CHECKPOINT / MANIFEST).read_text()
    rewritten(folder, lambda m: m["rest"].update(name="../../secret.npy"))
    with pytest.raises(UserError, match="no name of a checkpoint's file"):
        read_checkpoint(folder, SETTINGS)
    (folder / CHECKPOINT / MANIFEST).write_text(manifest)
    rewritten(folder, lambda m: m["arrays"]["rays"].update(type="|O"))
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(folder, SETTINGS)


def test_a_checkpoint_is_removed(folder: Path) -> None:
    assert has_checkpoint(folder)
    discard(folder)
    assert not has_checkpoint(folder)
    assert files(folder) == []
    discard(folder)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(UserError, match="not a map's"):
        CheckpointWriter().write(tmp_path, made(3), SETTINGS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
