"""A log without a reference: its scans, matched to those before, are one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dsg_ros import config as configuration
from dsg_ros.errors import UserError
from dsg_ros.io.logs import frames, open_log
from dsg_ros.io.motions import Motions
from dsg_ros.pipeline import Slam
from dsg_ros.progress import progress

log = logging.getLogger(__name__)

_PLANE = np.array([0, 1, 5])
MOST_SIGMA = 0.05
"""A match that leaves more than this open [m, rad], as along a corridor, is no reference."""


def motions_from_scans(path: Path) -> Motions:
    """Odometry between keyframes, with the scan matcher's own opinion of the same motion, of a pipeline that runs over
    the log and learns as it goes; its map is not corrected by loop closures, which are not needed here."""
    settings = configuration.replace(
        configuration.Slam(), {"grid.enabled": False, "refinement.enabled": False, "loops.every_keyframes": 1000}
    )
    stream = frames(open_log(path), settings.input)
    first = next(stream, None)
    if first is None:
        raise UserError(f"{path}: no scan could be used: {stream.counts or 'the log holds none'}")
    slam = Slam(settings)
    slam.warm_up(first.planar)
    slam.process(first)
    with progress("matching scans", len(stream)) as advance:
        for number, frame in enumerate(stream, 2):
            slam.process(frame)
            if number % 50 == 0:
                advance(number)
    found = slam.saved_map()
    if len(found.stamps) < 3:
        raise UserError(f"{path}: nothing moves: {len(found.stamps)} keyframes in {len(stream)} scans")
    odometry, matches = found.rows["OdomSE3"], found.rows["Registration"]
    axes = _PLANE if first.planar else np.arange(6)
    roots = np.asarray(matches["sqrt_info"])[:, :, axes]
    information = np.einsum("nij,nik->njk", roots, roots)
    weakest = np.linalg.eigvalsh(information)[:, 0]
    sure = weakest > 1 / MOST_SIGMA**2
    counts = {
        name: count for name, count in stream.counts.items() if count and name.startswith(("malformed", "odometry"))
    }
    if not sure.all():
        counts["matches_not_sure"] = int((~sure).sum())
        log.info("%s: %d of %d matches leave a direction open; not used", path, int((~sure).sum()), len(sure))
    return Motions(
        source=str(path),
        kind="body",
        planar=first.planar,
        inputs=np.asarray(odometry["measured"], float)[sure],
        seconds=np.asarray(odometry["duration"], float)[sure],
        stamps=found.stamps[1:][sure] / 1e9,
        stamp_unit="s",
        relative=np.asarray(matches["measured"], float)[sure],
        counts=counts,
    )
