"""What checkpoints cost on a recorded run: how long scans wait, how long writing takes beside, and how much is written.

    python tools/checkpoint_cost.py LOG [EVERY]

keeps the state every so many scans of the recording (60 of the demo's Killian Court are 30 seconds) and prints medians
and maxima.  Times are of the processor: on a busy machine the wall clock tells of others.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dsg_ros import config
from dsg_ros.io.ahead import reading
from dsg_ros.io.checkpoint import CheckpointWriter
from dsg_ros.io.records import Topics
from dsg_ros.pipeline import Slam

COLUMNS = ("scans wait [ms]", "writing [ms]", "whole [MB]", "new [MB]")


def main(log: Path, every: int) -> None:
    """Map ``log`` and keep the state ``every`` so many scans."""
    settings = config.Slam()
    slam, writer, rows = Slam(settings), CheckpointWriter(), []
    with tempfile.TemporaryDirectory() as folder, reading(log, Topics("", "", ""), settings.input) as stream:
        for number, frame in enumerate(stream, 1):
            slam.process(frame)
            if number % every:
                continue
            began = time.process_time()
            state = slam.state()
            taken = time.process_time()
            written = writer.write(Path(folder) / "map", state, config.values(settings), slam.about())
            done = time.process_time()
            rows.append((1e3 * (taken - began), 1e3 * (done - taken), written.bytes / 1e6, written.fresh / 1e6))
    table = np.array(rows)
    for name, median, largest in zip(COLUMNS, np.median(table, axis=0), table.max(axis=0), strict=True):
        print(f"{name:16} median {median:7.1f}  largest {largest:7.1f}")
    print(f"{len(table)} checkpoints, {slam.about()['keyframes']} keyframes at the end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
