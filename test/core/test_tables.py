"""Columns that grow together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.tables import Columns


class Fields(NamedTuple):
    number: NDArray[np.int64]
    pair: NDArray[np.float64]


def test_columns_grow_together_and_begin_as_they_should() -> None:
    columns = Columns(Fields(np.array(-1), np.array([0.0, 2.0])))
    assert len(columns) == 0
    columns.grow(3)
    columns.view.number[:] = [5, 6, 7]
    whole = columns.whole
    columns.grow(1)
    assert columns.whole is whole  # while there is room
    columns.reserve(1000)
    assert len(columns) == 4
    assert len(columns.whole.number) >= 1000
    columns.grow(996)
    number, pair = columns.view
    assert (number.dtype, pair.dtype) == (np.int64, np.float64)
    assert number.tolist() == [5, 6, 7] + [-1] * 997
    assert pair.tolist() == [[0.0, 2.0]] * 1000
