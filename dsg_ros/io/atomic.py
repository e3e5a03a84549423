"""Files that are whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
from pathlib import Path

from dsg_ros.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; `UserError` where the folder is missing or not writable."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
