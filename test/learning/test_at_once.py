"""Pieces of work side by side: all are done, in order, whatever the cores, also where pieces have pieces."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from dsg_ros.learning.at_once import begun, each


def tree(depth: int) -> int:
    return 1 if not depth else sum(each([partial(tree, depth - 1)] * 3))


@pytest.mark.parametrize("cores", [{0}, {0, 1}])
def test_all_are_done_in_order(monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    assert each([partial(pow, base, 2) for base in range(20)]) == [base**2 for base in range(20)]
    assert each([]) == []
    assert tree(4) == 81


def test_an_error_is_raised(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(ValueError, match="invalid literal"):
        each([partial(int, "1"), partial(int, "one")])


def test_what_is_begun_is_done_once_whoever_does_it():
    done: list[int] = []

    def one(number: int) -> int:
        done.append(number)
        # Pieces that wait for pieces of their own, more of them than there are threads.
        return number if number < 10 else begun(partial(one, number - 10))()

    coming = [begun(partial(one, number)) for number in range(20)]
    assert [value() for value in coming] == [*range(10)] * 2
    assert [value() for value in coming] == [*range(10)] * 2
    assert sorted(done) == sorted([*range(20), *range(10)])


def test_two_who_call_for_what_no_thread_has_begun_do_it_once(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    may_end, done = Event(), list[int]()

    def one() -> int:
        done.append(1)
        time.sleep(0.05)
        return len(done)

    busy = [begun(may_end.wait) for _ in range(3)]
    value = begun(one)
    with ThreadPoolExecutor(2) as both:
        assert list(both.map(lambda _: value(), range(2))) == [1, 1]
    may_end.set()
    assert all(each() for each in busy)
