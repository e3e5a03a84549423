"""Names of frames with the robot's prefix (the parameter ``frame_prefix``), which tells robots on one /tf apart."""

from __future__ import annotations

from dsg_ros import config as cfg


def told(prefix: str, frame: str) -> str:
    """``frame`` of a message: with the prefix, which it may have already; none stays none."""
    if not prefix or not frame or frame.lstrip("/").startswith(prefix):
        return frame
    return prefix + frame.lstrip("/")


def given(prefix: str, frame: str) -> str:
    """``frame`` of a parameter: as `told`, but one that begins with a slash is shared by robots, and has no prefix."""
    return frame.lstrip("/") if prefix and frame.startswith("/") else told(prefix, frame)


def map_frame(config: cfg.Node) -> str:
    """The map's."""
    return given(config.frame_prefix, config.map_frame)
