"""Telling files apart by their first bytes; apart from the readers so that text logs need not import the bag
library.
"""

from __future__ import annotations

from pathlib import Path

from dsg_ros.errors import UserError

MCAP_MAGIC = b"\x89MCAP0\r\n"
BAG_MAGIC = {b"#ROSBAG V": "ROS 1 bag", MCAP_MAGIC: "mcap bag", b"SQLite format 3\x00": "sqlite3 bag"}


def bag_kind(head: bytes | Path) -> str:
    """ "ROS 1 bag", "mcap bag" or "sqlite3 bag" by a file's first bytes, "" for anything else."""
    if isinstance(head, Path):
        head = first_bytes(head)
    return next((kind for magic, kind in BAG_MAGIC.items() if head.startswith(magic)), "")


def first_bytes(path: Path) -> bytes:
    """The beginning of a file; `UserError` where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
