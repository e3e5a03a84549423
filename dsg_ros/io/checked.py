"""Files that cannot be half there or changed unnoticed: named by their SHA-256, and listed by a manifest with its own.

A file is written beside its place and renamed; a newer state is written beside the older one, and takes its place with
one rename, that of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsg_ros.errors import UserError

Buffer = bytes | memoryview


def put(folder: Path, name: str, data: Buffer, ending: str) -> dict[str, Any]:
    """Write one file, under a name no other content can have; its entry for the manifest.  Raises OSError."""
    entry = described(name, data, ending)
    replace(folder / entry["name"], data)
    return entry


def described(name: str, data: Buffer, ending: str) -> dict[str, Any]:
    """The entry of a file with this content."""
    digest = hashlib.sha256(data).hexdigest()
    return {"name": f"{name}-{digest[:16]}.{ending}", "bytes": len(data), "sha256": digest}


def replace(path: Path, data: Buffer) -> None:
    """Replace ``path`` by ``data``: on the disk, in one step.  Raises OSError, and then leaves ``path`` as it was."""
    number, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest`` with its own digest; what it lists is there from then on, a power cut included."""
    _sync(path.parent)
    signed = manifest | {"digest": digest(manifest)}
    replace(path, json.dumps(signed, indent=1, allow_nan=False).encode() + b"\n")
    _sync(path.parent)


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all of it but its digest."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def content(folder: Path, entry: Mapping[str, Any], damaged: Callable[[str], UserError]) -> bytes:
    """What is in the file of an entry; the error that ``damaged`` makes of the reason where it is another content."""
    name = str(entry["name"])
    try:
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            raise damaged(f"{name} has {size} bytes instead of {entry['bytes']}: cut short or overwritten")
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise damaged(f"{name} is missing") from error
    except OSError as error:
        raise UserError(f"{folder / name}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise damaged(f"{name} was changed after it was written (checksum)")
    return data


def _sync(folder: Path) -> None:
    """Put the folder's own entries on the disk: renames survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
