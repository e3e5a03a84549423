"""Frames read ahead by another process are those read here, with the same counts, errors and warnings."""

import logging
import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest

from dsg_ros.config import Input
from dsg_ros.errors import UserError
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.io import ahead
from dsg_ros.io.logs import frames, open_log
from dsg_ros.io.records import Topics


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A log of 300 scans with some that are damaged, blind or repeated; a core to read it ahead on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    rng, lines = np.random.default_rng(3), []
    for i in range(300):
        beams = " ".join(f"{r:.2f}" for r in rng.uniform(1.0, 90.0, 180))
        lines.append(f"FLASER 180 {beams} 0 0 0 {0.1 * i:.3f} 0 0 {1000 + i // 3 * 0.1:.3f} robot 0.1")
        if i % 50 == 7:
            lines.append("FLASER 180 1.0 oops")
        if i % 50 == 9:
            lines.append("FLASER 3 90 90 90 0 0 0 0 0 0 2000.0 robot 1.0")
    lines.append("PARAM one two")
    path = tmp_path / "some.clf"
    path.write_text("\n".join(lines))
    return path


def same(one, other):
    assert (one.stamp, one.planar) == (other.stamp, other.planar)
    assert one.times is None
    assert other.times is None
    for a, b in (
        (one.points, other.points),
        (one.base_from_sensor, other.base_from_sensor),
        (one.odometry.stamps, other.odometry.stamps),
        (one.odometry.poses, other.odometry.poses),
    ):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
        assert b.flags.writeable


def test_frames_counts_and_warnings_are_those_read_here(log, caplog):
    here = frames(open_log(log), Input())
    with caplog.at_level(logging.WARNING), ahead.reading(log, Topics(), Input()) as there:
        assert isinstance(there, ahead.FramesAhead)
        assert len(there) == len(here)
        for frame in here:
            same(frame, next(there))
            assert there.counts == here.counts
        for _ in range(2):
            assert next(there, None) is None
        assert there.counts == here.counts
    assert here.counts["malformed_lines"] > 0
    assert here.counts["ignored_param"] == 1
    lines = [record.message for record in caplog.records if record.name == "dsg_ros.io.carmen"]
    assert len(lines) > 2
    assert sorted(lines) == sorted(2 * list(set(lines)))


def test_leaving_early_ends_the_process(log):
    with ahead.reading(log, Topics(), Input()) as stream:
        assert len(list(islice(stream, 5))) == 5
        process = stream._aside._process
        assert process.poll() is None or process.returncode == 0
    assert process.poll() is not None


def test_an_error_comes_back(log):
    (log.parent / "no.clf").write_text("nothing that is known\n")
    with (
        ahead.reading(log.parent / "no.clf", Topics(), Input()) as stream,
        pytest.raises(UserError, match="not a log this program knows"),
    ):
        next(stream, None)
    with pytest.raises(UserError, match="no such file"), ahead.reading(log.parent / "absent", Topics(), Input()):
        pass


def test_an_error_on_the_way_comes_after_the_frames_before_it():
    frame = Frame(0, np.zeros((4, 3), np.float32), OdometryTrack(np.zeros(1, np.int64), np.zeros((1, 7))))

    class Broken:
        def __init__(self):
            self.counts = {"frames": 3}

        def __iter__(self):
            yield from (frame, frame)
            raise OSError("the disk is gone")

    batches = ahead._batches(Broken())
    assert [next(batches), next(batches)] == 2 * [[(frame, {"frames": 3})]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_one_core_reads_by_itself(log, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    with ahead.reading(log, Topics(), Input()) as stream:
        assert not isinstance(stream, ahead.FramesAhead)
        assert len(list(stream)) == stream.counts["frames"] > 0


def test_the_process_imports_no_jax():
    program = "import sys, dsg_ros.io.ahead, dsg_ros.io.logs; print(*sorted({'jax', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
