"""Telling files apart by their first bytes; apart from the readers so that text logs need not import the bag
library.
"""

from __future__ import annotations

from pathlib import Path

BAG_MAGIC = {b"#ROSBAG V": "ROS 1 bag", b"\x89MCAP0\r\n": "mcap bag", b"SQLite format 3\x00": "sqlite3 bag"}


def bag_kind(head: bytes | Path) -> str:
    """ "ROS 1 bag", "mcap bag" or "sqlite3 bag" by a file's first bytes, "" for anything else."""
    if isinstance(head, Path):
        with head.open("rb") as file:
            head = file.read(16)
    return next((kind for magic, kind in BAG_MAGIC.items() if head.startswith(magic)), "")
