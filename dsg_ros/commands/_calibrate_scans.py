"""A log without a reference: its scans, matched to those before, are one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.motions import Motions
from dsg_ros.io.records import Topics
from dsg_ros.learning.leg import PLANAR
from dsg_ros.log_settings import settings_for
from dsg_ros.matched_drive import match_drive
from dsg_ros.progress import progress

log = logging.getLogger(__name__)

MOST_SIGMA = 0.05
"""A match that leaves more than this open [m, rad], as along a corridor, is no reference."""


def motions_from_scans(path: Path) -> Motions:
    """Odometry between keyframes, with the scan matcher's own opinion of the same motion."""
    topics = Topics(one_kind=True)
    with progress("matching scans", 1.0) as advance:
        drive = match_drive(path, settings_for(path, topics), topics, lambda done, of: advance(done / max(of, 1)))
    if len(drive.links) < 2:
        raise UserError(f"{path}: nothing moves: {len(drive.links) + 1} keyframes in {drive.scans} scans")
    axes = PLANAR if drive.planar else np.arange(6)
    information = np.stack([link.information for link in drive.links])[:, axes[:, None], axes]
    weakest = np.linalg.eigvalsh(information)[:, 0]
    sure = weakest > 1 / MOST_SIGMA**2
    counts = {
        name: count for name, count in drive.counts.items() if count and name.startswith(("malformed", "odometry"))
    }
    if not sure.all():
        counts["matches_not_sure"] = int((~sure).sum())
        log.info("%s: %d of %d matches leave a direction open; not used", path, int((~sure).sum()), len(sure))
    return Motions(
        source=str(path),
        kind="body",
        planar=drive.planar,
        inputs=poses.log(np.stack([link.measured for link in drive.links]))[sure],
        seconds=np.array([link.seconds for link in drive.links])[sure],
        stamps=drive.stamps[sure] / 1e9,
        stamp_unit="s",
        relative=np.stack([link.relative for link in drive.links])[sure],
        counts=counts,
    )
