"""The pipeline behind its two doors: same answers, nothing lost uncounted, no process left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_pipeline as fake
import numpy as np
import pytest

from dsg_ros import config as cfg
from dsg_ros.interface import Estimate, ReferencePose
from dsg_ros.io.trajectories import read_tum
from dsg_ros.worker import messages
from dsg_ros.worker.backend import Busy, Event, Status, WorkerDied
from dsg_ros.worker.in_process import InProcess
from dsg_ros.worker.process import MAX_FAILED_STARTS, MOST_COMMANDS, MOST_TOLD, WorkerProcess
from dsg_ros.worker.standby import Standby

FACTORY = "fake_pipeline:Counting"


class Recorder:
    def __init__(self) -> None:
        self.estimates: list[Estimate] = []
        self.events: list[Event] = []
        self.changed = threading.Condition()

    def estimate(self, estimate: Estimate) -> None:
        with self.changed:
            self.estimates.append(estimate)
            self.changed.notify_all()

    def event(self, event: Event) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout), (self.events, len(self.estimates))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def start(recorder: Recorder) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def begin(factory: str = FACTORY, **options: object) -> WorkerProcess:
        options = {"factory": factory, "planar": False, **options}
        backend = WorkerProcess(cfg.Slam(), recorder.estimate, recorder.event, **options)
        backend.start()
        started.append(backend)
        return backend

    yield begin
    for backend in started:
        backend.stop()


def scans_in(folder: str) -> list[int]:
    """Stamps of the scans that a saved map is made of."""
    return read_tum(Path(folder) / "trajectory.tum")[0].tolist()


def balanced(status: Status) -> bool:
    return status.submitted == status.processed + sum(status.dropped.values()) + status.waiting


def test_frames_wait_until_ready_and_come_back_in_order(start, recorder):
    backend = start()
    for stamp in range(1, 21):
        backend.submit(fake.frame(stamp, n=stamp, x=float(stamp)))
    recorder.wait(lambda: len(recorder.estimates) == 20)
    assert recorder.kinds()[0] == "ready"
    assert [e.stamp for e in recorder.estimates] == list(range(1, 21))
    assert [e.counts["points"] for e in recorder.estimates] == list(range(1, 21))
    np.testing.assert_array_equal(recorder.estimates[-1].path.poses[:, 0], np.arange(1.0, 21.0))
    assert recorder.estimates[-1].metrics["worker_memory_bytes"] > 1e6
    assert backend.status() == Status("ready", 20, 20, 0, {}, 0, backend.status().pid)


def test_the_first_worker_is_the_one_that_was_started_ahead(start, recorder):
    standby = Standby()
    waiting = standby._waiting[0]
    backend = start(standby=standby)
    backend.submit(fake.frame(1))
    recorder.wait(lambda: len(recorder.estimates) == 1)
    assert backend.status().pid == waiting.pid
    standby.close()
    backend.submit(fake.frame(fake.Counting.DIE))
    recorder.wait(lambda: recorder.kinds().count("ready") == 2)
    assert backend.status().pid != waiting.pid
    assert waiting.poll() is not None


def test_a_worker_that_nobody_took_ends_with_its_parent_or_before():
    standby = Standby()
    waiting = standby._waiting[0]
    standby.close()
    assert waiting.poll() is not None
    program = "from dsg_ros.worker.standby import Standby; print(Standby()._waiting[0].pid)"
    parent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    pid = int(parent.stdout)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def test_both_forms_give_the_same_answers(start, recorder, tmp_path):
    near = Recorder()
    inside = InProcess(cfg.Slam(), near.estimate, near.event, factory=FACTORY)
    inside.start()
    outside = start()
    for backend in (inside, outside):
        for stamp in (5, 6):
            backend.submit(fake.frame(stamp, x=stamp))
    folders = [tmp_path / "inside", tmp_path / "outside"]
    for backend, folder in zip((inside, outside), folders, strict=True):
        assert backend.request(messages.Save(str(folder))).result(60) == str(folder)
    for name in ("trajectory.tum", "map.ply"):
        here, there = ((folder / name).read_bytes() for folder in folders)
        assert here == there, name
    assert [e.stamp for e in near.estimates] == [e.stamp for e in recorder.estimates] == [5, 6]
    assert inside.status().processed == 2
    inside.stop()


def test_what_a_frame_leaves_is_done_once_its_estimate_is_told(start, recorder, tmp_path):
    near = Recorder()
    inside = InProcess(cfg.Slam(), near.estimate, near.event, factory="fake_pipeline:CatchingUp")
    inside.start()
    outside = start("fake_pipeline:CatchingUp")
    for backend in (inside, outside):
        for stamp in (5, 6, 7):
            backend.submit(fake.frame(stamp))
        backend.request(messages.Save(str(tmp_path / "saved"), refine=False)).result(60)
    for told in (near.estimates, recorder.estimates):
        assert [estimate.counts["caught_up"] for estimate in told] == [0, 1, 2]


def test_the_first_scan_decides_what_is_compiled(start, recorder):
    backend = start(planar=False)
    backend.submit(fake.frame(1))
    backend.submit(dataclasses.replace(fake.frame(2), planar=True))
    recorder.wait(lambda: len(recorder.estimates) == 2)
    assert not any("compiling" in e.text for e in recorder.events)
    backend.request(messages.Reset()).result(30)
    backend.submit(dataclasses.replace(fake.frame(3), planar=True))
    recorder.wait(lambda: len(recorder.estimates) == 3)
    assert any("the first scan is planar: compiling" in e.text for e in recorder.events)


def test_a_full_queue_drops_the_oldest_and_counts(start, tmp_path):
    backend = start(queue=3)
    for stamp in range(1, 11):
        backend.submit(fake.frame(stamp))
    saved = backend.request(messages.Save(str(tmp_path)))
    assert balanced(backend.status())
    assert scans_in(saved.result(60)) == [8, 9, 10]
    assert backend.status().dropped == {"queue_full": 7}
    assert balanced(backend.status())


def test_commands_keep_their_place_between_frames(start, tmp_path):
    backend = start()
    backend.submit(fake.frame(1))
    first = backend.request(messages.Save(str(tmp_path / "first")))
    backend.submit(fake.frame(2))
    second = backend.request(messages.Save(str(tmp_path / "second"), refine=True))
    assert scans_in(first.result(60)) == [1]
    assert scans_in(second.result(60)) == [1, 2]
    sources = [json.loads((tmp_path / name / "report.json").read_text())["source"] for name in ("first", "second")]
    assert sources == ["test", "refined"]


def test_a_flood_of_commands_is_refused_and_what_must_be_done_is_not(start, recorder, tmp_path):
    backend = start()
    backend.submit(fake.frame(fake.Counting.DAWDLE))
    recorder.wait(lambda: "ready" in recorder.kinds())
    flood = [backend.request(messages.Optimize()) for _ in range(50_000)]
    refused = [each for each in flood if each.done() and isinstance(each.exception(), Busy)]
    vain = set(refused)
    taken = [each for each in flood if each not in vain]
    assert MOST_COMMANDS <= len(taken) < len(flood) / 2  # a slow machine has worked some off meanwhile
    assert "ask again later" in str(refused[0].exception())
    switched = [backend.request(messages.Learning(bool(n % 2))) for n in range(1000)]
    resets = [backend.request(messages.Reset()) for _ in range(1000)]
    last = backend.request(messages.Save(str(tmp_path), refine=True))
    assert len(backend._commands) <= MOST_COMMANDS + 3
    for each in (*taken, *switched, *resets):
        each.exception(60.0)
    backend.submit(fake.frame(1))
    recorder.wait(lambda: recorder.estimates[-1].stamp == 1)
    assert recorder.estimates[-1].counts["learning"] == 1  # as it was asked for last
    assert recorder.estimates[-1].counts["scans"] == 1
    assert last.exception(60.0) is None
    assert backend.request(messages.Optimize()).result(60.0).stamp == 1


def test_what_dropped_frames_were_told_is_bounded_and_counted(start, recorder):
    backend = start(queue=1)
    told = ReferencePose(1, fake.poses.IDENTITY, np.eye(6))
    backend.submit(fake.frame(fake.Counting.DAWDLE))
    recorder.wait(lambda: "ready" in recorder.kinds())
    each, frames = 1000, 20
    for stamp in range(1, frames + 1):
        backend.submit(dataclasses.replace(fake.frame(stamp), reference=(told,) * each))
    recorder.wait(lambda: recorder.estimates and recorder.estimates[-1].stamp == frames)
    status = backend.status()
    assert balanced(status)
    kept = recorder.estimates[-1].counts["reference_poses"]
    assert kept <= MOST_TOLD + 3 * each  # and what came to frames that were not dropped
    assert kept + status.told_dropped == each * frames


def test_the_grid_is_told_as_it_changes(start):
    backend = start()
    for stamp in (1, 2):
        backend.submit(fake.frame(stamp))
    first = backend.request(messages.Grid()).result(30)
    backend.submit(fake.frame(3))
    second = backend.request(messages.Grid(first.version)).result(30)
    assert (first.whole, first.tiles.tolist()) == (True, [[0, 0], [1, 0]])
    assert (second.whole, second.tiles.tolist(), second.version) == (False, [[2, 0]], 3)


def test_a_what_if_is_answered_in_its_turn(start):
    backend = start()
    backend.submit(fake.frame(1))
    one = backend.request(messages.WhatIf("scale", "0.5"))
    backend.submit(fake.frame(2))
    two = backend.request(messages.WhatIf("scale", "-0.5"))
    refused = backend.request(messages.WhatIf("colour", "1"))
    assert one.result(30).moved.tolist() == [[0.5, 0, 0, 0, 0, 0]]
    assert two.result(30).moved[:, 0].tolist() == [-0.5, -0.5]
    with pytest.raises(RuntimeError, match="WhatIf refused: parameter 'colour' is not one"):
        refused.result(30)
    assert backend.status().restarts == 0


def test_reset_forgets_the_map_and_counts_what_waited(start, recorder):
    backend = start()
    for stamp in (1, 2, 3):
        backend.submit(fake.frame(stamp))
    backend.request(messages.Reset()).result(30)
    backend.submit(fake.frame(8))
    recorder.wait(lambda: len(recorder.estimates) == 1)
    backend.request(messages.Reset()).result(30)
    backend.submit(fake.frame(9))
    recorder.wait(lambda: len(recorder.estimates) == 2)
    assert [list(e.path.stamps) for e in recorder.estimates] == [[8], [9]]
    assert backend.status().dropped == {"reset": 3}
    assert balanced(backend.status())


def test_a_command_that_fails_says_why_and_the_worker_goes_on(start, recorder, tmp_path):
    backend = start()
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.raises(RuntimeError, match="Save refused: cannot write to "):
        backend.request(messages.Save(str(in_the_way / "below"))).result(60)
    backend.submit(fake.frame(1))
    recorder.wait(lambda: len(recorder.estimates) == 1)
    assert backend.status().restarts == 0


@pytest.mark.parametrize(("stamp", "how"), [(fake.Counting.DIE, "signal 9"), (fake.Counting.FAIL, "exit code 1")])
def test_a_worker_that_dies_is_noticed_and_replaced(start, recorder, tmp_path, stamp, how):
    backend = start()
    backend.submit(fake.frame(stamp))
    orphan = backend.request(messages.Save(str(tmp_path)))
    recorder.wait(lambda: "died" in recorder.kinds())
    died = next(e for e in recorder.events if e.kind == "died")
    assert how in died.text
    with pytest.raises(WorkerDied):
        orphan.result(30)
    backend.submit(fake.frame(7))
    recorder.wait(lambda: len(recorder.estimates) == 1)
    status = backend.status()
    assert (status.restarts, status.processed, status.dropped) == (1, 1, {"worker_died": 1})
    assert balanced(status)
    assert stamp != fake.Counting.FAIL or any("cannot be processed" in e.text for e in recorder.events)


def test_a_worker_that_dies_goes_on_from_its_checkpoint(start, recorder, tmp_path):
    backend = start()
    for stamp in (1, 2):
        backend.submit(fake.frame(stamp))
    recorder.wait(lambda: len(recorder.estimates) == 2)
    kept = backend.request(messages.Checkpoint(str(tmp_path))).result(30)
    assert (kept.keyframes, kept.stamp) == (2, 2)
    assert backend.request(messages.Checkpoint(str(tmp_path))).result(30).seconds == 0  # nothing had changed
    backend.submit(fake.frame(3))
    backend.submit(fake.frame(fake.Counting.DIE))
    recorder.wait(lambda: "died" in recorder.kinds())
    backend.submit(fake.frame(7))
    recorder.wait(lambda: len(recorder.estimates) == 4)
    assert recorder.estimates[-1].path.stamps.tolist() == [1, 2, 7]
    assert any(f"from the checkpoint in {tmp_path}" in e.text for e in recorder.events)
    # A map that was forgotten is not gone on with.
    backend.request(messages.Reset(str(tmp_path))).result(30)
    backend.submit(fake.frame(fake.Counting.DIE))
    recorder.wait(lambda: recorder.kinds().count("died") == 2)
    backend.submit(fake.frame(8))
    recorder.wait(lambda: len(recorder.estimates) == 5)
    assert recorder.estimates[-1].path.stamps.tolist() == [8]


def test_a_checkpoint_that_kills_the_worker_is_tried_once(start, recorder, tmp_path):
    backend = start(factory="fake_pipeline:Unrestorable")
    backend.submit(fake.frame(1))
    recorder.wait(lambda: len(recorder.estimates) == 1)
    backend.request(messages.Checkpoint(str(tmp_path))).result(30)
    backend.submit(fake.frame(fake.Counting.DIE))
    recorder.wait(lambda: recorder.kinds().count("died") == 2)
    backend.submit(fake.frame(7))
    recorder.wait(lambda: len(recorder.estimates) == 2)
    assert recorder.estimates[-1].path.stamps.tolist() == [7]
    assert "with an empty map" in [e.text for e in recorder.events if e.kind == "died"][-1]


def test_what_the_user_wants_to_go_on_with_is_not_given_up(start, recorder, tmp_path):
    """A checkpoint that is refused: better no map than one that takes its place."""
    backend = start(resume=str(tmp_path))
    recorder.wait(lambda: "failed" in recorder.kinds(), timeout=120)
    assert any("there is no checkpoint" in e.text for e in recorder.events)
    assert backend.status().state == "failed"


def test_a_worker_that_never_gets_ready_is_given_up(start, recorder):
    backend = start(factory="fake_pipeline:NeverReady")
    backend.submit(fake.frame(1))
    recorder.wait(lambda: "failed" in recorder.kinds(), timeout=120)
    assert recorder.kinds().count("died") == MAX_FAILED_STARTS - 1
    assert any("no kernels today" in e.text for e in recorder.events)
    backend.submit(fake.frame(2))
    status = backend.status()
    assert status.state == "failed"
    assert sum(status.dropped.values()) == 2
    assert balanced(status)
    with pytest.raises(WorkerDied, match="not running"):
        backend.request(messages.Reset()).result(5)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_stop_leaves_no_process(start, recorder):
    backend = start()
    recorder.wait(lambda: "ready" in recorder.kinds())
    pid = backend.status().pid
    backend.stop()
    assert gone(pid)
    assert backend.status().state == "stopped"
    assert "died" not in recorder.kinds()


def test_a_killed_parent_takes_the_worker_with_it(tmp_path):
    program = (
        "import sys, time; from dsg_ros import config; from dsg_ros.worker.process import WorkerProcess\n"
        "tell = lambda event: print(event.kind, backend.status().pid, flush=True)\n"
        f"backend = WorkerProcess(config.Slam(), print, tell, factory={FACTORY!r})\n"
        "backend.start(); assert 'jax' not in sys.modules; time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    kind, pid = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert kind == "ready"
    assert gone(int(pid))
