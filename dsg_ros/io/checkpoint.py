"""Checkpoints in a map folder: the whole state of a pipeline, kept so often that a crash costs little.

In the folder ``checkpoint``, ``checkpoint.json`` lists the files and the arrays in them, with the version, the settings
and SHA-256 of everything (`dsg_ros.io.checked`).  Large arrays lie there as raw bytes, in pieces of about a megabyte
that begin at fixed rows: of what only grows, all pieces but the last one are there already and are not written again.
The last good checkpoint stays until the new one is complete.  What is damaged, of another version or for other settings
is refused whole.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dsg_ros
from dsg_ros.errors import UserError
from dsg_ros.io import checked
from dsg_ros.io.map_folder import CHECKPOINT, check_map_folder
from dsg_ros.state import State

FORMAT = "dsg_ros checkpoint"
FORMAT_VERSION = 14
MANIFEST = "checkpoint.json"

PIECE = 1 << 20
"""Bytes of an array that lie in one file, about."""

RAGGED = 64
"""Rows of different lengths that lie in one file."""

Settings = Mapping[str, bool | int | float | str]

_OURS = re.compile(r"(state|rest)-[0-9a-f]{16}\.(bin|npz)|\.part-[^/]*")
_INSTEAD = "start with resume:=false for a new map, which will replace it, or put another one in its place"


@dataclass(frozen=True)
class Written:
    """A checkpoint of ``bytes`` in all, of which ``fresh`` were not there yet."""

    bytes: int
    fresh: int


class CheckpointWriter:
    """Writes one checkpoint after the other."""

    def __init__(self) -> None:
        self._there: dict[Path, int] = {}

    def write(self, map_folder: Path, state: State, settings: Settings, about: Mapping[str, Any]) -> Written:
        """Make ``state`` the checkpoint of ``map_folder``; ``about`` (JSON-able) is told by `describe`.

        `UserError` with the reason where that cannot be done: the one before is there then, and nothing else.
        """
        folder = map_folder / CHECKPOINT
        try:
            check_map_folder(map_folder)
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, fcntl.LOCK_EX):
                return self._written(folder, state, settings, about)
        except OSError as error:
            _clean(folder)
            self._there.clear()
            raise UserError(f"{folder}: the checkpoint cannot be written: {error.strerror or error}") from error

    def _written(self, folder: Path, state: State, settings: Settings, about: Mapping[str, Any]) -> Written:
        large = {name: value for name, value in state.items() if isinstance(value, tuple) or value.nbytes > PIECE}
        entries = {name: list(self._pieces(folder, value)) for name, value in large.items()}
        lengths = {
            f"{name}|": np.array(list(map(len, v)), np.int64) for name, v in large.items() if isinstance(v, tuple)
        }
        small = {name: value for name, value in state.items() if name not in large}
        archive = io.BytesIO()
        np.savez(archive, **small, **lengths)  # type: ignore[arg-type]
        rest = self._put(folder, "rest", archive.getvalue(), "npz")
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "program_version": dsg_ros.__version__,
            "settings": dict(settings),
            "about": dict(about),
            "rest": rest,
            "arrays": {
                name: {"type": _first(value).dtype.str, "shape": _first(value).shape[1:], "pieces": entries[name]}
                for name, value in large.items()
            },
        }
        checked.write_manifest(folder / MANIFEST, json.loads(json.dumps(manifest)))
        pieces = [rest, *(entry for each in entries.values() for entry in each)]
        fresh = sum(self._there.pop(folder / entry["name"], 0) for entry in pieces)
        self._there = {folder / entry["name"]: 0 for entry in pieces}
        _clean(folder)
        return Written(sum(entry["bytes"] for entry in pieces), fresh)

    def _pieces(self, folder: Path, value: NDArray[Any] | tuple[NDArray[Any], ...]) -> Iterator[dict[str, Any]]:
        step = RAGGED if isinstance(value, tuple) else max(1, PIECE // max(1, value[:1].nbytes))
        for start in range(0, len(value), step):
            part = value[start : start + step]
            rows = np.concatenate(part) if isinstance(part, tuple) else np.ascontiguousarray(part)
            yield self._put(folder, "state", rows.tobytes(), "bin")

    def _put(self, folder: Path, name: str, data: bytes, ending: str) -> dict[str, Any]:
        entry = checked.described(name, data, ending)
        path = folder / entry["name"]
        # Only what this writer put there is known to hold what its name says.
        if path not in self._there or not path.exists():
            checked.replace(path, data)
            self._there[path] = len(data)
        return entry


def has_checkpoint(map_folder: Path) -> bool:
    """Whether there is one, whole or not."""
    return (map_folder / CHECKPOINT / MANIFEST).exists()


def discard(map_folder: Path) -> None:
    """Have no checkpoint there any more; `UserError` where it cannot be removed."""
    try:
        (map_folder / CHECKPOINT / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{map_folder / CHECKPOINT}: cannot be removed: {error.strerror}") from error
    _clean(map_folder / CHECKPOINT)


def read_checkpoint(map_folder: Path, settings: Settings) -> tuple[State, dict[str, Any]]:
    """The state in ``map_folder``, and what it is about.

    `UserError` with the reason and what to do, unless all of it is as it was written, by this version of the program
    and under the same ``settings``.
    """
    folder = map_folder / CHECKPOINT
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no checkpoint")
    with _locked(folder, fcntl.LOCK_SH):
        return _read(folder, settings)


def _read(folder: Path, settings: Settings) -> tuple[State, dict[str, Any]]:
    damaged = partial(_refused, folder)
    manifest = _manifest(folder, settings)
    state: State = {}
    try:
        rest = checked.content(folder, _named(folder, manifest["rest"]), damaged)
        with np.load(io.BytesIO(rest), allow_pickle=False) as archive:
            small = {name: archive[name] for name in archive.files}
        for name, array in manifest["arrays"].items():
            data = b"".join(checked.content(folder, _named(folder, entry), damaged) for entry in array["pieces"])
            kind = np.dtype(array["type"])
            if kind.kind not in "fiub":
                raise damaged(f"{name}: {kind} is no type of numbers")
            rows = np.frombuffer(bytearray(data), kind).reshape(-1, *array["shape"])
            lengths = small.pop(f"{name}|", None)
            state[name] = (
                rows if lengths is None else tuple(np.split(rows, np.cumsum(lengths)[:-1]) if len(lengths) else ())
            )
        return state | small, manifest["about"]
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise damaged(f"its arrays are none ({error})") from error


def _manifest(folder: Path, settings: Settings) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{folder}: there is no checkpoint") from error
    except OSError as error:
        raise UserError(f"{folder / MANIFEST}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _refused(folder, f"{MANIFEST} is cut short or no JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _refused(folder, f"{MANIFEST} is not that of a checkpoint of dsg_ros")
    version = manifest.get("format_version"), manifest.get("program_version")
    if version != (FORMAT_VERSION, dsg_ros.__version__):
        ours = f"this is dsg_ros {dsg_ros.__version__} with format version {FORMAT_VERSION}"
        raise _refused(folder, f"it was made by dsg_ros {version[1]} with format version {version[0]}, and {ours}")
    if manifest.get("digest") != checked.digest(manifest):
        raise _refused(folder, f"{MANIFEST} was changed after it was written")
    told = manifest["settings"]
    if other := [name for name in {**told, **settings} if told.get(name) != settings.get(name)]:
        listed = ", ".join(f"{name} {told.get(name)!r} instead of {settings.get(name)!r}" for name in sorted(other)[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise _refused(folder, f"it was made under other settings ({listed}{more})")
    return manifest


def _named(folder: Path, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry, if its file is one of a checkpoint's and in its folder."""
    if not _OURS.fullmatch(str(entry["name"])):
        raise _refused(folder, f"{entry['name']!r} is no name of a checkpoint's file")
    return entry


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Alone with it, or with other readers: the worker of a node that was killed may still be writing."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, how)
        yield
    finally:
        os.close(number)


def _clean(folder: Path) -> None:
    """Remove what a checkpoint's writer left and the manifest does not name; where that fails it stays."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        entries = [manifest["rest"], *(entry for array in manifest["arrays"].values() for entry in array["pieces"])]
        kept = {entry["name"] for entry in entries}
    except FileNotFoundError:
        kept = set()
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing is known of what is needed
    try:
        for path in folder.iterdir():
            if path.name not in kept and _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError:
        return


def _first(value: NDArray[Any] | tuple[NDArray[Any], ...]) -> NDArray[Any]:
    if isinstance(value, tuple):
        return value[0] if value else np.zeros((0, 3))
    return value


def _refused(folder: Path, why: str) -> UserError:
    return UserError(f"{folder}: the checkpoint is refused: {why}; {_INSTEAD}")
