"""What the C library holds free is given back, also where something that stays lies behind it."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import memory

MEGA = 1 << 20


def test_what_is_free_below_what_stays_is_given_back() -> None:
    if memory._trim() is None:
        pytest.skip("this C library has no malloc_trim")
    memory.give_back()
    # Too small for pages of their own.
    arrays = [np.ones(8000) for _ in range(64 * MEGA // 64000)]
    full = memory.resident_bytes()
    stays = arrays[-1]
    del arrays
    memory.give_back()
    assert full - memory.resident_bytes() > 48 * MEGA
    assert stays.all()
