"""The frame of a robot's base, where no odometry names it: among those above its sensor's."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = ("base_link", "base_footprint")
"""By REP-105 and REP-120, with or without a robot's prefix."""


def base_among(frames: Sequence[str]) -> str:
    """The last of ``frames``, a sensor's and those above it, nearest first, that is called a base; empty for none."""
    return next((frame for frame in reversed(frames) if frame.rpartition("/")[2] in NAMES), "")
