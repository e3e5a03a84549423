"""Work in a process of its own: its items, its log and its errors arrive, and it is gone afterwards."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

import pytest

from dsg_ros.aside import Aside, Receive
from dsg_ros.errors import UserError

LOG = logging.getLogger("dsg_ros.test_aside")


def doubled(receive: Receive) -> Iterator[int]:
    """Twice every number sent, until there is none."""
    while (number := receive()) is not None:
        LOG.info("got %d", number)
        yield 2 * number


def process_number(receive: Receive) -> Iterator[int]:
    while True:
        yield os.getpid()


def silent(receive: Receive) -> Iterator[int]:
    yield os.getpid()
    while True:
        signal.pause()


def wordy(receive: Receive) -> Iterator[bytes]:
    """Far more for each thing that is sent than a pipe holds."""
    while (sent := receive()) is not None:
        yield sent * 2


class Awkward(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def failing(receive: Receive) -> Iterator[int]:
    yield 1
    raise {"user": UserError("mend it"), "awkward": Awkward(1, 2), "eof": EOFError("a file ends")}[receive()]


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_items_and_log_arrive(caplog):
    with caplog.at_level(logging.INFO, "dsg_ros"), Aside("test_aside:doubled") as aside:
        for number in (1, 2, None):
            aside.send(number)
        assert list(aside) == [2, 4]
        assert list(aside) == []
    assert [record.message for record in caplog.records if record.name == LOG.name] == ["got 1", "got 2"]


@pytest.mark.parametrize(
    ("which", "kind", "text"),
    [("user", UserError, "mend it"), ("awkward", RuntimeError, "Awkward: 1 and 2"), ("eof", EOFError, "a file ends")],
)
def test_an_error_is_raised_where_the_items_are_wanted(which, kind, text):
    with Aside("test_aside:failing") as aside:
        aside.send(which)
        assert next(aside) == 1
        with pytest.raises(kind, match=text) as raised:
            next(aside)
    assert "in failing" in "".join(raised.value.__notes__)


def test_both_sides_may_have_much_to_say_at_once():
    much = bytes(4_000_000)
    with Aside("test_aside:wordy") as aside:
        for _ in range(3):
            aside.send(much)
        aside.send(None)
        assert [len(item) for item in aside] == [8_000_000] * 3


def test_what_was_never_taken_keeps_nobody_waiting():
    with contextlib.suppress(ZeroDivisionError), Aside("test_aside:silent") as aside:
        next(aside)
        aside.send(bytes(4_000_000))
        raise ZeroDivisionError


@pytest.mark.parametrize("target", ["process_number", "silent"])
def test_no_process_stays_when_items_are_left(target):
    with contextlib.suppress(ZeroDivisionError), Aside(f"test_aside:{target}") as aside:
        pid = next(aside)
        assert not ended(pid)
        raise ZeroDivisionError
    assert ended(pid)


def test_a_process_that_is_killed_is_told_of():
    with Aside("test_aside:silent") as aside:
        os.kill(next(aside), signal.SIGKILL)
        with pytest.raises(RuntimeError, match="test_aside:silent ended with code -9"):
            next(aside)


def test_what_cannot_be_imported_is_told():
    with Aside("test_aside:absent") as aside, pytest.raises(AttributeError, match="absent"):
        next(aside)
