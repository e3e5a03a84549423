"""map->odom goes out steadily, never twice with one stamp."""

import itertools
import threading
import time

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.ros.tf_broadcaster import Correction, TfBroadcaster

HERE = Correction("map", "odom", poses.IDENTITY)


class Recorder:
    def __init__(self, now):
        self.stamps: list[int] = []
        self.reached = threading.Event()
        self.errors: list[Exception] = []
        self.tf = TfBroadcaster(self.publish, now, lambda: 200.0, lambda: 0.25, self.errors.append)

    def publish(self, correction, stamp):
        assert correction is HERE
        self.stamps.append(stamp)
        if len(self.stamps) >= 10:
            self.reached.set()


@pytest.fixture
def stopping():
    started: list[TfBroadcaster] = []
    yield started.append
    for tf in started:
        tf.stop()


def test_a_running_clock_is_followed_with_the_tolerance_added(stopping):
    ticks = itertools.count(1_000, 7)
    recorder = Recorder(lambda: next(ticks))
    stopping(recorder.tf)
    recorder.tf.set(HERE)
    recorder.tf.start()
    assert recorder.reached.wait(20)
    recorder.tf.stop()
    np.testing.assert_array_equal(np.diff(recorder.stamps), 7)
    assert recorder.stamps[0] == 1_000 + 250_000_000
    assert recorder.tf.published == len(recorder.stamps)
    assert recorder.tf.largest_gap > 0


def test_nothing_goes_out_before_there_is_something_or_while_the_clock_stands(stopping):
    now = [5]
    recorder = Recorder(lambda: now[0])
    stopping(recorder.tf)
    recorder.tf.start()
    time.sleep(0.05)
    assert recorder.stamps == []
    recorder.tf.set(HERE)
    deadline = time.monotonic() + 20
    while not recorder.stamps and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(recorder.stamps) == 1
    now[0] = 3  # the clock jumped back: that is a new time
    while len(recorder.stamps) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert recorder.stamps == [250_000_005, 250_000_003]


def test_simulated_time_that_has_not_begun_is_no_time(stopping):
    recorder = Recorder(lambda: 0)
    stopping(recorder.tf)
    recorder.tf.set(HERE)
    recorder.tf.start()
    time.sleep(0.05)
    assert recorder.stamps == []


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_a_gap_counts_unless_the_clock_stood(stopping):
    now, looks = [5], []

    def clock():
        looks.append(now[0])
        return now[0]

    recorder = Recorder(clock)
    stopping(recorder.tf)
    recorder.tf.set(HERE)
    recorder.tf.start()
    until(lambda: recorder.stamps)
    looks.clear()
    began = time.monotonic()
    until(lambda: len(looks) > 100)  # half a second and more of a clock that stands
    paused = time.monotonic() - began
    now[0] = 6
    until(lambda: len(recorder.stamps) == 2)
    recorder.tf.stop()
    assert 0 < recorder.tf.largest_gap < paused


def test_a_stall_of_more_than_a_second_counts(stopping):
    ticks = itertools.count(1)
    recorder = Recorder(lambda: stalled() if len(recorder.stamps) == 1 else next(ticks))

    def stalled():
        time.sleep(1.2)
        return next(ticks)

    stopping(recorder.tf)
    recorder.tf.set(HERE)
    recorder.tf.start()
    until(lambda: len(recorder.stamps) >= 4)
    assert recorder.tf.largest_gap > 1.0


def test_a_failure_is_told_and_the_next_transform_goes_out(stopping):
    ticks = itertools.count(1)

    def clock():
        tick = next(ticks)
        if tick == 3:
            raise RuntimeError("no time")
        return tick

    recorder = Recorder(clock)
    stopping(recorder.tf)
    recorder.tf.set(HERE)
    recorder.tf.start()
    assert recorder.reached.wait(20)
    assert [str(error) for error in recorder.errors] == ["no time"]
    assert recorder.stamps[:3] == [250_000_001, 250_000_002, 250_000_004]
