"""Any recording to calibrate from behind one door: `read_motions` finds out what a file holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.carmen import RECORDS
from dsg_ros.io.kinds import bag_kind, first_bytes
from dsg_ros.io.kitti import is_kitti, read_kitti
from dsg_ros.io.logs import open_log
from dsg_ros.io.matlab import is_matlab
from dsg_ros.io.motions import Motions, body_motions
from dsg_ros.io.records import Log, OdometryRecord
from dsg_ros.io.reference import Reference, read_reference
from dsg_ros.io.textfile import is_compressed, read_bytes
from dsg_ros.io.trajectories import parse_tum
from dsg_ros.io.utias import read_utias
from dsg_ros.io.wheel_tuples import is_wheel_tuples, read_wheel_tuples

_log = logging.getLogger(__name__)

Form = Literal["tuples", "matlab", "kitti", "tum", "log"]

ACCEPTED = (
    "wheel tuples (.tuple), a MATLAB file with v, om and true poses (.mat), KITTI poses, a TUM trajectory, "
    "a CARMEN or g2o log with laser scans (each also .gz, .bz2, .xz, .zip), or a bag"
)
_LARGEST_GAP = 1.0
"""Reference poses further apart [s] are not interpolated between."""
_PROBED = 400


def form_of(path: Path) -> tuple[Form, bytes]:
    """What the file at ``path`` holds, and its content (empty for a bag); `UserError` says what is accepted."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file; accepted are {ACCEPTED}")
    head = b"" if path.is_dir() else first_bytes(path)
    if path.is_dir() or bag_kind(head):
        return "log", b""
    if b"\0" in head and not is_compressed(head) and not is_matlab(head):
        # Not to be read in whole, it may be a film.
        raise UserError(f"{path}: none of the formats this program knows; accepted are {ACCEPTED}")
    data = read_bytes(path)
    if is_matlab(data):
        return "matlab", data
    lines = [line for line in data[:4_000_000].split(b"\n", _PROBED)[:_PROBED] if line.strip()]
    first = lines[0] if lines else b""
    if is_wheel_tuples(first):
        return "tuples", data
    if is_kitti(first):
        return "kitti", data
    words = {line.split(None, 1)[0] for line in lines}
    if RECORDS & words or any(word.startswith((b"VERTEX", b"EDGE")) for word in words):
        return "log", data
    if _is_tum(lines):
        return "tum", data
    raise UserError(
        f"{path}: none of the formats this program knows (it begins with {data[:24]!r}); accepted are {ACCEPTED}"
    )


def _is_tum(lines: list[bytes]) -> bool:
    told = next((line for line in lines if not line.startswith(b"#")), b"")
    try:
        return len([float(word) for word in told.replace(b",", b" ").split()]) == 8
    except ValueError:
        return False


def read_motions(path: Path, reference: Path | None) -> Motions | None:
    """The motions of the file at ``path``; None for a log whose scans are to be the reference, as none is given."""
    form, data = form_of(path)
    if form in ("tuples", "matlab"):
        if reference is not None:
            raise UserError(f"--reference {reference}: {path} holds its own reference; leave it out")
        return read_wheel_tuples(path, data) if form == "tuples" else read_utias(path, data)
    if form == "log" and reference is None:
        return None
    if reference is None:
        raise UserError(f"{path} holds one trajectory and nothing to compare it with: give --reference FILE")
    if not reference.exists():
        raise UserError(f"--reference {reference}: there is no such file")
    if form == "kitti":
        return read_kitti(path, data, reference)
    truth = read_reference(reference)
    if form == "log":
        return _from_log(open_log(path), truth)
    stamps, odometry = parse_tum(path, data.decode(errors="replace"))
    return _against(str(path), stamps, odometry, truth, {})


def _from_log(log: Log, truth: Reference) -> Motions:
    """Odometry of the scans where a log pairs them, all of it from a bag; in the order of the log."""
    records = [record for record in log if isinstance(record, OdometryRecord)]
    stamps = np.array([record.stamp for record in records], np.int64)
    odometry = np.array([record.pose for record in records], float).reshape(-1, 7)
    return _against(log.name, stamps, odometry, truth, log.counts)


def _against(
    source: str, stamps: np.ndarray, odometry: np.ndarray, truth: Reference, counts: dict[str, int]
) -> Motions:
    finite = np.isfinite(odometry).all(axis=1)
    if not finite.all():
        counts = counts | {"odometry_not_finite": int((~finite).sum())}
        _log.warning("%s: %d odometry poses are not finite; left out", source, int((~finite).sum()))
        stamps, odometry = stamps[finite], odometry[finite]
    if len(stamps) < 3:
        raise UserError(f"{source}: {len(stamps)} odometry poses are too few to calibrate with")
    trajectory, known = truth.at(stamps, _LARGEST_GAP)
    if known.sum() < 3:
        raise UserError(
            f"the reference {truth.source} ({_span(truth.stamps)}) and {source} ({_span(stamps)}) do not overlap in "
            "time; are they from the same recording, and both in seconds of the same clock?"
        )
    planar = bool(np.abs(np.concatenate([odometry[:, [2, 3, 4]], trajectory[:, [2, 3, 4]]])).max() < 1e-6)
    step = poses.between(odometry[:-1], odometry[1:])
    same = poses.between(trajectory[:-1], trajectory[1:])
    both = known[:-1] & known[1:]
    if np.abs(step - same)[both].max(initial=0.0) < 1e-5:
        raise UserError(f"{truth.source} moves exactly as {source}: it is the raw odometry, no reference")
    seconds = stamps / 1e9
    return body_motions(
        source, odometry, trajectory, stamps=seconds, stamp_unit="s", planar=planar, known=known,
        counts=counts | truth.counts,
    )  # fmt: skip


def _span(stamps: np.ndarray) -> str:
    return f"{stamps.min() / 1e9:.3f} to {stamps.max() / 1e9:.3f} s"
