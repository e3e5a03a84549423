"""Files that are whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dsg_ros.errors import UserError


def unwritable(folder: Path) -> str:
    """Why no file can be made in ``folder``; empty where one can.  By trying: permissions do not tell all of it."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def check_destination(folder: Path) -> None:
    """`UserError` unless ``folder`` is one in which files can be made, or can itself be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        what = "a file" if there.exists() else "a symbolic link that leads nowhere"
        if there == folder:
            raise UserError(f"{folder} is {what}; name a folder to write to")
        raise UserError(f"{folder} cannot be made: {there} is {what}")
    if why := unwritable(there):
        raise UserError(f"{folder}: nothing can be written to {there}: {why}")


def destination(path: Path) -> Path:
    """The regular file that `write_bytes` would make or replace: ``path``, or where it leads to as a symbolic link.

    `UserError` where it is a folder or another thing that is no regular file (renaming over a device or a named pipe
    would put a file in its place), or where the folder is missing or not writable.
    """
    try:
        place = path.resolve()
        if place.is_dir():
            raise UserError(f"{path}: is a folder: name a file in it")
        if place.exists() and not place.is_file():
            raise UserError(f"{path}: is no regular file, and would be lost: name another one")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise UserError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if not place.parent.is_dir():
        raise UserError(f"{path}: there is no folder {place.parent if path.is_symlink() else path.parent}")
    if unwritable(place.parent):
        raise UserError(f"{path}: the folder {place.parent if path.is_symlink() else path.parent} is not writable")
    return place


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at ``path``, or where it leads to as a symbolic link, by ``data`` in one step.

    `UserError` as `destination` has it, and where writing fails.
    """
    place = destination(path)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
