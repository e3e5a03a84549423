"""How much memory a process has, and how it gives back what it no longer uses."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory (VmRSS) of a process, 0 where /proc does not say."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:")), 0)
    except OSError:
        return 0


def give_back() -> None:
    """Give the system the pages that the C library holds free; for the end of work that comes seldom and takes much.

    glibc alone is asked, which by itself gives back what is free at the end of its heap: one small array that is made
    while a graph is solved, and stays, keeps all below it with the process.  Takes 1 to 10 ms.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@contextmanager
def frozen() -> Iterator[None]:
    """Within, the collector of cyclic garbage does not go through what is there already: modules and programs stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found
