"""Room that costs nothing until it is written to, and is given back."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros.core.room import FROM, room
from dsg_ros.memory import resident_bytes

MEGA = 1 << 20


def test_what_is_not_written_to_takes_no_memory_and_all_is_given_back() -> None:
    before = resident_bytes()
    rows = room((256 * MEGA // 56, 7))
    assert resident_bytes() - before < MEGA
    assert rows[1 << 20 :: 1 << 20].sum() == 0.0  # pages of zeros that are only read are one and the same
    written = 32 * MEGA // 56
    rows[:written] = 1.0
    assert 31 * MEGA < resident_bytes() - before < 34 * MEGA
    del rows
    assert resident_bytes() - before < MEGA


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.uint16, np.bool_])
@pytest.mark.parametrize("count", [0, 5, 3 * FROM])
def test_it_is_an_array_of_zeros_like_any_other(dtype: type, count: int) -> None:
    rows = room((count, 3), dtype)
    assert (rows.shape, rows.dtype) == ((count, 3), dtype)
    assert rows.flags.c_contiguous
    assert rows.flags.aligned
    assert not rows.any()
    rows[:] = 1
    assert rows.all()
